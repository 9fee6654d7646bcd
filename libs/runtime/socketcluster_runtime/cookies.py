"""The session cookie: a session id that the cluster signed."""

from __future__ import annotations

import hashlib

from itsdangerous import BadSignature, Signer

from socketcluster_runtime.keys import Purpose, derive_key

MAX_COOKIE_HEADER = 16_384
MAX_VALUE = 200
"""Characters of a cookie's value; a longer one is none of ours."""
MAX_TRIED = 4
"""Cookies of the right name whose signature is looked at; a browser sends one for each path and domain that has one."""


class SessionCookies:
    """Reads and writes the session cookie of one application.

    Args:
        app_name: part of the cookie's name and of the key, so that two applications under one domain stay apart.
        secret: the cluster's shared secret.
    """

    def __init__(self, app_name: str, secret: str) -> None:
        self.name = f"{app_name}.session"
        key = derive_key(secret, Purpose.SESSION_COOKIES, app_name)
        self._signer = Signer(key, key_derivation="none", digest_method=hashlib.sha256)

    def read(self, header: str) -> str | None:
        """Return the session id in a ``Cookie`` header, or ``None`` if there is none that this cluster signed."""
        if len(header) > MAX_COOKIE_HEADER:
            return None
        prefix = self.name + "="
        tried = 0
        for part in header.split(";"):
            pair = part.strip()
            if not pair.startswith(prefix) or len(pair) > len(prefix) + MAX_VALUE:
                continue
            try:
                return self._signer.unsign(pair[len(prefix) :].strip('"')).decode("ascii")
            except (BadSignature, UnicodeDecodeError):  # a cookie of the same name for another path may follow
                tried += 1
                if tried == MAX_TRIED:
                    break
        return None

    def expire(self, *, secure: bool) -> str:
        """Return the value of a ``Set-Cookie`` header with which a browser forgets the cookie."""
        return f"{self.name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def write(self, session_id: str, *, secure: bool) -> str:
        """Return the value of a ``Set-Cookie`` header; the cookie lives as long as the browser."""
        value = self._signer.sign(session_id).decode("ascii")
        return f"{self.name}={value}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
