"""Command line of the local cluster: `python -m tests.cluster --help`."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable

from tests.cluster import build, preflight
from tests.cluster.cluster import Cluster, ClusterError, known_clusters, running_clusters
from tests.cluster.config import FAMILIES, ClusterConfig, ConfigError, clusters_root, paths_of
from tests.cluster.machines import FAULTS

Command = Callable[[argparse.Namespace], int]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _this_command() -> str:
    """How to call this command line again from here, with the Python that has its packages."""
    beside = os.path.relpath(sys.executable)
    return f"{sys.executable if beside.startswith('..') else beside} -m tests.cluster"


def _config(arguments: argparse.Namespace) -> ClusterConfig:
    return ClusterConfig(
        name=arguments.name,
        nodes=arguments.nodes,
        family=arguments.family,
        gpus_per_node=arguments.gpus_per_node,
        feature_gates=tuple(gate for gate in arguments.feature_gates.split(",") if gate),
        apiserver_port=arguments.port,
    )


def up(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    begun = time.monotonic()
    cluster = Cluster.start(
        config, bound_to_caller=False, install=arguments.install, report=lambda stage: _say(f"  {stage}")
    )
    _say(f"Cluster {config.name!r} is ready: {config.nodes} nodes in {time.monotonic() - begun:.1f} s.\n")
    _say("In your shell:\n")
    print(_exports(cluster))
    _say("\nThen `kubectl get nodes`, `helm list`. A Service on a port of this machine:\n")
    _say(f"  {_this_command()} expose --name {config.name} NAMESPACE SERVICE PORT\n")
    _say(f"Logs: {cluster.paths.logs}\nEnd it: {_this_command()} down --name {config.name}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    if not arguments.command:
        raise ConfigError("run: say what to run after `--`, such as `run -- kubectl get nodes`")
    with Cluster.start(
        _config(arguments), install=arguments.install, report=lambda stage: _say(f"  {stage}")
    ) as cluster:
        return subprocess.run(arguments.command, env=cluster.environment(), check=False).returncode


def down(arguments: argparse.Namespace) -> int:
    names = known_clusters() if arguments.all else [arguments.name]
    for name in names:
        paths = paths_of(name)
        if not paths.config.exists():
            _say(f"There is no cluster {name!r}.")
            continue
        Cluster(paths).stop()
        _say(f"Cluster {name!r} is gone.")
    return 0


def status(_: argparse.Namespace) -> int:
    names = running_clusters()
    if not names:
        print("No cluster is running.")
    for name in names:
        state = Cluster.attach(name).status()
        broken = [f"{node}: {'+'.join(faults)}" for node, faults in state["faults"].items() if faults]
        nodes, seconds = len(state["faults"]), state["seconds"]
        print("; ".join([f"{name}: {state['stage']}, {nodes} nodes, up {seconds:.0f} s", *broken]))
    return 0


def _exports(cluster: Cluster) -> str:
    kubeconfig, binaries = (shlex.quote(str(path)) for path in (cluster.kubeconfig, cluster.binaries))
    return f'export KUBECONFIG={kubeconfig}\nexport PATH={binaries}:"$PATH"'


def env(arguments: argparse.Namespace) -> int:
    print(_exports(Cluster.attach(arguments.name)))
    return 0


def expose(arguments: argparse.Namespace) -> int:
    port = int(arguments.service_port) if arguments.service_port.isdigit() else arguments.service_port
    host_port = Cluster.attach(arguments.name).expose(arguments.namespace, arguments.service, port, arguments.port)
    print(f"127.0.0.1:{host_port}")
    return 0


def add_node(arguments: argparse.Namespace) -> int:
    print(Cluster.attach(arguments.name).add_node())
    return 0


def break_node(arguments: argparse.Namespace) -> int:
    cluster = Cluster.attach(arguments.name)
    act = {
        "kill": cluster.kill_node,
        "cut": cluster.cut_node,
        "freeze": cluster.freeze_node,
        "silence": cluster.silence_kubelet,
        "fill-memory": cluster.fill_memory,
        "fill-disk": cluster.fill_disk,
    }[arguments.fault]
    act(arguments.node)
    return 0


def fail_gpus(arguments: argparse.Namespace) -> int:
    Cluster.attach(arguments.name).fail_gpus(arguments.node, *arguments.gpus)
    return 0


def heal(arguments: argparse.Namespace) -> int:
    Cluster.attach(arguments.name).heal_node(arguments.node)
    return 0


def execute(arguments: argparse.Namespace) -> int:
    if not arguments.command:
        raise ConfigError("exec: say what to run after `--`, such as `exec -- ip address`")
    return Cluster.attach(arguments.name).exec_inside(arguments.command, node=arguments.node, check=False).returncode


def check(arguments: argparse.Namespace) -> int:
    preflight.check(arguments.install)
    print("This machine can hold a local cluster.")
    return 0


def build_binaries(_: argparse.Namespace) -> int:
    print(build.ensure_binaries())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, main: Command, help: str, named: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(main=main)
        if named:
            sub.add_argument("--name", default="local", help="the cluster's name (default: %(default)s)")
        return sub

    for sub in (
        command("up", up, "start a cluster in the background"),
        command("run", run, "start a cluster, run a command with it, end it"),
    ):
        defaults = ClusterConfig()
        sub.add_argument("--nodes", type=int, default=defaults.nodes, help="default: %(default)s")
        sub.add_argument(
            "--family", type=int, default=defaults.family, choices=FAMILIES, help="of all addresses; 6 is IPv6 alone"
        )
        sub.add_argument("--gpus-per-node", type=int, default=defaults.gpus_per_node, help="default: %(default)s")
        sub.add_argument(
            "--feature-gates",
            default="",
            metavar="Name=true,…",
            help="of the control plane, such as GenericWorkload=true",
        )
        sub.add_argument(
            "--port", type=int, default=0, help="port of the API server on 127.0.0.1 (default: a free one)"
        )
        sub.add_argument("--install", action="store_true", help="as root: install missing Debian packages")
        if sub.get_default("main") is run:
            sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    command("down", down, "end a cluster and remove its files").add_argument(
        "--all", action="store_true", help="every cluster of yours, and what dead ones left"
    )
    command("status", status, "list running clusters", named=False)
    command("env", env, "print the shell lines that make kubectl and helm use a cluster")
    sub = command("expose", expose, "open a port on 127.0.0.1 that leads to a Service")
    sub.add_argument("namespace")
    sub.add_argument("service")
    sub.add_argument("service_port", metavar="PORT", help="number or name")
    sub.add_argument("--port", type=int, default=0, help="port of this machine (default: a free one)")
    command("add-node", add_node, "add a node and print its name")
    sub = command("break", break_node, "break a node")
    sub.add_argument("node")
    sub.add_argument("fault", choices=FAULTS)
    sub = command("fail-gpus", fail_gpus, "make GPUs of a node unhealthy")
    sub.add_argument("node")
    sub.add_argument("gpus", nargs="+", metavar="GPU", help="GPU-0, GPU-1, …, or all")
    command("heal", heal, "undo all faults of a node").add_argument("node")
    sub = command("exec", execute, "run a command inside the cluster's namespaces")
    sub.add_argument("--node", help="on this node (default: beside the control plane)")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    command("preflight", check, "check whether this machine can hold a cluster", named=False).add_argument(
        "--install", action="store_true", help="as root: install missing Debian packages"
    )
    command("build", build_binaries, "build Kubernetes if it is not built yet, and print where it lies", named=False)
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    if getattr(arguments, "command", None) and arguments.command[0] == "--":
        arguments.command = arguments.command[1:]
    try:
        main_of: Command = arguments.main
        return main_of(arguments)
    except (ConfigError, ClusterError, preflight.PreflightError, build.BuildError) as error:
        _say(f"error: {error}")
        return 1
    except PermissionError as error:
        _say(f"error: {error}. Files of clusters lie in {clusters_root()}; it must be yours (uid {os.geteuid()}).")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
