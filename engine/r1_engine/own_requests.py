"""SGLang's server warms itself up over its own HTTP port, where our gate asks everybody for a key."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from r1_engine.gate import PROBE_HEADER


def show_key(module: Any, probe_key: str) -> None:
    """Lets `sglang.srt.entrypoints.http_server` (0.5.23) show our probe's key to itself.

    Its `_execute_server_warmup` and `_freeze_gc_after_server_warmup` give `headers` to `requests`, which hold SGLang's
    own API key where there is one; what it asks of other hosts has none. A refused warm-up would end the server.
    """
    original = module.requests
    module.requests = SimpleNamespace(
        get=_showing(original.get, probe_key), post=_showing(original.post, probe_key), exceptions=original.exceptions
    )


def _showing(call: Callable[..., Any], probe_key: str) -> Callable[..., Any]:
    def ask(url: str, **options: Any) -> Any:
        if "headers" in options:
            options["headers"] = {**(options["headers"] or {}), PROBE_HEADER.decode(): probe_key}
        return call(url, **options)

    return ask
