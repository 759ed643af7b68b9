"""Flags of the commands that talk to a cluster."""

from __future__ import annotations

import argparse


def add_flags(parser: argparse.ArgumentParser, *, namespace: str | None = None) -> None:
    """`--kubeconfig` and `-n`; the default namespace is that of the kubeconfig's context unless given."""
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, or ~/.kube/config")
    said = namespace or "that of the kubeconfig's context"
    parser.add_argument("-n", "--namespace", default=namespace, metavar="NS", help=f"default: {said}")
