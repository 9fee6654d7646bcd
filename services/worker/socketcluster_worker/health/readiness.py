"""May this worker be given clients, and if not, why? Balancers and health checks are told."""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """Ready unless something speaks against it."""

    def __init__(self) -> None:
        self._tell: Callable[[bool], None] | None = None
        self._reasons: dict[str, str] = {}
        self._spared: set[str] = set()

    @property
    def reason(self) -> str:
        """Why no new clients may come, for people; empty if they may."""
        return next(iter(self._reasons.values()), "")

    @property
    def refusal(self) -> str:
        """Why no client may begin on a connection that is there, for people; empty if they may."""
        return next((reason for what, reason in self._reasons.items() if what not in self._spared), "")

    def begin(self, tell: Callable[[bool], None]) -> None:
        """Call ``tell`` with whether clients may come: now, and whenever that changes."""
        self._tell = tell
        tell(not self._reasons)

    def end(self) -> None:
        """Tell nothing more: the worker is on its way out."""
        self._tell = None

    def refuses(self, what: str) -> bool:
        """Does ``what`` speak against new clients?"""
        return what in self._reasons

    def refuse(self, what: str, reason: str, *, spares_connected: bool = False) -> None:
        """Take no new clients because of ``what``, until it is admitted.

        Args:
            what: speaks against them.
            reason: says it to people.
            spares_connected: may those begin all the same that have a connection already?
        """
        was_ready = not self._reasons
        self._reasons[what] = reason
        if spares_connected:
            self._spared.add(what)
        if was_ready and self._tell is not None:
            self._tell(False)

    def admit(self, what: str) -> None:
        """Have ``what`` speak against new clients no longer."""
        if self._reasons.pop(what, None) is not None and not self._reasons and self._tell is not None:
            self._tell(True)
