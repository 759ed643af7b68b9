"""One question to a gateway, from the host."""

from __future__ import annotations

import json
import urllib.error
import urllib.request


def ask(base: str, seconds: float = 30.0, tokens: int = 8, before: str = "") -> str:
    """One chat completion. Raises for anything but an answer."""
    body = {
        "model": "tiny-r1",
        "messages": [{"role": "user", "content": f"{before}Count to {tokens}"}],
        "max_tokens": tokens + 64,
    }
    request = urllib.request.Request(
        f"{base}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            text: str = json.loads(response.read())["choices"][0]["message"]["content"]
            return text
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {error.read().decode()}") from error


def answers(base: str, before: str = "") -> bool:
    """Whether a chat completion is answered now. `before`: what the question begins with."""
    try:
        return bool(ask(base, before=before))
    except (OSError, RuntimeError):
        return False
