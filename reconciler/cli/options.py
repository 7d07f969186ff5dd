"""Every setting, once: as an option, as a variable, with its default and its meaning."""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import durationpy

from reconciler.core.errors import Failure
from reconciler.core.model import FallbackDating
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")

DATABASE_URL = "DATABASE_URL"
NOTIFY_URLS = "RECONCILER_NOTIFY_URLS"
HEARTBEAT_URL = "RECONCILER_HEARTBEAT_URL"
"""What holds secrets is taken from the environment alone: options show in the list of processes."""
LONGEST = timedelta(days=30)


class WrongSettings(Failure):
    """A setting is missing or wrong."""

    exit_code = 64


class Duration(click.ParamType[timedelta]):
    """A length of time as 60s, 5m or 1h30m."""

    name = "duration"

    def __init__(self, shortest: timedelta = timedelta()) -> None:
        self.shortest = shortest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration: not shorter than the shortest, and at most `LONGEST`."""
        if isinstance(value, timedelta):
            return value
        try:
            duration: timedelta = durationpy.from_str(value)
        except (durationpy.DurationError, OverflowError):
            self.fail(f"{value!r} is no duration; write it as 60s, 5m or 1h30m.", param, ctx)
        if not self.shortest <= duration <= LONGEST:
            shortest = f"{self.shortest.total_seconds():g}s"
            self.fail(f"{value!r} is not between {shortest} and {LONGEST.days} days.", param, ctx)
        return duration


class Percent(click.FloatRange):
    """A share from 0 to 100; not the number that is none."""

    def __init__(self) -> None:
        super().__init__(0, 100)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share."""
        share: float = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value!r} is no share.", param, ctx)
        return share


class TimeZone(click.ParamType[ZoneInfo]):
    """A time zone as Europe/Zurich."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """Return the zone."""
        try:
            return ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone that is known here; write it as Europe/Zurich.", param, ctx)


class Month(click.ParamType[date]):
    """A UTC month as 2026-05."""

    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the month's first day."""
        if isinstance(value, date):
            return value
        # the month after it must be one too
        if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", value) or not 0 < int(value[:4]) < date.max.year:
            self.fail(f"{value!r} is no month; write it as 2026-05.", param, ctx)
        return date.fromisoformat(f"{value}-01")


class Day(click.ParamType[date]):
    """A UTC day as 2026-05-01."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day."""
        if isinstance(value, date):
            return value
        try:
            day = date.fromisoformat(value)
        except ValueError:
            day = date.max
        # the day after it must be one too
        if day == date.max or value != day.isoformat():
            self.fail(f"{value!r} is no day; write it as 2026-05-01.", param, ctx)
        return day


class Address(click.ParamType[tuple[str, int]]):
    """Where to listen: host:port, [::]:port or :port."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdecimal() or int(port) >= 2**16:
            self.fail(f"{value!r} is no address; write it as 127.0.0.1:8080 or :8080.", param, ctx)
        return host.strip("[]"), int(port)


class Words(click.ParamType[str]):
    """Text that says something, and that the ledger can keep."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without blanks around it."""
        words = str(value).strip()
        try:
            words.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is no text in UTF-8.", param, ctx)
        if not words or "\0" in words:
            self.fail("it says nothing." if not words else "it holds a NUL character.", param, ctx)
        return words


class Until(click.ParamType[datetime]):
    """A UTC day, up to its end, or an instant with its offset."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant in UTC, which is the first one after it."""
        if isinstance(value, datetime):
            return value
        try:
            if len(value) == len("2026-12-31"):
                return datetime.combine(date.fromisoformat(value), time(), UTC) + timedelta(days=1)
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is None:
                self.fail(f"{value!r} may be anywhere: write its offset, as 2026-12-31T18:00Z.", param, ctx)
            return instant.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write a UTC day as 2026-12-31, or 2026-12-31T18:00Z.", param, ctx)


def _setting(name: str, **attributes: Any) -> Callable[[_Command], _Command]:
    variable = "RECONCILER_" + name.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **attributes)


