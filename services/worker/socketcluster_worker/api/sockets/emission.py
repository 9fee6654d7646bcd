"""What goes to many clients: what each message protocol makes of it is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

from socketcluster_worker.errors import NotSerializableError

T = TypeVar("T")


class Forms:
    """The forms of one thing, each made when the first client needs it."""

    __slots__ = ("_errors", "_forms")

    def __init__(self) -> None:
        self._forms: dict[object, Any] = {}
        self._errors: dict[object, NotSerializableError] | None = None

    def form(self, key: object, make: Callable[[Self], T]) -> T:
        """Return ``make(self)``, remembered under ``key``.

        Raises:
            NotSerializableError: there is no such form; that is found out once, too.
        """
        try:
            found: T = self._forms[key]
        except KeyError:
            if self._errors is not None and key in self._errors:
                raise self._errors[key] from None
            try:
                found = self._forms[key] = make(self)
            except NotSerializableError as error:
                self._errors = {**(self._errors or {}), key: error}
                raise
        return found


class Emission(Forms):
    """An event on its way to many sockets."""

    __slots__ = ("args", "event", "offset", "overtakes")

    def __init__(
        self, event: str, args: tuple[Any, ...], offset: str | None = None, *, overtakes: bool = False
    ) -> None:
        super().__init__()
        self.event = event
        self.args = args
        self.offset = offset
        """Where clients recover from after they got it; ``None`` where recovery is off."""
        self.overtakes = overtakes
        """Could it overtake broadcasts that were made before? Then it waits for its turn, for each client."""
