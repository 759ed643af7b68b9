"""`r1 …`, also `kubectl r1 …`. Each command imports what it needs when it is called: `r1 plan` starts in a moment."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 is done, 2 is bad input or a refusal, others are the command's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["bench"]:  # it has a command line of its own
        return _bench(words[1:])
    if words[:1] == ["simulate"]:
        return _simulate(words[1:])
    gc.disable()  # a plan is printed and gone: collecting while modules load is a tenth of the time it takes
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(words)
        if unknown:
            _refuse(parser, options, unknown)
    except SystemExit as stop:  # --help, or bad input already told
        return int(stop.code or 0)
    try:
        return _run(parser, options)
    except BrokenPipeError:  # the reader had enough: `r1 plan … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refuse(parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[str]) -> NoReturn:
    from . import plan_flags

    if options.command == "plan":
        parser.exit(BAD_INPUT, f"r1 plan: {plan_flags.unknown(words, options.flags)}; see r1 plan --help\n")
    parser.error(f"unrecognized arguments: {' '.join(words)}")


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.command == "plan":
        from . import plan_command

        code = plan_command.run(options)
        sys.stdout.flush()
        return code
    if options.command == "rollout":
        from . import rollout_command

        return rollout_command.run(options)
    if options.command == "nodes":
        from . import nodes_command

        return nodes_command.run(options)
    if options.command == "preflight":
        from . import preflight_command

        return preflight_command.run(options)
    if options.command == "explain":
        from . import explain_command

        return explain_command.run(options)
    if options.command == "version":
        return _version()
    parser.print_help()
    return BAD_INPUT


class _Parser(argparse.ArgumentParser):
    """One clear line for bad input, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message.removeprefix('argument ')}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    from . import explain_flags, nodes_flags, plan_flags, preflight_flags, rollout_flags

    parser = _Parser(prog="r1", description="Serve the full DeepSeek-R1 on Kubernetes.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    plan_flags.add_to(commands)
    preflight_flags.add_to(commands)
    rollout_flags.add_to(commands)
    nodes_flags.add_to(commands)
    explain_flags.add_to(commands)
    commands.add_parser("simulate", help="a day of requests against a simulated fleet", add_help=False)
    commands.add_parser("bench", help="load-test an endpoint", add_help=False)
    commands.add_parser("version", help="print the versions of r1-operator and of SGLang that it plans for")
    return parser


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    from r1_operator.planning.engine_args import SGLANG_VERSIONS

    try:
        own = version("r1-operator")
    except PackageNotFoundError:
        own = "not installed"
    print(f"r1-operator {own}, plans for SGLang {' and '.join(SGLANG_VERSIONS)}")
    return 0


def _bench(words: Sequence[str]) -> int:
    try:
        from r1_bench.cli import run
    except ImportError as error:
        print(f"r1 bench: {error}; install the extra: pip install 'r1-operator[bench]'", file=sys.stderr)
        return BAD_INPUT
    return int(run(list(words)) or 0)


def _simulate(words: Sequence[str]) -> int:
    try:
        from r1_simulate.cli import main as simulate
    except ImportError as error:
        print(f"r1 simulate: {error}; install the extra: pip install 'r1-operator[bench]'", file=sys.stderr)
        return BAD_INPUT
    return int(simulate(list(words)))


if __name__ == "__main__":
    sys.exit(main())
