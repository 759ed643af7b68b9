"""Whether the Secret of spec.gateway.apiKeySecret is there: it is the user's, so no watch of ours shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..api.reasons import Reason
from ..api.spec import SecretKey
from ..cluster import ApiError, Client
from ..cluster.resources import SECRETS
from ..status.observation import Finding
from .queue import Key

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Look:
    wanted: SecretKey
    at: float
    finding: Finding | None


class ApiKeys:
    """Looks at most every LOOK_SECONDS, and when another key is named. A look that fails changes nothing."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock
        self._looks: dict[Key, _Look] = {}

    async def missing(self, key: Key, wanted: SecretKey | None) -> Finding | None:
        """What is wrong with the Secret, or None. The gateway's pods cannot start without it. Never raises ApiError."""
        if wanted is None:
            self.forget(key)
            return None
        last, now = self._looks.get(key), self._clock()
        if last is not None and last.wanted != wanted:
            last = None
        if last is None or not 0 <= now - last.at < LOOK_SECONDS:
            last = self._looks[key] = _Look(wanted, now, await self._look(key, wanted, last))
        return last.finding

    def forget(self, key: Key) -> None:
        """The R1Deployment is gone."""
        self._looks.pop(key, None)

    async def _look(self, key: Key, wanted: SecretKey, last: _Look | None) -> Finding | None:
        field = "spec.gateway.apiKeySecret"
        try:
            secret = await self._client.get(SECRETS, key[0], wanted.name)
        except ApiError as error:
            if error.not_found:
                message = f"{field}.name: there is no Secret {wanted.name!r} in namespace {key[0]}; create it"
                return Finding("False", Reason.SECRET_NOT_FOUND, message)
            log.warning("%s/%s: Secret %s could not be looked at: %s", *key, wanted.name, error)
            return last.finding if last else None
        if wanted.key not in (secret.get("data") or {}):
            message = f"{field}.key: Secret {wanted.name!r} has no key {wanted.key!r}; add it or name another"
            return Finding("False", Reason.SECRET_NOT_FOUND, message)
        return None
