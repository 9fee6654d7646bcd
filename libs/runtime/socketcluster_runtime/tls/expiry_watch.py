"""Says in time that a certificate ends, again each day, and when it has ended, without a restart of anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.tls.certificates import Chain, name_of, written

log = get_logger(__name__)

DAY = 86_400.0
NOTICE = 14 * DAY
"""Seconds before the end of a certificate from which on it is warned of."""
LOOK_INTERVAL = 3_600.0
"""Seconds between two looks at the clock, at most: it may be set, and a machine may sleep."""


@dataclass
class _Watched:
    path: Path
    first: x509.Certificate
    """Of those in the file, the one that ends first."""
    last: x509.Certificate
    """The one that begins last."""
    told: str = ""
    told_at: float = 0.0


class ExpiryWatch:
    """Watches the certificates that are in use.

    Args:
        what_to_do: is said beside what is found: how a new certificate comes into use.
        clock: returns the time, in seconds since 1970.
    """

    def __init__(self, what_to_do: str, clock: Callable[[], float] = time.time) -> None:
        self._what_to_do = what_to_do
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ends(self) -> float | None:
        """When the first of them ends, in seconds since 1970; ``None``: there is none."""
        return min((_end(watched.first) for watched in self._watched.values()), default=None)

    def take(self, option: str, path: Path, chain: Chain) -> None:
        """Watch the certificates that an option's file has now, and say at once what there is to say of them."""
        if not chain:
            self._watched.pop(option, None)
            return
        self._watched[option] = _Watched(path, min(chain, key=_end), max(chain, key=_begin))
        self.look()

    def look(self) -> None:
        """Say what has not been said today."""
        now = self._clock()
        for option, watched in self._watched.items():
            state = _state(watched, now)
            if state and (state != watched.told or now - watched.told_at >= DAY):
                watched.told_at = now
                self._tell(option, watched, state, now)
            watched.told = state

    def start(self) -> None:
        """Look at the clock from now on, in the running loop."""
        self.close()
        now = self._clock()
        changes = [
            due - now
            for watched in self._watched.values()
            for due in (_begin(watched.last), _end(watched.first) - NOTICE, _end(watched.first), watched.told_at + DAY)
            if due > now
        ]
        wait = min((LOOK_INTERVAL, *(change + 1 for change in changes)))
        self._timer = asyncio.get_running_loop().call_later(wait, self._due)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self.look()
        self.start()

    def _tell(self, option: str, watched: _Watched, state: str, now: float) -> None:
        early = state == _EARLY
        certificate = watched.last if early else watched.first
        seconds = _begin(certificate) - now if early else _end(certificate) - now
        what_to_do = f"look at this machine's clock, and at the file; {self._what_to_do}" if early else self._what_to_do
        say = log.warning if state == _SOON else log.error
        say(
            state,
            option=option,
            path=str(watched.path),
            certificate=name_of(certificate),
            not_before=written(certificate.not_valid_before_utc),
            not_after=written(certificate.not_valid_after_utc),
            days=round(seconds / DAY, 1),
            what_to_do=what_to_do,
        )


_EARLY = "a certificate is not valid yet, and is not accepted"
_SOON = "a certificate expires soon"
_OVER = "a certificate has expired, and is not accepted"


def _state(watched: _Watched, now: float) -> str:
    if now >= _end(watched.first):
        return _OVER
    if now < _begin(watched.last):
        return _EARLY
    return _SOON if now >= _end(watched.first) - NOTICE else ""


def _begin(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
