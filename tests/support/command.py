"""Runs the command line in this process: what it printed, and its exit code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import stamina
import structlog

from reconciler.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The lines of standard error, each a JSON object."""
        return [json.loads(line) for line in self.err.splitlines()]

    @property
    def complaint(self) -> dict[str, Any]:
        """The only line that reports an error."""
        wrong = [line for line in self.logged if line["level"] != "info"]
        assert [line["event"] for line in wrong] == ["command.failed"], self.err
        return wrong[0]


def invoke(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run `reconciler` with these arguments, and with only these settings in the environment."""
    with monkeypatch.context() as patch:
        for name in os.environ:
            if name.startswith(("RECONCILER_", "PG", "KUBE")) or name == "DATABASE_URL":
                patch.delenv(name)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        patch.setattr("sys.argv", ["reconciler", *arguments])
        capsys.readouterr()
        try:
            # one attempt at each request: only the final message is tested
            with stamina.set_testing(True, attempts=1), pytest.raises(SystemExit) as exited:
                main()
        finally:
            structlog.reset_defaults()
    printed = capsys.readouterr()
    code = exited.value.code
    assert code is None or isinstance(code, int)
    return Ran(code or 0, printed.out, printed.err)
