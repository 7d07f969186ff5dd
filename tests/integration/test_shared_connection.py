"""Which transactions of a run share a connection, and when there is a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.db.connection import Ledger, LedgerFault

if TYPE_CHECKING:
    import psycopg


def _session(way: Ledger) -> int:
    with way.transaction() as cursor:
        ((pid,),) = cursor.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def test_transactions_that_follow_one_another_share_a_connection(ledger_url: str) -> None:
    with Ledger(ledger_url) as way:
        assert _session(way) == _session(way)


def test_a_session_that_the_server_ended_is_replaced(ledger_url: str, ledger: psycopg.Connection[Any]) -> None:
    with Ledger(ledger_url) as way:
        first = _session(way)
        assert ledger.execute("SELECT pg_terminate_backend(%s, 10000)", [first]).fetchone() == (True,)
        assert _session(way) != first


def test_no_transaction_follows_one_that_failed_on_its_connection(ledger_url: str) -> None:
    with Ledger(ledger_url) as way:
        first = _session(way)
        with pytest.raises(LedgerFault), way.transaction() as cursor:
            cursor.execute("SELECT 1 / 0")
        assert _session(way) != first


def test_a_closed_way_leads_to_another_session(ledger_url: str) -> None:
    with Ledger(ledger_url) as way:
        first = _session(way)
        way.close()
        assert _session(way) != first
