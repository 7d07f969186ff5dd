"""Who asks the API server, and how it is reached: as kubectl does it, or in words that show no secret.

Each row names a configuration and what becomes of it.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import stamina
from kubernetes.config import incluster_config
from structlog.testing import capture_logs
from urllib3.util.ssl_ import create_urllib3_context

from reconciler.core.errors import Failure, SourceFault
from reconciler.deadline import Deadline
from reconciler.sources import access
from reconciler.sources.api_client import Api
from reconciler.sources.kubeconfig import NoAccess
from tests.support.api_access import Certificates, ask, kubeconfig, needs_openssl, server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET: Final = "c4n4ry-s3cr3t"  # noqa: S105 - it must never be seen
BEARER: Final = f"Bearer {SECRET}"
NOWHERE: Final = "http://127.0.0.1:9"
UMLAUTS: Final = "pässwörd"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def _no_secret_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """And nothing else either: a library's own lines belong to no log."""
    yield
    printed, complained = capfd.readouterr()
    assert SECRET not in printed
    assert complained == ""


def refused(path: str | None, *, in_pod: bool = False, context: str | None = None) -> Failure:
    """Return why an API server cannot be asked; no secret is shown."""
    api = Api(kubeconfig=path, context=context, deadline=Deadline.after(30), in_pod=in_pod)
    with capture_logs() as logged, stamina.set_testing(True, attempts=1), pytest.raises(SourceFault) as fault:
        api.get("/version")
    shown = f"{fault.value} {fault.value.remedy} {fault.value.__cause__} {logged}"
    assert SECRET not in shown
    assert "\n" not in str(fault.value)
    assert fault.value.remedy
    return fault.value


# tokens

ONE_LINE = "on one line"


def in_file(content: str | bytes) -> Callable[[Path], dict[str, Any]]:
    """Return what writes a token into a file beside the kubeconfig, and names it."""

    def user(folder: Path) -> dict[str, Any]:
        (folder / "token").write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"tokenFile": "token"}

    return user


def as_is(**user: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda _: user


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        pytest.param(in_file(SECRET), BEARER, id="a token file - sent"),
        pytest.param(in_file(f"{SECRET}\n"), BEARER, id="a token file that ends in a newline - trimmed"),
        pytest.param(in_file(f" \t{SECRET}\r\n\n"), BEARER, id="a token file with white space around - trimmed"),
        pytest.param(as_is(token=f"{SECRET}\n"), BEARER, id="a token that ends in a newline - trimmed"),
        pytest.param(
            lambda folder: in_file(SECRET)(folder) | {"token": "old"}, BEARER, id="a token and a file - the file's"
        ),
        pytest.param(
            as_is(username="u", password=UMLAUTS), "Basic dTpww6Rzc3fDtnJk", id="a password in UTF-8 - sent as it is"
        ),
        pytest.param(as_is(), None, id="a user without credentials - nobody"),
    ],
)
def test_credentials_are_sent(tmp_path: Path, user: Callable[[Path], dict[str, Any]], sent: str | None) -> None:
    with server() as (url, asked):
        ask(kubeconfig(tmp_path / "kubeconfig", url, user(tmp_path)))
    assert [request.authorization for request in asked] == [sent]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        pytest.param(in_file(f"{SECRET}\n{SECRET}"), "white space or characters", id="two lines - refused"),
        pytest.param(in_file(f"{SECRET}\0"), "white space or characters", id="a NUL - refused"),
        pytest.param(in_file(f"{SECRET}ü"), "white space or characters", id="an umlaut - refused"),
        pytest.param(in_file(f"\ufeff{SECRET}"), "white space or characters", id="a byte order mark - refused"),
        pytest.param(in_file(f"{SECRET}\xff".encode("latin-1")), "holds no text", id="bytes - refused"),
        pytest.param(in_file(" \n"), "is empty", id="an empty file - refused"),
        pytest.param(as_is(tokenFile="gone"), "gone: No such file", id="no file - refused"),
        pytest.param(as_is(tokenFile="."), "Is a directory", id="a folder - refused"),
        pytest.param(as_is(token=f"{SECRET}\r\nHost: other"), "white space", id="a header in a token - refused"),
        pytest.param(as_is(token={"a": SECRET}), "users[0].user.token", id="an object for a token - refused"),
    ],
)
def test_a_token_that_cannot_be_sent(tmp_path: Path, user: Callable[[Path], dict[str, Any]], says: str) -> None:
    fault = refused(kubeconfig(tmp_path / "kubeconfig", NOWHERE, user(tmp_path)))
    assert isinstance(fault, NoAccess)
    assert says in str(fault)


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old\n")
    with server() as (url, asked):
        api = ask(kubeconfig(tmp_path / "kubeconfig", url, {"tokenFile": "token"}))
        (tmp_path / "token").write_text("new\n")
        api.get("/version")
    assert [request.authorization for request in asked] == ["Bearer old", "Bearer new"]


