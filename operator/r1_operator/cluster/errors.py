"""The one error the Kubernetes client raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

UNREACHABLE = "Unreachable"
TIMEOUT = "Timeout"
NOT_LEADER = "NotLeader"


class ApiError(Exception):
    """A refused or failed call.

    `status` is the HTTP status, 0 when no answer came. `reason` is the API server's CamelCase reason (`NotFound`,
    `Conflict`, `Invalid`, `Expired`, …) or `Unreachable`, `Timeout`, `NotLeader`. `message` says what to tell a user.
    `retry_after` is in seconds, when the server named one.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason} ({status}): {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """An optimistic-locking or field-ownership conflict, or a failed precondition: read again and decide again."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def invalid(self) -> bool:
        """The object itself was refused (schema, CEL rule, admission): trying again without a change is of no use."""
        return self.status in (400, 403, 422)

    @property
    def refused(self) -> bool:
        """Nothing was made, and it is for somebody to change that: it is invalid, or admission has no answer. A webhook
        that nobody answers is a server error (500) in whose words alone it is named."""
        return self.invalid or (self.status >= 500 and "failed calling webhook" in self.message)

    @property
    def expired(self) -> bool:
        """The resourceVersion is too old: list again."""
        return self.status == 410

    @property
    def transient(self) -> bool:
        """The server could not be asked, or asked to be left alone for a while."""
        return self.status in (0, 408, 429) or self.status >= 500


_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}


def error_from_answer(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error in an API server's answer: a `Status` object, or whatever a proxy in between wrote."""
    reason, message = "", ""
    details: Mapping[str, Any] = {}
    try:
        parsed = json.loads(body)
        if isinstance(parsed, dict):
            reason = str(parsed.get("reason") or "")
            message = str(parsed.get("message") or "")
            details = parsed.get("details") or {}
    except ValueError:
        pass
    seconds = str(retry_after or details.get("retryAfterSeconds") or "")
    return ApiError(
        status,
        reason or _REASONS.get(status, f"Http{status}"),
        message or body[:500].decode(errors="replace").strip() or "the API server gave no message",
        details=details,
        retry_after=float(seconds) if seconds.isdigit() else None,
    )
