"""What can be wrong with an answer: small effects, and when they strike.

An effect takes the answer that would have been given and returns another. `server.faults` is searched in order for
every request; the first fault that is due strikes. Effects compose: `then(edit(…), cut_length())`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import threading

JSON: Final = "application/json"

_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(kw_only=True)
class Request:
    """One request as the server saw it."""

    method: str
    path: str
    verb: str = ""
    """`list`, `watch` or `get` where it is about tenants."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes = b""
    asked_at: float = field(default_factory=time.monotonic)
    """By the monotonic clock."""
    hung_up_after: float | None = None
    """Seconds until the client closed the connection, where it did so before the whole answer was out."""
    answered: int | None = None
    """The status that it was answered with; None while, or because, no status was sent."""
    ask: Callable[[Mapping[str, str]], Reply] = field(repr=False, compare=False)
    """What the server would answer to the same request with other query parameters."""

    @property
    def user_agent(self) -> str:
        """What the client calls itself."""
        return self.headers.get("user-agent", "")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    send: Send | None = None
    """How it goes out, if not whole and at once."""

    def with_headers(self, **headers: str) -> Reply:
        """The same with headers added; `_` stands for `-`."""
        return dataclasses.replace(
            self, headers={**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        )

    def head(self, *, length: bool = True, **headers: str) -> bytes:
        """The status line and the headers as bytes."""
        lines = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if length:
            lines["Content-Length"] = str(len(self.body))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'OK')}\r\n{text}\r\n".encode("latin-1")


@dataclass
class Wire:
    """The connection that an answer goes out on, and the client's patience on the other end."""

    socket: socket.socket
    stopping: threading.Event
    request: Request
    keep: bool = True
    """Whether the connection serves another request afterwards."""

    def write(self, data: bytes) -> None:
        """Send it all."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.request.hung_up_after = time.monotonic() - self.request.asked_at
            raise

    def wait(self, seconds: float | None) -> bool:
        """Let time pass (None: without end); False if the client hung up or the server stops meanwhile."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self.stopping.is_set():
            left = 0.05 if until is None else min(0.05, until - time.monotonic())
            if left <= 0:
                return True
            readable, _, _ = select.select([self.socket], [], [], left)
            if readable and not self._there():
                self.request.hung_up_after = time.monotonic() - self.request.asked_at
                return False
            if readable:
                self.stopping.wait(left)
        return False

    def reset(self) -> None:
        """Close it with RST, so that the client sees a connection reset and not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # before the server's own shutdown would say a polite end
        self.socket.close()
        self.keep = False

    def _there(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False


Send = Callable[[Wire, Reply], None]
Effect = Callable[[Reply, Request], Reply]
When = Callable[[Request], bool]


# when


def lists(request: Request) -> bool:
    """Whether it asks for a list of tenants: any page of it."""
    return request.verb == "list"


def first_pages(request: Request) -> bool:
    """Whether it asks for the first page of a list of tenants."""
    return lists(request) and "continue" not in request.query


def later_pages(request: Request) -> bool:
    """Whether it asks for a page after the first."""
    return lists(request) and "continue" in request.query


def gets(request: Request) -> bool:
    """Whether it asks for one tenant."""
    return request.verb == "get"


def watches(request: Request) -> bool:
    """Whether it asks for the change log."""
    return request.verb == "watch"


def path(text: str) -> When:
    """Whether its path is this one."""
    return lambda request: request.path == text


def anything(_: Request) -> bool:
    """Every request."""
    return True


@dataclass
class Fault:
    """An effect, and when it strikes."""

    effect: Effect
    when: When = lists
    skip: int = 0
    """How many requests that match pass first, whether or not another fault took them."""
    times: int | None = 1
    """How often it strikes; None: always."""
    seen: int = 0
    struck: int = 0

    def due(self, request: Request) -> bool:
        """Take note of a request, and say whether it is to be struck."""
        if not self.when(request):
            return False
        self.seen += 1
        return self.seen > self.skip and (self.times is None or self.struck < self.times)


def then(*effects: Effect) -> Effect:
    """One effect after the other."""
    return lambda reply, request: functools.reduce(lambda so_far, effect: effect(so_far, request), effects, reply)


# another answer


def status_body(code: int, message: str = "", *, reason: str | None = None, **metadata: Any) -> bytes:
    """The body of kind Status that a server sends with an error."""
    named = _REASONS.get(code, "Unknown") if reason is None else reason
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata,
        "status": "Failure",
        "message": message or named,
        "reason": named,
        "code": code,
    }
    return json.dumps(body).encode()


def status(
    code: int,
    message: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    content_type: str = JSON,
) -> Effect:
    """Answer with this status; the body is a Status unless another is given."""
    reply = Reply(
        status=code,
        body=status_body(code, message) if body is None else body,
        headers={"Content-Type": content_type, **(headers or {})},
    )
    return lambda old, _: dataclasses.replace(reply, headers={**_dated(old), **reply.headers})


def too_many_requests(retry_after: str | None = "1") -> Effect:
    """429, with Retry-After as given."""
    return status(429, headers={} if retry_after is None else {"Retry-After": retry_after})


def gone(inconsistent: str | None = None) -> Effect:
    """410 Expired, with or without the token that would continue the list inconsistently."""
    message = "The provided continue parameter is too old to display a consistent list result."
    metadata = {} if inconsistent is None else {"continue": inconsistent}
    return status(410, body=status_body(410, message, **metadata))


def redirect(to: str, code: int = 302) -> Effect:
    """Send the client elsewhere: to a login page, by habit."""
    return status(code, headers={"Location": to}, body=b"", content_type="text/html")


def html(code: int = 200) -> Effect:
    """A page for people, as a proxy's login or error page is."""
    page = b"<!doctype html><html><head><title>Sign in</title></head><body><form></form></body></html>"
    return status(code, body=page, content_type="text/html; charset=utf-8")