# exec plugins


def plugin(script: str, **fields: Any) -> Callable[[Path], dict[str, Any]]:
    """Return what makes a user of a plugin that is a Python script."""

    def user(folder: Path) -> dict[str, Any]:
        path = folder / "plugin"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{script}\n")
        path.chmod(0o700)
        version = "client.authentication.k8s.io/v1"
        return {"exec": {"command": "./plugin", "apiVersion": version, "interactiveMode": "Never", **fields}}

    return user


def issuing(**status: Any) -> str:
    """Return a script that prints these credentials."""
    return f"print(json.dumps({_credential(**status)!r}))"


def _credential(**status: Any) -> dict[str, Any]:
    return {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}


@pytest.mark.parametrize(
    ("user", "says", "remedy"),
    [
        pytest.param(
            plugin("", command="no-such-plugin", installHint="Get it from\nthe shop."),
            "the command 'no-such-plugin', could not be started: No such file or directory",
            "Get it from the shop.",
            id="a plugin that is missing - named, with its hint",
        ),
        pytest.param(
            plugin("", command="./kubeconfig"),
            "'./kubeconfig', could not be started: Perm",
            "",
            id="no program - named",
        ),
        pytest.param(
            plugin(f"print('{SECRET}', file=sys.stderr); sys.exit(3)"),
            "'./plugin', ended with exit code 3",
            "by hand",
            id="a plugin that fails - named, without its output",
        ),
        pytest.param(
            plugin(f"print('{SECRET}')"), "did not print an ExecCredential", "", id="a plugin that prints text - named"
        ),
        pytest.param(plugin(""), "did not print an ExecCredential", "", id="a plugin that prints nothing - named"),
        pytest.param(plugin("print(5)"), "did not print an ExecCredential", "", id="a plugin that prints 5 - named"),
        pytest.param(plugin("print('[]')"), "did not print", "", id="a plugin that prints a list - named"),
        pytest.param(plugin("os.write(1, b'\\xff')"), "did not print", "", id="a plugin that prints bytes - named"),
        pytest.param(plugin(issuing()), "neither a token nor", "", id="a plugin that issues nothing - named"),
        pytest.param(plugin(issuing(token=7)), "did not print", "", id="a plugin whose token is a number - named"),
        pytest.param(
            plugin(issuing(token=f"{SECRET} {SECRET}")), "white space", ONE_LINE, id="a plugin's token - refused"
        ),
        pytest.param(
            plugin(issuing(token=SECRET, expirationTimestamp="soon")),
            "did not print an ExecCredential",
            "",
            id="a plugin whose expiry is no time - named",
        ),
        pytest.param(
            plugin(issuing(clientCertificateData=SECRET, clientKeyData=SECRET)),
            "not a pair of PEM files",
            "",
            id="a plugin whose certificate is none - refused",
        ),
        pytest.param(
            plugin(issuing(clientCertificateData=SECRET)), "neither", "", id="a plugin without the key - named"
        ),
        pytest.param(as_is(exec={"command": "x"}), "users[0].user.exec", "", id="a plugin without a version - refused"),
        pytest.param(
            plugin(issuing(token=SECRET), env=[{"name": "A"}]),
            "users[0].user.exec.env[0]",
            "",
            id="half a variable - refused",
        ),
    ],
)
def test_a_plugin_that_does_not_help(
    tmp_path: Path, user: Callable[[Path], dict[str, Any]], says: str, remedy: str
) -> None:
    fault = refused(kubeconfig(tmp_path / "kubeconfig", NOWHERE, user(tmp_path)))
    assert says in str(fault)
    assert remedy in fault.remedy


