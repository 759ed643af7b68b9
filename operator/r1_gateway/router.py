"""The router process: `smg` with the options that its measured behaviour asks for (docs/design/gateway.md).

`python -m r1_gateway.router` reads its argument list as JSON from stdin, because keys on a command line are visible to
every process of the pod.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import aiohttp

from r1_gateway.addresses import local
from r1_gateway.feed import Entry, entries_of
from r1_gateway.settings import Settings

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

# How long a request is tried before its first byte: 5.6 s. It must outlast the time in which the router notices that a
# replica is gone (3 s, below): then a request whose last replica just died ends as 503 with Retry-After, not as 500.
_RETRIES = {"--retry-max-retries": 9, "--retry-initial-backoff-ms": 100, "--retry-max-backoff-ms": 1000}

_HEALTH: dict[str, object] = {
    # SGLang's /health costs a token and answers after 1 s at the earliest; that the process answers at all is enough,
    # because the engine ends its HTTP server within moments of any fault of the gang.
    "--health-check-endpoint": "/v1/models",
    "--health-check-interval-secs": 1,
    # A busy engine may be slow to answer; one that is gone refuses at once, and a frozen one ends itself (15 s).
    "--health-check-timeout-secs": 10,
    # One late or refused answer takes nothing out of the rotation: beside it there may be no other. Three in a row are
    # a replica that is gone; until then its requests are retried elsewhere.
    "--health-failure-threshold": 3,
    "--health-success-threshold": 1,
}

# What else takes a replica out of the rotation that still serves. The breaker judges by failed requests what the probe
# judges better. Overload protection leaves the busy one out while another is less so, and counts as such a one also a
# worker that is dead, leaving, or our placeholder: with 8 requests waiting the only replica answered nobody.
_NEVER_REFUSE = ("--disable-circuit-breaker", "--disable-worker-overload-protection")

# An address that nobody has any more (its pod was deleted, its node lost power) refuses nothing: each request that is
# sent there waits for so long before it is tried elsewhere. smg's own is 10 s, and no option of its command line.
_CONNECT_SECONDS = 2

_LONGEST_REQUEST_SECONDS = 4 * 3600  # 163,840 tokens at 12 tokens/s


def router_arguments(settings: Settings, admin_key: str) -> list[str]:
    """Arguments of `smg launch`."""
    options: dict[str, object] = {
        "--host": settings.address,
        "--port": settings.port,
        "--prometheus-host": settings.address,
        "--prometheus-port": settings.metrics_port,
        "--policy": "cache_aware",
        **_HEALTH,
        **_RETRIES,
        "--retry-backoff-multiplier": 1.6,
        "--worker-startup-check-interval": 1,
        "--worker-startup-timeout-secs": 30,
        "--load-monitor-interval": 2,
        "--request-timeout-secs": _LONGEST_REQUEST_SECONDS,
        "--shutdown-grace-period-secs": round(settings.drain_seconds),
        # The Responses API would keep users' conversations in this pod's memory.
        "--history-backend": "none",
        # At "warn" the placeholder's failing health checks fill the log, two lines a second.
        "--log-level": "error",
        "--control-plane-api-keys": f"operator:operator:admin:{admin_key}",
    }
    if settings.api_key is not None:
        options["--api-key"] = settings.api_key
    flags = ["--dp-aware", "--disable-tokenizer-autoload", *_NEVER_REFUSE]
    return flags + [str(part) for pair in options.items() for part in pair]


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The router speaks to engines only, and obeys proxies that a webhook gives to every pod for the world outside."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}


_DONE_ALREADY = {("DELETE", 404), ("POST", 409)}  # gone already; being registered already


class Router:
    """The running router and its admin interface on this pod's loopback."""

    def __init__(self, settings: Settings, admin_key: str, session: aiohttp.ClientSession) -> None:
        self._arguments = router_arguments(settings, admin_key)
        self._url = f"http://{local(settings.address)}:{settings.port}"
        self._headers = {"Authorization": f"Bearer {admin_key}"}
        self._engine_key = settings.engine_key
        self._session = session
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; `alive` tells when it serves."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "r1_gateway.router", stdin=asyncio.subprocess.PIPE, env=without_proxies(os.environ)
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._arguments).encode())
        await self._process.stdin.drain()
        self._process.stdin.close()

    async def wait(self) -> int:
        """Wait for the end of the process; → its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Let running requests finish, for at most `grace_seconds`, then end the process."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), grace_seconds)
            except TimeoutError:
                log.warning("the router did not end within %g s; requests are cut", grace_seconds)
                self._process.kill()
                await self._process.wait()

    async def alive(self) -> bool:
        """True when the router answers."""
        try:
            async with self._session.get(f"{self._url}/liveness") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def workers(self) -> tuple[Entry, ...]:
        """All workers the router knows. Raises RouterError."""
        return entries_of(await self._call("GET", "/workers"))

    async def add(self, url: str) -> None:
        """Ask for a worker's registration, which happens in the background."""
        body: dict[str, Any] = {"url": url, "http_pool": {"connect_timeout_secs": _CONNECT_SECONDS}}
        if self._engine_key is not None:
            body["api_key"] = self._engine_key
        await self._call("POST", "/workers", body)

    async def remove(self, worker_id: str) -> None:
        """Take a worker out of rotation; its running requests go on."""
        await self._call("DELETE", f"/workers/{worker_id}")

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            async with self._session.request(method, self._url + path, json=body, headers=self._headers) as answer:
                text = await answer.text()
                if answer.status >= 300 and (method, answer.status) not in _DONE_ALREADY:
                    raise RouterError(f"{method} {path}: {answer.status} {text[:200]}")
                return json.loads(text) if text else {}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RouterError(f"{method} {path}: {error or type(error).__name__}") from error


class RouterError(Exception):
    """The router did not do what it was asked."""


def main() -> None:
    from smg.launch_router import launch_router, parse_router_args

    # Never outlive the process that feeds and supervises it.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    launch_router(parse_router_args(json.load(sys.stdin)))


if __name__ == "__main__":
    main()
