"""`python -m r1_engine.ray_start <arguments>`: Ray's own `ray start`, with patience and without what we do not use.

It imports Ray, then waits for the cluster's address as one line on standard input, and only then goes on: the imports
of all nodes run side by side although each node needs the head's Ray to be up.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

# A busy machine was seen to need 146 s for what takes 10 s on a quiet one. The agent ends a start that is really dead.
PATIENCE_SECONDS = 600.0


def patient(
    get_node: Callable[[str, str], Any], seconds: float, pause: Callable[[float], None] = time.sleep
) -> Callable[[str, str], Any]:
    """`get_node`, asked again for `seconds` while the raylet has not registered (Ray says so by a RuntimeError)."""

    def ask(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                pause(0.1)

    return ask


def adapt(services: Any, utils: Any) -> None:
    """Places in Ray 2.60 that have no setting. `services` and `utils` are `ray._private.services` and `.utils`.

    `ray._private.node` waits for its raylet to register for a fixed 30 s, in a busy loop.
    `--include-dashboard false` still starts the dashboard's API server. Each node's dashboard agent serves it, unless
    Ray believes itself installed without the extra `default`: then it starts as `--minimal`. The server for remote
    drivers (Ray Client) starts unless Ray believes its dependencies missing.
    """
    services.get_node = patient(services.get_node, PATIENCE_SECONDS)
    services.start_api_server = lambda *_, **__: ("", None)
    unused = ImportError("not used here")
    utils.get_dashboard_dependency_error = utils.get_ray_client_dependency_error = lambda: unused


def main(argv: list[str]) -> None:
    import ray._private.services as services
    import ray._private.utils as utils

    adapt(services, utils)
    from ray.scripts import scripts  # takes names from `utils` as it is imported

    address = sys.stdin.readline().strip()
    if not address:  # the agent ended before it knew
        sys.exit(1)
    os.environ["RAY_ADDRESS"] = address  # keeps all that starts below off stray sessions
    sys.argv = ["ray", "start", *argv, *([] if "--head" in argv else ["--address", address])]
    scripts.main()


if __name__ == "__main__":
    main(sys.argv[1:])
