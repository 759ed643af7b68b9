"""The flags of `r1 nodes`; light, since every start of `r1` reads them."""

from __future__ import annotations

import argparse
from typing import Any

from .cluster_flags import add_flags

_OPERATORS_NAMESPACE = "r1-system"


def add_to(commands: Any) -> None:
    """The command's own parsers."""
    parser = commands.add_parser("nodes", help="GPU nodes, and what is held against them")
    parser.set_defaults(action="list", nodes=[], all=False)
    add_flags(parser, namespace=_OPERATORS_NAMESPACE)
    actions = parser.add_subparsers(dest="action", metavar="[clear]")
    text = "forget what is held against nodes, so that they are taken like any others"
    clear = actions.add_parser("clear", help=text, description=text)
    clear.add_argument("nodes", nargs="*", metavar="NODE")
    clear.add_argument("--all", action="store_true", help="of all nodes")
    clear.add_argument("--kubeconfig", default=argparse.SUPPRESS, metavar="FILE")
    clear.add_argument("-n", "--namespace", default=argparse.SUPPRESS, metavar="NS", help="the operator's")
