"""`python -m r1_engine`: the main process of an engine pod. Its HTTP endpoints, its signals, its exit."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from r1_engine import kernels, processes, volume
from r1_engine.config import ConfigError, Settings, load_settings
from r1_engine.doors import has_token
from r1_engine.head import HeadRole
from r1_engine.launch import PROBE_KEY_VARIABLE
from r1_engine.member import LINK_PATH, MemberRole
from r1_engine.node import Ending, log
from r1_engine.outcome import Cause, Exit, write_termination_log
from r1_engine.refusal import with_xids
from r1_engine.stages import Stage
from r1_engine.tasks import Tasks

Role = HeadRole | MemberRole

# Node 0 names the cause for all, so it waits for longer than a node does for what happened on itself.
_GANG_SETTLES = 1.5


def status(settings: Settings, role: Role) -> dict[str, Any]:
    """The body of `GET /status`; see docs/design/contracts.md."""
    progress = role.node.progress
    return {
        "stage": str(progress.stage),
        "message": progress.message,
        "since": progress.since,
        "progressAt": role.progress_at,
        "nodeIndex": settings.pod.index,
        "nodes": role.status_nodes(),
        "inFlight": role.in_flight,
        "served": role.served,
        "timings": progress.timings,
        "gpus": role.gpus,
        "fabric": role.fabric(),
    }


def application(settings: Settings, role: Role) -> web.Application:
    """The agent's endpoints. What only tells is open to whom the NetworkPolicy lets in; what acts takes the token."""

    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(status(settings, role))

    async def get_ready(_: web.Request) -> web.Response:
        progress = role.node.progress
        body = {"stage": str(progress.stage), "message": progress.message}
        return web.json_response(body, status=200 if role.ready else 503)

    async def get_healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def post_drain(request: web.Request) -> web.Response:
        if not has_token(request.headers.get("Authorization", ""), settings.token):
            message = "POST /drain asks for the gang's token: the key token of the Secret that its pods mount"
            return web.json_response({"error": message}, status=401, headers={"WWW-Authenticate": "Bearer"})
        role.drain()
        return web.json_response({"draining": True, "inFlight": role.in_flight})

    app = web.Application()
    app.add_routes(
        [
            web.get("/status", get_status),
            web.get("/ready", get_ready),
            web.get("/healthz", get_healthz),
            web.post("/drain", post_drain),
        ]
    )
    if isinstance(role, HeadRole):
        app.add_routes([web.get(LINK_PATH, role.serve_link)])
    return app


async def run(settings: Settings) -> Cause:
    """Runs this pod's part of the gang to its end. Returns why it ended, with every process below this one gone."""
    settle = settings.limits.settle
    ending = Ending(settle * _GANG_SETTLES if settings.is_head and settings.config.nodes > 1 else settle)
    role: Role = HeadRole(settings, ending) if settings.is_head else MemberRole(settings, ending)
    runner = web.AppRunner(application(settings, role), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.pod.listen, settings.config.ports.agent).start()
    except OSError as error:
        where = f"{settings.pod.listen}:{settings.config.ports.agent}"
        message = f"{settings.label}: the agent cannot listen on {where} ({error.strerror}). Free the port."
        return Cause(Exit.CONFIGURATION, "PortTaken", message, settings.pod.node_name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, role.terminate)
    tasks = Tasks(role.node.failed)
    work = tasks.start(role.run())
    cause = with_xids(await ending.wait(), settings.pod.node_name, role.xids, time.time())
    role.node.enter(Stage.FAILED if cause.code else Stage.DRAINING, cause.message)
    if settings.is_head:
        cause = await role.farewell(cause)
        await role.node.kill_everything()
    else:
        _, cause = await asyncio.gather(role.node.kill_everything(), role.farewell(cause))
    work.cancel()
    return cause


def prepare(settings: Settings) -> None:
    """An empty private run directory, and what the processes below us inherit."""
    run_dir = settings.pod.run_dir
    shutil.rmtree(run_dir, ignore_errors=True)
    (run_dir / "prometheus").mkdir(mode=0o700, parents=True)
    # A container's user may have no home and no name: torch and Triton keep caches in the one and ask for the other.
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        (run_dir / "home").mkdir()
        os.environ["HOME"] = str(run_dir / "home")
    os.environ.setdefault("USER", "r1")
    # Here and not where the server is started: what a Ray worker logs is not in the pod's log.
    os.environ |= kernels.variables(settings.config.kernel_cache, {**os.environ, **settings.config.env}, log)
    volume.arguments(settings.config.model_path, settings.config.engine_args, log)
    os.environ[PROBE_KEY_VARIABLE] = secrets.token_hex(16)
    processes.become_subreaper()


def main() -> int:
    """Returns the pod's exit code; a non-zero one is explained in the termination log."""
    termination_log = Path(os.environ.get("R1_TERMINATION_LOG", "/dev/termination-log"))
    try:
        settings = load_settings(os.environ)
        prepare(settings)
    except ConfigError as error:
        node = os.environ.get("NODE_NAME", "")
        cause = Cause(Exit.CONFIGURATION, error.reason, str(error), node)
        log(f"{cause.reason}: {cause.message}")
    else:
        log(
            f"{settings.label} of gang {settings.config.deployment}-{settings.config.replica}-{settings.config.attempt}"
        )
        if settings.unknown:
            log(f"engine.json has fields that this engine does not know: {', '.join(settings.unknown)}")
        if settings.key_file is None:
            log("the HTTP port asks for no key: this operator made none")
        # Not asyncio.run: it waits for our threads, and one that reads from a dead volume never comes back.
        cause = asyncio.new_event_loop().run_until_complete(run(settings))
    if cause.code:
        write_termination_log(termination_log, cause)
    log(f"exit {int(cause.code)} {cause.reason}: {cause.message}")
    return int(cause.code)