def test_a_plugin_issues_a_token(tmp_path: Path) -> None:
    script = f"print(json.dumps({{**{_credential()!r}, 'status': {{'token': os.environ['T'] + sys.argv[1]}}}}))"
    user = plugin(script, env=[{"name": "T", "value": "c4n4ry"}], args=["-s3cr3t"])(tmp_path)
    with server() as (url, asked):
        ask(kubeconfig(tmp_path / "kubeconfig", url, user), times=2)
    assert [request.authorization for request in asked] == [BEARER, BEARER]


def test_a_plugin_is_run_again_once_its_token_expires(tmp_path: Path) -> None:
    script = (
        "count = int(open('count').read() or 0) + 1 if os.path.exists('count') else 1\n"
        "open('count', 'w').write(str(count))\n"
        f"print(json.dumps({{**{_credential()!r}, 'status': {{'token': f't{{count}}', "
        "'expirationTimestamp': '2020-01-01T00:00:00Z'}}))"
    )
    with server() as (url, asked):
        ask(kubeconfig(tmp_path / "kubeconfig", url, plugin(script)(tmp_path)), times=2)
    first, second = (request.authorization for request in asked)
    assert first != second


# what a kubeconfig may lack


def config(**changes: Any) -> str:
    whole = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": NOWHERE}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
    }
    kebab = {name.replace("_", "-"): value for name, value in changes.items()}
    return json.dumps({name: value for name, value in (whole | kebab).items() if value is not None})


