"""A pod's sandbox: a sleeping process that holds the namespaces its containers share (network, IPC, host name)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri import network
from tests.cluster.cri.processes import CommandFailed, kill_group, read_pipe, wait

# As other runtimes do: a port below 1024 needs no capability inside a pod.
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}

# Arguments: host name, then pairs of /proc/sys path and value. Its standard output ends when all is set.
_HOLD = """hostname "$1" || exit 1; shift
while [ $# -gt 0 ]; do echo "$2" >"$1" || exit 1; shift 2; done
exec sleep infinity >/dev/null 2>&1"""


@dataclass
class Sandbox:
    """One pod. `address` is empty for a pod on the node's own network."""

    config: pb.PodSandboxConfig
    directory: Path
    runtime_handler: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: int = field(default_factory=time.time_ns)
    address: str = ""
    holder: subprocess.Popen[bytes] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def ready(self) -> bool:
        """True while the pod's namespaces exist."""
        return self.holder is not None and self.holder.poll() is None

    @property
    def on_host_network(self) -> bool:
        """True if the pod asked for the node's network."""
        return self.config.linux.security_context.namespace_options.network == pb.NODE

    def namespaces(self) -> list[str]:
        """nsenter's options for the namespaces the pod's containers share."""
        if self.holder is None:
            raise RuntimeError(f"pod sandbox {self.id} has been stopped")
        kinds = ("uts", "ipc") if self.on_host_network else ("uts", "ipc", "net")
        return [f"--{kind}=/proc/{self.holder.pid}/ns/{kind}" for kind in kinds]

    @property
    def resolv_conf(self) -> Path:
        """The pod's resolv.conf on the host."""
        return self.directory / "resolv.conf"


def resolv_conf(dns: pb.DNSConfig) -> str:
    """The resolver file of a DnsConfig."""
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "\n".join(lines) + "\n"


def holder_arguments(config: pb.PodSandboxConfig, *, host_network: bool) -> list[str]:
    """Command of the process that holds the pod's namespaces; it dies with the runtime."""
    sysctls = {} if host_network else dict(_DEFAULT_SYSCTLS)
    sysctls.update(config.linux.sysctls)
    settings = [part for name, value in sysctls.items() for part in ("/proc/sys/" + name.replace(".", "/"), value)]
    kinds = ["--uts", "--ipc", *([] if host_network else ["--net"])]
    hostname = config.hostname or "localhost"
    unshare = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", "/usr/bin/unshare", *kinds, "--"]
    return [*unshare, "/bin/sh", "-c", _HOLD, "pod-sandbox", hostname, *settings]


async def start(sandbox: Sandbox, config: network.NetworkConfig, pool: network.AddressPool) -> None:
    """Make the sandbox's namespaces and connect it. On failure nothing is left.

    Raises:
        CommandFailed: a namespace, sysctl or link could not be made.
        network.NoAddressLeft: the node has no address left.
    """
    _write_files(sandbox)
    try:
        sandbox.holder = await _hold(sandbox)
        if not sandbox.on_host_network:
            sandbox.address = pool.take()
            await network.connect(config, sandbox.address, sandbox.holder.pid)
    except BaseException:
        await stop(sandbox, pool)
        shutil.rmtree(sandbox.directory, ignore_errors=True)
        raise


def _write_files(sandbox: Sandbox) -> None:
    sandbox.directory.mkdir(parents=True)
    sandbox.resolv_conf.write_text(resolv_conf(sandbox.config.dns_config))
    if sandbox.config.log_directory:
        Path(sandbox.config.log_directory).mkdir(parents=True, exist_ok=True)


def _spawn_holder(sandbox: Sandbox, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        holder_arguments(sandbox.config, host_network=sandbox.on_host_network),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


async def _hold(sandbox: Sandbox) -> subprocess.Popen[bytes]:
    read_end, write_end = os.pipe()
    try:
        holder = _spawn_holder(sandbox, write_end)
    finally:
        os.close(write_end)
    printed = bytearray()
    await read_pipe(read_end, printed.extend)  # ends when the script gives its output away, just before it sleeps
    if printed or holder.poll() is not None:
        kill_group(holder)
        raise CommandFailed(f"cannot make the namespaces of the pod: {printed.decode(errors='replace').strip()}")
    return holder


async def stop(sandbox: Sandbox, pool: network.AddressPool) -> None:
    """End the namespaces and free the address; nothing if that has been done."""
    holder, address = sandbox.holder, sandbox.address
    if holder is None:
        return
    sandbox.holder = None
    kill_group(holder)
    await wait(holder)
    if address:
        with contextlib.suppress(TimeoutError):
            await network.disconnect(address)
        pool.give_back(address)
