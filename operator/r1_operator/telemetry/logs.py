"""Logging: one JSON object a line where a machine reads it, plain lines where a person does."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["json", "plain"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, whatever was given as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: str = "info", format: Format | None = None, stream: TextIO = sys.stderr) -> None:
    """Log everything of `level` and above to `stream`; by default plain on a terminal and JSON elsewhere.

    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r}: must be debug, info, warning or error")
    handler = logging.StreamHandler(stream)
    chosen = format or ("plain" if stream.isatty() else "json")
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if chosen == "json" else plain)
    logging.basicConfig(level=number, handlers=[handler], force=True)
    # These tell of every connection.
    for chatty in ("aiohttp", "asyncio", "kubernetes"):
        logging.getLogger(chatty).setLevel(max(number, logging.INFO))
