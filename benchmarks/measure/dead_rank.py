"""kill -9 of a rank → out of the gateway's rotation → serving again."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.site import Report, Site, kill_in_pod
from tests.waiting import NeverCame, Seen, wait_for

from .traffic import Request, first, traffic

GOAL_SECONDS = 2.0
LOOK_SECONDS = 0.05
LONGEST_SECONDS = 480.0


@dataclass(frozen=True, slots=True)
class DeadRank:
    """Seconds after the kill; `serving_again` None: not within LONGEST_SECONDS. `answers`: requests from the kill on,
    to the first that was answered again, by status (0: broken)."""

    out_of_rotation: float
    last_answer: float
    first_refusal: float
    longest_wait: float
    status_says_failed: float
    serving_again: float | None
    answers: dict[int, int]


def measure_dead_rank(site: Site, model: str, pattern: str | None, report: Report) -> DeadRank:
    """Kills the processes of node 1's container that match `pattern`, under traffic; reports what is known at once.

    pattern: None for the stand-in. It is one process, its container's first, which no signal from inside can kill: it
    is told to die.
    Raises LookupError if none matches, NeverCame if the replica never leaves the rotation.
    """
    victim = next(p for p in site.pods() if p["metadata"]["labels"]["r1operator.dev/node-index"] == "1")
    port = int(site.gateway().rsplit(":", 1)[1])
    with Rotation(site) as rotation, traffic(port, model) as requests:
        _await("requests are answered before the kill", lambda: any(r.status == 200 for r in requests))
        killed = _stand_in_dies(site, victim) if pattern is None else _kill(site, victim, pattern)
        left = _await("the replica leaves the rotation", lambda: rotation.left_after(killed))
        failed = _await_stage(site, "Failed")
        refused = _await("requests are refused", lambda: first(requests, 503, killed))
        report(f"out of rotation after {left - killed:.2f} s, first 503 after {refused.answered - killed:.2f} s")
        with contextlib.suppress(NeverCame):
            _await("the replica serves again", lambda: first(requests, 200, refused.answered))
    again = first(requests, 200, refused.answered)
    between = [r for r in requests if r.answered >= killed and (again is None or r.sent < again.sent)]
    return DeadRank(
        out_of_rotation=left - killed,
        last_answer=last_answer(requests, killed, refused.answered) - killed,
        first_refusal=refused.answered - killed,
        longest_wait=max(r.answered - r.sent for r in between),
        status_says_failed=failed - killed,
        serving_again=None if again is None else again.answered - killed,
        answers=dict(Counter(r.status for r in between)),
    )


def last_answer(requests: Sequence[Request], killed: float, refused: float) -> float:
    """When the last request was answered before the refusals began; the kill itself if none was after it."""
    return max((r.answered for r in requests if r.status == 200 and killed <= r.answered <= refused), default=killed)


class Rotation:
    """Looks at the gateway's own list of replicas all the time."""

    def __init__(self, site: Site) -> None:
        secret = json.loads(site.kubectl("get", "secret", f"{site.name}-gateway", "--output", "json"))
        token = base64.b64decode(secret["data"]["token"]).decode()
        address = site.pods("gateway")[0]["status"]["podIP"]
        port = site.cluster.expose_address(address, 8001)
        self._request = urllib.request.Request(
            f"http://127.0.0.1:{port}/workers", headers={"Authorization": f"Bearer {token}"}
        )
        self._seen: list[tuple[float, bool]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Rotation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def left_after(self, moment: float) -> float | None:
        """When it was first seen to route to no replica."""
        return next((at for at, routes in self._seen if at >= moment and not routes), None)

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                with urllib.request.urlopen(self._request, timeout=5) as answer:
                    workers = json.loads(answer.read())["workers"]
            except OSError:
                continue
            self._seen.append((time.time(), any(w["state"] == "Routing" for w in workers)))


def _kill(site: Site, pod: Mapping[str, Any], pattern: str) -> float:
    count, killed = kill_in_pod(site, pod["metadata"]["name"], pattern)
    if not count:
        raise LookupError(f"no process of pod {pod['metadata']['name']} matches {pattern!r}")
    return killed


def _stand_in_dies(site: Site, pod: Mapping[str, Any]) -> float:
    url, body = f"http://{pod['status']['podIP']}:8500/fault", json.dumps({"kind": "exit70"})
    killed = time.time()
    # It may be gone before it has answered.
    command = ["curl", "-s", "-m", "5", "-H", "Content-Type: application/json", "-d", body, url]
    site.cluster.exec_inside(command, capture_output=True, check=False)
    return killed


def _await_stage(site: Site, stage: str) -> float:
    _await(f"the status says {stage}", lambda: any(r["stage"] == stage for r in site.status()["replicaStatuses"]))
    return time.time()


def _await(what: str, probe: Callable[[], Seen | None]) -> Seen:
    seen = wait_for(what, probe, LONGEST_SECONDS, interval=LOOK_SECONDS)
    assert seen is not None
    return seen
