"""One request to a receiver: retried where that helps, and no text shows more of the address than its origin."""

from __future__ import annotations

import base64
import io
import logging
import socket
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from reconciler.alerts import Undelivered, http
from reconciler.alerts.addresses import Proxies, WrongAddress, parsed
from reconciler.alerts.http import ATTEMPTS, Endpoint
from tests.support.receivers import Receiver, cut, drip, hang, late, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.receivers import Answer

SECRETS = ("alice", "p@ss", "p%40ss", "s3cret-path", "s3cret-query")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@contextmanager
def library_logs() -> Iterator[io.StringIO]:
    """Yield everything that libraries log."""
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    yield handler.stream
    logging.getLogger().removeHandler(handler)


def secret_endpoint(url: str) -> Endpoint:
    """Return the endpoint of an address that is secret in all its parts."""
    scheme, _, host = url.partition("://")
    return Endpoint.at(f"{scheme}://alice:p%40ss@{host}/s3cret-path/?token=s3cret-query", "test")


def unused_address() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


# --- what is sent ------------------------------------------------------------------------------------------------


def test_credentials_are_sent_as_basic_authentication(receiver: Receiver) -> None:
    secret_endpoint(receiver.url).send("POST", "/more", body=b"text")
    (request,) = receiver.requests
    scheme, _, credentials = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", b"alice:p@ss")
    assert request.headers["host"] == receiver.host


def test_path_and_query_follow_those_of_the_address(receiver: Receiver) -> None:
    secret_endpoint(receiver.url).send("GET", "/more", query=[("filter", 'a="b&c"'), ("filter", "d")])
    (request,) = receiver.requests
    assert request.path == "/s3cret-path/more"
    assert request.query == [("token", "s3cret-query"), ("filter", 'a="b&c"'), ("filter", "d")]


def test_an_address_without_path_gets_only_the_given_path(receiver: Receiver) -> None:
    Endpoint.at(f" {receiver.url}/\n", "test").send("GET", "/api")
    assert [(request.path, request.query) for request in receiver.requests] == [("/api", [])]


def test_the_response_is_read_up_to_a_limit(receiver: Receiver) -> None:
    receiver.otherwise = status(200, b"x" * 1000)
    endpoint = Endpoint.at(receiver.url, "test")
    assert (len(endpoint.send("GET", max_bytes=10)), endpoint.send("GET")) == (10, b"")


# --- what is retried ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_transient_errors_are_retried(receiver: Receiver, code: int) -> None:
    receiver.answers = [status(code), status(code)]
    secret_endpoint(receiver.url).send("POST", body=b"text")
    assert [request.body for request in receiver.requests] == [b"text"] * ATTEMPTS


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413])
def test_permanent_errors_are_not_retried(receiver: Receiver, code: int) -> None:
    receiver.otherwise = status(code)
    with pytest.raises(Undelivered, match=f"^http://{receiver.host} answered {code} "):
        secret_endpoint(receiver.url).send("POST")
    assert len(receiver.requests) == 1


def test_a_cut_connection_is_retried(receiver: Receiver) -> None:
    receiver.answers = [cut()]
    secret_endpoint(receiver.url).send("POST")
    assert len(receiver.requests) == 2


def test_retries_are_limited(receiver: Receiver) -> None:
    receiver.otherwise = status(503)
    with pytest.raises(Undelivered, match="answered 503 Service Unavailable"):
        secret_endpoint(receiver.url).send("POST")
    assert len(receiver.requests) == ATTEMPTS


def test_a_long_retry_after_is_ignored(receiver: Receiver) -> None:
    receiver.answers = [status(429, Retry_After="86400")]
    began = time.monotonic()
    secret_endpoint(receiver.url).send("POST")
    assert time.monotonic() - began < 60


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with Receiver() as elsewhere:
        receiver.otherwise = status(307, Location=elsewhere.url)
        with pytest.raises(Undelivered, match="answered 307 Temporary Redirect"):
            secret_endpoint(receiver.url).send("POST", body=b"text")
        assert elsewhere.requests == []


