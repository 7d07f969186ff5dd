"""What can't be avoided: the API server sends the pages, and PostgreSQL reads the latest state of every key.

    DATABASE_URL=… python -m tests.bench.floor KUBECONFIG PAGE_SIZE

It fetches the pages and throws them away, then runs the bare DISTINCT ON and reads its rows. The result is a line of
JSON: the seconds of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import urllib3
import yaml

from tests.bench.pages import LIST

LATEST = """
SELECT DISTINCT ON (tenant_name, skill_id) tenant_name, skill_id, event_kind, occurred_at, id
FROM tenant_skill_events ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC
"""


def fetched(kubeconfig: Path, page_size: int) -> int:
    """Fetch every page, one after another on one connection, and return how many bytes they had."""
    known = yaml.safe_load(kubeconfig.read_text())
    cluster, user = known["clusters"][0]["cluster"], known["users"][0]["user"]
    # who the server is does not matter here, and to find out costs next to nothing
    urllib3.disable_warnings()
    pool = urllib3.connection_from_url(
        cluster["server"],
        headers={"Authorization": f"Bearer {user['token']}"},
        **({"cert_reqs": "CERT_NONE"} if cluster["server"].startswith("https") else {}),
    )
    token, size = "", 0
    while True:
        query = {"limit": page_size} | ({"continue": token} if token else {})
        body = pool.request("GET", f"{LIST}?{urlencode(query)}").data
        size += len(body)
        token = body[body.rfind(b'"continue":"') :].split(b'"', 4)[3].decode() if b'"continue":"' in body else ""
        if not token:
            return size


def recalled(url: str) -> int:
    """Run the bare query and read its rows; return how many they were."""
    with psycopg.connect(url) as ledger:
        return sum(1 for _ in ledger.execute(LATEST))


def _main(kubeconfig: str, page_size: str) -> None:
    began = time.perf_counter()
    size = fetched(Path(kubeconfig), int(page_size))
    arrived = time.perf_counter()
    read = recalled(os.environ["DATABASE_URL"])
    ended = time.perf_counter()
    print(json.dumps({"bytes": size, "pages": arrived - began, "ledger": ended - arrived, "read": read}))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
