"""What a failure of the connection shows, and what it does not."""

from __future__ import annotations

import os

import pytest

from reconciler.db.connection import LedgerUnreachable, connect


@pytest.mark.parametrize("password", [b"hunter2", b"\xff\xfe"])
def test_no_password_makes_a_failed_connection_crash_or_shows(monkeypatch: pytest.MonkeyPatch, password: bytes) -> None:
    monkeypatch.setitem(os.environb, b"PGPASSWORD", password)
    with pytest.raises(LedgerUnreachable) as failed:
        connect("postgresql://reconciler@127.0.0.1:1/ledger")
    assert "hunter2" not in str(failed.value)
