"""`python -m tests.cluster.cri`: the container runtime of one node of the local test cluster."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import sys
from pathlib import Path

# Children are started by fork+exec from this process alone; gRPC's own fork handlers would only get in the way.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.container import Host
from tests.cluster.cri.credentials import read_id_maps
from tests.cluster.cri.image_service import ImageService
from tests.cluster.cri.images import BUILT_IN, Catalogue, CatalogueError, load_catalogue
from tests.cluster.cri.network import AddressPool, NetworkConfig
from tests.cluster.cri.node import Node
from tests.cluster.cri.rpc import service_handler
from tests.cluster.cri.runtime_service import RuntimeService
from tests.cluster.cri.streaming import StreamingServer
from tests.cluster.cri.view import read_host_layout


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.cri", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to serve CRI v1 on")
    parser.add_argument("--state", type=Path, required=True, help="directory for the runtime's files")
    parser.add_argument("--pod-cidr", type=ipaddress.ip_network, required=True, help="addresses of this node's pods")
    parser.add_argument("--bridge", default="br0", help="bridge that pods are connected to (default br0)")
    parser.add_argument("--gateway", required=True, help="the bridge's address, the pods' default route")
    parser.add_argument("--node-ip", required=True, help="address of this node (and of its host-network pods)")
    parser.add_argument("--prefix-length", type=int, default=16, help="of the pod network on the bridge (default 16)")
    parser.add_argument("--images", type=Path, help="image catalogue (JSON); without it only the built-in image exists")
    parser.add_argument("--streaming-server", default="cri-streaming", help="program for exec and port-forward streams")
    return parser.parse_args(argv)


def make_node(options: argparse.Namespace) -> Node:
    """The runtime's state from its command line.

    Raises:
        CatalogueError: the image catalogue is wrong.
    """
    state: Path = options.state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    network = NetworkConfig(
        options.pod_cidr, options.bridge, options.gateway, options.node_ip, prefix_length=options.prefix_length
    )
    return Node(
        state=state,
        network=network,
        catalogue=load_catalogue(options.images) if options.images else Catalogue({BUILT_IN.name: BUILT_IN}),
        host=Host(read_host_layout(), read_id_maps()),
        streaming=StreamingServer(options.streaming_server, state),
        addresses=AddressPool(options.pod_cidr, frozenset({options.gateway, options.node_ip})),
    )


async def serve(node: Node, address: str) -> None:
    """Serve until SIGTERM or SIGINT; all containers die with the process."""
    server = grpc.aio.server()
    services = pb.DESCRIPTOR.services_by_name
    server.add_generic_rpc_handlers(
        (
            service_handler(services["RuntimeService"], RuntimeService(node)),
            service_handler(services["ImageService"], ImageService(node)),
        )
    )
    server.add_insecure_port(address)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"serving CRI v1 on {address} for pods of {node.network.pod_cidr}", flush=True)
    await stop.wait()
    await server.stop(grace=None)
    node.streaming.close()


def main() -> int:
    """Run the runtime."""
    options = parse_arguments()
    # The helper programs (ip, nsenter) lie in directories that a user's PATH may lack.
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    try:
        node = make_node(options)
    except CatalogueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.socket.unlink(missing_ok=True)
    asyncio.run(serve(node, f"unix://{options.socket.absolute()}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
