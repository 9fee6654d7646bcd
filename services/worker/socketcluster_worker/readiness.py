"""May this worker be given clients, and if not, why? Balancers and health checks are told."""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """Ready unless something speaks against it."""

    def __init__(self) -> None:
        self._tell: Callable[[bool], None] | None = None
        self._reasons: dict[str, str] = {}

    @property
    def reason(self) -> str:
        """Why no new clients may come, for people; empty if they may."""
        return next(iter(self._reasons.values()), "")

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

    def refuse(self, what: str, reason: str) -> None:
        """Take no new clients because of ``what``, until it is admitted; ``reason`` says it to people."""
        was_ready = not self._reasons
        self._reasons[what] = reason
        if was_ready and self._tell is not None:
            self._tell(False)

    def admit(self, what: str) -> None:
        """Have ``what`` speak against new clients no longer."""
        if self._reasons.pop(what, None) is not None and not self._reasons and self._tell is not None:
            self._tell(True)
