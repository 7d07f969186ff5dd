"""A local HTTP server that stands for a receiver: it keeps every request, and fails as configured."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


class Receiver:
    """A server on its own port on loopback.

        with Receiver() as receiver:
            receiver.answers.append(status(503))
            …
            assert [request.path for request in receiver.requests] == […]

    Attributes:
        requests: every request so far.
        answers: the answers to the next requests, each used once.
        otherwise: the answer to all other requests.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answers: list[Answer] = []
        self.otherwise: Answer = status(200)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join()

    @property
    def host(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://{self.host}"


class Exchange:
    """A request that waits for its answer."""

    def __init__(self, request: Received, connection: socket.socket, stopping: threading.Event) -> None:
        self.request = request
        self.connection = connection
        self.stopping = stopping

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(data)

    def wait(self, seconds: float) -> None:
        """Wait that long, or until the server stops."""
        self.stopping.wait(seconds)


Answer = Callable[[Exchange], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with this status; `_` in the name of a header stands for `-`."""
    lines = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return lambda exchange: exchange.send(f"HTTP/1.1 {code} Answered\r\n{head}\r\n".encode() + body)


def hang() -> Answer:
    """Never answer."""
    return lambda exchange: exchange.wait(60)


def late(seconds: float, answer: Answer) -> Answer:
    """Answer after some time."""

    def wait_and_answer(exchange: Exchange) -> None:
        exchange.wait(seconds)
        answer(exchange)

    return wait_and_answer


def cut(after: bytes = b"HTTP/1.1 2") -> Answer:
    """Close the connection after the beginning of an answer."""
    return lambda exchange: exchange.send(after)


def drip(interval: float) -> Answer:
    """Answer one byte after another, for a minute at most."""

    def answer(exchange: Exchange) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * int(60 / interval):
            if exchange.stopping.is_set():
                return
            exchange.send(bytes([byte]))
            exchange.wait(interval)

    return answer


class _Server(http.server.ThreadingHTTPServer):
    """A server with one thread a connection; it waits for all of them when it stops."""

    daemon_threads = False

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about clients that went away or that speak TLS."""

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Keep the request and answer it as configured."""
        parts = urlsplit(self.path)
        request = Received(
            method=self.command,
            path=parts.path,
            query=parse_qsl(parts.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("content-length") or 0)),
        )
        receiver = self.server.receiver
        receiver.requests.append(request)
        answer = receiver.answers.pop(0) if receiver.answers else receiver.otherwise
        answer(Exchange(request, self.connection, self.server.stopping))
        self.close_connection = True

    do_POST = do_CONNECT = do_GET  # noqa: N815 - the standard library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""