def test_a_receiver_that_hangs_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)
    receiver.otherwise = hang()
    with pytest.raises(Undelivered, match="was not reached: no answer in time"):
        secret_endpoint(receiver.url).send("POST", attempts=1)


def test_no_attempt_begins_after_the_last_moment(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LATEST_ATTEMPT", 0.2)
    receiver.otherwise = late(0.3, status(503))
    with pytest.raises(Undelivered, match="answered 503"):
        secret_endpoint(receiver.url).send("POST")
    assert len(receiver.requests) == 1


# --- error messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [status(404), status(503), status(302, Location="http://127.0.0.1/s3cret-path"), hang(), cut(), drip(1)]
)
def test_no_response_makes_a_text_show_a_secret(
    receiver: Receiver, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)
    receiver.otherwise = answer
    assert_discreet(secret_endpoint(receiver.url))


def test_no_connection_error_makes_a_text_show_a_secret(receiver: Receiver) -> None:
    assert_discreet(secret_endpoint(unused_address()))
    assert_discreet(secret_endpoint(receiver.url.replace("http:", "https:")))


def assert_discreet(endpoint: Endpoint) -> None:
    """Assert that no secret appears in the error, its causes or the logs."""
    with library_logs() as libraries, capture_logs() as logged, pytest.raises(Undelivered) as raised:
        endpoint.send("POST", attempts=2)
    said = [*traceback.format_exception(raised.value), repr(raised.value), repr(endpoint), str(logged)]
    assert [word for word in SECRETS if any(word in text for text in (*said, libraries.getvalue()))] == []
    assert endpoint.origin in str(raised.value)


def test_logs_of_urllib3_are_suppressed(receiver: Receiver) -> None:
    """It logs the address if the headers of a response end too early."""
    receiver.otherwise = cut(b"HTTP/1.1 200 OK\r\nContent-Le")
    with library_logs() as libraries:
        secret_endpoint(receiver.url).send("POST")
    assert libraries.getvalue() == ""


def test_a_server_without_a_trusted_certificate_gets_nothing(receiver: Receiver) -> None:
    with pytest.raises(Undelivered, match="No secure connection to https://"):
        secret_endpoint(receiver.url.replace("http:", "https:")).send("POST")
    assert receiver.requests == []


def test_a_refused_connection_is_reported_as_such() -> None:
    with pytest.raises(Undelivered, match=r"was not reached: Connection refused\.$"):
        secret_endpoint(unused_address()).send("POST", attempts=1)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://host", "http://host:80"),
        ("https://user:pw@host/path?query#fragment", "https://host:443"),
        ("http://[::1]:9093/", "http://[::1]:9093"),
    ],
)
def test_the_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert Endpoint.at(url, "test").origin == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret-path",
        "ftp://host/s3cret-path",
        "http:///s3cret-path",
        "http://host:port/s3cret-path",
        "http://[::1/s3cret-path",
        "http://ho st/s3cret-path",
        "http://host/s3cret\n-path",
    ],
)
def test_an_invalid_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(WrongAddress) as raised:
        Endpoint.at(url, "test")
    assert raised.value.exit_code == 64
    assert raised.value.remedy
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


# --- proxies -----------------------------------------------------------------------------------------------------


def through(proxy: str, *, no: str = "") -> Proxies:
    """Return the proxies of an environment that names one for both schemes."""
    return Proxies.named({"http": proxy, "https": proxy, "no": no})