def cluster(**fields: Any) -> str:
    fields = {"server": NOWHERE, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return config(clusters=[{"name": "c", "cluster": fields}])


def user(**fields: Any) -> str:
    kebab = {name.replace("_", "-"): value for name, value in fields.items()}
    return config(users=[{"name": "u", "user": {"password": SECRET, **kebab}}])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(config(current_context=None), "it has no current-context", id="no context - named"),
        pytest.param(config(current_context="y"), "no context 'y'; it has 'x'", id="an unknown context - named"),
        pytest.param(config(contexts=[{"name": "x", "context": {}}]), "'x' names no cluster", id="half - named"),
        pytest.param(config(contexts=[{"name": "x"}]), "contexts[0]", id="a context without content - named"),
        pytest.param(config(clusters=None), "no cluster 'c'; it has none", id="no cluster - named"),
        pytest.param(config(users=[]), "no user 'u'; it has none", id="no user - named"),
        pytest.param(
            config(users=[{"name": "u", "token": SECRET}]), "users[0]", id="a user without its content - named"
        ),
        pytest.param(config(users={"u": {"token": SECRET}}), "Expected array", id="users an object - named"),
        pytest.param(config(users=[SECRET]), "users[0]", id="a user that is text - named"),
        pytest.param(config()[:-1] + ', "users": []}', "'users' stands twice", id="a key twice - named"),
        pytest.param("a: b\n\t- c", "line 2", id="no YAML - named with its line"),
        pytest.param(700 * "[" + 700 * "]", "levels deep", id="nested without end - refused"),
        pytest.param("---\n", "is empty", id="an empty document - named"),
        pytest.param(cluster(server=None), "has no server", id="no server - named"),
        pytest.param(cluster(server=""), "has no server", id="an empty server - named"),
        pytest.param(cluster(server="https://"), "not an address", id="a server without a host - named"),
        pytest.param(cluster(server="ftp://x"), "not an address", id="a server of another scheme - named"),
        pytest.param(cluster(server="https://x:99999"), "not an address", id="a port too high - named"),
        pytest.param(cluster(server=f"https://u:{SECRET}@x"), "not an address", id="a password in it - not shown"),
        pytest.param(cluster(server="https://a b"), "not an address", id="a server with a space - named"),
        pytest.param(cluster(server="https://x\n"), "not an address", id="a server with a newline - named"),
        pytest.param(cluster(server="https://[::1"), "not an address", id="half an IPv6 address - named"),
        pytest.param(cluster(server=5), "clusters[0].cluster.server", id="a server that is a number - named"),
        pytest.param(
            cluster(certificate_authority="gone.pem"), "gone.pem: No such file", id="no authority's file - named"
        ),
        pytest.param(
            cluster(certificate_authority_data="%%%"),
            "authority-data of the cluster 'c' is not base64",
            id="no base64 - named",
        ),
        pytest.param(
            cluster(certificate_authority_data="aGVsbG8="),
            "holds no certificate",
            id="an authority without one - named",
        ),
        pytest.param(
            user(client_certificate_data="aGVsbG8="), "client-key of the user 'u' is missing", id="no key - named"
        ),
        pytest.param(user(client_key="k", client_certificate="gone.pem"), "gone.pem: No such", id="no file - named"),
        pytest.param(
            user(client_key_data="aGVsbG8=", client_certificate_data="aGVsbG8="), "not a pair", id="no PEM - named"
        ),
        pytest.param(
            user(auth_provider={"name": "gcp", "config": {"access-token": SECRET}}),
            "the auth-provider 'gcp' of the user 'u' was removed from kubectl in 1.26",
            id="an auth-provider that kubectl dropped - named",
        ),
        pytest.param(
            user(auth_provider={"name": "oidc", "config": {"id-token": SECRET}}),
            "the id-token of the auth-provider 'oidc'",
            id="an OpenID token that is none - named",
        ),
        pytest.param(
            user(auth_provider={"name": "oidc", "config": {}}),
            "'oidc' of the user 'u' gave no",
            id="no OpenID token - named",
        ),
        pytest.param(
            cluster(proxy_url=f"http://u:{SECRET}@pro xy:1"),
            "proxy-url of the cluster is not",
            id="no proxy - not shown",
        ),
        pytest.param(cluster(proxy_url=f"u:{SECRET}@x:1x"), "is not a proxy's", id="a port of letters - not shown"),
        pytest.param(cluster(proxy_url=f"ftp://u:{SECRET}@x"), "is not a proxy's", id="an FTP proxy - not shown"),
    ],
)
def test_a_kubeconfig_that_does_not_say(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    fault = refused(str(path))
    assert isinstance(fault, NoAccess)
    assert says in str(fault)
    assert str(path) in str(fault)


def test_kubeconfigs_of_a_list_are_merged(tmp_path: Path) -> None:
    """The first one counts, and paths are relative to where they stand."""
    first, second = tmp_path / "a" / "config", tmp_path / "b" / "config"
    for path in (first, second):
        path.parent.mkdir()
        (path.parent / "token").write_text(path.parent.name)
    with server() as (url, asked):
        first.write_text(json.dumps({"current-context": "x", "clusters": [{"name": "c", "cluster": {"server": url}}]}))
        kubeconfig(second, NOWHERE, {"tokenFile": "token"}, name="x")
        ask(os.pathsep.join([str(first), str(tmp_path / "gone"), str(second)]))
    assert [request.authorization for request in asked] == ["Bearer b"]


def test_a_context_that_is_given_counts(tmp_path: Path) -> None:
    with server() as (url, asked):
        path = kubeconfig(tmp_path / "kubeconfig", url, {"token": "t"}, name="prod")
        Path(path).write_text(Path(path).read_text().replace('"current-context": "prod"', '"current-context": "dev"'))
        ask(path, context="prod")
    assert len(asked) == 1


# certificates


def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let contexts be as Python 3.13 makes them."""
    made = create_urllib3_context

    def as_in_3_13(**given: Any) -> ssl.SSLContext:
        context = made(**given)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(access, "create_urllib3_context", as_in_3_13)


def test_no_python_makes_contexts_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    strict(monkeypatch)
    flags = access.tls_context().verify_flags
    assert not flags & ssl.VERIFY_X509_STRICT
    assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN


@needs_openssl
@pytest.mark.parametrize(
    ("shown", "trusted"),
    [
        pytest.param("server", "ca", id="without an authority key identifier - taken"),
        pytest.param("lower", "intermediate", id="of a trusted intermediate authority - taken"),
    ],
)
def test_a_certificate_that_kubectl_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificates: Certificates, shown: str, trusted: str
) -> None:
    strict(monkeypatch)
    with server(tls=certificates.tls(shown)) as (url, asked):
        by_data = {"certificate_authority_data": certificates.data(f"{trusted}.pem")}
        by_file = {"certificate_authority": str(certificates.path(trusted))}
        for given in (by_data, by_file):
            ask(kubeconfig(tmp_path / "kubeconfig", url, {"token": "t"}, **given))
        assert len(asked) == 2


@needs_openssl
def test_a_strict_context_refuses_that_certificate(tmp_path: Path, certificates: Certificates) -> None:
    """What the test above would not show, had openssl put the identifier there."""
    with server(tls=certificates.tls()) as (url, _):
        api = Api(
            kubeconfig=kubeconfig(tmp_path / "k", url, certificate_authority=str(certificates.path("ca"))),
            context=None,
            deadline=Deadline.after(30),
        )
        api.client.rest_client.pool_manager.connection_pool_kw["ssl_context"].verify_flags |= ssl.VERIFY_X509_STRICT
        with pytest.raises(SourceFault, match="No secure connection"):
            api.get("/version")


@needs_openssl
@pytest.mark.parametrize(
    ("shown", "given", "says"),
    [
        pytest.param("server", {}, "No secure connection", id="an authority that is not given - refused"),
        pytest.param("lower", {"certificate_authority": "ca"}, "No secure connection", id="half a chain - refused"),
        pytest.param(
            "server",
            {"certificate_authority": "ca", "tls_server_name": "other.test"},
            "No secure connection",
            id="another name - refused",
        ),
    ],
)
def test_a_certificate_that_kubectl_refuses(
    tmp_path: Path, certificates: Certificates, shown: str, given: dict[str, str], says: str
) -> None:
    if "certificate_authority" in given:
        given = given | {"certificate_authority": str(certificates.path(given["certificate_authority"]))}
    with server(tls=certificates.tls(shown)) as (url, _):
        assert says in str(refused(kubeconfig(tmp_path / "kubeconfig", url, {"token": SECRET}, **given)))


@needs_openssl
@pytest.mark.parametrize(
    ("given", "host"),
    [
        pytest.param({"insecure_skip_tls_verify": True}, "127.0.0.1", id="not verified - taken"),
        pytest.param({"tls_server_name": "api.test"}, "127.0.0.1", id="another name that it has - taken"),
        pytest.param({}, "::1", id="an IPv6 address - taken"),
    ],
)
def test_other_ways_to_a_server(tmp_path: Path, certificates: Certificates, given: dict[str, Any], host: str) -> None:
    if "insecure_skip_tls_verify" not in given:
        given = given | {"certificate_authority": str(certificates.path("ca"))}
    with server(host, certificates.tls()) as (url, asked):
        ask(kubeconfig(tmp_path / "kubeconfig", url, {"token": "t"}, **given))
    assert len(asked) == 1


@needs_openssl
@pytest.mark.parametrize("way", ["data", "files", "plugin"])
def test_a_client_shows_its_certificate(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    pem, key = certificates.path("client"), certificates.folder / "client.key"
    users: dict[str, Callable[[], dict[str, Any]]] = {
        "data": lambda: {
            "client-certificate-data": certificates.data("client.pem"),
            "client-key-data": certificates.data("client.key"),
        },
        "files": lambda: {"client-certificate": str(pem), "client-key": str(key)},
        "plugin": lambda: plugin(
            issuing(clientCertificateData=pem.read_text(), clientKeyData=key.read_text(), token=SECRET)
        )(tmp_path),
    }
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with server(tls=certificates.tls(asks=True)) as (url, asked):
        ask(kubeconfig(tmp_path / "k", url, users[way](), certificate_authority=str(certificates.path("ca"))))
    assert [(request.subject, request.authorization) for request in asked] == [
        ("client", BEARER if way == "plugin" else None)
    ]
    assert not any(temporary.iterdir())


@needs_openssl
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    """OpenSSL would ask for it on the terminal."""
    locked = tmp_path / "locked.key"
    certificates._openssl(  # noqa: SLF001 - of the tests
        "ec", "-aes128", "-passout", "pass:x", "-in", str(certificates.folder / "client.key"), "-out", str(locked)
    )
    user = {"client-certificate": str(certificates.path("client")), "client-key": str(locked)}
    assert "passphrase" in str(refused(kubeconfig(tmp_path / "kubeconfig", NOWHERE, user)))


# the pod's own account


def mount(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, token: str, authority: str) -> None:
    """Give this process a service account."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host.strip("[]"))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    for name, content in (("TOKEN", token), ("CERT", authority)):
        (folder / name).write_text(content)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(folder / name))


