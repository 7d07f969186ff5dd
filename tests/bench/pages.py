"""An API server that has its pages ready: it sends each as fast as a socket can, and does nothing else.

    python -m tests.bench.pages FOLDER

serves what `prepare` has put into the folder, and prints its port.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from tests.bench.workload import API_VERSION, KIND, resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reconciler.core.model import Observed

PLURAL: Final = "piecedtenants"
LIST: Final = f"/apis/{API_VERSION}/{PLURAL}"
PAGES, INDEX, KUBECONFIG = "pages", "index.json", "kubeconfig"
"""The bodies one after another, where each begins and how long it is, and what leads a client to them."""

GROUP, _, VERSION = API_VERSION.partition("/")
KNOWN: Final = {
    "/version": {"major": "1", "minor": "34"},
    "/api/v1/namespaces/kube-system": {"kind": "Namespace", "metadata": {"uid": "bench"}},
    f"/apis/{GROUP}": {"kind": "APIGroup", "preferredVersion": {"version": VERSION}},
    f"/apis/{API_VERSION}": {
        "kind": "APIResourceList",
        "resources": [{"name": PLURAL, "kind": KIND, "namespaced": False}],
    },
}


def prepare(folder: Path, observed: Sequence[Observed], *, limit: int, version: int) -> None:
    """Write the pages of a list of these tenants: `limit` of them on each, at that resourceVersion."""
    index = []
    with (folder / PAGES).open("wb") as file:
        for start in range(0, max(1, len(observed)), limit):
            remaining = max(0, len(observed) - start - limit)
            more = {"continue": str(start + limit), "remainingItemCount": remaining} if remaining else {"continue": ""}
            head = {
                "apiVersion": API_VERSION,
                "kind": f"{KIND}List",
                "metadata": {"resourceVersion": str(version)} | more,
            }
            begins = file.tell()
            file.write(msgspec.json.encode(head)[:-1] + b',"items":[')
            file.write(b",".join(map(msgspec.json.encode, map(resource, observed[start : start + limit]))) + b"]}\n")
            index.append((begins, file.tell() - begins))
    (folder / INDEX).write_text(json.dumps({"limit": limit, "pages": index, "version": version}))


@contextmanager
def served(folder: Path) -> Iterator[Path]:
    """Serve the folder from a process of its own, and yield the path of a kubeconfig."""
    with subprocess.Popen([sys.executable, "-m", "tests.bench.pages", folder], stdout=subprocess.PIPE) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "clusters": [{"name": "bench", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "bench", "user": {"token": "bench"}}],
        }
        (folder / KUBECONFIG).write_text(json.dumps(config))
        try:
            yield folder / KUBECONFIG
        finally:
            server.kill()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        index = json.loads((folder / INDEX).read_text())
        self.pages = folder / PAGES
        told = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"resourceVersion": str(index["version"])}}
        self.bookmark = json.dumps({"type": "BOOKMARK", "object": told}).encode() + b"\n"
        self.index: dict[str, tuple[int, int]] = {
            str(number * index["limit"]): (begins, length) for number, (begins, length) in enumerate(index["pages"])
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.pages = self.server.pages.open("rb")

    def finish(self) -> None:
        self.pages.close()
        super().finish()

    def do_GET(self) -> None:
        """Answer from what is ready."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == LIST and "watch" not in query:
            begins, length = self.server.index[query.get("continue", ["0"])[0]]
            self._begin(length)
            self.connection.sendfile(self.pages, begins, length)
        else:
            # the change log has nothing, up to the list
            body = self.server.bookmark if "watch" in query else json.dumps(KNOWN[parts.path]).encode()
            self._begin(len(body))
            self.wfile.write(body)
            self.wfile.flush()

    def _begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _main(folder: Iterable[str]) -> None:
    server = _Server(Path(*folder))
    print(server.server_address[1], flush=True)  # noqa: T201 - for whoever started it
    server.serve_forever()


if __name__ == "__main__":
    _main(sys.argv[1:])
