"""The session cookie: a session id that the cluster signed."""

from __future__ import annotations

import hashlib

from itsdangerous import BadSignature, Signer

from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire.cookies import values_of

HOST_PREFIX = "__Host-"
"""Begins the names of cookies that a browser takes only by TLS, from the very host, for all its paths (RFC 6265bis)."""
MAX_COOKIE_HEADER = 16_384
MAX_VALUE = 200
"""Characters of a cookie's value; a longer one is none of ours."""
MAX_TRIED = 4
"""Cookies of the right name whose signature is looked at; a browser sends one for each path and domain that has one."""


def session_cookie_name(app_name: str, *, secure: bool) -> str:
    """Return the name of an application's session cookie, for a connection with or without TLS."""
    return f"{HOST_PREFIX if secure else ''}{app_name}.session"


class SessionCookies:
    """Reads and writes the session cookie of one application.

    Under TLS its name has the prefix ``__Host-``: no other host of the domain can have put it there, nor a page that
    came without TLS. The bare name is believed without TLS alone.

    Args:
        app_name: part of the cookie's name and of the key, so that two applications under one domain stay apart.
        secret: the cluster's shared secret.
    """

    def __init__(self, app_name: str, secret: str) -> None:
        self._app_name = app_name
        key = derive_key(secret, Purpose.SESSION_COOKIES, app_name)
        self._signer = Signer(key, key_derivation="none", digest_method=hashlib.sha256)

    def read(self, header: str, *, secure: bool) -> str | None:
        """Return the session id in a ``Cookie`` header, or ``None`` if there is none that this cluster signed."""
        if len(header) > MAX_COOKIE_HEADER:
            return None
        tried = 0
        for value in values_of(header, session_cookie_name(self._app_name, secure=secure)):
            if len(value) > MAX_VALUE:
                continue
            try:
                return self._signer.unsign(value).decode("ascii")
            except (BadSignature, UnicodeDecodeError):  # a cookie of the same name for another path may follow
                tried += 1
                if tried == MAX_TRIED:
                    break
        return None

    def expire(self, *, secure: bool) -> str:
        """Return the value of a ``Set-Cookie`` header with which a browser forgets the cookie."""
        name = session_cookie_name(self._app_name, secure=secure)
        return f"{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def write(self, session_id: str, *, secure: bool) -> str:
        """Return the value of a ``Set-Cookie`` header; the cookie lives as long as the browser."""
        value = self._signer.sign(session_id).decode("ascii")
        name = session_cookie_name(self._app_name, secure=secure)
        return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
