"""`python -m tests.cluster.gpu`: offers pretended GPUs to the kubelet of one node of the local test cluster."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from tests.cluster.gpu.plugin import DevicePlugin, Endpoint, device_names


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.gpu", description=__doc__)
    parser.add_argument("--kubelet-dir", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    parser.add_argument("--count", type=int, required=True, help="number of devices; their names are GPU-0, GPU-1, …")
    parser.add_argument("--resource", default="nvidia.com/gpu", help="resource name (default nvidia.com/gpu)")
    parser.add_argument(
        "--more",
        nargs=2,
        action="append",
        default=[],
        metavar=("RESOURCE", "COUNT"),
        help="another resource, e.g. rdma/ib 1, and how many devices of it; may be repeated",
    )
    parser.add_argument(
        "--unhealthy-file",
        type=Path,
        help="lists broken devices, one a line, by name or index, or `all`; may come and go at any time "
        "(default: unhealthy-gpus beside the kubelet's directory, which a restarting kubelet empties)",
    )
    options = parser.parse_args(argv)
    if options.count < 0:
        parser.error(f"--count {options.count}: must be 0 or more")
    options.more = {resource: int(count) for resource, count in options.more}
    for resource in (options.resource, *options.more):
        if "/" not in resource:
            parser.error(f"resource {resource!r}: must be an extended resource such as nvidia.com/gpu")
    return options


async def serve(*endpoints: Endpoint) -> None:
    """Serve until SIGTERM or SIGINT."""
    task = asyncio.gather(*(endpoint.run() for endpoint in endpoints))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> int:
    """Run the plugin."""
    options = parse_arguments()
    directory: Path = options.kubelet_dir.absolute()
    control = options.unhealthy_file or directory.parent / "unhealthy-gpus"
    endpoints = [Endpoint(DevicePlugin(device_names(options.count)), directory, options.resource, control)]
    for resource, count in options.more.items():
        name = resource.replace("/", "-")
        plugin = DevicePlugin(device_names(count, name), are_gpus=False)
        endpoints.append(Endpoint(plugin, directory, resource, directory.parent / f"unhealthy-{name}"))
    asyncio.run(serve(*endpoints))
    return 0


if __name__ == "__main__":
    sys.exit(main())
