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
