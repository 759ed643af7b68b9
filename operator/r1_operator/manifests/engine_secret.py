"""Secret of an R1Deployment's gangs: Ray's token (an open Ray port runs anybody's code) and the HTTP port's key."""

from __future__ import annotations

import base64
from typing import Any

from ..api import names
from .context import Context


def engine_secret(context: Context) -> dict[str, Any]:
    """One for all gangs of the resource. It is made and never read back, changed or deleted by the operator: its name
    holds the resource's uid, so one that exists is that resource's. It goes with its owner."""
    uid = context.uid
    content = {names.RAY_TOKEN_KEY: context.keys.ray(uid), names.ENGINE_KEY_KEY: context.keys.engine(uid)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": context.metadata(names.engine_secret(context.name, uid), names.COMPONENT_ENGINE),
        "data": {key: base64.b64encode(token.encode()).decode() for key, token in content.items()},
    }
