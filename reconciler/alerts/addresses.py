"""Addresses of receivers and of the proxies before them: parsed, and never shown with their secrets."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import urllib3

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

PORTS = {"http": 80, "https": 443}
ANSWERED = "it answered "
"""How a reason begins that a proxy gave."""

_CREDENTIALS = "does its address contain the right user name and password?"
_REST = "is the rest of its address, which is not shown, the right one?"
REMEDIES: dict[int, str] = {
    400: "its log says why.",
    401: _CREDENTIALS,
    403: _CREDENTIALS,
    404: _REST,
    405: _REST,
    407: "does the address of the proxy contain the right user name and password?",
    410: _REST,
}
"""What to look at where a receiver refuses a message."""


class WrongAddress(Failure):
    """A receiver's address is not valid. The message does not show it: it may be a secret."""

    exit_code = 64


def parsed(address: str) -> tuple[str, SplitResult] | None:
    """Return scheme, host and port of an http or https address, which may be shown, and its parts; None if invalid."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in PORTS or not address.isprintable() or " " in address:
        return None
    # an unescaped / # or ? ends a password early, and the rest of it would be shown as a host
    if "@" in parts.path + parts.query + parts.fragment:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{PORTS[parts.scheme] if port is None else port}", parts


def basic_credentials(url: SplitResult) -> str:
    """Return the user name and password in an address as a header's value; empty if it has none."""
    if url.username is None:
        return ""
    credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {b64encode(credentials.encode()).decode()}"


def status_text(status: int) -> str:
    """Return an HTTP status with its name."""
    return f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)


def refusal(status: int, way: str) -> str:
    """Return what a receiver answered by the `way` to it, as the end of a sentence, and what to look at."""
    return f"answered {status_text(status)}{way}" + (f": {REMEDIES[status]}" if status in REMEDIES else ".")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that an environment variable names."""

    origin: str
    """Scheme, host and port: the part that may be shown."""
    variable: str
    _headers: dict[str, str] = field(repr=False)

    @classmethod
    def at(cls, address: str, variable: str) -> Proxy:
        """Return the proxy at an address, which may contain a user name and password and lack its scheme.

        Raises:
            WrongAddress: it is not valid, or of another kind.
        """
        found = parsed(address if "://" in address else f"http://{address}")
        if found is None:
            raise WrongAddress(
                f"{variable} is not the address of an HTTP proxy, so nobody could be notified.",
                f"Write it as http://host:port or http://user:password@host:port, or unset {variable} for this "
                "program: NO_PROXY names the hosts that are reached without it.",
            )
        origin, parts = found
        credentials = basic_credentials(parts)
        return cls(origin, variable, {"Proxy-Authorization": credentials} if credentials else {})

    def pool(self) -> urllib3.PoolManager:
        """Return connections through it."""
        return urllib3.ProxyManager(self.origin, proxy_headers=self._headers)

    def failure(self, error: Exception, to: str) -> str:
        """Return why a message to a receiver did not pass it: an error of urllib3, or the status that it answered."""
        reason = reason_unreached(error)
        if reason.startswith(ANSWERED):
            return f"The {self} did not let a message to {to} through: {reason}."
        return f"The {self} was not reached: {reason}."

    def __str__(self) -> str:
        """Return how it is named in a message."""
        return f"proxy {self.origin} (of {self.variable})"


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that the environment names, and the hosts that are reached without one."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    without: str = ""
    """The value of NO_PROXY."""

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> Proxies:
        """Return the proxies of an environment, as `urllib.request.getproxies_environment` reads it.

        Raises:
            WrongAddress: one of them is not valid.
        """
        by_scheme = {
            scheme: Proxy.at(environment[scheme], f"{scheme.upper()}_PROXY")
            for scheme in PORTS
            if environment.get(scheme)
        }
        return cls(by_scheme, environment.get("no", ""))

    def before(self, url: SplitResult) -> Proxy | None:
        """Return the proxy between this machine and the host of an address, or None."""
        proxy = self.by_scheme.get(url.scheme)
        return None if proxy is None or self._is_direct(url.hostname or "", url.port or PORTS[url.scheme]) else proxy

    def _is_direct(self, host: str, port: int) -> bool:
        """Return whether a host is reached without a proxy: this machine, and what NO_PROXY names or contains."""
        names = [name for name in re.split(r"[\s,]+", self.without) if name]
        if host == "localhost" or "*" in names:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return any(_ends_in(name, host, port) for name in names)
        return address.is_loopback or any(_contains(name, host, port) for name in names)


def _ends_in(name: str, host: str, port: int) -> bool:
    """Return whether a name in NO_PROXY is this host or a domain that it is in, with its port or without."""
    domain = name.lower().removeprefix("*").lstrip(".")
    return any(f".{known}".endswith(f".{domain}") for known in (host, f"{host}:{port}"))


def _contains(name: str, host: str, port: int) -> bool:
    """Return whether a name in NO_PROXY is this IP address, with its port or without, or a network with it."""
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        return name.replace("[", "").replace("]", "") in {host, f"{host}:{port}"}


def reason_unreached(error: Exception) -> str:
    """Return why a request failed, in our own words: an error of urllib3 may quote the address."""
    if isinstance(error, urllib3.exceptions.ProxyError):
        error = error.original_error
    if refused := re.match(r"Tunnel connection failed: (\d{3})", str(error)):
        return ANSWERED + status_text(int(refused[1]))
    cause = error if isinstance(error, OSError) else error.__cause__
    if text := getattr(cause, "strerror", None):
        return str(text)
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the address is not valid" if isinstance(error, ValueError) else "the connection was cut"
