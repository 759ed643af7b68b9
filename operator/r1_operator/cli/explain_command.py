"""`r1 explain NAME`: the autoscaler's last word with what it comes from, its limits, and the steps before."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..api.parse import parse_lenient, parse_status
from ..api.types import Autoscaling, AutoscalingOutlook, R1Deployment
from ..autoscaling.schedule import bounds
from ..cluster import Client
from ..cluster.resources import EVENTS
from .cluster_access import Told, deployment, table
from .cluster_access import run as run_in_cluster

_STEPS = {"ScaledUp", "ScaledDown", "ScalingRecommended"}
_SHOWN = 10


def run(options: argparse.Namespace) -> int:
    """Run it. → exit code."""
    return run_in_cluster(_explain, options)


async def _explain(client: Client, options: argparse.Namespace) -> int:
    raw = await deployment(client, options)
    events = (await client.list(EVENTS, options.namespace)).items
    print(told(raw, events))
    return 0


def told(raw: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> str:
    """What the resource and its events say, as text."""
    name = str(raw["metadata"]["name"])
    found, _ = parse_lenient({**raw, "status": {}})
    if not isinstance(found, R1Deployment):
        raise Told(f"{name}: {found[0]}; the operator keeps what runs until the spec is mended")
    status, _ = parse_status(raw.get("status"))
    config = found.spec.autoscaling
    if config is None:
        return f"{name}: {found.spec.replicas} replicas by spec.replicas; nothing scales it without spec.autoscaling"
    if found.spec.replicas == 0:
        return f"{name}: none, for spec.replicas is 0; set it to 1 or more to let the autoscaler decide"
    scaling = status.autoscaling
    if scaling is None:
        return f"{name}: the autoscaler has said nothing yet"
    ready = f"{status.ready_replicas} of {status.desired_replicas + status.spare_replicas} ready"
    word = "recommended" if scaling.mode == "Recommend" else "wanted"
    rows = [
        (f"{name}:", f"{scaling.desired_replicas} replica{'s' * (scaling.desired_replicas != 1)} {word}, {ready}"),
        ("why", f"{scaling.reason}: {scaling.message}"),
        *(_outlook(scaling.outlook) if scaling.outlook is not None else ()),
        ("limits", _limits(config, scaling.last_scale_up, scaling.last_scale_down)),
        ("as of", f"{scaling.at}; figures alone are written every 5 min"),
    ]
    text = table(rows)
    steps = [_step(event) for event in events if _is_step(event, str(raw["metadata"].get("uid", "")))]
    return f"{text}\n\nsteps\n{table(sorted(steps)[-_SHOWN:])}" if steps else f"{text}\n\nno step that is remembered"


def _outlook(outlook: AutoscalingOutlook) -> list[tuple[str, str]]:
    off = f", {outlook.error_percent}% off as a rule" if outlook.error_percent is not None else ", not tried yet"
    when = f"in {outlook.ahead_seconds // 60} min"
    expected, bound = outlook.expected_percent / 100, outlook.bound_percent / 100
    return [
        ("needs", f"{outlook.needed_percent / 100:.1f} replicas"),
        ("forecast", f"{expected:.1f} replicas {when}, up to {bound:.1f} ({outlook.way}{off})"),
        ("carries", f"{outlook.running_requests_per_replica:,} requests at once a replica ({outlook.limit})"),
    ]


def _limits(config: Autoscaling, up: str | None, down: str | None) -> str:
    last = [f"last step {word} {at}" for word, at in (("up", up), ("down", down)) if at is not None]
    limits = bounds(config, time.time(), 0)
    return "; ".join([f"{limits.minimum} to {limits.maximum} replicas{limits.words}", *last])


def _is_step(event: Mapping[str, Any], uid: str) -> bool:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return event.get("reason") in _STEPS and about.get("uid") == uid


def _step(event: Mapping[str, Any]) -> tuple[str, ...]:
    at = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or ""
    return (str(at), str(event["reason"]), str(event.get("message") or event.get("note") or ""))
