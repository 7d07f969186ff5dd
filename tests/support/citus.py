"""The Citus cluster that TEST_CITUS_URL names: its nodes, and a ledger that is distributed over them."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

URL: Final = os.environ.get("TEST_CITUS_URL")
"""A database of the coordinator that has the extension and knows the workers, as a superuser."""
SHARDS: Final = "4"
"""Each costs a file or two in every database."""
DISTRIBUTED: Final = ("public.tenant_skill_events", "public.tenant_suspension_events")


@cache
def nodes(url: str) -> list[str]:
    """Return the URLs of that database on the coordinator and on each worker; without Citus its own."""
    if not URL:
        return [url]
    with psycopg.connect(URL) as connection:
        workers = connection.execute("SELECT nodename, nodeport FROM pg_dist_node WHERE groupid <> 0 ORDER BY groupid")
        return [url, *(_at(url, host, port) for host, port in workers)]


def on_every_node(url: str, statement: str, *names: str) -> None:
    """Run a statement about databases: on Citus each node has its own of that name."""
    for node in nodes(url):
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _at(url: str, host: str, port: int) -> str:
    parts = urlsplit(url)
    user = "".join(parts.netloc.rpartition("@")[:2])
    return parts._replace(netloc=f"{user}{host}:{port}").geturl()


def distribute(url: str, psql: Callable[..., str]) -> None:
    """Make a migrated database of every node one cluster, and distribute the ledger in it."""
    coordinator, *workers = map(urlsplit, nodes(url))
    for node in nodes(url):
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION citus")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT citus_set_coordinator_host(%s, %s)", [coordinator.hostname, coordinator.port])
        for worker in workers:
            connection.execute("SELECT citus_add_node(%s, %s)", [worker.hostname, worker.port])
    psql(url, "citus.sql", shards=SHARDS)


def leave(url: str, name: str) -> None:
    """End every session of a database, Citus's own too, so that it can be copied."""
    for node in nodes(url):
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name]
            )


_INDEXES = "it compares an undistributed schema, or drops several distributed indexes at once"
_HALVES = "the query is not read in halves there"
_TRIGGERS = "triggers are not supported on distributed tables"
_KEY = "an event cannot be given to another tenant: that decides its shard"
_LOGIN = "a role that cannot log in cannot read from the workers"
_SEQUENCE = "a distributed sequence cannot be altered"
_CLOCK = "the test's clock is not the workers'"
CANNOT: Final = {
    "test_a_build_that_hits_a_deadlock_is_repeated": _INDEXES,
    "test_an_index_left_by_a_dead_build_is_rebuilt": _INDEXES,
    "test_another_sessions_build_is_not_waited_for_indefinitely": _INDEXES,
    "test_another_sessions_build_is_waited_for": _INDEXES,
    "test_inserts_go_on_while_an_index_is_built": _INDEXES,
    "test_migrations_of_the_portals_ledger_at_the_same_time_all_succeed": _INDEXES,
    "test_no_thread_is_left_behind": _INDEXES,
    "test_a_fresh_database_gets_exactly_these_constraints": _INDEXES,
    "test_a_fresh_database_gets_exactly_these_indexes": _INDEXES,
    "test_the_latest_states_come_from_an_index_only_scan": _INDEXES,
    "test_the_schema_is_unchanged": _INDEXES,
    "test_an_earlier_schema_without_an_index_is_upgraded": _INDEXES,
    "test_an_upgraded_schema_equals_a_fresh_one": _INDEXES,
    "test_a_thousand_corrections_of_many_are_looked_up": _INDEXES,
    "test_the_events_halve_where_the_servers_statistics_say": _HALVES,
    "test_two_halves_read_at_once_or_in_turn_are_the_whole": _HALVES,
    "test_a_run_that_cannot_write_shows_what_its_corrections_were_worth": _TRIGGERS,
    "test_it_counts_for_the_limits": _KEY,
    "test_what_somebody_undid_is_said_at_once[an event given to another key - changed]": _KEY,
    "test_what_somebody_undid_is_said_at_once[an event's time and payer changed - both named]": _KEY,
    "test_the_role_of_the_runs_may_not_decide_from_python": _LOGIN,
    "test_the_role_for_decisions_closes": _LOGIN,
    "test_a_policy_that_hides_rows_is_called_so": _LOGIN,
    "test_each_decision_works_with_its_own_role_alone": _SEQUENCE,
    "test_a_tenant_that_outlived_its_recorded_end_is_billed_as_decided": _CLOCK,
    "test_the_json_over_the_sample_is_unchanged": _CLOCK,
    "test_the_json_over_two_hundred_tenants_is_unchanged": _CLOCK,
    "test_what_a_tenant_being_deleted_used_is_billed": "the test itself joins events in a way that Citus does not",
    "test_no_run_reads_all_that_were_before": "two of a run's queries read every row of reconciler.runs",
    "test_a_session_that_the_server_ended_is_replaced": "Citus has functions of its own by a name that the test calls",
    "test_the_transaction_goes_on_with_its_own_settings": "Citus 14 turns a setting of the planner off by itself",
    "test_a_change_whose_row_was_taken_back_waits_no_longer": _CLOCK,
    "test_a_correction_that_was_taken_back_is_not_appended_again": _CLOCK,
    "test_connection_settings_do_not_change_the_results[another notation]": "any DateStyle but ISO is refused",
}
"""The tests, or single cases of them, of what Citus cannot do, and why."""
