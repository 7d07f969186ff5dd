"""Connects to the API server as kubectl does: its address, its certificate, the proxy before it, and who asks."""

from __future__ import annotations

import base64
import binascii
import importlib.util
import ipaddress
import re
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec
import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import incluster_config, kube_config
from kubernetes.config.dateutil import parse_rfc3339
from kubernetes.config.exec_provider import ExecProvider
from urllib3.util import parse_url
from urllib3.util.ssl_ import create_urllib3_context

from reconciler.sources.kubeconfig import Chosen, NoAccess, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3.util import Url

ACCOUNT = "the pod's service account"
DEFAULT = "the default kubeconfig"
PROXIES = {"http", "https", "socks4", "socks4a", "socks5", "socks5h"}

_TOKEN = re.compile(r"[!-~]+")
_EXIT_CODE = re.compile(r"exec: process returned (-?\d+)")


class _Issued(msgspec.Struct, rename="camel"):
    """What a plugin prints as `status` (https://kubernetes.io/docs/reference/access-authn-authz/authentication/)."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _Pair(NamedTuple):
    """A client certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


def connect(kubeconfig: str | None, context: str | None, *, in_pod: bool) -> ApiClient:
    """Return the official client, authenticated; in a pod, as its service account if nothing else is given.

    Raises:
        NoAccess: no usable way to the cluster is configured.
    """
    settings = Configuration()
    if in_pod and kubeconfig is None and context is None:
        return _client(settings, ACCOUNT, _as_pod(settings), _account)
    place = kubeconfig or DEFAULT
    chosen = choose(kubeconfig or kube_config.KUBE_CONFIG_DEFAULT_LOCATION, context, place)
    settings.host = _address(chosen)
    settings.tls_server_name = chosen.cluster.tls_server_name or None
    authorization, pair = _credentials(chosen)
    return _client(settings, place, _kubeconfigs_tls(chosen, pair), authorization, chosen.cluster.proxy_url)


def _client(
    settings: Configuration,
    place: str,
    tls: ssl.SSLContext,
    authorization: Callable[[], str] | None,
    proxy: str | None = None,
) -> ApiClient:
    if authorization:
        settings.api_key["BearerToken"] = authorization()

        def renew(settings: Configuration) -> None:
            settings.api_key["BearerToken"] = authorization()

        # called for every request: a token may have been rotated
        settings.refresh_api_key_hook = renew  # type: ignore[assignment] # of no declared type
    _use_proxy(settings, place, proxy)
    settings.verify_ssl = tls.verify_mode is ssl.CERT_REQUIRED
    if not settings.verify_ssl:
        # the kubeconfig says so, and kubectl does not repeat it for every request
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    # retries, redirects and waiting are decided by who asks, not by the client
    settings.retries = False
    client = ApiClient(settings)
    client.user_agent = "reconciler"
    client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = tls
    return client


# where


def _as_pod(settings: Configuration) -> ssl.SSLContext:
    """Set the address of the pod's cluster, and return how it is recognised."""
    try:
        config.load_incluster_config(settings, try_refresh_token=False)  # type: ignore[no-untyped-call]
        tls = tls_context()
        tls.load_verify_locations(settings.ssl_ca_cert)
    except (config.ConfigException, OSError, ValueError) as error:
        raise NoAccess(ACCOUNT, _reason(error)) from None
    settings.ssl_ca_cert = None
    return tls


def _address(chosen: Chosen) -> str:
    cluster, what = chosen.cluster, f"the server of the cluster {chosen.cluster_name!r}"
    server = cluster.server
    if not server:
        raise chosen.fault(f"the cluster {chosen.cluster_name!r} has no server")
    if "://" not in server:
        # kubectl takes a host and a port too
        hints = (cluster.certificate_authority, cluster.certificate_authority_data, cluster.insecure_skip_tls_verify)
        server = f"{'https' if any(hints) else 'http'}://{server}"
    url = _parsed(server)
    if url is None or url.scheme not in {"http", "https"} or url.auth or url.query or url.fragment:
        raise chosen.fault(f"{what} is not an address such as https://10.0.0.1:6443")
    return server.rstrip("/")


def _parsed(address: str) -> Url | None:
    """Return the parts of an address; None if it is none."""
    if not address.isprintable() or " " in address or "\\" in address:
        return None
    try:
        url = parse_url(address)
    except (urllib3.exceptions.LocationParseError, ValueError):
        return None
    return url if url.host else None