SNAPSHOT = (
    _setting(
        "--tenants",
        metavar="PATH",
        help="Read the tenants from a YAML or JSON file or folder, as kubectl prints them; - is standard input.",
    ),
)
CLUSTER = (
    _setting(
        "--kubeconfig", metavar="PATH", help="Kubeconfig; without it the pod's own account, or kubectl's default."
    ),
    _setting("--context", help="Context in the kubeconfig."),
    _setting("--group", default="pieced.ch", help="API group of the custom resource."),
    _setting("--plural", default="piecedtenants", help="Plural name of the custom resource."),
    _setting("--org-label", default="pieced.ch/zitadel-org-id", help="Label that names the paying organisation."),
    _setting("--page-size", type=click.IntRange(1, 10_000), default=500, help="Tenants in one page of the list."),
)
SETTLE = (
    _setting(
        "--settle",
        type=Duration(),
        default="60s",
        help="How long after a change the portal may still write its row: younger drift is looked at twice.",
    ),
)
DEADLINE = (_setting("--deadline", type=Duration(), default="4m", help="The pass ends by then, whatever happens."),)
SAFETY = (
    *SETTLE,
    _setting(
        "--uncertain",
        type=click.Choice([policy.value for policy in FallbackDating]),
        default=FallbackDating.CUSTOMER.value,
        help="How a change without evidence is dated: in the customer's favour, or at the time of observation.",
    ),
    _setting(
        "--limit-count",
        type=click.IntRange(0),
        default=3,
        help="Refuse to correct more tenants than this for one reason …",
    ),
    _setting(
        "--limit-percent",
        type=Percent(),
        default=10.0,
        help="… or than this share of the open tenants, whichever allows more.",
    ),
    *DEADLINE,
)
ONCE = (
    _setting(
        "--allow-mass",
        type=click.Choice([reason.value for reason in Reason]),
        multiple=True,
        metavar="REASON",
        help="Let this reason pass the limit, once you have looked at the plan. May be repeated.",
    ),
    _setting("--accept-source", is_flag=True, help="Follow this cluster from now on, or a restored one."),
)
ALERTS = (
    _setting(
        "--every",
        type=Duration(timedelta(seconds=1)),
        default="5m",
        help="How often passes are made. Alerts end, and serve is unhealthy, after three times that without a success.",
    ),
    _setting("--job-name", default="reconciler", help="What alerts and pushed metrics call this installation."),
    _setting(
        "--alertmanager",
        multiple=True,
        metavar="URL",
        help="Alertmanager that is told of drift. May be repeated, for each of a cluster.",
    ),
    _setting(
        "--pushgateway",
        metavar="URL",
        help="Pushgateway that run pushes its metrics to. Give the variable where the address has a password in it.",
    ),
    _setting(
        "--events/--no-events",
        default=True,
        help="Whether the tenants get Kubernetes Events, which kubectl describe shows.",
    ),
)
SCHEDULE = (
    _setting("--cron", metavar="EXPRESSION", help="When passes are made, as in crontab, in place of --every."),
    _setting("--time-zone", type=TimeZone(), default="UTC", help="What the cron expression is in."),
    _setting("--jitter", type=Duration(), default="0s", help="Each pass is late by a random time of at most this."),
    _setting("--listen", type=Address(), default="0.0.0.0:8080", help="Where /metrics and /healthz are."),
)
OUTPUT = (
    _setting("--output", type=click.Choice(["table", "json"]), default="table", help="What standard output shows."),
    _setting("--detailed-exitcode", is_flag=True, help="Exit 2 where drift was found or corrected."),
)
LINES = (
    _setting(
        "--output", type=click.Choice(["table", "csv", "json"]), default="table", help="What standard output shows."
    ),
)


def options(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[_Command], _Command]:
    """Give a command these settings, in their order."""

    def give(command: _Command) -> _Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return give


def database_url() -> str:
    """Return what names the ledger.

    Raises:
        WrongSettings: nothing does.
    """
    url = os.environ.get(DATABASE_URL, "")
    if not url:
        raise WrongSettings(
            "DATABASE_URL is not set: there is no ledger to work on.",
            "Set it to postgresql://user:password@host:5432/dbname. To see the reconciler at work without a database, "
            "run `reconciler demo`.",
        )
    return url
