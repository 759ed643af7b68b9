"""The flags of `r1 rollout`; light, since every start of `r1` reads them."""

from __future__ import annotations

from typing import Any

from .cluster_flags import add_flags


def add_to(commands: Any) -> None:
    """The command's own parsers."""
    parser = commands.add_parser("rollout", help="how a change stands, and what to do about it")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    said = {
        "status": "wait for a change to be through, and tell how it stands",
        "history": "the revisions that are kept, and what changed",
        "undo": "make the spec what it was for an earlier revision",
        "restart": "start every replica anew, by the rules of a change, with the operator's present defaults",
        "pause": "roll nothing out; what runs is kept, healed and scaled",
        "resume": "go on",
    }
    for action, text in said.items():
        own = actions.add_parser(action, help=text, description=text)
        own.add_argument("name", metavar="NAME", help="of the R1Deployment")
        add_flags(own)
        if action == "status":
            own.add_argument("--no-wait", action="store_true", help="tell once")
            own.add_argument("--timeout", type=float, default=0, metavar="SECONDS", help="give up after; 0 = never")
        if action == "undo":
            own.add_argument("--to-revision", metavar="REVISION", help="default: what served before")
