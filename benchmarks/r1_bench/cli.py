"""`python -m r1_bench`, also `r1 bench`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from r1_bench.client import EndpointError, Target, find_model, send
from r1_bench.report import as_json, print_summary, show_progress, write_json
from r1_bench.runner import Limits, Progress, run_closed, run_open
from r1_bench.statistics import Record, summarize
from r1_bench.workload import (
    QUESTIONS,
    Planned,
    Prompt,
    WorkloadError,
    arrival_times,
    cycle_prompts,
    plan_closed,
    plan_open,
    read_prompts,
    read_trace,
    synthetic_prompts,
    user_prompt,
)

DONE, FAILURES, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
OBJECTIVES = ("ttft", "first_thought", "first_answer", "tpot", "e2e")
DEFAULT_REQUESTS = 100

EXAMPLES = """examples:
  r1 bench --url http://localhost:8000 --concurrency 16 --requests 200
  r1 bench --url http://localhost:8000 --rate 4 --duration 60 --slo ttft=2 --slo tpot=0.1
  r1 bench --url http://localhost:8000 --rate 2 --duration 60 --input-tokens 1000 --output-tokens 500 --ignore-eos

exit codes: 0 all answered, 1 some failed, 2 wrong flags, 3 the endpoint cannot be used, 130 interrupted
"""


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def positive_count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def objective(text: str) -> tuple[str, float]:
    name, _, limit = text.partition("=")
    name = name.replace("-", "_")
    if name not in OBJECTIVES or not limit:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SECONDS with NAME one of {', '.join(OBJECTIVES)}")
    return name, positive(limit)


def endpoint(text: str) -> str:
    url = text.rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// or https:// address")
    return url


def parser() -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(
        prog="r1 bench",
        description="Stream chat completions under load and report what clients would feel.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsed.add_argument("--url", type=endpoint, required=True, help="address of the gateway or engine")
    parsed.add_argument("--model", help="served model name (default: the only one the endpoint names)")
    parsed.add_argument("--api-key", help="default: the environment variable R1_API_KEY")
    load = parsed.add_argument_group("load").add_mutually_exclusive_group(required=True)
    load.add_argument("--rate", type=positive, help="requests per second, whatever the answers take (open loop)")
    load.add_argument("--concurrency", type=positive_count, help="requests in flight (closed loop)")
    load.add_argument("--trace", type=Path, help="replay a CSV trace, or draw from a folder of ServeGen clients")
    shape = parsed.add_argument_group("shape")
    shape.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="with --rate")
    shape.add_argument("--trace-start", type=float, default=0.0, help="seconds of the trace to skip")
    shape.add_argument("--trace-scale", type=positive, default=1.0, help="multiply the trace's rate")
    shape.add_argument("--requests", type=positive_count, help=f"stop after so many (default {DEFAULT_REQUESTS})")
    shape.add_argument("--duration", type=positive, help="stop starting requests after so many seconds")
    shape.add_argument("--seed", type=int, default=0, help="the same seed sends the same requests at the same times")
    prompts = parsed.add_argument_group("prompts")
    prompts.add_argument("--prompts", type=Path, help="file: one prompt a line, JSON lines, or a JSON list")
    prompts.add_argument("--input-tokens", type=positive_count, help="make up prompts of about this length")
    prompts.add_argument("--output-tokens", type=positive_count, help="at most so many tokens (max_tokens)")
    prompts.add_argument("--ignore-eos", action="store_true", help="generate up to the limit (SGLang)")
    prompts.add_argument("--temperature", type=float)
    other = parsed.add_argument_group("other")
    other.add_argument("--timeout", type=positive, default=600.0, help="seconds a request may take (default 600)")
    other.add_argument("--slo", type=objective, action="append", default=[], metavar="NAME=SECONDS", help="objective")
    other.add_argument("--json", type=Path, metavar="FILE", help="write settings, figures and every request")
    other.add_argument("--quiet", action="store_true", help="no progress")
    return parsed


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check flags. Raises SystemExit(2) with a message, as argparse does."""
    flags = parser()
    options = flags.parse_args(argv)
    if options.prompts and options.input_tokens:
        flags.error("--prompts and --input-tokens exclude each other")
    if options.trace and (options.prompts or options.input_tokens):
        flags.error("--trace brings its own prompts: leave out --prompts and --input-tokens")
    if options.ignore_eos and not (options.output_tokens or options.trace):
        flags.error("--ignore-eos needs --output-tokens, or a request never ends")
    if options.json and not options.json.absolute().parent.is_dir():
        flags.error(f"--json {options.json}: its folder does not exist")
    if options.requests is None and options.duration is None:
        options.requests = DEFAULT_REQUESTS
    return options


