"""What cannot be printed changes nothing of what was written, nor of what is said about it.

Each line of the tables names what standard output or standard error is, and how the command ends.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
import structlog

from reconciler.cli.main import main
from reconciler.views.terminal import DRAWN
from tests.support import canaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.struck_runs import Scenario

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""


SKILL: Final = "büro→☃"
"""A skill whose name neither ASCII nor Latin-1 holds."""
WRITTEN: Final = "was written; its output could not be printed: "
ASCII: Final = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def program(scenario: Scenario, redirected: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process whose streams are redirected as a shell does it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    given = {"DATABASE_URL": scenario.url, "RECONCILER_KUBECONFIG": str(scenario.kubeconfig), "RECONCILER_SETTLE": "0s"}
    ran = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", sys.executable, "-m", "reconciler", *arguments],
        env=clean | given | variables,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
    )
    canaries.look_at(ran.stdout, ran.stderr)
    return ran


# a run that was written


@pytest.mark.parametrize(
    ("redirected", "arguments", "variables", "says"),
    [
        pytest.param(">/dev/full", [], {}, f"{WRITTEN}No space left", id="full - written, said on stderr"),
        pytest.param(">/dev/full", ["--output", "json"], {}, f"{WRITTEN}No space", id="full, JSON - written, said"),
        pytest.param(">&-", [], {}, f"{WRITTEN}standard output is closed", id="closed - written, said on stderr"),
        pytest.param("| true", [], {}, "run.ended", id="a reader that has gone - written, quiet"),
        pytest.param("", [], ASCII, "run.ended", id="ASCII - written, escaped"),
        pytest.param("2>/dev/full", [], {}, "", id="a full standard error - written"),
        pytest.param("2>&-", ["--output", "json"], {}, "", id="a closed standard error - written"),
        pytest.param(">/dev/full 2>/dev/full", [], {}, "", id="both full - written"),
        pytest.param(">&- 2>&- <&-", [], {}, "", id="all closed - written"),
    ],
)
def test_a_run_that_cannot_be_printed_is_written_all_the_same(
    scenario: Scenario, redirected: str, arguments: list[str], variables: dict[str, str], says: str
) -> None:
    scenario.settles_at_once()
    with_snowman(scenario)
    ran = program(scenario, redirected, "run", *arguments, **variables)

    assert ran.returncode == 0, ran.stderr
    assert says in ran.stderr
    assert "nothing was written" not in ran.stderr
    assert ("output.lost" in ran.stderr) == (WRITTEN in says)
    assert scenario.write("SELECT outcome FROM reconciler.runs WHERE version <> '1'") == [("corrected",)]
    assert [json.loads(line) for line in ran.stderr.splitlines()] or not says
    if "json" in arguments and ran.stdout:
        assert json.loads(ran.stdout)["outcome"] == "corrected"


def test_a_refused_run_that_cannot_be_printed_is_still_refused(scenario: Scenario) -> None:
    scenario.settles_at_once()
    for number in range(4):
        scenario.write("INSERT INTO tenant_billing_lifecycle VALUES (%s, '2871', '2026-02-01Z')", f"gone-{number}")
    ran = program(scenario, ">/dev/full", "run")

    assert ran.returncode == 3
    assert "was refused; its output could not be printed: No space left on device" in ran.stderr
    assert "--allow-mass deletion_unrecorded" in ran.stderr


def test_a_view_that_crashes_after_the_commit_changes_nothing(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object) -> str:
        raise RuntimeError("quoted")

    scenario.settles_at_once()
    monkeypatch.setattr("reconciler.views.findings.printed", crash)
    assert command(scenario, monkeypatch, sys.stdout, "run") == 0
    said = capsys.readouterr().err
    assert f"{WRITTEN}RuntimeError at reconciler.cli.output:" in said
    assert "quoted" not in said


# commands that are only printed


READING: Final = {
    "plan": ["plan"],
    "plan, JSON": ["plan", "--output", "json"],
    "explain": ["explain", "acme"],
    "explain, JSON": ["explain", "acme", "--output", "json"],
    "status": ["status"],
    "usage": ["usage", "--month", "2026-02"],
    "usage, CSV": ["usage", "--month", "2026-02", "--output", "csv"],
    "usage, JSON": ["usage", "--month", "2026-02", "--output", "json"],
    "help": ["--help"],
}


def command(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, stdout: Any, *arguments: str) -> int:
    """Run a command in this process on such a standard output, and return its exit code."""
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", scenario.url)
        patch.setenv("RECONCILER_KUBECONFIG", str(scenario.kubeconfig))
        patch.setenv("RECONCILER_SETTLE", "0s")
        patch.setattr("sys.argv", ["reconciler", *arguments])
        patch.setattr("sys.stdout", stdout)
        try:
            with pytest.raises(SystemExit) as exited:
                main()
        finally:
            structlog.reset_defaults()
    code = exited.value.code
    assert code is None or isinstance(code, int)
    return code or 0


@pytest.fixture(params=[pytest.param(arguments, id=name) for name, arguments in READING.items()])
def reading(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    return request.param  # type: ignore[no-any-return]


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123 - it stands for standard output


def abandoned() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    ("stdout", "says"),
    [
        pytest.param(full, "could not be printed: No space left on device", id="full - failed, said on stderr"),
        pytest.param(abandoned, "", id="a reader that has gone - failed, quiet"),
    ],
)
def test_a_command_that_cannot_print_fails(
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reading: list[str],
    stdout: Callable[[], io.TextIOWrapper],
    says: str,
) -> None:
    stream = stdout()
    assert command(scenario, monkeypatch, stream, *reading) == 1
    with suppress(BrokenPipeError):
        stream.close()
    said = capsys.readouterr().err
    canaries.look_at(said)
    wrong = [line for line in map(json.loads, said.splitlines()) if line["level"] != "info"]
    assert [says in line["error"] for line in wrong] == ([True] if says else [])


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        pytest.param("ascii", r"b\xfcro->\u2603", id="ASCII - escaped"),
        pytest.param("latin-1", r"büro->\u2603", id="Latin-1 - what it lacks escaped"),
        pytest.param("utf-8", SKILL, id="UTF-8 - as it is"),
    ],
)
def test_every_encoding_shows_what_it_holds(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, reading: list[str], encoding: str, shown: str
) -> None:
    with_snowman(scenario)
    printed = io.BytesIO()
    for_programs = "--output" in reading
    with io.TextIOWrapper(printed, encoding=encoding, errors="strict") as stream:
        assert command(scenario, monkeypatch, stream, *reading) == 0
        text = printed.getvalue().decode("utf-8" if for_programs else encoding)
    if reading[0] in {"plan", "explain", "usage"}:
        assert (SKILL if for_programs else shown) in text
    if reading[-1] == "json":
        json.loads(text)


def test_drawings_keep_their_width_in_ascii() -> None:
    assert {char: len(shown) for char, shown in DRAWN.items() if len(shown) != 1} == {"→": 2, "≥": 2}
    assert all(shown.isascii() for shown in DRAWN.values())


def with_snowman(scenario: Scenario) -> None:
    """Enable a skill whose name few encodings hold."""
    scenario.skill_row("acme", SKILL, "enabled", "2026-02-10T00:00:00Z")
