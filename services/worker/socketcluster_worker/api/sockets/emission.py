"""What goes to many clients: what each message protocol makes of it is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

import msgspec

from socketcluster_worker.api.data.values import read_json
from socketcluster_worker.errors import NotSerializableError

T = TypeVar("T")
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Forms:
    """The forms of one thing, each made when the first client needs it."""

    __slots__ = ("_errors", "forms", "frames")

    def __init__(self) -> None:
        self.forms: dict[object, Any] = {}
        """Those that were made; who sends to many looks here before he calls ``form``."""
        self.frames: dict[str | None, bytes] = {}
        """What goes straight to clients that have a ``line``, by their ``frame_kind``."""
        self._errors: dict[object, NotSerializableError] | None = None

    def form(self, key: object, make: Callable[[Self], T]) -> T:
        """Return ``make(self)``, remembered under ``key``.

        Raises:
            NotSerializableError: there is no such form; that is found out once, too.
        """
        if key in self.forms:
            found: T = self.forms[key]
            return found
        if self._errors is not None and key in self._errors:
            raise self._errors[key]
        try:
            found = self.forms[key] = make(self)
        except NotSerializableError as error:
            self._errors = {**(self._errors or {}), key: error}
            raise
        return found


class Emission(Forms):
    """An event on its way to many sockets.

    Args:
        event: its name.
        args: its arguments; not needed with their JSON.
        json: the JSON of their list, where that is known: protocols that write JSON make nothing else of it.
        offset: where clients recover from after they got it; ``None`` where recovery is off.
        overtakes: could it overtake broadcasts that were made before? Then it waits for its turn, for each client.
    """

    __slots__ = ("_args", "event", "json", "offset", "overtakes")

    def __init__(
        self,
        event: str,
        args: tuple[Any, ...] | None,
        offset: str | None = None,
        *,
        json: bytes | None = None,
        overtakes: bool = False,
    ) -> None:
        super().__init__()
        self.event = event
        self._args = args
        self.json = json
        self.offset = offset
        self.overtakes = overtakes

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments."""
        if self._args is None:
            self._args = tuple(read_json(self.json)) if self.json is not None else ()
        return self._args

    @property
    def json_args(self) -> tuple[Any, ...]:
        """The arguments, each as ``msgspec.Raw`` of its JSON where that is known."""
        return self.args if self.json is None else tuple(_split(self.json))
