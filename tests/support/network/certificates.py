"""Certificates for tests, made when they are needed."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)


@dataclass(frozen=True)
class Files:
    """A certificate of 127.0.0.1 that vouches for itself, in every form."""

    cert: Path
    key: Path
    both: Path
    """Certificate and key."""
    pfx: Path


class Authority:
    """One that signs certificates, such as those of a cluster's services.

    Args:
        folder: where its files go.
        name: its own.
        above: the authority that vouches for it; by default it does so itself.

    Attributes:
        cert: the file of its own.
    """

    def __init__(self, folder: Path, name: str = "authority", *, above: Authority | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.cert = folder / f"{name}.ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        above = above or self
        made = _builder(self._name, above._name, self._key.public_key(), 1).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.cert.write_bytes(made.sign(above._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self, name: str, host: str = "socketcluster", *, days: int = 1, usages: Sequence[x509.ObjectIdentifier] = ()
    ) -> tuple[Path, Path]:
        """Return the files of a certificate for a DNS name and of its key; it ends in ``days``, or has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = _builder(subject, self._name, key.public_key(), days).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        if usages:
            made = made.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        cert, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private.touch(0o600)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert, private


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def make(folder: Path, name: str, passphrase: str | None = None) -> Files:
    """Make the files of a certificate; a passphrase encrypts the key and the PFX file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), 1)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        encryption = BestAvailableEncryption(passphrase.encode())
    files = Files(*(folder / f"{name}.{suffix}" for suffix in ("crt", "key", "pem", "pfx")))
    files.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    files.both.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    files.pfx.write_bytes(pkcs12.serialize_key_and_certificates(name.encode(), key, certificate, None, encryption))
    return files
