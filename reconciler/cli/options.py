"""Every setting, declared once: as an option, as a variable, with its default and its meaning."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import durationpy

from reconciler.core.errors import Failure
from reconciler.core.model import FallbackDating
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")
_Decorator = TypeVar("_Decorator", bound="Callable[..., Any]")

DATABASE_URL = "DATABASE_URL"
NOTIFY_URLS = "RECONCILER_NOTIFY_URLS"
HEARTBEAT_URL = "RECONCILER_HEARTBEAT_URL"
"""Secrets come from the environment only: options show in the list of processes."""
MAX_DURATION = timedelta(days=30)


class WrongSettings(Failure):
    """A setting is missing or wrong."""

    exit_code = 64


class Duration(click.ParamType[timedelta]):
    """A length of time as 60s, 5m or 1h30m."""

    name = "duration"

    def __init__(self, shortest: timedelta = timedelta()) -> None:
        self.shortest = shortest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration: between the shortest one and `MAX_DURATION`."""
        if isinstance(value, timedelta):
            return value
        try:
            duration: timedelta = durationpy.from_str(value)
        except (durationpy.DurationError, OverflowError):
            self.fail(f"{value!r} is not a duration; write it as 60s, 5m or 1h30m.", param, ctx)
        if not self.shortest <= duration <= MAX_DURATION:
            shortest = f"{self.shortest.total_seconds():g}s"
            self.fail(f"{value!r} is not between {shortest} and {MAX_DURATION.days} days.", param, ctx)
        return duration


class Percent(click.FloatRange):
    """A share from 0 to 100; NaN is refused."""

    def __init__(self) -> None:
        super().__init__(0, 100)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share."""
        share: float = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value!r} is not a percentage.", param, ctx)
        return share


class Member(click.Choice[_Value]):
    """A member of a StrEnum, given by its value."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's signature
        """Return the value; click itself would take the name."""
        return str(choice)


class TimeZone(click.ParamType[ZoneInfo]):
    """A time zone as Europe/Zurich."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """Return the zone."""
        try:
            return ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is not a known time zone; write it as Europe/Zurich.", param, ctx)


class Month(click.ParamType[date]):
    """A UTC month as 2026-05."""

    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the month's first day."""
        if isinstance(value, date):
            return value
        # the following month must be a date too
        if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", value) or not 0 < int(value[:4]) < date.max.year:
            self.fail(f"{value!r} is not a month; write it as 2026-05.", param, ctx)
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
        # the following day must be a date too
        if day == date.max or value != day.isoformat():
            self.fail(f"{value!r} is not a day; write it as 2026-05-01.", param, ctx)
        return day


class Address(click.ParamType[tuple[str, int]]):
    """An address to listen on: host:port, [::]:port or :port."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdecimal() or int(port) >= 2**16:
            self.fail(f"{value!r} is not an address; write it as 127.0.0.1:8080 or :8080.", param, ctx)
        return host.strip("[]"), int(port)


class Words(click.ParamType[str]):
    """Text that is not empty and that PostgreSQL can store."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without blanks around it."""
        words = str(value).strip()
        try:
            words.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not text in UTF-8.", param, ctx)
        if not words or "\0" in words:
            self.fail("it contains a NUL character." if words else "it is empty.", param, ctx)
        return words


class Until(click.ParamType[datetime]):
    """A UTC day, to its end, or an instant with its offset."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant in UTC; for a day, the start of the next one."""
        if isinstance(value, datetime):
            return value
        try:
            if len(value) == len("2026-12-31"):
                return datetime.combine(date.fromisoformat(value), time(), UTC) + timedelta(days=1)
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is None:
                self.fail(f"{value!r} has no offset; write it as 2026-12-31T18:00Z.", param, ctx)
            return instant.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write a UTC day as 2026-12-31, or 2026-12-31T18:00Z.", param, ctx)


def _setting(name: str, **attributes: Any) -> Callable[[_Decorator], _Decorator]:
    variable = "RECONCILER_" + name.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **attributes)


def _option(name: str, **attributes: Any) -> dict[str, Any]:
    """Return the metadata of a field that this option sets."""
    return {"option": _setting(name, **attributes)}


