"""TLS: the context that clients' handshakes are made with, from files in PEM or PKCS #12 (PFX)."""

from __future__ import annotations

import os
import ssl
import warnings
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from socketcluster_runtime.errors import SettingsError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: with forward secrecy and authenticated encryption; those of TLS 1.3 all have both."""
_PEM = b"-----BEGIN"


def make_context(certificate: Path, key: Path | None, passphrase: str | None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer, with the ALPN protocol ``http/1.1`` and session resumption.

    Args:
        certificate: the certificate and those of its issuers, as PEM; or a PFX file, which has the key too.
        key: the private key as PEM; ``None``: it is in the certificate's file.
        passphrase: what the key, or the PFX file, is encrypted with.

    Raises:
        SettingsError: a file cannot be read or used, the passphrase is wrong or missing, or key and certificate do not
            belong together; the text names the option.
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
        _load_pem(context, certificate, key, passphrase)
    else:
        _load_pfx(context, certificate, content, passphrase)
    return context


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _load_pem(context: ssl.SSLContext, certificate: Path, key: Path | None, passphrase: str | None) -> None:
    asked = False

    def answer() -> str:
        nonlocal asked
        asked = True
        return passphrase or ""

    try:
        context.load_cert_chain(certificate, key, answer)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"tls_key: the key does not belong to the certificate {certificate}") from None
        if asked and not passphrase:
            raise SettingsError(f"tls_passphrase: not set, but {key or certificate} is encrypted") from None
        if asked:
            raise SettingsError(f"tls_passphrase: it does not open the key {key or certificate}") from None
        hint = "" if key is not None else "; if the key is in a file of its own, name that with tls_key"
        files = certificate if key is None else f"{certificate} and {key}"
        raise SettingsError(f"tls_cert: no certificate with a key in {files} ({error.reason or error}){hint}") from None


def _load_pfx(context: ssl.SSLContext, path: Path, content: bytes, passphrase: str | None) -> None:
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
    # OpenSSL reads files alone; this one exists in memory, and for this process.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for each in (certificate, *others):
            os.write(descriptor, each.public_bytes(Encoding.PEM))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