@needs_openssl
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_pod_asks_as_its_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificates: Certificates, host: str
) -> None:
    strict(monkeypatch)
    with server(host, certificates.tls()) as (url, asked):
        mount(tmp_path, monkeypatch, url, "old\n", certificates.path("ca").read_text())
        api = ask(None, in_pod=True)
        (tmp_path / "TOKEN").write_text("new\n")
        api.get("/version")
    assert [request.authorization for request in asked] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    ("token", "authority", "says"),
    [
        pytest.param("", "x", "Token file exists but empty", id="an empty token - refused"),
        pytest.param(f"{SECRET}\n{SECRET}", None, "white space", id="two tokens - refused"),
        pytest.param(SECRET, "", "Cert file exists but empty", id="an empty authority - refused"),
        pytest.param(SECRET, SECRET, "certificate", id="an authority that is none - refused"),
    ],
)
@needs_openssl
def test_a_pods_account_that_is_not_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    token: str,
    authority: str | None,
    says: str,
) -> None:
    whole = certificates.path("ca").read_text()
    mount(tmp_path, monkeypatch, NOWHERE, token, whole if authority is None else authority)
    fault = refused(None, in_pod=True)
    assert "the pod's service account" in str(fault)
    assert says in str(fault)


# proxies


@pytest.mark.parametrize(
    ("proxy", "sent"),
    [
        pytest.param("http://{}", None, id="a proxy - asked"),
        pytest.param("{}", None, id="a proxy without a scheme - asked"),
        pytest.param(
            f"http://user:{SECRET}@{{}}", "Basic dXNlcjpjNG40cnktczNjcjN0", id="a proxy with a user - told who asks"
        ),
        pytest.param("http://us%40er:p%C3%BC@{}", "Basic dXNAZXI6cMO8", id="a user in escapes - told who asks"),
    ],
)
def test_the_kubeconfigs_proxy_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, sent: str | None
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with server() as (url, asked):
        address = proxy.format(url.removeprefix("http://"))
        ask(kubeconfig(tmp_path / "kubeconfig", "http://api.invalid:6443", {"token": "t"}, proxy_url=address))
    assert [(request.target, request.headers.get("proxy-authorization")) for request in asked] == [
        ("http://api.invalid:6443/version", sent)
    ]


