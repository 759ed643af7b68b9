"""Clients that ask one question upon the other, inside the cluster: each over a connection of its own, without pauses.

`python -m tests.behaviour.traffic PAUSE URL …` is those clients: every 0.1 s it prints what has come of it as a line of
JSON, and ends with its standard input. A process of its own, for the tests' threads share one interpreter, and the way
in from the host asks the API server for each connection.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from tests.behaviour.operator_process import CHECKOUT
from tests.behaviour.world import PATIENCE_SECONDS, Deployment, wait_for

AT_ONCE: Final = {"R1_STANDIN_TOKENS_PER_SECOND": "1e6", "R1_STANDIN_RANK_TOKENS_PER_SECOND": "1e9"}
"""Environment of stand-ins that answer at once: a rotation that is empty for 10 ms is seen."""
STREAMS: Final = 4
_TELL_SECONDS: Final = 0.1
_AFTER_A_LOSS_SECONDS: Final = 0.02
_QUESTION: Final = {"model": "tiny-r1", "messages": [{"role": "user", "content": "Count to 8"}], "max_tokens": 64}


@dataclass
class Answers:
    """`good`: whole answers so far. `lost`: everything else that a client got, with its time, in words."""

    good: int = 0
    lost: list[str] = field(default_factory=list)


@contextmanager
def traffic(r1: Deployment, *urls: str, streams: int = STREAMS, pause: float = 0.0) -> Iterator[Answers]:
    """Requests through the gateway's Service, or to these URLs in turn, while the block runs; → what comes of them.

    Afterwards everybody has been answered, and traffic flows still. `pause`: seconds between an answer and the next
    question, where the block lasts long: without pauses the clients take all of a core.
    """
    targets = urls or (r1.service(),)
    # Whoever enters a mount namespace is in its root folder, whatever the working directory was.
    program = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "tests.behaviour.traffic"]
    command = [*program, str(pause), *(targets[i % len(targets)] for i in range(streams))]
    clients = r1.cluster.popen_inside(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert clients.stdin is not None
    answers = Answers()
    listener = threading.Thread(target=_listen, args=(clients, answers))
    listener.start()

    def more(count: int) -> None:
        wanted = answers.good + count
        wait_for("traffic flows", lambda: answers.good, until=lambda good: good >= wanted or clients.poll() is not None)

    try:
        more(2 * streams)
        yield answers
        more(2 * streams)
    finally:
        clients.stdin.close()
        assert clients.wait(timeout=PATIENCE_SECONDS) == 0
        listener.join()
    print(f"{r1.namespace}: {answers.good} answered, {len(answers.lost)} lost")


def _listen(clients: subprocess.Popen[Any], answers: Answers) -> None:
    assert clients.stdout is not None
    for line in clients.stdout:
        told = json.loads(line)
        answers.good, answers.lost = told["good"], told["lost"]


async def _ask_on(url: str, pause: float, answers: Answers, over: asyncio.Event) -> None:
    """What fails before the first answer does not count: kube-proxy may know a gateway a moment after it is ready."""
    started = False
    connector = aiohttp.TCPConnector(force_close=True)
    limit = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        while not over.is_set():
            lost = await _ask(session, url)
            if lost is None:
                answers.good, started = answers.good + 1, True
            elif started:
                answers.lost.append(f"{lost} (at {datetime.now(UTC):%H:%M:%S.%f})")
            await asyncio.sleep(pause if lost is None else _AFTER_A_LOSS_SECONDS)


async def _ask(session: aiohttp.ClientSession, url: str) -> str | None:
    """None for a whole answer, else what came in its place."""
    try:
        async with session.post(f"{url}/v1/chat/completions", json=_QUESTION) as response:
            text = await response.text()
            if response.status != 200:
                return f"{response.status}: {text[:300]}"
            return None if json.loads(text)["choices"][0]["message"]["content"] else f"no content: {text[:300]}"
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        return repr(error)


async def _main(pause: float, urls: Sequence[str]) -> None:
    answers, over = Answers(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(sys.stdin)
        over.set()

    loop.add_reader(sys.stdin, end)
    asking = asyncio.gather(*(_ask_on(url, pause, answers, over) for url in urls))
    while not asking.done():
        await asyncio.wait([asking], timeout=_TELL_SECONDS)
        print(json.dumps(asdict(answers)), flush=True)
    await asking


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]), sys.argv[2:]))
