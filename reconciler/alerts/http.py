"""One HTTP request to who is told, tried again where that may help: delivered, or `Undelivered`.

The whole address of such a receiver may be a secret, as with a webhook. So no more of it than its origin is ever shown,
and urllib3 neither tries again by itself, which it would log with the path, nor follows a redirect to somewhere else.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode, urlsplit

import stamina
import urllib3

from reconciler import __version__
from reconciler.alerts import Undelivered
from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_TIMEOUT = 3.0
"""Seconds."""
READ_TIMEOUT = 5.0
"""Seconds without a byte."""
ATTEMPTS = 3
"""How often one request is tried."""
LATEST_ATTEMPT = 8.0
"""Seconds after which it is not tried again."""

PORTS = {"http": 80, "https": 443}

# it logs the whole address of whoever answers in broken headers
logging.getLogger("urllib3").propagate = False


class WrongAddress(Failure):
    """A receiver's address is none. It is not shown: it may be a secret."""

    exit_code = 64


class _Transient(Undelivered):
    """The receiver could not be told now, but perhaps in a moment."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a receiver is.

    Attributes:
        origin: scheme, host and port: all of it that may be shown.
    """

    origin: str
    _path: str = field(repr=False)
    _query: str = field(repr=False)
    _authorization: str | None = field(repr=False)

    @classmethod
    def at(cls, url: str, whose: str) -> Endpoint:
        """Return the endpoint of an address over http or https, with or without a name and password in it.

        Args:
            url: the address.
            whose: what the failure calls the receiver.

        Raises:
            WrongAddress: it is none.
        """
        text = url.strip()
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if not host or parts.scheme not in PORTS or not text.isprintable() or " " in text:
            raise WrongAddress(
                f"The address of the {whose} is none, so that nobody would be told.",
                "Write it as https://host/path, or https://user:password@host/path.",
            )
        shown = f"[{host}]" if ":" in host else host
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {b64encode(credentials.encode()).decode()}"
        origin = f"{parts.scheme}://{shown}:{PORTS[parts.scheme] if port is None else port}"
        return cls(origin, parts.path.rstrip("/"), parts.query, authorization)

    def send(
        self,
        method: str,
        path: str = "",
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        content_type: str = "text/plain; charset=utf-8",
        attempts: int = ATTEMPTS,
        largest: int = 0,
    ) -> bytes:
        """Send a request, and return the beginning of the answer.

        Args:
            method: GET or POST.
            path: what follows the address's own path.
            query: what follows the address's own query.
            body: what is sent.
            content_type: what the body is.
            attempts: how often it is tried, if there is no connection, no answer, a 429 or a 5xx.
            largest: how many bytes of the answer are wanted; the rest is not read.

        Raises:
            Undelivered: the answer was not 2xx.
        """
        target = "?".join(filter(None, (self.origin + self._path + path, "&".join(self._queries(query)))))
        headers = {"User-Agent": f"reconciler/{__version__}"}
        if body is not None:
            headers["Content-Type"] = content_type
        if self._authorization:
            headers["Authorization"] = self._authorization
        retries = stamina.retry_context(
            on=_Transient, attempts=attempts, timeout=LATEST_ATTEMPT, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        for attempt in retries:
            with attempt:
                return self._try(method, target, body, headers, largest)
        raise AssertionError

    def _queries(self, query: Sequence[tuple[str, str]]) -> Sequence[str]:
        return [part for part in (self._query, urlencode(query)) if part]

    def _try(self, method: str, target: str, body: bytes | None, headers: dict[str, str], largest: int) -> bytes:
        """Send it once."""
        try:
            with urllib3.PoolManager() as pool:
                response = pool.request(
                    method,
                    target,
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                try:
                    self._judge(response.status)
                    return response.read(largest) if largest else b""
                finally:
                    response.close()
        except urllib3.exceptions.SSLError as error:
            raise Undelivered(f"No secure connection to {self.origin}: {error}.") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Transient(f"{self.origin} was not reached: {_why(error)}.") from None

    def _judge(self, status: int) -> None:
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        said = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Transient(f"{self.origin} answered {said}.")
        raise Undelivered(f"{self.origin} answered {said}.")


def _why(error: Exception) -> str:
    """Return what is wrong in words of our own: an error of urllib3 may quote the address."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if said := getattr(cause, "strerror", None):
        return str(said)
    return "no answer in time" if isinstance(error, urllib3.exceptions.TimeoutError) else "the connection was cut"
