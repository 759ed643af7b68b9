"""Times of cron expressions, in a time zone. Pure; the zones are the machine's, or the tzdata package's."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


def is_time_zone(name: str) -> bool:
    """Whether the IANA database has it."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database, e.g. "Europe"
        return False
    return True


def is_cron(expression: str) -> bool:
    """Whether there is such a time: hours end at 23, and no month has 31 days of February."""
    try:
        next(CronSim(expression, datetime(2024, 1, 1)))
    except (CronSimError, StopIteration):
        return False
    return True


def last_time(expression: str, time_zone: str, moment: float) -> float:
    """When it last was so, at `moment` at the latest, both in unix seconds; -inf: not for 50 years."""
    return _last(expression, time_zone, int(moment // 60))


@lru_cache(maxsize=4096)
def _last(expression: str, time_zone: str, minute: int) -> float:
    after = datetime.fromtimestamp(minute * 60, ZoneInfo(time_zone)) + timedelta(minutes=1)
    found = next(CronSim(expression, after, reverse=True), None)
    return found.timestamp() if found is not None else float("-inf")