TENANTS = _setting(
    "--tenants",
    metavar="PATH",
    help="Read the tenants from a YAML or JSON file or folder, as kubectl prints them; - is standard input.",
)
SETTLE = _setting(
    "--settle",
    type=Duration(),
    default="60s",
    help="How long after a change the portal may still write its row: newer drift is rechecked.",
)
DEADLINE = _setting(
    "--deadline", type=Duration(), default="4m", help="Give up after this time; nothing has been written then."
)
OUTPUT = _setting("--output", type=click.Choice(["table", "json"]), default="table", help="Format of standard output.")
OUTPUT_OR_CSV = _setting(
    "--output", type=click.Choice(["table", "csv", "json"]), default="table", help="Format of standard output."
)
DETAILED_EXITCODE = _setting("--detailed-exitcode", is_flag=True, help="Exit 2 if drift was found or corrected.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where the tenants are, and how they are read."""

    kubeconfig: str | None = field(
        metadata=_option(
            "--kubeconfig", metavar="PATH", help="Kubeconfig; by default the pod's own account, or kubectl's default."
        )
    )
    context: str | None = field(metadata=_option("--context", help="Context in the kubeconfig."))
    group: str = field(metadata=_option("--group", default="pieced.ch", help="API group of the custom resource."))
    plural: str = field(
        metadata=_option("--plural", default="piecedtenants", help="Plural name of the custom resource.")
    )
    org_label: str = field(
        metadata=_option(
            "--org-label", default="pieced.ch/zitadel-org-id", help="Label that names the paying organisation."
        )
    )
    page_size: int = field(
        metadata=_option("--page-size", type=click.IntRange(1, 10_000), default=500, help="Tenants per page of a list.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetySettings:
    """What a run may correct, and how long it may take."""

    settle: timedelta = field(metadata={"option": SETTLE})
    uncertain: FallbackDating = field(
        metadata=_option(
            "--uncertain",
            type=Member(FallbackDating),
            default=FallbackDating.CUSTOMER.value,
            help="How a change without evidence is dated: in the customer's favour, or at the time of observation.",
        )
    )
    limit_count: int = field(
        metadata=_option(
            "--limit-count",
            type=click.IntRange(0),
            default=3,
            help="Refuse to correct more tenants than this for one reason …",
        )
    )
    limit_percent: float = field(
        metadata=_option(
            "--limit-percent",
            type=Percent(),
            default=10.0,
            help="… or than this percentage of the open tenants, whichever allows more.",
        )
    )
    deadline: timedelta = field(metadata={"option": DEADLINE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What an operator lets a single run do."""

    allow_mass: tuple[Reason, ...] = field(
        default=(),
        metadata=_option(
            "--allow-mass",
            type=Member(Reason),
            multiple=True,
            metavar="REASON",
            help="Let this reason exceed the limit, after you have checked the plan. May be repeated.",
        ),
    )
    accept_source: bool = field(
        default=False,
        metadata=_option("--accept-source", is_flag=True, help="Follow this cluster, or a restored one, from now on."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Who is notified of a run."""

    every: timedelta = field(
        metadata=_option(
            "--every",
            type=Duration(timedelta(seconds=1)),
            default="5m",
            help="Time between runs. Alerts end, and serve is unhealthy, after three times that without a success.",
        )
    )
    job_name: str = field(
        metadata=_option(
            "--job-name", default="reconciler", help="Name of this installation in alerts and pushed metrics."
        )
    )
    alertmanager: tuple[str, ...] = field(
        metadata=_option(
            "--alertmanager",
            multiple=True,
            metavar="URL",
            help="Alertmanager to notify of drift. May be repeated, once for each member of a cluster.",
        )
    )
    pushgateway: str | None = field(
        metadata=_option(
            "--pushgateway",
            metavar="URL",
            help="Pushgateway that run pushes its metrics to. Use the variable if the address contains a password.",
        )
    )
    events: bool = field(
        metadata=_option(
            "--events/--no-events",
            default=True,
            help="Whether the tenants get Kubernetes Events, which kubectl describe shows.",
        )
    )
    notify_urls: tuple[str, ...] = field(
        default_factory=lambda: tuple(os.environ.get(NOTIFY_URLS, "").split()), repr=False
    )
    heartbeat_url: str = field(default_factory=lambda: os.environ.get(HEARTBEAT_URL, ""), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """When `serve` runs, and where it listens."""

    cron: str | None = field(
        metadata=_option("--cron", metavar="EXPRESSION", help="When to run, as in crontab; replaces --every.")
    )
    time_zone: ZoneInfo = field(
        metadata=_option("--time-zone", type=TimeZone(), default="UTC", help="Time zone of the cron expression.")
    )
    jitter: timedelta = field(
        metadata=_option("--jitter", type=Duration(), default="0s", help="Delay each run by a random time up to this.")
    )
    listen: tuple[str, int] = field(
        metadata=_option(
            "--listen", type=Address(), default="0.0.0.0:8080", help="Where /metrics and /healthz are served."
        )
    )


def options(**groups: type[Any]) -> Callable[[Callable[..., _Value]], Callable[..., _Value]]:
    """Give a command the options of these dataclasses, in this order.

    Args:
        groups: a dataclass of settings for each parameter of the command: it is passed one value of it.
    """
    declared = {
        name: {one.name: one.metadata["option"] for one in fields(group) if "option" in one.metadata}
        for name, group in groups.items()
    }

    def give(command: Callable[..., _Value]) -> Callable[..., _Value]:
        @wraps(command)
        def call(**values: Any) -> _Value:
            made = {
                name: groups[name](**{option: values.pop(option) for option in of_group})
                for name, of_group in declared.items()
            }
            return command(**made, **values)

        for option in reversed([option for of_group in declared.values() for option in of_group.values()]):
            call = option(call)
        return call

    return give


def database_url() -> str:
    """Return the connection string of the ledger.

    Raises:
        WrongSettings: the environment does not set one.
    """
    url = os.environ.get(DATABASE_URL, "")
    if not url:
        raise WrongSettings(
            "DATABASE_URL is not set, so there is no ledger to work on.",
            "Set it to postgresql://user:password@host:5432/dbname. To try the reconciler without a database, "
            "run `reconciler demo`.",
        )
    return url
