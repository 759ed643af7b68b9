"""Who may ask what of an engine. Pure.

Three kinds of requests come to the HTTP port. What only tells figures is open: probes, Prometheus and the operator,
which knows no key, read it. Users' requests come through the gateway, which sends the engine's key, or instead what
the client sent as `Authorization` (smg 1.13.0 passes that on unchanged): so the gateway vouches for its users' key by
its hash, or for anybody where it asks for none itself. All else is control (weights, caches, sessions, profiles, the
server's arguments): it takes the engine's key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

OPEN = frozenset({("GET", "/health"), ("GET", "/metrics"), ("GET", "/metrics/"), ("GET", "/v1/loads")})
USERS = frozenset(
    {
        "/generate",
        "/v1/chat/completions",
        "/v1/classify",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/rerank",
        "/v1/responses",
        "/v1/score",
    }
)
"""What the gateway routes for users; each is a POST."""

ANYBODY = bytes(32)
"""Vouched for where the gateway asks its users for no key. Not for a request without any: the gateway sends one."""


def has_token(authorization: str | bytes, token: str) -> bool:
    """Whether the header is `Bearer <token>`, in time that does not tell how much of it fits."""
    return bool(token) and hmac.compare_digest(_bytes(authorization), f"Bearer {token}".encode())


def key_hash(authorization: str | bytes) -> bytes | None:
    """SHA-256 of the key in an `Authorization` header; None if there is none."""
    scheme, _, key = _bytes(authorization).partition(b" ")
    return hashlib.sha256(key.strip()).digest() if scheme.lower() == b"bearer" and key.strip() else None


def may_pass(method: str, path: str, authorization: bytes, key: str, vouched: Collection[bytes]) -> bool:
    """`key`: the engine's; `vouched`: hashes of keys that gateways vouch for, ANYBODY among them."""
    if (method, path) in OPEN or has_token(authorization, key):
        return True
    given = key_hash(authorization)
    if method != "POST" or path not in USERS or given is None:
        return False
    return any(each == ANYBODY or hmac.compare_digest(each, given) for each in vouched)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
