"""What an earlier R1Deployment of the same name has left, while the garbage collector is still taking it away.

`kubectl replace --force`, or a delete and an apply, make a new resource before the old children are gone. To apply
onto those would save some from the collector and lose others: a gateway without its Secret, a gang with two Ray tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..api import names
from ..cluster import Cache
from ..cluster.resources import CONFIG_MAPS, DEPLOYMENTS, SECRETS, SERVICES, JsonObject
from .queue import Key


def of_another(obj: JsonObject, uid: str) -> bool:
    """Whether the object belongs to an R1Deployment, and not to the one with this uid."""
    owners = {o["uid"] for o in obj["metadata"].get("ownerReferences") or [] if o.get("kind") == names.KIND}
    return bool(owners) and uid not in owners


def still_in_the_way(cache: Cache, key: Key, uid: str, pods: Sequence[JsonObject]) -> list[str]:
    """Children of a predecessor that must go first, as `Kind name`. Pods on their way out are not: they only drain.

    pods: the engine pods of that name.
    """

    def left() -> Iterable[JsonObject]:
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_INSTANCE: key[1]}
        for resource in (DEPLOYMENTS, SERVICES, SECRETS, CONFIG_MAPS):
            yield from cache.snapshot(resource, key[0], labels)
        yield from (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])

    return [f"{obj.get('kind', 'object')} {obj['metadata']['name']}" for obj in left() if of_another(obj, uid)]
