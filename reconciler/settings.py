"""Every setting, once: as an option, as a variable, with its default and its meaning."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
import durationpy

from reconciler.model import Reason, Uncertain

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")

DATABASE_URL = "DATABASE_URL"
LONGEST = timedelta(days=30)


class Duration(click.ParamType[timedelta]):
    """A length of time as 60s, 5m or 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration: not negative, and at most `LONGEST`."""
        if isinstance(value, timedelta):
            return value
        try:
            duration: timedelta = durationpy.from_str(value)
        except (durationpy.DurationError, OverflowError):
            self.fail(f"{value!r} is no duration; write it as 60s, 5m or 1h30m.", param, ctx)
        if not timedelta() <= duration <= LONGEST:
            self.fail(f"{value!r} is not between 0s and {LONGEST.days} days.", param, ctx)
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


def _setting(name: str, **attributes: Any) -> Callable[[_Command], _Command]:
    variable = "RECONCILER_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **attributes)


SOURCE = (
    _setting(
        "--tenants",
        metavar="PATH",
        help="Read the tenants from a YAML or JSON file or folder, as kubectl prints them; - is standard input.",
    ),
    _setting(
        "--kubeconfig", metavar="PATH", help="Kubeconfig; without it the pod's own account, or kubectl's default."
    ),
    _setting("--context", help="Context in the kubeconfig."),
    _setting("--group", default="pieced.ch", help="API group of the custom resource."),
    _setting("--plural", default="piecedtenants", help="Plural name of the custom resource."),
    _setting("--org-label", default="pieced.ch/zitadel-org-id", help="Label that names the paying organisation."),
    _setting("--page-size", type=click.IntRange(1, 10_000), default=500, help="Tenants in one page of the list."),
)
SAFETY = (
    _setting(
        "--settle",
        type=Duration(),
        default="60s",
        help="How long after a change the portal may still write its row: younger drift is looked at twice.",
    ),
    _setting(
        "--uncertain",
        type=click.Choice([policy.value for policy in Uncertain]),
        default=Uncertain.CUSTOMER.value,
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
    _setting(
        "--allow-mass",
        type=click.Choice([reason.value for reason in Reason]),
        multiple=True,
        metavar="REASON",
        help="Let this reason pass the limit, once you have looked at the plan. May be repeated.",
    ),
    _setting("--accept-source", is_flag=True, help="Follow this cluster from now on, or a restored one."),
    _setting("--deadline", type=Duration(), default="4m", help="The pass ends by then, whatever happens."),
)
OUTPUT = (
    _setting("--output", type=click.Choice(["table", "json"]), default="table", help="What standard output shows."),
    _setting("--detailed-exitcode", is_flag=True, help="Exit 2 where drift was found or corrected."),
)


def options(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[_Command], _Command]:
    """Give a command these settings, in their order."""

    def give(command: _Command) -> _Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return give
