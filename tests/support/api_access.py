"""Servers that say who asked them and how, certificates for them, and kubeconfigs that lead to them."""

from __future__ import annotations

import base64
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from reconciler.deadline import Deadline
from reconciler.sources.api_client import Api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = {"major": "1", "minor": "37"}

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


class Asked(NamedTuple):
    """A request as it arrived."""

    target: str
    headers: dict[str, str]
    subject: str
    """Of the client's certificate, if it showed one."""

    @property
    def authorization(self) -> str | None:
        """Who asks."""
        return self.headers.get("authorization")


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with the version of an API server, and takes note of it; it is a proxy, too."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.asked: list[Asked] = []
        super().__init__((host, 0), _Handler)

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a handshake that the client has ended."""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        shown: Any = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject = dict(pair for part in (shown or {}).get("subject", ()) for pair in part).get("commonName", "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert isinstance(self.server, Server)
        self.server.asked.append(Asked(self.path, headers, subject))
        body = json.dumps(VERSION).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[Asked]]]:
    """Serve, and yield the address and what is asked there."""
    with Server(host) as serving:
        if tls:
            serving.socket = tls.wrap_socket(serving.socket, server_side=True)
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        name = f"[{host}]" if ":" in host else host
        yield f"{'https' if tls else 'http'}://{name}:{serving.server_address[1]}", serving.asked
        serving.shutdown()
        thread.join()


def kubeconfig(
    path: Path, server: str, user: dict[str, Any] | None = None, *, name: str = "tests", **cluster: Any
) -> str:
    """Write a kubeconfig, and return its path."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": "c", **({"user": "u"} if user is not None else {})}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **_kebab(cluster)}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


def _kebab(fields: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


def ask(kubeconfig: str | None, *, context: str | None = None, in_pod: bool = False, times: int = 1) -> Api:
    """Ask an API server for its version, so many times; return who asked."""
    api = Api(kubeconfig=kubeconfig, context=context, deadline=Deadline.after(30), in_pod=in_pod)
    for _ in range(times):
        assert json.loads(api.get("/version").body) == VERSION
    return api


class Certificates:
    """An authority, an intermediate one and what they sign, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._make("ca", "subjectKeyIdentifier = none\nbasicConstraints = critical, CA:true\n", signer=None)
        self._make("intermediate", "basicConstraints = critical, CA:true\nsubjectKeyIdentifier = hash\n", signer="ca")
        names = "subjectAltName = DNS:api.test, IP:127.0.0.1, IP:::1\n"
        # as many a cluster's own authority makes them: without an authority key identifier
        self._make("server", f"{names}authorityKeyIdentifier = none\n", signer="ca")
        self._make("lower", f"{names}authorityKeyIdentifier = keyid\n", signer="intermediate")
        self._make("client", "authorityKeyIdentifier = none\n", signer="ca")

    def path(self, name: str) -> Path:
        """Return a certificate's file; that of its key ends in `.key`."""
        return self.folder / f"{name}.pem"

    def data(self, name: str) -> str:
        """Return a file's content in base64, as a kubeconfig holds it."""
        return base64.b64encode((self.folder / name).read_bytes()).decode()

    def tls(self, name: str = "server", *, asks: bool = False) -> ssl.SSLContext:
        """Return how a server shows this certificate; `asks` if it wants to see the client's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name), self.folder / f"{name}.key")
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.path("ca"))
        return context

    def _make(self, name: str, extensions: str, *, signer: str | None) -> None:
        (self.folder / f"{name}.cnf").write_text(
            f"[req]\ndistinguished_name = n\nprompt = no\n[n]\nCN = {name}\n[x]\n{extensions}"
        )
        key, config = str(self.folder / f"{name}.key"), str(self.folder / f"{name}.cnf")
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-config", config]
        out = ["-days", "30", "-out", str(self.path(name))]
        if signer is None:
            self._openssl("req", "-x509", *new, "-extensions", "x", *out)
            return
        request = str(self.folder / f"{name}.csr")
        self._openssl("req", *new, "-out", request)
        signed = ["-CA", str(self.path(signer)), "-CAkey", str(self.folder / f"{signer}.key"), "-CAcreateserial"]
        self._openssl("x509", "-req", "-in", request, *signed, "-extfile", config, "-extensions", "x", *out)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