def _use_proxy(settings: Configuration, place: str, given: str | None) -> None:
    """Set the proxy of the kubeconfig, or else the environment's; kubectl reaches this machine without the latter."""
    where = "the proxy-url of the cluster" if given else "HTTP_PROXY or HTTPS_PROXY"
    if given:
        settings.proxy, settings.no_proxy = given, None
    elif settings.proxy and _is_loopback(settings.host):
        settings.proxy = None
    if not settings.proxy:
        return
    proxy = settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}"
    url = _parsed(proxy)
    if url is None or url.scheme not in PROXIES or url.path not in {None, "", "/"} or url.query or url.fragment:
        raise NoAccess(place, f"{where} is not a proxy's address", "Give one such as http://proxy:3128.")
    if url.scheme.startswith("socks") and importlib.util.find_spec("socks") is None:
        raise NoAccess(place, f"{where} is a SOCKS proxy, for which PySocks is missing", "pip install PySocks")
    if url.auth and not url.scheme.startswith("socks"):
        # sent as a header, so that no message can show them
        settings.proxy_headers = {"proxy-authorization": _basic(unquote(url.auth))}
        url = url._replace(auth=None)
    settings.proxy = url.url
    if url.scheme == "https":
        settings.proxy_ssl_context = tls_context()
        settings.proxy_ssl_context.load_default_certs()


