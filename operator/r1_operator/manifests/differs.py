"""Whether a live object already is what we would apply, so that nothing is written when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OURS_ALONE = frozenset({"data", "selector", "matchLabels", "args", "command"})
"""Fields where a key that we no longer render must go: nobody else adds to them."""


def differs(wanted: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """True when applying `wanted` would change `live`.

    Every wanted field must be there with its value; lists must have the same length and order; what the API server or
    others added beside it (defaults, status, further labels) does not count.
    """
    return live is None or not _covers(live, wanted)


def _covers(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return not wanted and live is None
        for key, value in wanted.items():
            if key in _OURS_ALONE and isinstance(value, Mapping) and set(live.get(key) or {}) != set(value):
                return False
            if not _covers(live.get(key), value):
                return False
        return True
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return not wanted and live is None
        return len(live) == len(wanted) and all(_covers(a, b) for a, b in zip(live, wanted, strict=True))
    return bool(live == wanted)
