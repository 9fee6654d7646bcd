"""TLS session tickets that all balancers of a host accept: a client's next connection may meet any of them.

OpenSSL seals tickets with keys that each context makes for itself; Python has no call to set them. So they are set in
the library that Python's ``ssl`` has loaded, after a look whether the context is where it is expected to be.
"""

from __future__ import annotations

import _ssl
import asyncio
import ctypes
import functools
import os
import re
import secrets
import ssl
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.private_files import FILE_MODE, make_folder

log = get_logger(__name__)

PERIOD = 3_600.0
"""Seconds for which one key is used; its tickets are good for no longer."""
KEY_BYTES = 80
"""A name of 16 bytes, 32 for HMAC with SHA-256, 32 for AES-256 (SSL_CTX_set_tlsext_ticket_keys(3))."""
LOOK_INTERVAL = 60.0
"""Seconds between two looks at the clock, at most: it may be set."""
_OWN_NAME = re.compile(r"\.?([0-9]+)\.(?:key|[0-9a-f]{16})")  # a key, or the draft of one that a killed balancer left

KNOWN_VERSIONS = ((3, 11), (3, 12), (3, 13))
"""Of CPython: those in which a context's object is known to begin with the pointer to OpenSSL's."""

_GET_KEYS, _SET_KEYS, _GET_MIN_VERSION = 58, 59, 130  # SSL_CTRL_..., in ssl.h


class TicketKeys:
    """The key of the tickets, which the balancers of a host share by a folder that is theirs alone.

    The first that needs the key of a period makes it at random, and removes those before: what was recorded with a key
    that is gone can be opened by nobody.

    Args:
        folder: where; made if it does not exist. On a file system in memory the keys never reach a disk.
        clock: returns the time, in seconds since 1970; the balancers of a host have the same.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._period = -1
        self._timer: asyncio.TimerHandle | None = None

    def use_in(self, context: ssl.SSLContext) -> None:
        """Seal the tickets of a context, in place of the one before, with the shared key from now on.

        If that is impossible, that is logged, and the context keeps a key of its own.
        """
        self.close()
        self._context, self._period = context, -1
        self._renew()

    def close(self) -> None:
        """Renew the key no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew(self) -> None:
        now = self._clock()
        period = int(now // PERIOD)
        if self._context is not None and period != self._period:
            self._period = period
            try:
                key = self._key(period)
            except OSError as error:
                log.warning(
                    "the key of TLS session tickets cannot be shared: only this balancer resumes its clients' sessions",
                    path=str(self._folder),
                    error=str(error),
                )
            else:
                if not set_key(self._context, key):
                    log.warning(
                        "this Python has no way to set the key of TLS session tickets: only the balancer that a client "
                        "was at resumes its session",
                        python=sys.version.split()[0],
                        openssl=ssl.OPENSSL_VERSION,
                    )
                    return
        wait = min(LOOK_INTERVAL, (period + 1) * PERIOD - now)
        self._timer = asyncio.get_running_loop().call_later(wait, self._renew)

    def _key(self, period: int) -> bytes:
        """Return a period's key, made if this balancer is the first; the keys of other periods are removed."""
        make_folder(self._folder)
        path = self._folder / f"{period}.key"
        if not path.exists():
            draft = self._folder / f".{period}.{secrets.token_hex(8)}"
            try:
                draft.touch(FILE_MODE)
                draft.write_bytes(secrets.token_bytes(KEY_BYTES))
                os.link(draft, path)  # whole, or not at all
            except FileExistsError:
                pass  # another balancer was first
            finally:
                draft.unlink(missing_ok=True)
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise OSError(f"{path} is no key: it has {len(key)} bytes, not {KEY_BYTES}")
        for other in self._folder.iterdir():
            found = _OWN_NAME.fullmatch(other.name)
            if found is not None and int(found[1]) != period:
                other.unlink(missing_ok=True)
        return key


def set_key(context: ssl.SSLContext, key: bytes) -> bool:
    """Seal and open a context's tickets with ``key``, of ``KEY_BYTES``; return whether that was possible."""
    library = _library()
    if library is None:
        return False
    found = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if (
        not found
        or library.SSL_CTX_get_options(found) != context.options
        or library.SSL_CTX_ctrl(found, _GET_MIN_VERSION, 0, None) != context.minimum_version
        or library.SSL_CTX_ctrl(found, _GET_KEYS, 0, None) != KEY_BYTES
    ):
        return False
    given, now = ctypes.create_string_buffer(key, KEY_BYTES), ctypes.create_string_buffer(KEY_BYTES)
    library.SSL_CTX_ctrl(found, _SET_KEYS, KEY_BYTES, given)
    library.SSL_CTX_ctrl(found, _GET_KEYS, KEY_BYTES, now)
    return now.raw == key


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return the library that Python's ``ssl`` calls; ``None`` if its contexts may be laid out otherwise."""
    known = sys.implementation.name == "cpython" and sys.version_info[:2] in KNOWN_VERSIONS
    if not known or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None
    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))  # what the module was linked with is found through it
        library.OpenSSL_version_num.restype = ctypes.c_ulong
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        same = library.OpenSSL_version_num() == ssl.OPENSSL_VERSION_NUMBER
    except (OSError, AttributeError):
        return None
    return library if same else None
