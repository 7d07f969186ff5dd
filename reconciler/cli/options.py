"""Every setting, declared once: as an option, as a variable, with its default and its meaning."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from functools import wraps
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform
from urllib.request import getproxies_environment
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


class Percent(click.FloatRange):
    """A share; NaN, which no range excludes, is refused."""

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


# What follows is given to click as types: a function's name is shown in the help, and its ValueError is the message.


def duration(given: str, shortest: timedelta = timedelta()) -> timedelta:
    """Parse a length of time such as 60s, 5m or 1h30m."""
    try:
        parsed: timedelta = durationpy.from_str(given)
    except (durationpy.DurationError, OverflowError):
        raise ValueError(f"{given!r} is not a duration; write it as 60s, 5m or 1h30m.") from None
    if not shortest <= parsed <= MAX_DURATION:
        raise ValueError(f"{given!r} is not between {shortest.total_seconds():g}s and {MAX_DURATION.days} days.")
    return parsed


def period(given: str) -> timedelta:
    """Parse a duration of at least a second."""
    return duration(given, timedelta(seconds=1))


def zone(given: str) -> ZoneInfo:
    """Parse the name of a time zone such as Europe/Zurich."""
    try:
        return ZoneInfo(given)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{given!r} is not a known time zone; write it as Europe/Zurich.") from None


def month(given: str) -> date:
    """Parse a UTC month such as 2026-05; return its first day."""
    # the following month must be a date too
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", given) or not 0 < int(given[:4]) < date.max.year:
        raise ValueError(f"{given!r} is not a month; write it as 2026-05.")
    return date.fromisoformat(f"{given}-01")


def day(given: str) -> date:
    """Parse a UTC day such as 2026-05-01."""
    try:
        parsed = date.fromisoformat(given)
    except ValueError:
        parsed = date.max
    # the following day must be a date too, and Python also reads 20260501
    if parsed == date.max or given != str(parsed):
        raise ValueError(f"{given!r} is not a day; write it as 2026-05-01.")
    return parsed


def until(given: str) -> datetime:
    """Parse an instant with its offset, or a UTC day, which stands for the start of the next one."""
    return _instant(given, of_day=timedelta(days=1))


def since(given: str) -> datetime:
    """Parse an instant with its offset, or a UTC day, which stands for its start."""
    return _instant(given, of_day=timedelta())


def _instant(given: str, *, of_day: timedelta) -> datetime:
    try:
        if len(given) == len("2026-12-31"):
            return datetime.combine(date.fromisoformat(given), time(), UTC) + of_day
        instant = datetime.fromisoformat(given)
        if instant.tzinfo:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{given!r} is not a time; write a UTC day as 2026-12-31, or 2026-12-31T18:00Z.") from None
    raise ValueError(f"{given!r} has no offset; write it as 2026-12-31T18:00Z.")


def address(given: str) -> tuple[str, int]:
    """Parse an address to listen on: host:port, [::]:port or :port."""
    host, colon, port = given.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) >= 2**16 or re.search(r"[\s/@\[\]]", bare):
        raise ValueError(f"{given!r} is not an address; write it as 127.0.0.1:8080, [::]:8080 or :8080.")
    if (":" in bare) != (bare != host) or (bare != host and not _is_ipv6(bare)):
        raise ValueError(f"{given!r} is not an address; write one of IPv6 in brackets, as [::1]:8080.")
    return bare, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def text(given: str) -> str:
    """Return text without blanks around it, if it is not empty and PostgreSQL can store it."""
    words = given.strip()
    try:
        words.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{given!r} is not text in UTF-8.") from None
    if not words or "\0" in words:
        raise ValueError("it contains a NUL character." if words else "it is empty.")
    return words


def _setting(name: str, meaning: str, *, off: str = "", **attributes: Any) -> Callable[[_Decorator], _Decorator]:
    """Return the option of this name, which a variable can set, too; `off` is the flag that switches it off."""
    option, variable = "--" + name.replace("_", "-") + off, f"RECONCILER_{name.upper()}"
    return click.option(option, help=meaning, envvar=variable, show_envvar=True, show_default=True, **attributes)


def _option(meaning: str, **attributes: Any) -> Any:
    """Return a dataclass field that the option of its name sets."""
    return field(metadata={"meaning": meaning, **attributes})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_option, field))
def _group(settings: type[_Value]) -> type[_Value]:
    """Make a class of settings a frozen dataclass."""
    return dataclass(frozen=True, slots=True, kw_only=True)(settings)


def _declared(group: type[Any]) -> dict[str, Callable[[_Decorator], _Decorator]]:
    """Return the options of a group by the names of its fields; a field without one reads a secret."""
    return {one.name: _setting(one.name, **one.metadata) for one in fields(group) if one.metadata}


@_group
class ClusterSettings:
    """Where the tenants are, and how they are read."""

    kubeconfig: str | None = _option(
        "Kubeconfig; by default the pod's own account, or kubectl's default.", metavar="PATH"
    )
    context: str | None = _option("Context in the kubeconfig.")
    group: str = _option("API group of the custom resource.", default="pieced.ch")
    plural: str = _option("Plural name of the custom resource.", default="piecedtenants")
    org_label: str = _option("Label that names the paying organisation.", default="pieced.ch/zitadel-org-id")
    page_size: int = _option("Tenants per page of a list.", type=click.IntRange(1, 10_000), default=500)


@_group
class SafetySettings:
    """What a run may correct, and how long it may take."""

    settle: timedelta = _option(
        "How long after a change the portal may still write its row: newer drift is rechecked, and not yet verified.",
        type=duration,
        default="60s",
    )
    uncertain: FallbackDating = _option(
        "How a change without evidence is dated: in the customer's favour, or at the time of observation.",
        type=Member(FallbackDating),
        default=FallbackDating.CUSTOMER.value,
    )
    limit_count: int = _option(
        "Tenants that a run may correct for one reason, if --limit-percent does not allow more.",
        type=click.IntRange(0),
        default=3,
    )
    limit_percent: float = _option(
        "Percentage of the open tenants that a run may correct for one reason, if --limit-count does not allow more.",
        type=Percent(0, 100),
        default=10.0,
    )
    full_every: timedelta = _option(
        "How often all tenants are listed and compared. Runs in between read only what has changed, where the API "
        "server's change log reaches back to the run before. With 0s every run compares all.",
        type=duration,
        default="0s",
    )
    deadline: timedelta = _option(
        "Give up after this time; nothing has been written then.", type=duration, default="4m"
    )


@_group
class Overrides:
    """What an operator lets a single run do."""

    allow_mass: tuple[Reason, ...] = _option(
        "Let this reason exceed the limit, after you have checked the plan. May be repeated.",
        type=Member(Reason),
        multiple=True,
        metavar="REASON",
    )
    accept_source: bool = _option("Follow this cluster, or a restored one, from now on.", is_flag=True)


@_group
class AlertSettings:
    """Who is notified of a run."""

    every: timedelta = _option(
        "Time between runs: of serve, or of the CronJob that starts run. Alerts end, and serve is unhealthy, after "
        "three times that without a success.",
        type=period,
        metavar="DURATION",
        default="5m",
    )
    job_name: str = _option("Name of this installation in alerts and pushed metrics.", default="reconciler")
    alertmanager: tuple[str, ...] = _option(
        "Alertmanager to notify of drift. May be repeated, once for each member of a cluster.",
        multiple=True,
        metavar="URL",
    )
    pushgateway: str | None = _option(
        "Pushgateway that run pushes its metrics to. Use the variable if the address contains a password.",
        metavar="URL",
    )
    events: bool = _option(
        "Whether the tenants get Kubernetes Events, which kubectl describe shows.", off="/--no-events", default=True
    )
    notify_urls: tuple[str, ...] = field(
        default_factory=lambda: tuple(os.environ.get(NOTIFY_URLS, "").split()), repr=False
    )
    heartbeat_url: str = field(default_factory=lambda: os.environ.get(HEARTBEAT_URL, ""), repr=False)
    proxies: dict[str, str] = field(default_factory=getproxies_environment, repr=False)
    """By scheme, and the value of NO_PROXY under `no`: whether the variables are written in upper or lower case."""


@_group
class ScheduleSettings:
    """When `serve` runs, and where it listens."""

    cron: str | None = _option("When to run, as in crontab; replaces --every.", metavar="EXPRESSION")
    time_zone: ZoneInfo = _option("Time zone of the cron expression.", type=zone, default="UTC")
    jitter: timedelta = _option("Delay each run by a random time up to this.", type=duration, default="0s")
    listen: tuple[str, int] = _option(
        "Where /metrics and /healthz are served.", type=address, metavar="HOST:PORT", default="0.0.0.0:8080"
    )


@_group
class OutputSettings:
    """How the outcome of a run is shown."""

    output: str = _option("Format of standard output.", type=click.Choice(["table", "json"]), default="table")
    detailed_exitcode: bool = _option("Exit 2 if drift was found or corrected.", is_flag=True)


SETTLE = _declared(SafetySettings)["settle"]
DEADLINE = _declared(SafetySettings)["deadline"]
TENANTS = _setting(
    "tenants",
    "Read the tenants from a YAML or JSON file or folder, as kubectl prints them; - is standard input.",
    metavar="PATH",
)
OUTPUT = _declared(OutputSettings)["output"]
OUTPUT_OR_CSV = _setting(
    "output", "Format of standard output.", type=click.Choice(["table", "csv", "json"]), default="table"
)


def options(**groups: type[Any]) -> Callable[[Callable[..., _Value]], Callable[..., _Value]]:
    """Give a command the options of these dataclasses, and pass it one value of each, under the name it has here."""
    declared = {name: _declared(group) for name, group in groups.items()}

    def give(command: Callable[..., _Value]) -> Callable[..., _Value]:
        @wraps(command)
        def call(**values: Any) -> _Value:
            for name, group in groups.items():
                values[name] = group(**{option: values.pop(option) for option in declared[name]})
            return command(**values)

        for of_group in reversed(declared.values()):
            for option in reversed(of_group.values()):
                call = option(call)
        return call

    return give


def database_url() -> str:
    """Return the connection string of the ledger; raise WrongSettings if the environment has none."""
    if url := os.environ.get(DATABASE_URL):
        return url
    raise WrongSettings(
        "DATABASE_URL is not set, so there is no ledger to work on.",
        "Set it to postgresql://user:password@host:5432/dbname. To try the reconciler without a database, "
        "run `reconciler demo`.",
    )
