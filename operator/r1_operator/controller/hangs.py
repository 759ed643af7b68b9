"""What keeps the containers of engine pods from being made, as the kubelet tells it.

It stands in the pod's status, or, for mounts and volumes, in events alone. Neither says since when: that is remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from ..api.timestamps import unix_time
from ..cluster import ApiError, Client
from ..cluster.resources import EVENTS, JsonObject
from ..lifecycle.gangs import Hang
from ..lifecycle.pods import waiting_reason

log = logging.getLogger(__name__)

QUIET_SECONDS = 45.0
"""A pod that is bound and has no running container for so long is asked about; most have one after a few seconds."""
ASK_SECONDS = 30.0
_MEMORY_SECONDS = 600.0
_TELLING = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"})


class Hangs:
    """First sight of each pod's hang."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Hang] = {}
        self._asked: dict[str, float] = {}

    async def look(self, pods: Iterable[JsonObject], now: float) -> Mapping[str, Hang]:
        """Hangs of these pods, by uid. An event that cannot be read leaves what was known."""
        found: dict[str, Hang] = {}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            told = await self._reason(pod, uid, now)
            if told is not None:
                before = self._known.get(uid)
                found[uid] = Hang(told[0], told[1], before.since if before is not None else now)
        self._known = {uid: hang for uid, hang in self._known.items() if now - hang.since < _MEMORY_SECONDS} | found
        self._asked = {uid: at for uid, at in self._asked.items() if now - at < _MEMORY_SECONDS}
        return found

    async def _reason(self, pod: JsonObject, uid: str, now: float) -> tuple[str, str] | None:
        status = pod.get("status") or {}
        if not (pod.get("spec") or {}).get("nodeName") or status.get("phase") != "Pending":
            return None
        if waiting := waiting_reason(status):
            return waiting[0], f"{waiting[0]}: {waiting[1]}"
        if now - (unix_time(status.get("startTime")) or now) < QUIET_SECONDS:
            return None
        known = self._known.get(uid)
        if now - self._asked.get(uid, float("-inf")) < ASK_SECONDS:
            return (known.reason, known.message) if known is not None else None
        self._asked[uid] = now
        try:
            listing = await self._client.list(
                EVENTS, pod["metadata"]["namespace"], fields=f"involvedObject.uid={uid},type=Warning"
            )
        except ApiError as error:
            log.info("events of pod %s: %s", pod["metadata"]["name"], error)
            return (known.reason, known.message) if known is not None else None
        telling = [event for event in listing.items if event.get("reason") in _TELLING]
        if not telling:
            return None
        last = max(telling, key=lambda event: unix_time(event.get("lastTimestamp")) or 0.0)
        return str(last["reason"]), f"{last['reason']}: {last.get('message', 'no message')}"
