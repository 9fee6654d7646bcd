"""What certificates handshakes can be made with, and what is said of the others."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12
from support.network import certificates

from socketcluster_balancer.entrance.tls import load
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.tls.certificates import read_chain


class Chained:
    """A certificate with two issuers between it and an authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = certificates.Authority(folder, "root")
        upper = certificates.Authority(folder, "upper", above=root)
        lower = certificates.Authority(folder, "lower", above=upper)
        self.leaf, self.key = lower.issue("leaf")
        self.lower, self.upper = lower.cert, upper.cert

    def file(self, *parts: Path) -> Path:
        made = self.folder / "chain.pem"
        made.write_bytes(b"".join(part.read_bytes() for part in parts))
        return made


def test_a_chain_that_does_not_begin_with_the_server_s_own_certificate_is_named(tmp_path: Path) -> None:
    made = Chained(tmp_path)
    path = made.file(made.lower, made.leaf)
    said = rf"^tls_cert: {path}: its certificates are in the wrong order: .*: 1. CN=leaf, 2. CN=lower$"
    with pytest.raises(SettingsError, match=said):
        load(path, made.key, None)
    path = made.file(made.lower, made.upper)
    with pytest.raises(SettingsError, match=rf"^tls_cert: {path}: the server's own certificate is missing"):
        load(path, made.key, None)
    both = made.file(made.lower, made.leaf, made.key)
    with pytest.raises(SettingsError, match="first one is CN=lower, but the key belongs to CN=leaf"):
        load(both, None, None)


def test_issuers_in_the_wrong_order_are_named(tmp_path: Path) -> None:
    made = Chained(tmp_path)
    with structlog.testing.capture_logs() as lines:
        assert len(load(made.file(made.leaf, made.upper, made.lower), made.key, None).chain) == 3
    assert [line["event"] for line in lines] == ["a certificate's chain is not in order"]
    assert lines[0]["problem"].endswith("put them so: 1. CN=leaf, 2. CN=lower, 3. CN=upper")


def test_an_issuer_that_nobody_may_know_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Chained(tmp_path)
    other = certificates.Authority(tmp_path, "other").cert
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with structlog.testing.capture_logs() as lines:
        load(made.leaf, made.key, None)
        load(certificates.make(tmp_path, "selfish").both, None, None)
    assert [(line["log_level"], line["certificate"], line["issuer"]) for line in lines] == [
        ("info", "CN=leaf", "CN=lower")
    ]


def test_the_certificates_of_a_pfx_file_are_sent_in_order(tmp_path: Path) -> None:
    made = Chained(tmp_path)
    leaf, upper, lower = (read_chain(path.read_bytes())[0] for path in (made.leaf, made.upper, made.lower))
    key = load_pem_private_key(made.key.read_bytes(), None)
    path = tmp_path / "chain.pfx"
    path.write_bytes(pkcs12.serialize_key_and_certificates(None, key, leaf, [upper, lower], NoEncryption()))  # type: ignore[arg-type]
    assert list(load(path, None, None).chain) == [leaf, lower, upper]


def test_every_form_of_a_certificate_is_read(tmp_path: Path) -> None:
    for passphrase in (None, "open sesame"):
        files = certificates.make(tmp_path, "any", passphrase)
        for cert, key in ((files.cert, files.key), (files.both, None), (files.pfx, None)):
            assert load(cert, key, passphrase).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    plain, other = certificates.make(tmp_path, "plain"), certificates.make(tmp_path, "other")
    locked = certificates.make(tmp_path, "locked", "open sesame")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("-----BEGIN NOTHING-----\n")
    empty = tmp_path / "empty.crt"
    empty.touch()
    for cert, key, passphrase, text in (
        (tmp_path / "absent.crt", None, None, r"tls_cert: .*absent.crt cannot be read: No such file"),
        (empty, None, None, r"tls_cert: .*empty.crt is empty"),
        (plain.cert, empty, None, r"tls_key: .*empty.crt is empty"),
        (plain.cert, tmp_path / "absent.key", None, r"tls_key: .*absent.key cannot be read: No such file"),
        (plain.cert, other.key, None, "tls_key: the key does not belong to the certificate"),
        (plain.cert, None, None, "tls_cert: no certificate with a key .* name that with tls_key"),
        (nothing, None, None, "tls_cert: no certificate with a key"),
        (locked.cert, locked.key, None, "tls_passphrase: not set, but .*locked.key is encrypted"),
        (locked.cert, locked.key, "wrong", "tls_passphrase: it does not open the key .*locked.key"),
        (locked.both, None, "wrong", "tls_passphrase: it does not open the key .*locked.pem"),
        (locked.pfx, None, "wrong", "tls_passphrase: .*locked.pfx"),
        (locked.pfx, None, None, "tls_passphrase: .*locked.pfx"),
    ):
        with pytest.raises(SettingsError, match=text):
            load(cert, key, passphrase)
