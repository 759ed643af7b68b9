"""What keeps a container from being made: the kubelet's word, an event, and since when this operator has seen it."""

from __future__ import annotations

from typing import Any

from r1_operator.api.timestamps import rfc3339
from r1_operator.cluster import ApiError, Listing
from r1_operator.controller.hangs import ASK_SECONDS, QUIET_SECONDS, Hangs

NOW = 1_000_000.0


def pod(waiting: dict[str, str] | None = None, phase: str = "Pending", started: float = NOW) -> dict[str, Any]:
    state = {"waiting": waiting or {"reason": "ContainerCreating"}}
    return {
        "metadata": {"name": "r1-0-0-0", "namespace": "ns", "uid": "u"},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": phase,
            "startTime": rfc3339(started),
            "containerStatuses": [{"name": "engine", "state": state}],
        },
    }


class Events:
    """The events of the pod, and how often they were asked for."""

    def __init__(self, *events: tuple[str, str, float]) -> None:
        self.asked, self.broken = 0, False
        self._items = tuple(
            {"reason": reason, "message": message, "lastTimestamp": rfc3339(at)} for reason, message, at in events
        )

    async def list(self, resource: object, namespace: str, *, fields: str) -> Listing:
        self.asked += 1
        assert fields == "involvedObject.uid=u,type=Warning"
        if self.broken:
            raise ApiError(503, "ServiceUnavailable", "later")
        return Listing(self._items, "1")


async def look(hangs: Hangs, seen: dict[str, Any], now: float) -> tuple[str, float] | None:
    found = (await hangs.look([seen], now)).get("u")
    return (found.reason, found.since) if found is not None else None


async def test_a_hang_counts_from_its_first_sight_also_when_its_word_changes() -> None:
    events = Events()
    hangs = Hangs(events)  # type: ignore[arg-type]
    assert await look(hangs, pod({"reason": "ErrImagePull"}), NOW) == ("ErrImagePull", NOW)
    assert await look(hangs, pod({"reason": "ImagePullBackOff"}), NOW + 50) == ("ImagePullBackOff", NOW)
    assert await look(hangs, pod(phase="Running"), NOW + 60) is None
    assert events.asked == 0


async def test_mounts_are_told_by_events_alone_which_are_asked_for_now_and_then() -> None:
    """L16: FailedMount and Multi-Attach stand in no container's state: 65 minutes of silence."""
    events = Events(
        ("Unhealthy", "probe", NOW + 9),
        ("FailedMount", "timed out", NOW),
        ("FailedAttachVolume", "Multi-Attach", NOW + 5),
    )
    hangs = Hangs(events)  # type: ignore[arg-type]
    assert await look(hangs, pod(), NOW + QUIET_SECONDS - 1) is None
    assert events.asked == 0, "most pods run after a few seconds"
    first = NOW + QUIET_SECONDS
    assert await look(hangs, pod(), first) == ("FailedAttachVolume", first)
    assert await look(hangs, pod(), first + ASK_SECONDS - 1) == ("FailedAttachVolume", first)
    assert events.asked == 1
    events.broken = True
    assert await look(hangs, pod(), first + ASK_SECONDS) == ("FailedAttachVolume", first), "no answer is no news"
    assert events.asked == 2