def _is_loopback(address: str) -> bool:
    url = _parsed(address)
    host = (url.host or "").strip("[]") if url else ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# how it is recognised


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts what kubectl trusts, whatever this Python's defaults are.

    Python 3.13 refuses certificates without an authority key identifier, as many a cluster's own authority makes them;
    before 3.13, it refuses a chain that ends in an intermediate authority.
    """
    tls = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return tls


def _kubeconfigs_tls(chosen: Chosen, pair: _Pair | None) -> ssl.SSLContext:
    cluster, what = chosen.cluster, f"of the cluster {chosen.cluster_name!r}"
    tls = tls_context(verify=not cluster.insecure_skip_tls_verify)
    authority = _content(
        chosen, f"certificate-authority %s {what}", cluster.certificate_authority_data, cluster.certificate_authority
    )
    try:
        if authority is not None:
            # the text around the certificates may be in any encoding
            tls.load_verify_locations(cadata=authority.decode("latin-1").encode("ascii", "replace").decode())
        elif _address(chosen).startswith("https:"):
            # read only where they are used: it takes longer than a small list
            tls.load_default_certs()
    except (ssl.SSLError, ValueError):
        raise chosen.fault(f"the certificate-authority {what} holds no certificate") from None
    if pair:
        _present(chosen, tls, pair)
    return tls


def _present(chosen: Chosen, tls: ssl.SSLContext, pair: _Pair) -> None:
    """Let the client show its certificate."""
    problem = f"the client certificate of the user {chosen.user_name!r}"

    def passphrase() -> str:
        # without this, OpenSSL would ask for it on the terminal
        raise ValueError

    try:
        with tempfile.TemporaryDirectory(prefix="reconciler-") as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_bytes(pair.certificate)
            key.write_bytes(pair.key)
            tls.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError:
        raise chosen.fault(f"{problem} and its key are not a pair of PEM files") from None
    except ValueError:
        raise chosen.fault(f"{problem} has a key with a passphrase", "Give a key without one.") from None
    except OSError as error:
        raise chosen.fault(f"{problem} cannot be put into a temporary file: {_reason(error)}") from None


def _content(chosen: Chosen, what: str, data: str | None, path: str | None) -> bytes | None:
    """Return what stands in the kubeconfig in base64, or else in a file; None if neither is given."""
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise chosen.fault(f"the {what.replace(' %s', '-data')} is not base64") from None
    if not path:
        return None
    folder = chosen.cluster_folder if "cluster" in what else chosen.user_folder
    try:
        return (folder / path).read_bytes()
    except (OSError, ValueError) as error:
        raise chosen.fault(f"the {what.replace(' %s', '')}, {folder / path}: {_reason(error)}") from None


# who asks


def _credentials(chosen: Chosen) -> tuple[Callable[[], str] | None, _Pair | None]:
    """Return what gives the Authorization header, and the client certificate, where the user has them."""
    user, what = chosen.user, f"of the user {chosen.user_name!r}"
    certificate = _content(
        chosen, f"client-certificate %s {what}", user.client_certificate_data, user.client_certificate
    )
    key = _content(chosen, f"client-key %s {what}", user.client_key_data, user.client_key)
    if (certificate is None) != (key is None):
        raise chosen.fault(f"the {'client-key' if certificate else 'client-certificate'} {what} is missing")
    pair = _Pair(certificate, key) if certificate and key else None
    if user.token_file:
        path = chosen.user_folder / user.token_file
        return (lambda: _from_file(path, chosen.place)), pair
    if user.token:
        bearer = _bearer(user.token, f"the token {what}", chosen.place)
        return (lambda: bearer), pair
    if user.plugin:
        issued = _Issuer(chosen)
        return issued.authorization, issued.pair or pair
    if user.auth_provider:
        return _from_provider(chosen), pair
    if user.username or user.password:
        basic = _basic(f"{user.username or ''}:{user.password or ''}")
        return (lambda: basic), pair
    return None, pair


def _account() -> str:
    return _from_file(Path(incluster_config.SERVICE_TOKEN_FILENAME), ACCOUNT)


def _from_file(path: Path, place: str) -> str:
    try:
        return _bearer(path.read_text(), f"the token file {path}", place)
    except OSError as error:
        raise NoAccess(place, f"the token file {path}: {_reason(error)}") from None
    except UnicodeDecodeError:
        raise NoAccess(place, f"the token file {path} holds no text") from None


def _bearer(token: str, what: str, place: str) -> str:
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        problem = "holds white space or characters that no token has" if token else "is empty"
        raise NoAccess(place, f"{what} {problem}", "Write the token anew, on one line.")
    return f"Bearer {token}"


def _basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode(errors='surrogateescape')).decode()}"


class _Issuer:
    """An exec plugin: it issues credentials, and is run again where they have expired."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._what = f"the plugin of the user {chosen.user_name!r}"
        self._issued = self._run()
        certificate, key = self._issued.client_certificate_data, self._issued.client_key_data
        self.pair = _Pair(certificate.encode(), key.encode()) if certificate and key else None
        self.authorization = self._renewed if self._issued.token else None
        if not self.pair and not self.authorization:
            raise self._fault("issued neither a token nor a certificate with its key")

    def _renewed(self) -> str:
        expiry = self._issued.expiration_timestamp
        if expiry and kube_config._is_expired(expiry):  # type: ignore[no-untyped-call] # noqa: SLF001 - it reads the clock
            self._issued = self._run()
        return _bearer(self._issued.token or "", f"what {self._what} issued", self._chosen.place)

    def _run(self) -> _Issued:
        raw = self._chosen.raw
        plugin = kube_config.ConfigNode("exec", raw["user"]["exec"])  # type: ignore[no-untyped-call]
        cluster = kube_config.ConfigNode("cluster", raw["cluster"])  # type: ignore[no-untyped-call]
        try:
            provider = ExecProvider(plugin, str(self._chosen.user_folder), cluster)  # type: ignore[no-untyped-call]
            issued = msgspec.convert(provider.run(), _Issued)  # type: ignore[no-untyped-call]
            if issued.expiration_timestamp:
                parse_rfc3339(issued.expiration_timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise self._fault(f"could not be started: {_reason(error)}") from None
        except config.ConfigException as error:
            # what it printed may be secret
            ended = _EXIT_CODE.match(str(error))
            problem = f"ended with exit code {ended[1]}" if ended else "did not print an ExecCredential"
            raise self._fault(problem) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._fault("did not print an ExecCredential") from None
        return issued

    def _fault(self, problem: str) -> NoAccess:
        plugin = self._chosen.user.plugin
        command, hint = (plugin.command, plugin.install_hint) if plugin else ("", None)
        remedy = f"Is it installed, and does it run by hand? {' '.join((hint or '').split())}".rstrip()
        return self._chosen.fault(f"{self._what}, the command {command!r}, {problem}", remedy)


def _from_provider(chosen: Chosen) -> Callable[[], str]:
    """Return what renews the token of an OpenID Connect provider, as the official client does it."""
    provider = chosen.user.auth_provider
    what = f"the auth-provider {provider.name if provider else ''!r} of the user {chosen.user_name!r}"
    if provider is None or provider.name != "oidc":
        raise chosen.fault(f"{what} was removed from kubectl in 1.26", "Use the provider's exec plugin.")
    settings = Configuration()
    names = {"cluster": "c", "user": "u"}
    alone: dict[str, Any] = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": names}],
        "clusters": [{"name": "c", "cluster": {"server": "https://localhost"}}],
        "users": [{"name": "u", "user": {"auth-provider": chosen.raw["user"]["auth-provider"]}}],
    }

    def authorization() -> str:
        try:
            if not settings.api_key:
                config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
                    alone, client_configuration=settings, persist_config=False
                )
            header = settings.get_api_key_with_prefix("BearerToken")
        except Exception as error:  # noqa: BLE001 - of libraries that the official client calls; any may quote a token
            raise chosen.fault(f"{what} gave no token ({type(error).__name__})") from None
        return _bearer((header or "").removeprefix("Bearer "), f"the id-token of {what}", chosen.place)

    return authorization


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
