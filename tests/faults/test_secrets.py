"""Whatever fails, no output shows a secret: each line of the table names what fails where a secret is at hand.

Secrets are planted everywhere, see `tests/support/canaries.py`: here the test looks at what the command printed, the
fixtures at what it stored and sent.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import urllib3

from tests.support import canaries
from tests.support.canaries import MARK
from tests.support.command import invoke
from tests.support.fake_api import TOKEN
from tests.support.receivers import cut, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.receivers import Receiver
    from tests.support.struck_runs import Scenario

    Arrange = Callable[[Scenario, Receiver, dict[str, str]], object]

ELSEWHERE = "elsewhere.invalid"


def setting(**variables: str) -> Arrange:
    """Return what sets variables."""
    return lambda _, __, environment: environment.update(variables)


def answering(code: int) -> Arrange:
    """Return what lets every receiver answer so."""
    return lambda _, receiver, __: setattr(receiver, "otherwise", status(code, b"kept"))


def hung_up(_: Scenario, receiver: Receiver, __: dict[str, str]) -> None:
    receiver.otherwise = cut(b"HTTP/1.1 200 OK\r\nContent-Le")


def proxied(_: Scenario, __: Receiver, environment: dict[str, str]) -> None:
    environment |= {name: value for name, value in canaries.environment(ELSEWHERE).items() if "RECONCILER" in name}


def token_file(scenario: Scenario, _: Receiver, __: dict[str, str]) -> None:
    """Let the token come from a file that ends in a newline, as kubectl trims it."""
    (scenario.kubeconfig.parent / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    config = json.loads(scenario.kubeconfig.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"tokenFile": str(scenario.kubeconfig.parent / "token")}
    scenario.kubeconfig.write_text(json.dumps(config), encoding="utf-8")


def proxy_of_the_api(scenario: Scenario, _: Receiver, __: dict[str, str]) -> None:
    config = json.loads(scenario.kubeconfig.read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["proxy-url"] = f"http://me:{MARK}@127.0.0.1:1"
    scenario.kubeconfig.write_text(json.dumps(config), encoding="utf-8")


def crashing(where: str) -> Arrange:
    """Return what lets a function raise an exception that quotes all that it was given, and a token."""

    def arrange(scenario: Scenario, _: Receiver, __: dict[str, str]) -> None:
        def crash(*given: Any, **named: Any) -> NoReturn:
            logging.getLogger("library").error("Bearer %s", TOKEN)
            logging.error("Bearer %s", TOKEN)  # noqa: LOG015 - as the official client does
            raise ValueError(f"Invalid header value b'Bearer {TOKEN}\\n' {scenario.url} {given} {named}")

        scenario.monkeypatch.setattr(where, crash)

    return arrange


WRITTEN, FAILED, WRONG = 0, 1, 64


@pytest.mark.parametrize(
    ("arrange", "code", "says"),
    [
        pytest.param(answering(404), WRITTEN, "alert.undelivered", id="every receiver has moved - written"),
        pytest.param(answering(401), WRITTEN, "alert.undelivered", id="every receiver denies - written"),
        pytest.param(answering(503), WRITTEN, "alert.undelivered", id="every receiver is broken - written"),
        pytest.param(hung_up, WRITTEN, "alert.undelivered", id="every receiver hangs up - written"),
        pytest.param(proxied, WRITTEN, "of HTTP_PROXY", id="no way to the proxy of the alerts - written"),
        pytest.param(proxy_of_the_api, FAILED, "command.failed", id="no way to the proxy of the API - failed"),
        pytest.param(crashing("urllib3.PoolManager.request"), FAILED, "command.failed", id="HTTP crashes - failed"),
        pytest.param(
            crashing("reconciler.alerts.http.Endpoint.send"), WRITTEN, "alert.crashed", id="alerts crash - written"
        ),
        pytest.param(crashing("apprise.Apprise.notify"), WRITTEN, "alert.crashed", id="apprise crashes - written"),
        pytest.param(crashing("reconciler.run.find_dated"), FAILED, "ValueError at", id="the run crashes - failed"),
        pytest.param(crashing("reconciler.db.runs.record"), FAILED, "ValueError at", id="the commit crashes - failed"),
        pytest.param(
            crashing("reconciler.db.runs._row"), FAILED, "run.unrecorded", id="recording crashes, too - failed"
        ),
        pytest.param(
            crashing("kubernetes.client.ApiClient.call_api"), FAILED, "command.failed", id="the client crashes - failed"
        ),
        pytest.param(crashing("psycopg.connect"), FAILED, "ValueError at", id="the driver crashes - failed"),
        pytest.param(token_file, None, "", id="a token file with a newline - no matter"),
        pytest.param(setting(DATABASE_URL=f"postgresql://me:{MARK}/x@127.0.0.1:1/db"), WRONG, "", id="a slash - wrong"),
        pytest.param(
            setting(DATABASE_URL=f"postgresql://me:{MARK}@127.0.0.1:1/db"), FAILED, "refused", id="no server - failed"
        ),
        pytest.param(setting(RECONCILER_NOTIFY_URLS=f"{MARK}://{MARK}"), WRONG, "", id="a wrong message URL - wrong"),
        pytest.param(setting(RECONCILER_HEARTBEAT_URL=f"ftp://{MARK}"), WRONG, "", id="a wrong heartbeat - wrong"),
        pytest.param(setting(HTTPS_PROXY=f"socks5://me:{MARK}@x:1"), WRONG, "", id="a wrong proxy - wrong"),
    ],
)
def test_no_output_shows_a_secret(
    scenario: Scenario,
    planted: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arrange: Arrange,
    code: int | None,
    says: str,
) -> None:
    environment = {
        **canaries.environment(planted.host),
        "DATABASE_URL": scenario.url,
        "RECONCILER_KUBECONFIG": str(scenario.kubeconfig),
        "RECONCILER_SETTLE": "0s",
    }
    scenario.settles_at_once()
    otherwise = planted.otherwise
    arrange(scenario, planted, environment)

    ran = invoke(monkeypatch, capsys, "run", "--output", "json", environment=environment)
    planted.otherwise = otherwise

    canaries.look_at(ran.out, ran.err)
    assert code in {None, ran.code}, ran.err
    assert says in ran.err


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(f"token: {TOKEN}", id="a secret"),
        pytest.param(TOKEN.upper(), id="in capitals"),
        pytest.param(canaries.PROXY, id="in an address"),
        *(
            pytest.param(
                urllib3.make_headers(basic_auth=f"{'x' * length}:{TOKEN}")["authorization"], id=f"base64 {length}"
            )
            for length in range(3)
        ),
        pytest.param("Traceback (most recent call last):", id="a traceback"),
    ],
)
def test_a_planted_secret_is_found(output: str) -> None:
    with pytest.raises(AssertionError, match="planted secret"):
        canaries.look_at("nothing\n", f'{{"error": "{output}"}}')
    canaries.look_at("nothing")
