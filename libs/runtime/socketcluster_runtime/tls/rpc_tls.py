"""Mutual TLS for gRPC between machines: each side shows a certificate of the cluster's own authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.secret_files import read_secret

if TYPE_CHECKING:
    from socketcluster_runtime.tls.expiry_watch import ExpiryWatch

log = get_logger(__name__)


@dataclass
class RpcTls:
    """What a service shows and believes, as PEM; a connection takes what there is when it begins."""

    cert: bytes
    """Its certificate, and those of its issuers but the last."""
    key: bytes
    ca: bytes
    """The authorities that are believed."""
    name: str
    """The DNS name that a server's certificate must have, whatever address it is reached at."""
    files: tuple[Path, Path, Path]
    """Where certificate, key and authorities come from."""
    version: int = 0
    """Rises when they are others than before."""
    _watch: ExpiryWatch | None = field(default=None, compare=False, repr=False)

    def watch(self) -> None:
        """Say now, and from now on in the running loop, if a certificate ends soon, or has ended."""
        # read certificates cost 8 MB and a moment; services without TLS are to be spared that
        from socketcluster_runtime.tls.certificates import read_chain
        from socketcluster_runtime.tls.expiry_watch import ExpiryWatch

        if self._watch is None:
            self._watch = ExpiryWatch("put one that is valid into the file, and send this service SIGHUP")
        cert, _, ca = self.files
        self._watch.take("rpc_tls_cert", cert, read_chain(self.cert))
        self._watch.take("rpc_tls_ca", ca, read_chain(self.ca))
        self._watch.start()

    def close(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            self._watch.close()

    def reload(self) -> str | None:
        """Read the files again, for the connections to come; return what the certificate is now.

        Raises:
            SettingsError: as :func:`load_rpc_tls`; what was read before stays.
        """
        now = load_rpc_tls(*self.files, self.name)
        if (now.cert, now.key, now.ca) != (self.cert, self.key, self.ca):
            self.cert, self.key, self.ca = now.cert, now.key, now.ca
            self.version += 1
        if self._watch is not None:
            self.watch()
        from socketcluster_runtime.tls.certificates import read_chain, summary  # see watch

        return summary(read_chain(self.cert))


def load_rpc_tls(cert: Path, key: Path, ca: Path, name: str) -> RpcTls:
    """Read the files, and try them out: a handshake with itself, in memory, each side verifying the other.

    Raises:
        SettingsError: a file cannot be read, or they would not be accepted; the text names the option and the reason.
    """
    from socketcluster_runtime.tls.certificates import outdated, read_chain, why_disordered  # see RpcTls.watch

    contents = {option: _read(option, path) for option, path in (("rpc_tls_cert", cert), ("rpc_tls_ca", ca))}
    secret = read_secret("rpc_tls_key", key).encode() + b"\n"
    sides: list[ssl.SSLContext] = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.verify_mode = ssl.CERT_REQUIRED
        _load_pair(context, cert, key)
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise SettingsError(f"rpc_tls_ca: no certificate in {ca} ({error.reason or error})") from None
        sides.append(context)
    problem = _try_out(sides, name)
    chain = read_chain(contents["rpc_tls_cert"])
    if problem:
        if late := outdated((*chain, *read_chain(contents["rpc_tls_ca"]))):
            problem += f" ({late})"
        raise SettingsError(
            f"rpc_tls_cert: {cert} would not be accepted by the other services: {problem}; it has to be signed by "
            f"{ca} (rpc_tls_ca), for the DNS name {name} (rpc_tls_name), for servers and clients"
        )
    if disorder := why_disordered(chain):
        log.warning("a certificate's chain is not in order", option="rpc_tls_cert", path=str(cert), problem=disorder)
    return RpcTls(contents["rpc_tls_cert"], secret, contents["rpc_tls_ca"], name, (cert, key, ca))


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    asked = False

    def answer() -> str:
        nonlocal asked
        asked = True
        return ""

    try:
        context.load_cert_chain(cert, key, answer)
    except ssl.SSLError as error:
        if asked:
            raise SettingsError(f"rpc_tls_key: {key} is encrypted; give a key that is not") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            from socketcluster_runtime.tls.certificates import read_chain, why_mismatched  # see RpcTls.watch

            if why := why_mismatched(read_chain(cert.read_bytes()), key.read_bytes(), None):
                raise SettingsError(f"rpc_tls_cert: {cert}: {why}") from None
            raise SettingsError(f"rpc_tls_key: {key} does not belong to the certificate {cert}") from None
        raise SettingsError(
            f"rpc_tls_cert: no certificate in {cert}, or no key in {key} ({error.reason or error})"
        ) from None


def _try_out(contexts: list[ssl.SSLContext], name: str) -> str:
    """Return why one side does not accept the other; an empty text if both do."""
    server, client = contexts
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in tuple(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return error.reason or str(error)
            sides.remove(side)
    return ""
