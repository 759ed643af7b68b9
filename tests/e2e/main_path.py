"""The main job, step by step, as a user does it. `make demo` shows these steps; the tests assert what they return."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from openai import OpenAI

from tests.e2e.load import load
from tests.e2e.site import WEIGHTS, Report, Site, chat_body, post, silent, tiny_manifest
from tests.waiting import wait_for

START_SECONDS = 420
"""A gang of two nodes needs 50–100 s alone on two cores, and far longer beside one that serves a load."""

KV_TOKENS = 1024
"""KV cache of one rank in the demo: small, so that a handful of long answers fills it."""

AUTOSCALING = {
    "minReplicas": 1,
    "maxReplicas": 2,
    "targetKvUsagePercent": 25,
    "maxWaitingRequestsPerReplica": 8,
    "scaleUpCooldownSeconds": 5,
    "scaleDownCooldownSeconds": 20,
    "startupSeconds": 120,
}

LOAD = ("--concurrency", "6", "--duration", "1200", "--input-tokens", "100", "--output-tokens", "300", "--ignore-eos")
TRICKLE = ("--rate", "0.5", "--duration", "1200")
"""Light traffic that goes on while one replica drains: not one of its requests may be lost."""


def demo_manifest(name: str = "r1") -> dict[str, Any]:
    """A replica of two nodes, TP 2 × attention DP 2 × EP 2, scaled between one and two replicas."""
    manifest = tiny_manifest(name, autoscaling=AUTOSCALING)
    manifest["spec"]["engine"]["args"] = ["--max-total-tokens", str(KV_TOKENS)]
    return manifest


@dataclass(frozen=True)
class Reply:
    """What an OpenAI client got: the chain of thought apart from the answer."""

    thought: str
    answer: str
    finish_reason: str


def ask(url: str, question: str, model: str = "tiny-r1", key: str = "none") -> Reply:
    """Asks through the OpenAI library, streaming, greedily."""
    client = OpenAI(base_url=f"{url}/v1", api_key=key, timeout=300, max_retries=0)
    thought, answer, finish = "", "", ""
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=500, stream=True
    )
    for chunk in stream:
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            answer += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return Reply(thought.strip(), answer.strip(), finish)


def questions() -> list[dict[str, str]]:
    """The fixed list that the tiny model was trained to answer."""
    found: list[dict[str, str]] = json.loads((WEIGHTS / "questions.json").read_text())
    return found


def answered(url: str, status: int, seconds: float = 240) -> None:
    """Waits until the gateway answers a question with `status`."""
    wait_for(
        f"HTTP {status} of the gateway",
        lambda: post(f"{url}/v1/chat/completions", chat_body("What is 2 + 2?", max_tokens=50)),
        seconds,
        until=lambda got: got.status == status,
    )


@dataclass(frozen=True)
class Scaled:
    """What the scaling run showed."""

    during_load: dict[str, Any]
    during_drain: dict[str, Any]
    up: str
    """Message of the event ScaledUp: the reason and its numbers."""
    down: str


def scale_with_load(site: Site, url: str, report: Report = silent) -> Scaled:
    """Load until a second replica serves, then light traffic until it has drained and left. Returns both reports."""
    with load(url, *LOAD) as heavy:
        report("load: 6 conversations at once, 300 tokens each")
        up = _event(site, "ScaledUp")
        report(f"autoscaler: {up}")
        site.wait_ready(2, START_SECONDS, report)
        report("the second replica serves; the load goes")
        during_load = heavy.stop()
        _told(report, "under load", during_load)
    with load(url, *TRICKLE) as light:
        report("light traffic goes on")
        down = _event(site, "ScaledDown")
        report(f"autoscaler: {down}")
        wait_for("one replica gone", site.pods, 300, until=lambda pods: len(pods) == 2, describe=len)
        report("one replica has drained and left")
        during_drain = light.stop()
        _told(report, "while it drained", during_drain)
    return Scaled(during_load, during_drain, up, down)


def _event(site: Site, reason: str) -> str:
    """Waits for an event of the resource; its message."""

    def newest() -> str:
        return next((event["message"] for event in reversed(site.events()) if event["reason"] == reason), "")

    return wait_for(f"the event {reason}", newest, 600, describe=lambda _: site.status().get("autoscaling"))


def _told(report: Report, when: str, load_report: dict[str, Any]) -> None:
    summary = load_report["summary"]
    lost = summary["failed"] + summary["unfinished"]
    rate = summary["output_tokens_per_second"]
    report(f"{when}: {summary['succeeded']} requests answered, {lost} lost, {rate:.0f} tokens/s")
