"""What an earlier R1Deployment of the same name has left, while the garbage collector is still taking it away.

`kubectl replace --force`, or a delete and an apply, make a new resource before the old children are gone. To apply
onto those would save some from the collector and lose others: a gateway without its Secret, a gang with two Ray tokens.
"""

from __future__ import annotations

from ..api import names
from ..cluster.resources import JsonObject


def of_another(obj: JsonObject, uid: str) -> bool:
    """Whether the object belongs to an R1Deployment, and not to the one with this uid."""
    owners = {o["uid"] for o in obj["metadata"].get("ownerReferences") or [] if o.get("kind") == names.KIND}
    return bool(owners) and uid not in owners