def make_plan(options: argparse.Namespace) -> Iterator[Planned]:
    """The requests of the run. Raises WorkloadError."""
    if options.trace:
        return read_trace(options.trace, options.trace_start, options.trace_scale, options.seed)
    prompts: Iterator[Prompt]
    if options.input_tokens:
        prompts = synthetic_prompts(options.input_tokens, options.output_tokens, options.seed)
    elif options.prompts:
        prompts = cycle_prompts(read_prompts(options.prompts), options.seed)
    else:
        prompts = cycle_prompts([user_prompt(question) for question in QUESTIONS], options.seed)
    if options.rate:
        return plan_open(arrival_times(options.rate, options.arrivals, options.seed), prompts)
    return plan_closed(prompts)


async def measure(options: argparse.Namespace, plan: Iterator[Planned], console: Console, progress: Progress) -> str:
    """Run the plan; the records are in `progress`, also after an interrupt. Returns the model asked for."""
    api_key = options.api_key or os.environ.get("R1_API_KEY")
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        model = await find_model(session, options.url, api_key, options.model)
        target = Target(
            url=options.url,
            model=model,
            api_key=api_key,
            timeout=options.timeout,
            temperature=options.temperature,
            max_tokens=options.output_tokens,
            ignore_eos=options.ignore_eos,
        )
        begin = time.perf_counter()

        def clock() -> float:
            return time.perf_counter() - begin

        async def one(planned: Planned) -> Record:
            return await send(session, target, planned, clock)

        limits = Limits(options.requests, options.duration)
        display = None
        if not options.quiet:
            display = asyncio.create_task(show_progress(console, progress, limits, clock))
        try:
            if options.concurrency:
                await run_closed(plan, one, clock, limits, progress, options.concurrency)
            else:
                await run_open(plan, one, clock, limits, progress)
        finally:
            if display is not None:
                display.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await display
        return model


async def _measure_until_interrupt(
    options: argparse.Namespace, plan: Iterator[Planned], console: Console, progress: Progress
) -> tuple[str, bool]:
    """(model, cut). Ctrl-C starts no more requests, again cuts those in flight; either way the figures are told."""
    run = asyncio.create_task(measure(options, plan, console, progress))

    def on_interrupt() -> None:
        if progress.stop.is_set():
            run.cancel()
            return
        progress.stop.set()
        console.print(f"Stopping: {progress.in_flight} requests finish first. Ctrl-C again cuts them.")

    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
        loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        return await run, False
    except asyncio.CancelledError:
        return options.model or "", True
    finally:
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)


def settings_of(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """The flags as plain data, without the key."""
    kept = {name: value for name, value in vars(options).items() if name not in ("api_key", "json", "quiet")}
    kept["slo"] = dict(options.slo)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}
    return {**plain, "model": model}


def run(argv: Sequence[str]) -> int:
    """Run the load test; the exit code is one of those in the help text."""
    try:
        options = parse(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    notes, output = Console(stderr=True), Console()
    progress = Progress()
    try:
        plan = make_plan(options)
        model, interrupted = asyncio.run(_measure_until_interrupt(options, plan, notes, progress))
    except WorkloadError as error:
        print(f"r1 bench: error: {error}", file=sys.stderr)
        return USAGE
    except EndpointError as error:
        print(f"r1 bench: error: {error}", file=sys.stderr)
        return UNREACHABLE
    summary = summarize(progress.records, progress.in_flight, dict(options.slo))
    print_summary(output, summary)
    if options.json:
        write_json(options.json, as_json(settings_of(options, model), summary, progress.records))
    if interrupted:
        return INTERRUPTED
    return FAILURES if summary.failed else DONE


def main() -> int:
    return run(sys.argv[1:])
