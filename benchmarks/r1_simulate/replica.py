"""One simulated engine: a queue, prefill in batches, and decoding in which all running requests advance together.

Between two events every running request gets tokens at the same rate, so one clock of tokens, `_tokens`, serves all
of them: a request ends when the clock reaches the reading at its admission plus its length. An event then costs the
logarithm of the batch, not the batch.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import Final

from .requests import Requests
from .speed import Speed

NEVER: Final = math.inf
_ADMIT_SHARE: Final = 0.95
"""Of the KV cache that a new prompt may fill: what runs goes on growing."""
_EPSILON: Final = 1e-6


class Replica:
    """Requests are known by their number in `requests`, where the times of their tokens are written.

    `next_at`: when something happens here by itself. `load`: requests running or waiting. `patience`: seconds after
    which a client that has had no token goes away.
    """

    __slots__ = (
        "_admitted", "_asked", "_at", "_ends", "_held", "_patience", "_prefilling", "_requests", "_speed", "_tokens",
        "arrived", "ended", "generated", "load", "next_at", "output_tokens", "queue", "retracted",
        "running",
    )  # fmt: skip

    def __init__(self, speed: Speed, requests: Requests, now: float, patience: float = NEVER) -> None:
        self._speed, self._requests, self._at, self._patience = speed, requests, now, patience
        self._tokens = 0.0
        self._held = 0.0
        """Sum over the running of prompt tokens less the clock at admission: KV in use is this plus running × clock."""
        self._ends: list[tuple[float, int]] = []
        self._admitted: dict[int, float] = {}
        self._prefilling: list[int] = []
        self._asked: dict[int, int] = {}
        """Of retracted requests: tokens that they had already."""
        self.queue: deque[int] = deque()
        self.next_at = NEVER
        self.load = self.running = 0
        self.arrived = self.ended = self.retracted = 0
        self.generated = 0.0
        self.output_tokens = 0

    # --- what others see -----------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def kv_usage(self) -> float:
        return min(1.0, max(0.0, self._kv()) / self._speed.kv_tokens)

    @property
    def in_flight(self) -> list[int]:
        return [*self._admitted, *self._prefilling, *self.queue]

    # --- events --------------------------------------------------------------------------------------------------
    def arrive(self, request: int, now: float) -> None:
        self.queue.append(request)
        self.load += 1
        self.arrived += 1
        if not self._prefilling:
            self._advance(now)
            self._prefill(now)

    def happen(self, now: float) -> None:
        """What was due at `next_at`."""
        if self._prefilling:
            self._at = now
            self._begin_decoding(now)
        else:
            self._advance(now)
        self._finish(now)
        if self.running and self._kv() > self._speed.kv_tokens:
            self._retract()
        self._prefill(now)

    def _kv(self) -> float:
        return self._held + self.running * self._tokens

    def _rate(self) -> float:
        speed = self._speed
        return speed.tokens_per_step / (speed.step_seconds[self.running] + self._kv() * speed.step_seconds_per_token)

    def _advance(self, now: float) -> None:
        if self.running and now > self._at:
            tokens = (now - self._at) * self._rate()
            self._tokens += tokens
            self.generated += tokens * self.running
        self._at = now

    def _begin_decoding(self, now: float) -> None:
        requests, clock = self._requests, self._tokens
        for request in self._prefilling:
            had = self._asked.pop(request, 0)
            if not had:
                requests.first[request] = now
            self._held += requests.inputs[request] + had - clock
            self._admitted[request] = clock - had
            heappush(self._ends, (clock + max(1, requests.outputs[request] - had - 1), request))
        self.running += len(self._prefilling)
        self._prefilling = []

    def _finish(self, now: float) -> None:
        ends, requests, reached = self._ends, self._requests, self._tokens + _EPSILON
        while ends and ends[0][0] <= reached:
            _, request = heappop(ends)
            began = self._admitted.pop(request)
            self._held -= requests.inputs[request] - began
            self.running -= 1
            self.load -= 1
            self.ended += 1
            self.output_tokens += requests.outputs[request]
            requests.last[request] = now
        if not ends:
            self._tokens = self._held = 0.0

    def _retract(self) -> None:
        """The request that came last gives its memory back and waits at the head of the queue, as in SGLang."""
        while self.running > 1 and self._kv() > _ADMIT_SHARE * self._speed.kv_tokens:
            request, began = self._admitted.popitem()
            self._held -= self._requests.inputs[request] - began
            self.running -= 1
            self.retracted += 1
            self._asked[request] = max(1, int(self._tokens - began))
            self._ends = [end for end in self._ends if end[1] != request]
            self.queue.appendleft(request)
        self._ends.sort()

    def _prefill(self, now: float) -> None:
        """Start the next batch if there is one and room for it; then say when something happens."""
        batch, speed, requests = self._prefilling, self._speed, self._requests
        if self.queue and not batch:
            while self.queue and now - requests.at[self.queue[0]] > self._patience:
                self.queue.popleft()
                self.load -= 1
            tokens, room = 0, _ADMIT_SHARE * speed.kv_tokens - self._kv()
            while self.queue and self.running + len(batch) < speed.max_running:
                head = self.queue[0]
                size = requests.inputs[head] + self._asked.get(head, 0)
                if (batch and tokens + size > speed.chunk_tokens) or (size > room and self.running + len(batch)):
                    break
                batch.append(self.queue.popleft())
                tokens, room = tokens + size, room - size
            if batch:
                chunks = -(-tokens // speed.chunk_tokens)
                took = chunks * speed.prefill_seconds + tokens * speed.prefill_seconds_per_token
                self.next_at = now + took
                return
        if batch:
            return
        self.next_at = now + max(0.0, self._next_tokens()) / self._rate() if self.running else NEVER

    def _next_tokens(self) -> float:
        """Tokens of each request until the next end, or until the memory is full."""
        until_end = self._ends[0][0] - self._tokens
        until_full = (self._speed.kv_tokens - self._kv()) / self.running + 1.0
        return min(until_end, until_full) if self.running > 1 else until_end