@pytest.mark.parametrize(
    ("target", "no_proxy", "through"),
    [
        pytest.param("http://api.invalid", "", True, id="HTTP_PROXY - asked"),
        pytest.param("http://api.invalid", "other.invalid", True, id="NO_PROXY of another - asked"),
        pytest.param("http://api.invalid", "invalid", False, id="NO_PROXY of its domain - not asked"),
        pytest.param("http://10.1.2.3", "10.1.0.0/16", False, id="NO_PROXY of its network - not asked"),
        pytest.param("http://127.0.0.1:9", "", False, id="this machine - not asked"),
        pytest.param("http://[::1]:9", "", False, id="this machine by IPv6 - not asked"),
        pytest.param("http://localhost:9", "", False, id="this machine by name - not asked"),
    ],
)
def test_the_environments_proxy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    no_proxy: str,
    through: bool,  # noqa: FBT001 - of the table above
) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", target, {"token": "t"})
    monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setenv("HTTP_PROXY", f"http://u:{SECRET}@127.0.0.1:9")
    client = access.connect(path, None, in_pod=False)
    assert (getattr(client.rest_client.pool_manager, "proxy", None) is not None) is through
    assert SECRET not in str(client.configuration.proxy if through else "")


def test_a_proxy_that_does_not_answer_is_no_secret(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://api.invalid", proxy_url=f"http://u:{SECRET}@127.0.0.1:9")
    assert "could not answer" in str(refused(path))


@pytest.mark.parametrize("address", [f"http://u:pa@{SECRET}#word@h:1", f"http://u:pa@{SECRET}?word@h:1"])
def test_a_proxys_unescaped_password_is_no_host(tmp_path: Path, address: str) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://api.invalid", proxy_url=address)
    assert "is not a proxy's address" in str(refused(path))


@pytest.mark.parametrize("written", [f"!{SECRET}", f"'{SECRET}", f"{SECRET}: {SECRET}: {SECRET}"])
def test_a_kubeconfig_that_is_not_yaml_is_not_quoted(tmp_path: Path, written: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(f"users:\n- name: u\n  user:\n    token: {written}\n", encoding="utf-8")
    said = str(refused(str(path)))
    assert SECRET not in said
    assert "line 4" in said or "line 5" in said


def test_a_socks_proxy_without_its_library_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://api.invalid", proxy_url=f"socks5://u:{SECRET}@127.0.0.1:9")
    assert "PySocks is missing" in str(refused(path))