def text(words: str = "ok", code: int = 200) -> Effect:
    """Plain text."""
    return status(code, body=words.encode(), content_type="text/plain; charset=utf-8")


def empty(code: int = 200) -> Effect:
    """No body at all."""
    return status(code, body=b"")


def status_with_200(code: int = 500) -> Effect:
    """A Status that tells of a failure, under 200 OK."""
    return status(200, body=status_body(code))


def body(data: bytes) -> Effect:
    """The same headers over another body."""
    return lambda reply, _: dataclasses.replace(reply, body=data)


def content_type(value: str | None) -> Effect:
    """The right body under a wrong Content-Type, or none."""

    def effect(reply: Reply, _: Request) -> Reply:
        headers = {name: line for name, line in reply.headers.items() if name.lower() != "content-type"}
        return dataclasses.replace(reply, headers=headers if value is None else {**headers, "Content-Type": value})

    return effect


def date(value: str | None) -> Effect:
    """Another Date header, or none."""

    def effect(reply: Reply, _: Request) -> Reply:
        headers = {name: line for name, line in reply.headers.items() if name.lower() != "date"}
        return dataclasses.replace(reply, headers=headers if value is None else {**headers, "Date": value})

    return effect


# a list that lies


def edit(change: Callable[[dict[str, Any]], None]) -> Effect:
    """Change the decoded body in place."""

    def effect(reply: Reply, _: Request) -> Reply:
        decoded = json.loads(reply.body)
        change(decoded)
        return dataclasses.replace(reply, body=json.dumps(decoded).encode())

    return effect


def items(value: Any) -> Effect:
    """`items` of another kind: null, an object, a string."""
    return edit(lambda listed: listed.update(items=value))


def no_items() -> Effect:
    """No key `items`."""
    return edit(lambda listed: listed.pop("items"))


def no_metadata() -> Effect:
    """No key `metadata`."""
    return edit(lambda listed: listed.pop("metadata"))


