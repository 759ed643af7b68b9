"""`r1 nodes`: GPU nodes, who runs there, what is held against them; `r1 nodes clear NODE` forgets it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from ..api import names
from ..api.timestamps import rfc3339
from ..cluster import ApiError, Client
from ..cluster.resources import CONFIG_MAPS, NODES, PODS
from ..placement.blame import Held, from_texts
from ..placement.nodes import node_of
from ..rounds.moving import leaves
from .cluster_access import Told, table
from .cluster_access import run as run_in_cluster


def run(options: argparse.Namespace) -> int:
    """Run it. → exit code."""
    return run_in_cluster(_clear if options.action == "clear" else _list, options)


async def _book(client: Client, namespace: str) -> dict[str, str]:
    try:
        return dict((await client.get(CONFIG_MAPS, namespace, names.NODES_CONFIG_MAP)).get("data") or {})
    except ApiError as error:
        if error.not_found:
            return {}
        raise


async def _list(client: Client, options: argparse.Namespace) -> int:
    held = from_texts(await _book(client, options.namespace))
    nodes = (await client.list(NODES)).items
    labels = names.selector({names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_COMPONENT: names.COMPONENT_ENGINE})
    pods = (await client.list(PODS, labels=labels)).items
    rows = rows_of(nodes, pods, held, time.time())
    if len(rows) == 1:
        raise Told("no node has GPUs that the operator knows, and nothing is held against any")
    print(table(rows))
    return 0


def rows_of(
    nodes: tuple[Mapping[str, Any], ...], pods: tuple[Mapping[str, Any], ...], held: Mapping[str, Held], now: float
) -> list[tuple[str, ...]]:
    """The table: nodes with GPUs, with engine pods, or with something held against them."""
    running: dict[str, set[str]] = {}
    for pod in pods:
        node, phase = pod["spec"].get("nodeName"), (pod.get("status") or {}).get("phase")
        if node and phase not in {"Failed", "Succeeded"}:
            gang = pod["metadata"]["labels"].get(names.LABEL_GANG, "?")
            running.setdefault(node, set()).add(f"{pod['metadata']['namespace']}/{gang}")
    rows: list[tuple[str, ...]] = [("NODE", "GPUS", "RUNS", "FAILURES", "AVOIDED-UNTIL", "WHY")]
    listed = {str(raw["metadata"]["name"]): raw for raw in nodes}
    for name in sorted(listed.keys() | held.keys()):
        raw = listed.get(name)
        gpus = int(node_of(raw, {}).allocatable.get(names.DEFAULT_GPU_RESOURCE, 0)) if raw is not None else 0
        mine = held.get(name)
        if not gpus and name not in running and mine is None:
            continue
        until = rfc3339(mine.until) if mine is not None and now < mine.until else ""
        count = str(mine.count) if mine is not None else ""
        words = [_state(raw), f"{mine.reason}: {mine.message}" if mine is not None else ""]
        runs = ", ".join(sorted(running.get(name, ())))
        rows.append((name, str(gpus), runs, count, until, "; ".join(word for word in words if word)))
    return rows


def _state(raw: Mapping[str, Any] | None) -> str:
    if raw is None:
        return "the Node object is gone"
    node = node_of(raw, {})
    return leaves(node) or ("" if node.ready else f"not Ready ({node.silent_why})")


async def _clear(client: Client, options: argparse.Namespace) -> int:
    if bool(options.nodes) == bool(options.all):
        raise Told("name the nodes to clear, or give --all")
    book = await _book(client, options.namespace)
    wanted = sorted(book) if options.all else list(dict.fromkeys(options.nodes))
    unknown = [node for node in wanted if node not in book]
    if unknown:
        known = f"something is against {', '.join(sorted(book))}" if book else "nor against any other"
        raise Told(
            f"nothing is held against {', '.join(unknown)} in namespace {options.namespace}, {known}; "
            "-n names the operator's namespace"
        )
    if wanted:
        body = {"data": dict.fromkeys(wanted)}
        await client.patch_merge(CONFIG_MAPS, options.namespace, names.NODES_CONFIG_MAP, body)
    print(f"cleared: {', '.join(wanted) or 'nothing was held against any'}")
    return 0
