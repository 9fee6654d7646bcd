"""Auth tokens: JSON Web Tokens (RFC 7519) that clients keep, and bring along whenever they connect."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from jwt.types import Options

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_worker.errors import AuthTokenError, NotSerializableError, UnsupportedError
from socketcluster_worker.settings import Algorithm

MIN_KEY_LENGTH = 32
"""Bytes of a key for HS256: as many as its digest has (RFC 7518, section 3.2)."""
MAX_TOKEN_LENGTH = 16_384
"""Characters of a token that a client brings; a longer one is not looked at."""
# Only the signature, "exp" and "nbf" decide; what the other claims mean is the application's business.
_UNCHECKED: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@dataclass(slots=True)
class Tokens:
    """Signs and verifies tokens by one algorithm.

    Args:
        algorithm: the only one that is accepted.
        verification_key: bytes for HS*, for the others a public key as PyJWT has it.
        signing_key: bytes for HS*, for the others a private key as PyJWT has it; ``None``: this cluster cannot sign.
        default_expiry: seconds that a token is good for unless it is told otherwise.
        now: the time, in seconds since 1970.
    """

    algorithm: Algorithm
    verification_key: Any
    signing_key: Any
    default_expiry: float
    now: Callable[[], float] = time.time

    @classmethod
    def from_options(
        cls,
        *,
        algorithm: Algorithm,
        key: str | None,
        public_key: Path | None,
        private_key: Path | None,
        default_expiry: float,
        secret: str,
    ) -> Tokens:
        """Make it of the options whose names begin with ``auth_``, and the secret of the cluster.

        Raises:
            SettingsError: a key is missing, unreadable, or too short.
        """
        if algorithm.startswith("HS"):
            if public_key is not None or private_key is not None:
                raise SettingsError(f"auth_public_key and auth_private_key are of no use to auth_algorithm {algorithm}")
            shared = derive_key(secret, Purpose.AUTH_TOKENS, size=64) if key is None else key.encode()
            least = MIN_KEY_LENGTH * int(algorithm[2:]) // 256
            if len(shared) < least:
                raise SettingsError(f"auth_key is too short: it has {len(shared)} bytes, {algorithm} needs {least}")
            return cls(algorithm, shared, shared, default_expiry)
        if public_key is None:
            raise SettingsError(f"auth_algorithm {algorithm} needs auth_public_key, a file in PEM format")
        if key is not None:
            raise SettingsError(f"auth_key is of no use to auth_algorithm {algorithm}")
        public = _read_pem(public_key, "auth_public_key", algorithm)
        private = None if private_key is None else _read_pem(private_key, "auth_private_key", algorithm)
        if hasattr(public, "sign"):
            raise SettingsError("auth_public_key is a private key")
        tokens = cls(algorithm, public, private, default_expiry)
        if private is not None:
            try:
                tokens.verify(tokens.sign({})[0])
            except (AuthTokenError, NotSerializableError):
                raise SettingsError("auth_public_key and auth_private_key do not belong together") from None
        return tokens

    def take_keys(self, other: Tokens) -> None:
        """Sign and verify with the keys of ``other`` from now on, which is of the same algorithm."""
        self.verification_key, self.signing_key = other.verification_key, other.signing_key

    def sign(self, claims: Mapping[str, Any], expires_in: float | None = None) -> tuple[str, dict[str, Any]]:
        """Return a token, and its claims with the times that were added: ``iat``, and ``exp`` if it is not there.

        Args:
            claims: what the token says.
            expires_in: seconds; ``None`` means ``default_expiry``.

        Raises:
            NotSerializableError: a claim has no JSON form.
            UnsupportedError: there is no private key to sign with.
        """
        if self.signing_key is None:
            raise UnsupportedError("this cluster cannot sign tokens: the option auth_private_key is not set")
        now = self.now()
        seconds = self.default_expiry if expires_in is None else expires_in
        if not _is_time(seconds) or not _is_time(claims.get("nbf")) or not _is_time(claims.get("exp")):
            raise NotSerializableError("the claims cannot be signed: nbf, exp and expires_in are numbers of seconds")
        due = now + seconds
        signed = {"iat": int(now), "exp": int(due) if float(seconds).is_integer() else round(due, 3), **claims}
        try:
            return jwt.encode(signed, self.signing_key, self.algorithm), signed
        except (TypeError, ValueError, RecursionError, jwt.PyJWTError) as error:
            raise NotSerializableError(f"the claims cannot be signed: {error}") from None

    def verify(self, token: object) -> dict[str, Any]:
        """Return a token's claims.

        Raises:
            AuthTokenError: its name and ``is_bad_token`` say why it is not accepted.
        """
        if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH:
            raise AuthTokenError("the token is not a text, or too long")
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self.verification_key, algorithms=[self.algorithm], options=_UNCHECKED
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise AuthTokenError(str(error), name="AuthTokenInvalidError") from None
        now = self.now()
        begin, end = claims.get("nbf"), claims.get("exp")
        if not _is_time(begin) or not _is_time(end):
            raise AuthTokenError("invalid nbf or exp value", name="AuthTokenInvalidError")
        if begin is not None and now < begin:
            name, when = "AuthTokenNotBeforeError", {"date": _iso(begin)}
            raise AuthTokenError("jwt not active", name=name, is_bad_token=False, details=when)
        if end is not None and now >= end:
            raise AuthTokenError("jwt expired", name="AuthTokenExpiredError", details={"expiry": _iso(end)})
        return claims


def _read_pem(path: Path, option: str, algorithm: Algorithm) -> Any:
    """Return a key, read once: so that a wrong one is found when the worker starts."""
    try:
        return jwt.get_algorithm_by_name(algorithm).prepare_key(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{option}: {error}") from None
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise SettingsError(f"{option}: {path} holds no key for {algorithm}: {error}") from None


def _is_time(value: object) -> bool:
    """Is a claim missing, or a number of seconds?"""
    if value is None:
        return True
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float, such as 10**400
        return False


def _iso(seconds: float) -> str | None:
    """Return a time as JavaScript's JSON has it, ``None`` if it is out of range."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
