"""`python -m r1_engine.driver`: the Ray driver of a gang, on node 0. One NodeActor on each node, and how it ends.

Tells the agent on standard output, one JSON object a line:
  {"placed": [address of node 0, …]} · {"ended": {"index", "what"}} · {"failed": {"reason", "message"}}
It starts when the agent says where the cluster is, one line on its standard input, and ends when that closes.
It never decides: the agent does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r1_engine.config import Settings, load_settings
from r1_engine.node_actor import NodeActor
from r1_engine.ray_group import NODE_RESOURCE


def tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def bundles(nodes: int, gpus: int) -> list[dict[str, float]]:
    """One bundle a node, each a whole node; the first on the head, where SGLang's HTTP server must be."""
    whole: dict[str, float] = {"CPU": 1, NODE_RESOURCE: 1}
    if gpus:
        whole["GPU"] = gpus
    return [{**whole, **({"node:__internal_head__": 0.001} if index == 0 else {})} for index in range(nodes)]


def place(settings: Settings, seconds: float) -> list[Any]:
    """The actors, ordered by the index of the pod they run in. Raises TimeoutError when Ray cannot place them."""
    config = settings.config
    gpus = config.gpus_per_node if config.device == "cuda" else 0
    group = placement_group(bundles(config.nodes, gpus), strategy="STRICT_SPREAD")
    if not group.wait(seconds):
        has = ray.cluster_resources()
        raise TimeoutError(
            f"Ray could not place {config.nodes} bundles of {gpus} GPUs in {seconds:.0f} s; it has {has}"
        )
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_concurrency=2)(NodeActor)
    actors = [
        remote.options(
            resources={NODE_RESOURCE: 1},
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        ).remote()
        for index in range(config.nodes)
    ]
    found = ray.get([actor.where.remote() for actor in actors], timeout=seconds)
    order = sorted(range(config.nodes), key=lambda at: int(found[at][1]))
    tell({"placed": [found[at][0] for at in order]})
    return [actors[at] for at in order]


def watch(actors: list[Any], head_ip: str) -> None:
    """Starts all servers; tells each end as it comes."""
    running = {actor.run.remote(head_ip): index for index, actor in enumerate(actors)}
    while running:
        for reference in ray.wait(list(running), num_returns=1)[0]:
            index = running.pop(reference)
            try:
                what = ray.get(reference).what
            except Exception as error:
                what = f"its Ray actor ({type(error).__name__})"
            tell({"ended": {"index": index, "what": what}})


def main() -> None:
    settings = load_settings(os.environ)
    if not (address := sys.stdin.readline().strip()):
        return
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    ray.init(address=address, log_to_driver=False, logging_level="warning")
    try:
        actors = place(settings, settings.config.start_seconds)
        watch(actors, settings.pod.ip)
    except Exception as error:
        reason = "NotPlaced" if isinstance(error, TimeoutError) else "DriverFailed"
        tell({"failed": {"reason": reason, "message": f"{type(error).__name__}: {error}"}})
    # The servers have ended or the gang is about to: Ray's orderly shutdown would only take time.
    os._exit(0)


if __name__ == "__main__":
    main()
