"""Short requests through the gateway, one after the other, and what became of each."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

USERS = 2
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Unix seconds. `status` 0: the connection broke or nothing came in time."""

    sent: float
    answered: float
    status: int


def ask(port: int, model: str) -> Request:
    """One token by chat completion."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    sent = time.time()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return Request(sent, time.time(), answer.status)
    except (OSError, http.client.HTTPException):
        return Request(sent, time.time(), 0)
    finally:
        connection.close()


@contextmanager
def traffic(port: int, model: str) -> Iterator[Sequence[Request]]:
    """USERS ask on until the block ends; → what has been answered so far."""
    done: list[Request] = []
    over = threading.Event()

    def user() -> None:
        while not over.is_set():
            done.append(ask(port, model))
            over.wait(PAUSE_SECONDS)

    users = [threading.Thread(target=user) for _ in range(USERS)]
    for each in users:
        each.start()
    try:
        yield done
    finally:
        over.set()
        for each in users:
            each.join()


def first(requests: Sequence[Request], status: int, sent_after: float) -> Request | None:
    """The earliest answer with that status among the requests sent after a moment."""
    return min((r for r in requests if r.status == status and r.sent >= sent_after), key=_answered, default=None)


def _answered(request: Request) -> float:
    return request.answered