def test_a_message_goes_through_the_proxy_with_its_credentials(receiver: Receiver) -> None:
    proxies = through(f"http://alice:p%40ss@{receiver.host}")
    Endpoint.at("http://bob:word@elsewhere.invalid/path", "test", proxies).send("POST", body=b"text")
    (request,) = receiver.requests
    credentials = {name: request.headers[name].partition(" ")[2] for name in ("proxy-authorization", "authorization")}
    assert {name: base64.b64decode(given) for name, given in credentials.items()} == {
        "proxy-authorization": b"alice:p@ss",
        "authorization": b"bob:word",
    }
    assert (request.headers["host"], request.path, request.body) == ("elsewhere.invalid:80", "/path", b"text")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (status(407), "The {} did not let a message to https://elsewhere.invalid:443 through: it answered 407 Proxy"),
        (status(502), "The {} did not let a message to https://elsewhere.invalid:443 through: it answered 502 Bad"),
        (cut(), "https://elsewhere.invalid:443 was not reached through the {}: the connection was cut"),
        (hang(), "https://elsewhere.invalid:443 was not reached through the {}: no answer in time"),
    ],
    ids=["refuses - its answer", "has no route - its answer", "cuts - named", "hangs - named"],
)
def test_a_tunnel_that_fails_names_the_proxy(
    receiver: Receiver, answer: Answer, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(http, "CONNECT_TIMEOUT", 0.3)
    receiver.otherwise = answer
    endpoint = Endpoint.at(
        "https://elsewhere.invalid/s3cret-path", "test", through(f"http://alice:p%40ss@{receiver.host}")
    )
    with pytest.raises(Undelivered) as raised:
        endpoint.send("POST", attempts=1)
    assert says.format(f"proxy http://{receiver.host} (of HTTPS_PROXY)") in str(raised.value)
    assert [secret for secret in SECRETS if secret in repr(endpoint) + str(raised.value)] == []


@pytest.mark.parametrize("target", ["http://elsewhere.invalid", "https://elsewhere.invalid"])
def test_a_proxy_that_is_not_there_is_named_as_the_proxy(target: str) -> None:
    proxy = unused_address()
    with pytest.raises(
        Undelivered, match=rf"^The proxy {proxy} \(of HTTPS?_PROXY\) was not reached: Connection refused"
    ):
        Endpoint.at(target, "test", through(proxy)).send("POST", attempts=1)


def test_what_a_proxy_answers_in_place_of_the_receiver_is_said(receiver: Receiver) -> None:
    receiver.otherwise = status(403)
    endpoint = Endpoint.at("http://elsewhere.invalid", "test", through(receiver.host))
    with pytest.raises(
        Undelivered, match=rf"answered 403 Forbidden through the proxy {receiver.url} \(of HTTP_PROXY\)"
    ):
        endpoint.send("POST")


@pytest.mark.parametrize(
    ("host", "no", "direct"),
    [
        ("alerts.monitoring.svc", "", False),
        ("alerts.monitoring.svc", ".svc", True),
        ("alerts.monitoring.svc", "svc", True),
        ("alerts.monitoring.svc", "*.svc, other", True),
        ("alerts.monitoring.svc", "other ALERTS.monitoring.svc", True),
        ("alerts.monitoring.svc", "alerts.monitoring.svc:9093", True),
        ("alerts.monitoring.svc", "alerts.monitoring.svc:80", False),
        ("alerts.monitoring.svc", "monitoring", False),
        ("myalerts.svc", "alerts.svc", False),
        ("alerts.monitoring.svc", "*", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:9093", True),
        ("10.1.2.3", "192.168.0.0/16,.3", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "10.0.0.0/8", False),
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("[::1]", "", True),
    ],
)
def test_no_proxy_names_who_is_reached_without_one(host: str, no: str, *, direct: bool) -> None:
    proxies = through("http://proxy:3128", no=no)
    assert (proxies.before(urlsplit(f"http://{host}:9093")) is None) is direct


@pytest.mark.parametrize(
    "address",
    ["https://u:pa@secret/word@hc.example/x", "https://u:9093#secret@hc.example/x", "http://u:pa?secret@h:1/x"],
)
def test_an_unescaped_password_is_not_taken_for_a_host(address: str) -> None:
    assert parsed(address) is None


@pytest.mark.parametrize(
    "proxy",
    ["http://u:pa@secret/w@proxy:1", "socks5://alice:p%40ss@proxy:1080", "http://:3128", "http://proxy:port", "a b"],
)
def test_an_invalid_proxy_is_refused_without_showing_it(proxy: str) -> None:
    with pytest.raises(WrongAddress, match="HTTP_PROXY is not the address of an HTTP proxy") as raised:
        through(proxy)
    assert "NO_PROXY" in raised.value.remedy
    assert [secret for secret in SECRETS if secret in str(raised.value) + raised.value.remedy] == []
