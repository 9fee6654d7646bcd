"""Certificates in files: what is wrong with the order of a chain, in words that say what to do.

Whoever imports this pays for the library that reads certificates, in time and memory.
"""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

Chain = Sequence[x509.Certificate]

_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Return a PEM file's certificates, in its order; none if one of them cannot be read: TLS alone judges that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what other programs write into certificates
            return tuple(x509.load_pem_x509_certificates(pem))
    except _UNREADABLE:
        return ()


def name_of(certificate: x509.Certificate) -> str:
    """Return what people call a certificate: its subject, or if that is empty, the names that it is for."""
    if subject := certificate.subject.rfc4514_string():
        return subject
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return f"serial number {certificate.serial_number:x}"
    return ", ".join(str(name.value) for name in names)


def outdated(chain: Chain) -> str:
    """Name those that are not valid now, and say when they are; an empty text if all are."""
    now = datetime.now(UTC)
    return ", ".join(
        f"{name_of(each)} is valid from {written(each.not_valid_before_utc)} to {written(each.not_valid_after_utc)}"
        for each in chain
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc
    )


def summary(chain: Chain) -> str | None:
    """Return the name of a chain's first certificate, and until when it is valid; ``None`` of an empty chain."""
    return f"{name_of(chain[0])}, until {written(chain[0].not_valid_after_utc)}" if chain else None


def written(moment: datetime) -> str:
    """Return a time as logs show it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_order(own: x509.Certificate, others: Chain) -> list[x509.Certificate]:
    """Return a certificate and behind it, of the others, its issuer, that one's issuer, and so on."""
    ordered, rest = [own], list(others)
    while issuer := next((other for other in rest if _issued(ordered[-1], other) and other not in ordered), None):
        ordered.append(issuer)
        rest.remove(issuer)
    return ordered


def why_mismatched(chain: Chain, key_pem: bytes, passphrase: str | None) -> str:
    """Say what is wrong with a chain whose first certificate does not belong to the key; an empty text if the key is.

    Args:
        chain: the certificates of the file.
        key_pem: the file with the private key.
        passphrase: what the key is encrypted with.
    """
    key = _public_key(key_pem, passphrase)
    own = next((certificate for certificate in chain if _spki(certificate) == key), None)
    if key and own is not None:
        right = in_order(own, chain)
        return (
            f"its certificates are in the wrong order: the first one is {name_of(chain[0])}, but the key belongs to "
            f"{name_of(own)}; {_put(right)}"
        )
    if chain and all(_is_authority(certificate) for certificate in chain) and not _issued(chain[0], chain[0]):
        return (
            f"the server's own certificate is missing: there are only those of issuers, {_listed(chain)}, and the key "
            "belongs to none of them; put the certificate that was issued for the key in front of them"
        )
    return ""


def why_disordered(chain: Chain) -> str:
    """Say which certificate of a chain is not where it belongs; an empty text if each one issued one before it."""
    for position, certificate in enumerate(chain[1:], 1):
        before = chain[:position]
        if certificate in before or any(_issued(other, certificate) for other in before):
            continue
        right = in_order(chain[0], chain[1:])
        if any(_issued(other, certificate) for other in chain[position + 1 :]) and certificate in right:
            return (
                f"its certificates are in the wrong order: {name_of(certificate)} did not issue "
                f"{name_of(chain[position - 1])}, which is in front of it; {_put(right)}"
            )
        return (
            f"{name_of(certificate)} issued none of the certificates in front of it; take it out, and see that the "
            f"issuer of {name_of(right[-1])} is there: {right[-1].issuer.rfc4514_string()}"
        )
    return ""


def unknown_issuer(chain: Chain) -> str:
    """Return the issuer of a chain's last certificate if this machine does not know it as an authority.

    An empty text: it does, or the certificate vouches for itself, or this machine has no list of authorities.
    """
    last = in_order(chain[0], chain[1:])[-1]
    if last.issuer == last.subject:
        return ""
    paths = ssl.get_default_verify_paths()
    known = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        known.load_verify_locations(paths.cafile or paths.openssl_cafile)
    except OSError:  # an SSLError is one
        return ""
    subjects = [authority.subject for each in known.get_ca_certs(True) for authority in _read_der(each)]
    return last.issuer.rfc4514_string() if subjects and last.issuer not in subjects else ""


def _read_der(der: bytes) -> Chain:
    return read_chain(ssl.DER_cert_to_PEM_cert(der).encode())


def _put(right: Chain) -> str:
    return f"put them so: {_listed(right, numbered=True)}"


def _listed(chain: Chain, *, numbered: bool = False) -> str:
    return ", ".join(
        f"{number}. {name_of(each)}" if numbered else name_of(each) for number, each in enumerate(chain, 1)
    )


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    if certificate.issuer != by.subject:
        return False
    try:
        certificate.verify_directly_issued_by(by)
    except InvalidSignature:
        return False
    except _UNREADABLE:
        return True  # of an algorithm that the library does not know
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _spki(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE:
        return b""


def _public_key(key_pem: bytes, passphrase: str | None) -> bytes:
    """Return the public part of the first private key in a file; nothing if it cannot be read."""
    found = _PRIVATE_KEY.search(key_pem)
    try:
        if found is None:
            return b""
        key = load_pem_private_key(found[0] + b"\n", passphrase.encode() if passphrase else None)
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE:
        return b""
