"""Procedures: functions of the store's controller, which workers call by name and the store runs atomically.

A controller is a Python file with ``run(store)``, plain or async::

    from socketcluster_store import ProcedureTree, Store

    def run(store: Store) -> None:
        @store.procedure("take")
        def take(tree: ProcedureTree, sku: str, amount: int) -> int:
            left = (tree.get(["stock", sku]) or 0) - amount
            if left < 0:
                raise ValueError("sold out")
            tree.set(["stock", sku], left)
            return left
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, TypeAlias, TypeVar, overload

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.controllers import run_controller
from socketcluster_store.errors import InvalidError, UnknownProcedureError
from socketcluster_store_client.packing import pack

DEFAULT_CONTROLLER = Path("/controller/store_controller.py")
"""Where a container has its store controller mounted, if it has one."""
MODULE_NAME = "store_controller"
MAX_WRITES = 10_000
"""Writes of one call of a procedure, unless it is registered with less."""

Keys: TypeAlias = str | int | Sequence[str | int]
"""A key, or a chain of keys from the outermost to the innermost; an integer is an index into a list."""
Value: TypeAlias = bool | int | float | str | bytes | Sequence[Any] | Mapping[str, Any] | None
"""What a procedure is given and may return: what JSON has, and bytes; a tuple comes back as a list."""

_TRUE = pack(True)
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Procedures:
    """The procedures of one store, by name."""

    def __init__(self) -> None:
        self._procedures: dict[str, RegisteredProcedure] = {}

    def get(self, name: str) -> RegisteredProcedure:
        """Return a procedure.

        Raises:
            UnknownProcedureError: there is none of that name.
        """
        procedure = self._procedures.get(name)
        if procedure is None:
            known = ", ".join(sorted(self._procedures)) or "it has none"
            raise UnknownProcedureError(f"RUN {name[:100]}: the store's controller has no such procedure ({known})")
        return procedure

    def add(self, procedure: RegisteredProcedure) -> None:
        """Register a procedure.

        Raises:
            ValueError: there is one of that name already.
        """
        if procedure.name in self._procedures:
            raise ValueError(f"there is a procedure {procedure.name!r} already")
        self._procedures[procedure.name] = procedure


class Store:
    """What ``run(store)`` of a store controller is given."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    @overload
    def procedure(self, name: P, /, *, max_writes: int = MAX_WRITES) -> P: ...

    @overload
    def procedure(self, name: str | None = None, *, max_writes: int = MAX_WRITES) -> Callable[[P], P]: ...

    def procedure(self, name: Procedure | str | None = None, *, max_writes: int = MAX_WRITES) -> Any:
        """Decorate a plain function that workers are to call by name, that of the function or another one.

        It is given a ``ProcedureTree`` and the call's arguments, and returns a ``Value``. It refuses the call by
        raising any exception: all that it did is undone, and the caller gets a ``ProcedureError`` with the exception's
        text, and its class in ``name``. A ``Refusal`` of the tree that it does not catch reaches the caller as the
        error that the operation would have raised there.

        Args:
            name: what it is called, if not by the function's name.
            max_writes: after so many writes a call is refused and undone; 1 to 10,000.

        Raises:
            TypeError: what is decorated is no plain function (a store does one thing at a time, and waits for nobody),
                takes no tree, needs an argument by keyword, or has no name.
            ValueError: the name is taken, or ``max_writes`` is out of bounds.
        """
        if not 1 <= max_writes <= MAX_WRITES:
            raise ValueError(f"max_writes is between 1 and {MAX_WRITES}, not {max_writes}")
        if name is not None and not isinstance(name, str):  # the function itself
            return self.procedure(max_writes=max_writes)(name)

        def register(function: P) -> P:
            if not callable(function) or any(kind(function) for kind in _NOT_PLAIN):
                raise TypeError(f"a procedure is a plain function, not {function!r}")
            _check_arguments(function)
            called = name or getattr(function, "__name__", None)
            if called is None:
                raise TypeError(f'{function!r} has no name: @store.procedure("name")')
            self._procedures.add(RegisteredProcedure(called, function, max_writes))
            return function

        return register


