"""What the log says of handlers and operations that failed."""

from __future__ import annotations

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_store_client.errors import LinkError, StoreUnavailableError

log = logging.get_logger(__name__)


class Failures:
    """Logs each failure with its traceback, but what fails only because no store answers as one condition."""

    def __init__(self) -> None:
        self._unavailable = Condition(
            log, "handlers fail: the stores do not answer", over="no handler has failed for a store's sake for a while"
        )

    def add(self, error: BaseException, what: str) -> None:
        """Log what failed, and with what."""
        if isinstance(error, StoreUnavailableError):
            self.add_unavailable(error, what)
        elif isinstance(error, LinkError) and error.__traceback__ is None:  # of an operation that nobody waits for
            log.error(f"{what} failed", error=f"{type(error).__name__}: {error}")
        else:
            log.error(f"{what} failed", exc_info=error)

    def add_unavailable(self, error: StoreUnavailableError, what: str) -> None:
        """Log what failed because a store did not answer: the first of all that do so meanwhile with its traceback.

        Operations that no handler waits for are counted where all are: by the client of the stores.
        """
        if error.__traceback__ is None:
            return
        if not self._unavailable.active:
            log.error(f"{what} failed", exc_info=error)
        self._unavailable.add(last=what)

    def close(self) -> None:
        """Log nothing more of what lasts."""
        self._unavailable.close()
