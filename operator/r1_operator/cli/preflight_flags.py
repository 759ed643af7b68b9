"""The flags of `r1 preflight`; light, since every start of `r1` reads them."""

from __future__ import annotations

from typing import Any

from .cluster_flags import add_flags


def add_to(commands: Any) -> None:
    """The command's own parser."""
    text = "what a cluster lacks for an R1Deployment, before anything is applied"
    parser = commands.add_parser("preflight", help=text, description=text)
    parser.add_argument("-f", "--file", metavar="FILE", help="the R1Deployment; default: R1-0528 on --hardware")
    parser.add_argument("--hardware", default="H100x8", metavar="NAME", help="profile without -f; default: H100x8")
    parser.add_argument("--profiles", metavar="FILE", help="further hardware profiles, as in the chart's values")
    add_flags(parser)
