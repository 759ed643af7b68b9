"""The nodes of a running cluster: starting them, and breaking and healing them on demand."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.cluster import identities, network, nodes
from tests.cluster.config import CHECKOUT, ClusterConfig, ClusterPaths
from tests.cluster.processes import children_of, first_child, signal_tree

FAULTS: Final = ("kill", "cut", "freeze", "silence", "fill-memory", "fill-disk")


class FaultError(ValueError):
    """The fault or node asked for does not exist, or cannot be combined with what the node already suffers."""


@dataclasses.dataclass
class _Machine:
    index: int
    process: asyncio.subprocess.Process | None = None
    init: int | None = None
    faults: set[str] = dataclasses.field(default_factory=set)
    failed_gpus: list[str] = dataclasses.field(default_factory=list)


class Machines:
    """All nodes, by name. Runs inside the cluster's namespaces, beside the control plane."""

    def __init__(self, binaries: Path, paths: ClusterPaths, config: ClusterConfig) -> None:
        self._binaries = binaries
        self._paths = paths
        self._config = config
        self._machines: dict[str, _Machine] = {}

    def names(self) -> list[str]:
        return list(self._machines)

    def faults(self) -> dict[str, list[str]]:
        return {name: sorted({*machine.faults, *machine.failed_gpus}) for name, machine in self._machines.items()}

    def init_of(self, name: str) -> int:
        """Process id (as the supervisor sees it) of the node's first process. Raises FaultError if it has none."""
        machine = self._machine(name)
        if machine.init is None:
            raise FaultError(f"node {name} is off; heal it first")
        return machine.init

    def add(self, index: int) -> None:
        """Makes certificates, files and network of a node. `boot` starts it."""
        name = network.node_name(index)
        addresses = self._config.addresses
        request = identities.node_certificate_request(addresses, index)
        identities.make_certificates(self._binaries, self._paths, request)
        identities.write_kubeconfig(self._paths, name, self._paths.inner_kubeconfig(name), addresses.inner_server)
        self._paths.node(name).mkdir(parents=True)
        spec = nodes.node_spec(self._binaries, self._paths, self._config, index)
        (self._paths.node(name) / "node.json").write_text(spec.to_json())
        self._write_kubelet_configuration(index)
        self._machines[name] = _Machine(index)
        self._plug_in(index)

    async def boot(self, name: str) -> None:
        machine = self._machine(name)
        command = (
            *("nsenter", f"--net=/run/netns/{name}"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", "tests.cluster.node", str(self._paths.node(name) / "node.json")),
        )
        with (self._paths.logs / f"{name}.log").open("ab") as log:
            machine.process = await asyncio.create_subprocess_exec(
                *command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        machine.init = await asyncio.to_thread(first_child, machine.process.pid, time.monotonic() + 120)

    async def break_node(self, name: str, fault: str) -> None:
        """Applies one fault. A second time does nothing."""
        if fault not in FAULTS:
            raise FaultError(f"fault {fault!r} is unknown; there are {', '.join(FAULTS)}")
        machine = self._machine(name)
        if fault in machine.faults:
            return
        if "kill" in machine.faults:
            raise FaultError(f"node {name} is off; heal it first")
        if fault == "kill":
            await self._power_off(machine)
        elif fault == "cut":
            ip_batch(network.plug_script(machine.index, plugged=False))
        elif fault == "freeze":
            await asyncio.to_thread(signal_tree, self.init_of(name), signal.SIGSTOP)
        elif fault == "silence":
            await asyncio.to_thread(self._signal_kubelet, name, signal.SIGSTOP)
        elif fault == "fill-memory":
            self._write_kubelet_configuration(machine.index, memory_is_full=True)
            os.kill(self.init_of(name), signal.SIGHUP)
        else:
            await asyncio.to_thread(self._resize_disk, name, full=True)
        machine.faults.add(fault)

    def fail_gpus(self, name: str, gpus: list[str]) -> None:
        """Makes these GPUs of a node unhealthy, all others healthy."""
        self._machine(name).failed_gpus = list(gpus)
        folder = Path(f"/proc/{self.init_of(name)}/root{nodes.KUBELET_FOLDER}")
        (folder / "unhealthy-gpus").write_text("".join(f"{gpu}\n" for gpu in gpus))

    async def heal(self, name: str) -> None:
        """Undoes every fault of a node. A killed one boots with an empty disk, as a replaced machine would."""
        machine = self._machine(name)
        faults, machine.faults = machine.faults, set()
        if machine.failed_gpus and "kill" not in faults:
            self.fail_gpus(name, [])
        machine.failed_gpus = []
        if "cut" in faults:
            ip_batch(network.plug_script(machine.index, plugged=True))
        if "freeze" in faults and "kill" not in faults:
            await asyncio.to_thread(signal_tree, self.init_of(name), signal.SIGCONT)
        if "silence" in faults and "kill" not in faults:
            await asyncio.to_thread(self._signal_kubelet, name, signal.SIGCONT)
        if "fill-memory" in faults:
            self._write_kubelet_configuration(machine.index)
        if "kill" in faults:
            self._plug_in(machine.index)
            await self.boot(name)
            return
        if "fill-memory" in faults:
            os.kill(self.init_of(name), signal.SIGHUP)
        if "fill-disk" in faults:
            await asyncio.to_thread(self._resize_disk, name, full=False)

    async def _power_off(self, machine: _Machine) -> None:
        """Ends every process of the node at once; returns when the last is gone."""
        assert machine.process is not None
        assert machine.init is not None
        os.kill(machine.init, signal.SIGKILL)
        await machine.process.wait()
        machine.process = machine.init = None
        name = network.node_name(machine.index)
        ip_batch(f"netns del {name}\nlink del {network.switch_port(machine.index)}", force=True)

    def _signal_kubelet(self, name: str, number: signal.Signals) -> None:
        """To the kubelet alone: runtime and containers are the node's first process's other children."""
        children = children_of().get(self.init_of(name), ())
        kubelets = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "kubelet"]
        if not kubelets:
            raise FaultError(f"node {name} runs no kubelet just now; try again")
        for pid in kubelets:
            os.kill(pid, number)

    def _plug_in(self, index: int) -> None:
        ip_batch(network.uplink_script(index))
        ip_batch(network.node_script(self._config.addresses, index), namespace=network.node_name(index))

    def _write_kubelet_configuration(self, index: int, memory_is_full: bool = False) -> None:
        configuration = nodes.kubelet_configuration(self._paths, self._config, index, memory_is_full)
        (self._paths.node(network.node_name(index)) / "kubelet.json").write_text(json.dumps(configuration, indent=1))

    def _resize_disk(self, name: str, full: bool) -> None:
        """Shrinks the node's file system to what is on it, or gives it its size back: full for the kubelet and for
        every writer, without taking the memory that filling it would."""
        init = self.init_of(name)
        usage = os.statvfs(f"/proc/{init}/root/var/lib")
        used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
        size = max(used, os.sysconf("SC_PAGE_SIZE")) if full else self._config.node_disk_gib << 30
        subprocess.run(
            ["nsenter", f"--mount=/proc/{init}/ns/mnt", "mount", "-o", f"remount,size={size}", "/var/lib"], check=True
        )

    def _machine(self, name: str) -> _Machine:
        try:
            return self._machines[name]
        except KeyError:
            raise FaultError(f"node {name!r} is unknown; there are {', '.join(self._machines) or 'none'}") from None


def ip_batch(script: str, namespace: str | None = None, force: bool = False) -> None:
    """Runs lines of `ip`. With `force`, lines that fail are passed over. Raises RuntimeError with what `ip` said."""
    command = ["ip", *(("-force",) if force else ()), *(("-netns", namespace) if namespace else ()), "-batch", "-"]
    done = subprocess.run(command, input=script + "\n", text=True, capture_output=True, check=False)
    if done.returncode and not force:
        raise RuntimeError(f"ip failed: {done.stderr.strip()}")
