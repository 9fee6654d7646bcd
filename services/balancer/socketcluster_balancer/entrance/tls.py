"""TLS: the context that clients' handshakes are made with, from files in PEM or PKCS #12 (PFX)."""

from __future__ import annotations

import os
import ssl
import warnings
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.tls.certificates import (
    Chain,
    in_order,
    name_of,
    read_chain,
    unknown_issuer,
    why_disordered,
    why_mismatched,
)

log = get_logger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: with forward secrecy and authenticated encryption; those of TLS 1.3 all have both."""
_PEM = b"-----BEGIN"


class Loaded(NamedTuple):
    """A certificate that handshakes can be made with."""

    context: ssl.SSLContext
    chain: Chain
    """The certificate and its issuers'; empty if they could not be looked into."""


def load(certificate: Path, key: Path | None, passphrase: str | None) -> Loaded:
    """Make a context for TLS 1.2 and newer, with the ALPN protocol ``http/1.1`` and session resumption.

    A chain that some clients may not accept is logged, and what would mend it.

    Args:
        certificate: the certificate and those of its issuers, as PEM; or a PFX file, which has the key too.
        key: the private key as PEM; ``None``: it is in the certificate's file.
        passphrase: what the key, or the PFX file, is encrypted with.

    Raises:
        SettingsError: a file cannot be read or used, the passphrase is wrong or missing, or key and certificate do not
            belong together, or the chain does not begin with the key's; the text names the option, and what to do.
    """
    content = _read("tls_cert", certificate)
    if key is not None:
        _read("tls_key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    if _PEM in content:
        chain: Chain = read_chain(content)
        _load_pem(context, certificate, key, passphrase, chain)
    else:
        chain = _load_pfx(context, certificate, content, passphrase)
    if chain:
        _look_at(chain, certificate)
    return Loaded(context, chain)


def _look_at(chain: Chain, path: Path) -> None:
    """Log what clients may find wrong with a chain."""
    if problem := why_disordered(chain):
        log.warning("a certificate's chain is not in order", option="tls_cert", path=str(path), problem=problem)
    elif issuer := unknown_issuer(chain):
        log.info(
            "the issuer of a certificate is neither in its file nor an authority that this machine knows",
            option="tls_cert",
            path=str(path),
            certificate=name_of(in_order(chain[0], chain[1:])[-1]),
            issuer=issuer,
            what_to_do="if clients do not know that issuer either, put its certificate behind the others",
        )


def _read(option: str, path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option}: {path} cannot be read: {error.strerror}") from None
    if not content.strip():
        raise SettingsError(f"{option}: {path} is empty")
    return content


def _load_pem(
    context: ssl.SSLContext, certificate: Path, key: Path | None, passphrase: str | None, chain: Chain
) -> None:
    asked = False

    def answer() -> str:
        nonlocal asked
        asked = True
        return passphrase or ""

    try:
        context.load_cert_chain(certificate, key, answer)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            if why := why_mismatched(chain, (key or certificate).read_bytes(), passphrase):
                raise SettingsError(f"tls_cert: {certificate}: {why}") from None
            raise SettingsError(f"tls_key: the key does not belong to the certificate {certificate}") from None
        if asked and not passphrase:
            raise SettingsError(f"tls_passphrase: not set, but {key or certificate} is encrypted") from None
        if asked:
            raise SettingsError(f"tls_passphrase: it does not open the key {key or certificate}") from None
        hint = "" if key is not None else "; if the key is in a file of its own, name that with tls_key"
        files = certificate if key is None else f"{certificate} and {key}"
        raise SettingsError(f"tls_cert: no certificate with a key in {files} ({error.reason or error}){hint}") from None


def _load_pfx(context: ssl.SSLContext, path: Path, content: bytes, passphrase: str | None) -> Chain:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how other programs write such files
            key, certificate, others = pkcs12.load_key_and_certificates(
                content, passphrase.encode() if passphrase else None
            )
    except ValueError as error:
        option = "tls_passphrase" if "password" in str(error).lower() else "tls_cert"
        raise SettingsError(f"{option}: {path} cannot be opened as PEM, nor as PFX: {error}") from None
    if key is None or certificate is None:
        raise SettingsError(f"tls_cert: {path} has no certificate with its key")
    ordered = in_order(certificate, others)  # in such a file they have no order
    chain = (*ordered, *(other for other in others if other not in ordered))
    # OpenSSL reads files alone; this one exists in memory, and for this process.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for each in chain:
            os.write(descriptor, each.public_bytes(Encoding.PEM))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return chain
