"""Secret with the token that Ray asks every process for: an open Ray port runs anybody's code."""

from __future__ import annotations

import base64
from typing import Any

from ..api import names
from .context import Context


def ray_secret(context: Context, token: str) -> dict[str, Any]:
    """One token for all gangs of the resource; made once, never changed while the resource lives."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": context.metadata(names.ray_secret(context.name), names.COMPONENT_ENGINE),
        "data": {names.RAY_TOKEN_KEY: base64.b64encode(token.encode()).decode()},
    }
