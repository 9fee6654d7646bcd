"""Auth tokens: what is signed, what is accepted, and how the options choose it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from socketcluster_runtime.errors import SettingsError
from socketcluster_worker.errors import AuthTokenError, NotSerializableError, UnsupportedError
from socketcluster_worker.settings import Algorithm
from socketcluster_worker.tokens import Tokens

KEY = "k" * 64
NOW = 1_700_000_000.25
PLAIN = {"key": None, "public_key": None, "private_key": None, "default_expiry": 60.0, "secret": "a secret"}


def make(algorithm: Algorithm = "HS256", *, now: float = NOW) -> Tokens:
    return Tokens(algorithm, KEY.encode(), KEY.encode(), 60.0, lambda: now)


def write_keys(folder: Path, private: Any) -> tuple[Path, Path]:
    """Write a key pair in PEM; return its files: the public one, the private one."""
    pem = serialization.Encoding.PEM
    public_path, private_path = folder / "public.pem", folder / "private.pem"
    public_path.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    private_path.write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public_path, private_path


def refusal(tokens: Tokens, token: object) -> AuthTokenError:
    with pytest.raises(AuthTokenError) as caught:
        tokens.verify(token)
    return caught.value


def test_a_token_says_what_was_signed_and_when() -> None:
    token, claims = make().sign({"name": "Ann", "channels": ["a"]})
    assert claims == {"iat": 1_700_000_000, "exp": 1_700_000_060, "name": "Ann", "channels": ["a"]}
    assert make().verify(token) == claims


def test_other_keys_count_from_the_moment_when_they_are_taken() -> None:
    tokens, other = make(), Tokens("HS256", b"o" * 64, b"o" * 64, 60.0, lambda: NOW)
    before, _ = tokens.sign({})
    tokens.take_keys(other)
    after, claims = tokens.sign({})
    assert other.verify(after) == tokens.verify(after) == claims
    assert refusal(tokens, before).name == refusal(other, before).name


@pytest.mark.parametrize(
    ("claims", "expires_in", "expiry"),
    [({}, 5, 1_700_000_005), ({}, 0.5, NOW + 0.5), ({"exp": 1_700_000_009}, 5, 1_700_000_009)],
)
def test_expiry_of_the_claims_goes_before_that_of_the_call(
    claims: dict[str, Any], expires_in: float, expiry: float
) -> None:
    assert make().sign(claims, expires_in)[1]["exp"] == expiry


def test_claims_without_a_json_form_are_not_signed() -> None:
    with pytest.raises(NotSerializableError):
        make().sign({"what": object()})


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 10**400, True])
def test_times_that_no_token_could_be_accepted_with_are_not_signed(seconds: float) -> None:
    with pytest.raises(NotSerializableError, match="numbers of seconds"):
        make().sign({}, seconds)
    for claim in ("exp", "nbf"):
        with pytest.raises(NotSerializableError, match="numbers of seconds"):
            make().sign({claim: seconds})


def test_times_beyond_the_calendar_are_times() -> None:
    far = 10**300
    assert make().verify(forged({"iat": 10**400, "exp": far})) == {"iat": 10**400, "exp": far}
    assert refusal(make(), forged({"nbf": far})).details == {"date": None}
    assert refusal(make(), forged({"exp": -far})).details == {"expiry": None}


def test_an_expired_token_is_bad() -> None:
    token, _ = make().sign({}, 10)
    assert make(now=NOW + 9).verify(token)
    error = refusal(make(now=NOW + 10), token)
    assert (error.name, error.is_bad_token) == ("AuthTokenExpiredError", True)
    assert error.details == {"expiry": "2023-11-14T22:13:30.000Z"}


def test_a_token_that_is_not_good_yet_is_not_bad() -> None:
    token, _ = make().sign({"nbf": int(NOW) + 10})
    error = refusal(make(), token)
    assert (error.name, error.is_bad_token) == ("AuthTokenNotBeforeError", False)
    assert error.details == {"date": "2023-11-14T22:13:30.000Z"}
    assert make(now=NOW + 10).verify(token)


def forged(claims: dict[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "not a token",
        forged({"name": "Ann"}, "z" * 64),
        forged({"name": "Ann"})[:-2],
        forged({"exp": "soon"}),
        forged({"exp": True}),
        forged({"nbf": []}),
        forged({"exp": float("nan")}),
        forged({"exp": float("inf")}),
        forged({"exp": 10**400}),
        forged({"nbf": -(10**400)}),
    ],
)
def test_a_malformed_or_forged_token_is_invalid_and_bad(token: str) -> None:
    error = refusal(make(), token)
    assert (error.name, error.is_bad_token) == ("AuthTokenInvalidError", True)


@pytest.mark.parametrize("token", [None, 1, {}, ["a"], "x" * 20_000])
def test_what_is_no_text_is_no_token(token: object) -> None:
    error = refusal(make(), token)
    assert (error.name, error.is_bad_token) == ("AuthTokenError", True)


def test_the_algorithm_none_is_never_accepted() -> None:
    unsigned = jwt.encode({"name": "Ann"}, None, algorithm="none")  # type: ignore[arg-type]
    assert refusal(make(), unsigned).name == "AuthTokenInvalidError"


def test_an_algorithm_other_than_the_configured_one_is_not_accepted() -> None:
    assert refusal(make("HS256"), forged({}, algorithm="HS512")).name == "AuthTokenInvalidError"
    assert make("HS512").verify(forged({"a": 1}, algorithm="HS512")) == {"a": 1}


def test_claims_that_only_an_application_understands_are_not_judged() -> None:
    claims = {"aud": "us", "iss": "you", "sub": 5, "jti": 7, "iat": NOW + 1000}
    assert make().verify(forged(claims)) == claims


def test_the_key_is_derived_from_the_secret_of_the_cluster() -> None:
    tokens = Tokens.from_options(algorithm="HS512", **PLAIN)  # type: ignore[arg-type]
    other = Tokens.from_options(algorithm="HS512", **PLAIN | {"secret": "another secret"})  # type: ignore[arg-type]
    token, _ = tokens.sign({"a": 1})
    assert tokens.verify(token)["a"] == 1
    assert refusal(other, token).name == "AuthTokenInvalidError"


@pytest.mark.parametrize(
    ("algorithm", "generate"),
    [
        ("RS256", lambda: rsa.generate_private_key(65537, 2048)),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256R1())),
        ("ES512", lambda: ec.generate_private_key(ec.SECP521R1())),
    ],
)
def test_key_pairs(algorithm: Algorithm, generate: Callable[[], Any], tmp_path: Path) -> None:
    public, private = write_keys(tmp_path, generate())
    both = Tokens.from_options(algorithm=algorithm, **PLAIN | {"public_key": public, "private_key": private})  # type: ignore[arg-type]
    reader = Tokens.from_options(algorithm=algorithm, **PLAIN | {"public_key": public})  # type: ignore[arg-type]
    token, claims = both.sign({"name": "Ann"})
    assert reader.verify(token) == claims
    with pytest.raises(UnsupportedError):
        reader.sign({})
    # The public key, which anybody may have, must not pass as a key of HS256.
    mixed = jwt.encode({}, "x" * 64, "HS256")
    assert refusal(reader, mixed).name == "AuthTokenInvalidError"


@pytest.mark.parametrize(
    ("algorithm", "options", "said"),
    [
        ("HS256", {"key": "s3cret"}, "too short"),
        ("HS512", {"key": "k" * 32}, "64"),
        ("HS256", {"public_key": Path("some.pem")}, "of no use"),
        ("RS256", {}, "needs auth_public_key"),
        ("RS256", {"public_key": Path("/nowhere/key.pem")}, "auth_public_key"),
        ("RS256", {"public_key": Path(__file__)}, "no key for RS256"),
    ],
)
def test_keys_that_cannot_be_used_end_the_worker(algorithm: Algorithm, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        Tokens.from_options(algorithm=algorithm, **PLAIN | options)
    assert "s3cret" not in str(caught.value)


def test_keys_that_do_not_belong_together_end_the_worker(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    public, private = write_keys(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    _, other = write_keys(tmp_path / "other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SettingsError, match="do not belong together"):
        Tokens.from_options(algorithm="ES256", **PLAIN | {"public_key": public, "private_key": other})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is a private key"):
        Tokens.from_options(algorithm="ES256", **PLAIN | {"public_key": private})  # type: ignore[arg-type]
