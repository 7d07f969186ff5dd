"""One HTTP request to a receiver, retried where that may help: it is delivered, or raises `Undelivered`.

The whole address of a receiver may be a secret, as with a webhook, so only its origin is ever shown. For the same
reason urllib3 does not retry by itself, which would log the path, and does not follow redirects.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from contextlib import closing
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
    from urllib.parse import SplitResult

CONNECT_TIMEOUT = 3.0
"""Seconds."""
READ_TIMEOUT = 5.0
"""Seconds without a byte."""
ATTEMPTS = 3
"""How often a request is tried."""
LATEST_ATTEMPT = 8.0
"""Seconds after which no further attempt begins."""

PORTS = {"http": 80, "https": 443}

# urllib3 logs the whole address when a response has broken headers
logging.getLogger("urllib3").propagate = False


class WrongAddress(Failure):
    """A receiver's address is not valid. The message does not show it: it may be a secret."""

    exit_code = 64


class _Transient(Undelivered):
    """The receiver could not be notified now; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a receiver."""

    origin: str
    """Scheme, host and port: the part that may be shown."""
    _path: str = field(repr=False)
    _query: str = field(repr=False)
    _authorization: dict[str, str] = field(repr=False)

    @classmethod
    def at(cls, url: str, whose: str) -> Endpoint:
        """Return the endpoint for an http or https address, which may contain a user name and password.

        Raises:
            WrongAddress: `url` is not valid; the message says `whose` it is.
        """
        text = url.strip()
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if not host or parts.scheme not in PORTS or not text.isprintable() or " " in text:
            raise WrongAddress(
                f"The address of the {whose} is not valid, so nobody would be notified.",
                "Write it as https://host/path, or https://user:password@host/path.",
            )
        shown = f"[{host}]" if ":" in host else host
        origin = f"{parts.scheme}://{shown}:{PORTS[parts.scheme] if port is None else port}"
        return cls(origin, parts.path.rstrip("/"), parts.query, basic_authorization(parts))

    def send(
        self,
        method: str,
        path: str = "",
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        content_type: str = "text/plain; charset=utf-8",
        attempts: int = ATTEMPTS,
        max_bytes: int = 0,
    ) -> bytes:
        """Send a request and return the first `max_bytes` of the response.

        Path and query follow those of the address. It is tried again without a connection or response, at 429 and 5xx.

        Raises:
            Undelivered: the response was not 2xx.
        """
        queries = "&".join(filter(None, (self._query, urlencode(query))))
        target = "?".join(filter(None, (self.origin + self._path + path, queries)))
        headers = {"User-Agent": f"reconciler/{__version__}"} | self._authorization
        if body is not None:
            headers["Content-Type"] = content_type
        retries = stamina.retry_context(
            on=_Transient, attempts=attempts, timeout=LATEST_ATTEMPT, wait_initial=0.2, wait_jitter=0.2, wait_max=2.0
        )
        for attempt in retries:
            with attempt:
                return self._try(method, target, body, headers, max_bytes)
        raise AssertionError

    def _try(self, method: str, target: str, body: bytes | None, headers: dict[str, str], max_bytes: int) -> bytes:
        """Send the request once."""
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
                with closing(response):
                    self._raise_unless_ok(response.status)
                    return response.read(max_bytes) if max_bytes else b""
        except urllib3.exceptions.SSLError as error:
            raise Undelivered(f"No secure connection to {self.origin}: {error}.") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Transient(f"{self.origin} was not reached: {reason_unreached(error)}.") from None

    def _raise_unless_ok(self, status: int) -> None:
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        answer = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Transient(f"{self.origin} answered {answer}.")
        raise Undelivered(f"{self.origin} answered {answer}.")


def basic_authorization(url: SplitResult) -> dict[str, str]:
    """Return the header for the user name and password in an address; empty if it has none."""
    if url.username is None:
        return {}
    credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def reason_unreached(error: Exception) -> str:
    """Return why a request failed, in our own words: an error of urllib3 may quote the address."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if text := getattr(cause, "strerror", None):
        return str(text)
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the address is not valid" if isinstance(error, ValueError) else "the connection was cut"
