"""Chains of certificates: what is out of order is named, and what belongs where."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from support.network.certificates import Authority

from socketcluster_runtime.tls import certificates
from socketcluster_runtime.tls.certificates import (
    in_order,
    name_of,
    outdated,
    read_chain,
    summary,
    unknown_issuer,
    why_disordered,
    why_mismatched,
)

ORDER = "1. CN=leaf, 2. CN=lower, 3. CN=upper, 4. CN=root"


class Made:
    """A leaf, two authorities between it and the root, and one that has nothing to do with them."""

    def __init__(self, folder: Path) -> None:
        root = Authority(folder, "root")
        upper = Authority(folder, "upper", above=root)
        lower = Authority(folder, "lower", above=upper)
        self.leaf, self.key = lower.issue("leaf")
        self.other_key = lower.issue("other")[1]
        files = {"leaf": self.leaf, "stranger": Authority(folder, "stranger").cert}
        self.files = files | {"root": root.cert, "upper": upper.cert, "lower": lower.cert}

    def chain(self, names: str) -> certificates.Chain:
        return read_chain(b"".join(self.files[name].read_bytes() for name in names.split()))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


@pytest.mark.parametrize("names", ["leaf", "leaf lower", "leaf lower upper root", "leaf lower lower upper", "root"])
def test_a_chain_in_order_is_in_order(made: Made, names: str) -> None:
    assert why_disordered(made.chain(names)) == ""


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            "leaf upper lower root",
            "its certificates are in the wrong order: CN=upper did not issue CN=leaf, which is in front of it; "
            f"put them so: {ORDER}",
        ),
        ("leaf root upper lower", f"CN=root did not issue CN=leaf, which is in front of it; put them so: {ORDER}"),
        ("leaf lower root upper", f"CN=root did not issue CN=lower, which is in front of it; put them so: {ORDER}"),
        (
            "leaf stranger",
            "CN=stranger issued none of the certificates in front of it; take it out, and see that the issuer of "
            "CN=leaf is there: CN=lower",
        ),
        ("leaf upper", "the issuer of CN=leaf is there: CN=lower"),
        ("leaf lower stranger", "the issuer of CN=lower is there: CN=upper"),
    ],
)
def test_what_is_not_where_it_belongs_is_named(made: Made, names: str, text: str) -> None:
    assert why_disordered(made.chain(names)).endswith(text)


def test_a_leaf_that_is_not_first_is_named(made: Made) -> None:
    said = why_mismatched(made.chain("root upper lower leaf"), made.key.read_bytes(), None)
    assert said == (
        "its certificates are in the wrong order: the first one is CN=root, but the key belongs to CN=leaf; "
        f"put them so: {ORDER}"
    )


def test_a_leaf_that_is_missing_is_named(made: Made) -> None:
    said = why_mismatched(made.chain("lower upper"), made.key.read_bytes(), None)
    assert said.startswith(
        "the server's own certificate is missing: there are only those of issuers, CN=lower, CN=upper"
    )


@pytest.mark.parametrize("names", ["leaf lower", "lower leaf", "root"])
def test_a_key_that_fits_no_certificate_is_the_key_s_fault(made: Made, names: str) -> None:
    assert why_mismatched(made.chain(names), made.other_key.read_bytes(), None) == ""


def test_what_cannot_be_read_is_left_to_tls(made: Made) -> None:
    assert read_chain(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") == ()
    assert read_chain(b"") == ()
    assert why_mismatched(made.chain("leaf"), b"no key", None) == ""
    assert why_disordered(()) == ""


def test_a_chain_is_put_in_order(made: Made) -> None:
    leaf, *others = made.chain("leaf root stranger upper lower")
    assert [name_of(each) for each in in_order(leaf, others)] == ["CN=leaf", "CN=lower", "CN=upper", "CN=root"]


def test_an_issuer_that_the_machine_does_not_know_is_named(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known.pem"
    known.write_bytes(made.files["root"].read_bytes())
    nothing = str(tmp_path / "nothing")
    paths = ssl.DefaultVerifyPaths(str(known), "", "", str(known), "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert unknown_issuer(made.chain("leaf")) == "CN=lower"
    assert unknown_issuer(made.chain("leaf lower")) == "CN=upper"
    assert unknown_issuer(made.chain("leaf lower upper")) == ""
    assert unknown_issuer(made.chain("stranger")) == ""  # it vouches for itself
    paths = ssl.DefaultVerifyPaths(None, None, "", nothing, "", nothing)  # type: ignore[arg-type]
    assert unknown_issuer(made.chain("leaf")) == ""  # who knows?


def test_what_is_outdated_is_named_with_its_dates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    over = read_chain(authority.issue("over", days=-2)[0].read_bytes())
    assert outdated(read_chain(authority.cert.read_bytes())) == ""
    assert summary(()) is None
    begin, end = over[0].not_valid_before_utc, over[0].not_valid_after_utc
    assert summary(over) == f"CN=over, until {end:%Y-%m-%dT%H:%M:%SZ}"
    assert outdated(over) == f"CN=over is valid from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