class ProcedureTree:
    """A view of one tree, for one call of a procedure: a session's, or what one partition has of the application's.

    The vocabulary is the one of ``Session`` and ``worker.store``, not awaitable. Each operation sees those before it;
    one that is refused changes nothing and raises a ``Refusal``, which a procedure may catch.
    """

    def __init__(self, call: Callable[[int, list[str], bytes], Any]) -> None:
        self._call: Callable[[int, list[str], bytes], Any] = call

    def get(self, keys: Keys) -> Any:
        """Return the value, ``None`` if there is none."""
        return self._call(pb.VERB_GET, _chain(keys), b"")

    def set(self, keys: Keys, value: Any) -> None:
        """Put a value; maps that are missing on the way are made."""
        self._call(pb.VERB_SET, _chain(keys), pack(value))

    def add(self, keys: Keys, value: Any) -> int:
        """Append to a list, which is made of nothing or of a scalar; return the item's index."""
        return int(self._call(pb.VERB_ADD, _chain(keys), pack(value)))

    def concat(self, keys: Keys, value: Any) -> int:
        """Append a list's items, or put in a map's entries; return how many there are then."""
        return int(self._call(pb.VERB_CONCAT, _chain(keys), pack(value)))

    @overload
    def remove(self, keys: Keys) -> bool: ...

    @overload
    def remove(self, keys: Keys, *, get_value: bool) -> Any: ...

    def remove(self, keys: Keys, *, get_value: bool = False) -> Any:
        """Remove the value; return whether there was one, or with ``get_value`` the value itself."""
        return self._call(pb.VERB_REMOVE, _chain(keys), _TRUE if get_value else b"")

    def remove_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> list[Any]:
        """Remove and return a list's items, as a slice names them."""
        return list(self._call(pb.VERB_REMOVE_RANGE, _chain(keys), pack((start, stop))))

    def pop(self, keys: Keys) -> Any:
        """Remove and return the last item, ``None`` if there is none."""
        return self._call(pb.VERB_POP, _chain(keys), b"")

    def get_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> list[Any]:
        """Return a list's items, as a slice names them."""
        return list(self._call(pb.VERB_GET_RANGE, _chain(keys), pack((start, stop))))

    def get_all(self, keys: Keys = ()) -> dict[str, Any]:
        """Return a map; without a key chain, the whole tree."""
        return dict(self._call(pb.VERB_GET_ALL, _chain(keys), b""))

    def remove_all(self, keys: Keys = ()) -> None:
        """Empty a map; without a key chain, the whole tree."""
        self._call(pb.VERB_REMOVE_ALL, _chain(keys), b"")

    def count(self, keys: Keys = ()) -> int:
        """Return the number of items or entries, 0 of nothing."""
        return int(self._call(pb.VERB_COUNT, _chain(keys), b""))

    def exists(self, keys: Keys) -> bool:
        """Return whether there is a value; ``None`` is one."""
        return bool(self._call(pb.VERB_EXISTS, _chain(keys), b""))

    has_key = exists

    def expire(self, keys: Keys, seconds: float) -> bool:
        """Have the value removed in so many seconds; return whether there is one."""
        return bool(self._call(pb.VERB_EXPIRE, _chain(keys), pack(seconds)))

    def unexpire(self, keys: Keys) -> bool:
        """Let the value stay; return whether it was to expire."""
        return bool(self._call(pb.VERB_UNEXPIRE, _chain(keys), b""))

    def get_expiry(self, keys: Keys) -> float | None:
        """Return in how many seconds the value expires, ``None`` if it does not."""
        seconds = self._call(pb.VERB_GET_EXPIRY, _chain(keys), b"")
        return None if seconds is None else float(seconds)

    def close(self) -> None:
        """Refuse every later operation: the procedure has returned."""
        self._call = _closed


Procedure: TypeAlias = Callable[Concatenate[ProcedureTree, ...], Value]
"""What a controller registers."""
P = TypeVar("P", bound=Procedure)


@dataclass(frozen=True)
class RegisteredProcedure:
    """A procedure, and how it was registered."""

    name: str
    function: Procedure
    max_writes: int


async def load(procedures: Procedures, path: Path | None) -> None:
    """Run a store controller, which adds its procedures: ``path``, or the default one if it is there.

    Raises:
        ControllerError: the file does not exist, has no ``run``, or raised.
    """
    found = path or _default()
    if found is not None:
        await run_controller(found.absolute(), MODULE_NAME, "store", Store(procedures))


def _default() -> Path | None:
    return DEFAULT_CONTROLLER if DEFAULT_CONTROLLER.is_file() else None


def _check_arguments(function: Callable[..., Any]) -> None:
    """Raise ``TypeError`` if no call can give a procedure what it takes."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # as it is called
    except ValueError:  # a builtin may not say what it takes
        return
    try:
        signature.bind_partial(None)
    except TypeError:
        raise TypeError(f"a procedure is given a tree first, and {function!r} takes no argument") from None
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty:
            raise TypeError(f"{function!r}: no call gives {one.name!r}, which goes by keyword only")


def _chain(keys: Keys) -> list[str]:
    return [str(keys)] if isinstance(keys, str | int) else [str(key) for key in keys]


def _closed(_verb: int, _keys: list[str], _value: bytes) -> Any:
    raise InvalidError("the procedure that had this tree has returned")