def metadata(**values: Any) -> Effect:
    """Other values in the list's metadata; None takes one away, and `continue_` stands for `continue`."""

    def change(listed: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is None:
                listed["metadata"].pop(name.rstrip("_"), None)
            else:
                listed["metadata"][name.rstrip("_")] = value

    return edit(change)


def kind(value: str | None, api_version: str | None = None) -> Effect:
    """A list of another kind, or version; None takes the kind away."""

    def change(listed: dict[str, Any]) -> None:
        listed.pop("kind")
        listed.update({} if value is None else {"kind": value}, **({"apiVersion": api_version} if api_version else {}))

    return edit(change)


def name_twice() -> Effect:
    """The first item once more, under another uid."""
    return edit(
        lambda listed: listed["items"].extend(_copy(item, uid="00000000-another-uid") for item in listed["items"][:1])
    )


def uid_twice() -> Effect:
    """The first item once more, under another name."""
    return edit(lambda listed: listed["items"].append(_copy(listed["items"][0], name="another-name")))


def same_token() -> Effect:
    """On a page after the first: the token that the page was asked for with, so that it is asked for again."""
    return lambda reply, request: metadata(continue_=request.query["continue"])(reply, request)


def no_items_but_token(token: str = "more") -> Effect:  # noqa: S107 - a continue token opens nothing
    """An empty page that promises another."""
    return then(items([]), metadata(continue_=token))


def remaining(count: Any) -> Effect:
    """Another remainingItemCount, or none."""
    return metadata(remainingItemCount=count)


def skip_page() -> Effect:
    """The page's token leads past the next page, which nobody ever sees."""

    def effect(reply: Reply, request: Request) -> Reply:
        token = json.loads(reply.body)["metadata"]["continue"]
        skipped = json.loads(request.ask({**request.query, "continue": token}).body)
        return metadata(continue_=skipped["metadata"].get("continue"))(reply, request)

    return effect


# a change log that lies


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Effect:
    """Other lines than those that would have come."""
    return lambda reply, _: dataclasses.replace(reply, body=b"".join(change(reply.body.splitlines(keepends=True))))


def line(number: int, *puts: bytes) -> Effect:
    """These lines, or none, in the place of one; negative numbers count from the end."""

    def change(before: list[bytes]) -> list[bytes]:
        before[number : number + 1 or None] = [put + b"\n" for put in puts]
        return before

    return lines(change)


def out_of_order() -> Effect:
    """The second line before the first."""
    return lines(lambda before: [before[1], before[0], *before[2:]])


def repeated() -> Effect:
    """Every line twice."""
    return lines(lambda before: [line for line in before for _ in range(2)])


def error_event(code: int, message: str = "", *, after: int = 0) -> Effect:
    """An error within the answer, after so many lines."""
    error = b'{"type":"ERROR","object":%s}\n' % status_body(code, message)
    return lines(lambda before: [*before[:after], error])


# an answer that does not arrive whole


def sent(how: Send) -> Effect:
    """The right answer, sent in another way."""
    return lambda reply, _: dataclasses.replace(reply, send=how)


def cut_length(share: float = 0.5) -> Effect:
    """Content-Length promises the whole body; the connection closes after a share of it."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.write(reply.head() + reply.body[: int(len(reply.body) * share)])
        wire.keep = False

    return sent(send)


def cut_chunked(share: float = 0.5) -> Effect:
    """A chunked body; the connection closes after a share of it, between two chunks and without the last one."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.write(reply.head(length=False, Transfer_Encoding="chunked"))
        for chunk in _chunks(reply.body[: int(len(reply.body) * share)]):
            wire.write(chunk)
        wire.keep = False

    return sent(send)


def cut_close(share: float = 0.5) -> Effect:
    """Neither length nor chunks: the body ends where the connection closes, after a share of it."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.write(reply.head(length=False, Connection="close") + reply.body[: int(len(reply.body) * share)])
        wire.keep = False

    return sent(send)


def send_chunked(wire: Wire, reply: Reply) -> None:
    """Send the whole body in chunks, as it should be."""
    wire.write(reply.head(length=False, Transfer_Encoding="chunked"))
    for chunk in (*_chunks(reply.body), b"0\r\n\r\n"):
        wire.write(chunk)


def chunked() -> Effect:
    """The whole body in chunks."""
    return sent(send_chunked)


def drip(interval: float, size: int = 1) -> Effect:
    """The headers at once, then `size` bytes of the body every `interval` seconds."""

    def send(wire: Wire, reply: Reply) -> None:
        wire.write(reply.head())
        _drip(wire, reply.body, interval, size)

    return sent(send)


def drip_headers(interval: float, size: int = 1) -> Effect:
    """`size` bytes of the whole answer every `interval` seconds, from the status line on."""
    return sent(lambda wire, reply: _drip(wire, reply.head() + reply.body, interval, size))


def delay(seconds: float) -> Effect:
    """The whole answer, late."""

    def send(wire: Wire, reply: Reply) -> None:
        if wire.wait(seconds):
            wire.write(reply.head() + reply.body)
        else:
            wire.keep = False

    return sent(send)


def stall(share: float | None = None) -> Effect:
    """No answer, or its headers and a share of its body and then nothing, until the client hangs up."""

    def send(wire: Wire, reply: Reply) -> None:
        if share is not None:
            wire.write(reply.head() + reply.body[: int(len(reply.body) * share)])
        wire.wait(None)
        wire.keep = False

    return sent(send)


def reset(share: float | None = None) -> Effect:
    """The connection is reset: before any answer, or after its headers and a share of its body."""

    def send(wire: Wire, reply: Reply) -> None:
        if share is not None:
            wire.write(reply.head() + reply.body[: int(len(reply.body) * share)])
            wire.wait(0.05)
        wire.reset()

    return sent(send)


def hang_up() -> Effect:
    """The connection is closed without an answer."""

    def send(wire: Wire, _: Reply) -> None:
        wire.keep = False

    return sent(send)


def _drip(wire: Wire, data: bytes, interval: float, size: int) -> None:
    for start in range(0, len(data), size):
        wire.write(data[start : start + size])
        if not wire.wait(interval):
            wire.keep = False
            return


def _chunks(data: bytes, size: int = 4096) -> list[bytes]:
    parts = (data[start : start + size] for start in range(0, len(data), size))
    return [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]


def _copy(item: dict[str, Any], **changes: str) -> dict[str, Any]:
    return {**item, "metadata": {**item["metadata"], **changes}}


def _dated(reply: Reply) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name == "Date"}
