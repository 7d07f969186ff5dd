"""When `serve` runs: an interval or a cron expression, as triggers of APScheduler."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

if TYPE_CHECKING:
    from datetime import datetime, timedelta, tzinfo

MAX_TICKS = 100
"""Ticks of a cron expression that are searched for the longest wait."""

FIELDS = ("minute", "hour", "day", "month", "day of the week")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Trigger(Protocol):
    """When runs are due."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return when the next run is due."""


def make_trigger(*, every: timedelta, cron: str | None, timezone: tzinfo, jitter: timedelta) -> Trigger:
    """Return a trigger for an interval, or for the five fields of a crontab; each run is late by up to the jitter.

    Raises:
        ValueError: the cron expression is not valid.
    """
    late: dict[str, Any] = {"timezone": timezone, "jitter": jitter.total_seconds() or None}
    trigger: Trigger
    if cron is None:
        trigger = IntervalTrigger(seconds=every.total_seconds(), **late)
    else:
        fields = cron.split()
        if len(fields) != len(FIELDS):
            raise ValueError(f"it has {len(fields)} of the five fields: {', '.join(FIELDS)}")
        minute, hour, day, month, weekday = fields
        if day != "*" and weekday != "*":
            # crontab runs when either matches, APScheduler when both do: refuse rather than surprise
            raise ValueError("it names both a day of the month and a day of the week")
        # APScheduler counts the days of the week from Monday
        trigger = CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), **late)
    return trigger


def longest_wait(trigger: Trigger, now: datetime) -> timedelta:
    """Return the longest time between two consecutive ticks of a trigger, looking ahead from `now`.

    Raises:
        ValueError: it has fewer than two ticks.
    """
    ticks: list[datetime] = []
    tick = trigger.get_next_fire_time(None, now)
    while tick is not None and len(ticks) < MAX_TICKS:
        ticks.append(tick)
        tick = trigger.get_next_fire_time(tick, tick)
    waits = [after - before for before, after in pairwise(ticks)]
    if not waits:
        raise ValueError("it names no time that comes again")
    return max(waits)


def _weekdays(field: str) -> str:
    """Translate crontab's days of the week, where Sunday is 0 or 7, to the names that APScheduler knows."""
    days: set[int] = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (0, 6) if first == "*" else (_weekday(first), _weekday(last or (first if not step else "6")))
        by = _whole(step or "1")
        if not by or start > end or end > len(WEEKDAYS):
            raise ValueError(f"{part!r} is not a day of the week")
        days.update(day % 7 for day in range(start, end + 1, by))
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def _weekday(name: str) -> int:
    return WEEKDAYS.index(name) if name in WEEKDAYS else _whole(name)


def _whole(number: str) -> int:
    if not number.isdecimal():
        raise ValueError(f"{number!r} is not a day of the week")
    return int(number)
