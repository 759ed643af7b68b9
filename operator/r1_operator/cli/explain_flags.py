"""The flags of `r1 explain`; light, since every start of `r1` reads them."""

from __future__ import annotations

from typing import Any

from .cluster_flags import add_flags


def add_to(commands: Any) -> None:
    """The command's own parser."""
    text = "why there are as many replicas as there are, and why not more or fewer"
    parser = commands.add_parser("explain", help=text, description=text)
    parser.add_argument("name", metavar="NAME", help="of the R1Deployment")
    add_flags(parser)
