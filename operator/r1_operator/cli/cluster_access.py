"""What the commands that talk to a cluster share: flags, the client, errors as one line."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import yaml

from ..cluster import ApiError, Client
from ..cluster.resources import R1_DEPLOYMENTS, JsonObject

FAILED, BAD_INPUT = 1, 2

Command = Callable[[Client, argparse.Namespace], Awaitable[int]]


class Told(Exception):
    """Something that the user can mend; the message says what and how."""


def run(command: Command, options: argparse.Namespace) -> int:
    """Run one command against the cluster. → exit code; what goes wrong is one line on stderr."""
    prog = f"r1 {options.command}"
    try:
        return asyncio.run(_with_client(command, options))
    except ApiError as error:
        print(f"{prog}: {error.message}", file=sys.stderr)
        return FAILED
    except Told as told:
        print(f"{prog}: {told}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130


async def _with_client(command: Command, options: argparse.Namespace) -> int:
    async with await Client.connect(options.kubeconfig) as client:
        if options.namespace is None:
            options.namespace = context_namespace(options.kubeconfig)
        return await command(client, options)


async def deployment(client: Client, options: argparse.Namespace) -> JsonObject:
    """The R1Deployment of that name. Raises Told where there is none."""
    try:
        return await client.get(R1_DEPLOYMENTS, options.namespace, options.name)
    except ApiError as error:
        if error.not_found:
            where = f"namespace {options.namespace}; see `kubectl get r1d -A`"
            raise Told(f"there is no R1Deployment {options.name} in {where}") from error
        raise


def context_namespace(kubeconfig: str | None) -> str:
    """The namespace of the current context; `default` where none is said."""
    for part in (kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep):
        try:
            said = yaml.safe_load(Path(part).expanduser().read_text()) or {}
            contexts = {entry["name"]: entry.get("context") or {} for entry in said.get("contexts") or ()}
            context = contexts.get(said.get("current-context"))
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            continue
        if context is not None:
            return str(context.get("namespace") or "default")
    return "default"


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as kubectl prints them; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
