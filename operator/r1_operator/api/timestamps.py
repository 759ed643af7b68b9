"""metav1.Time ↔ unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def unix_time(text: str | None) -> float | None:
    """RFC 3339 (`2026-11-25T13:00:00Z`, with or without fraction) → unix seconds; None and "" → None."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def rfc3339(seconds: float) -> str:
    """Unix seconds → `2026-11-25T13:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
