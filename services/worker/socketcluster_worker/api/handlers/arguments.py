"""What a handler's annotations say of its arguments: checked and converted, once for all clients' events."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from pydantic import BaseModel, ValidationError

from socketcluster_worker.errors import EventError

MAX_TOLD = 3
"""Faults of one argument that a client is told of."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(slots=True)
class _Parameter:
    name: str
    type: Any
    """``Any``: whatever it is."""
    is_annotated: bool
    is_required: bool

    def convert(self, value: Any) -> Any:
        if self.type is Any:
            return value
        try:
            return msgspec.convert(value, self.type, dec_hook=_read_model, str_keys=True)  # as JSON's keys are
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, TypeError):  # code of a type failed, and did not refuse by a ValueError
                raise error.__cause__ from None
            raise invalid(f"{self.name}: {error}") from None

    def missing(self) -> Any:
        """Return what stands for an argument that did not come."""
        if self.is_annotated:
            raise invalid(f"{self.name}: it is missing")
        return None


class Arguments:
    """The arguments of one function, without those that do not come from the client.

    Args:
        function: whose they are.
        own: how many of its first parameters the caller gives itself.

    Raises:
        TypeError: the function has fewer parameters, or needs one by keyword, or an annotation cannot be checked.
    """

    def __init__(self, function: Callable[..., Any], own: int) -> None:
        self._own = own
        self._parameters: list[_Parameter] = []
        self._rest: _Parameter | None = None  # what *args are
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in _POSITIONAL:
                self._parameters.append(_look_at(function, parameter, is_own=len(self._parameters) < own))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = _look_at(function, parameter, is_own=False)
            elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise TypeError(f"{_name(function)}: no client can give {parameter.name!r}, which goes by keyword only")
        if len(self._parameters) < own and self._rest is None:
            raise TypeError(f"{_name(function)} takes {own} arguments and more: the socket is the first")
        del self._parameters[:own]

    def check(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the function is called with: checked where it is annotated, and as many as it takes.

        Where a parameter has neither an annotation nor a default, ``None`` stands for what is missing.

        Raises:
            EventError: ``ValidationError``, which says of which argument.
            Exception: whatever code of an argument's type raises, but a ``ValueError``, by which it refuses.
        """
        own = self._own
        given = len(args) - own
        checked = list(args[:own])
        for index, parameter in enumerate(self._parameters):
            if index < given:
                checked.append(parameter.convert(args[own + index]))
            elif parameter.is_required:
                checked.append(parameter.missing())
            else:
                break
        if self._rest is not None:
            checked += map(self._rest.convert, args[own + len(self._parameters) :])
        return tuple(checked)


def invalid(message: str) -> EventError:
    """Return the error that says that what a client sent is not what a handler wants."""
    return EventError(message, name="ValidationError")


def _look_at(function: Callable[..., Any], parameter: inspect.Parameter, *, is_own: bool) -> _Parameter:
    is_annotated = parameter.annotation is not parameter.empty and not is_own
    wanted = _type_of(function, parameter) if is_annotated else Any
    return _Parameter(parameter.name, wanted, is_annotated, parameter.default is parameter.empty)


def _type_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type that an annotation names.

    Raises:
        TypeError: it names none, or one that nothing a client sends can be.
    """
    what = f"{_name(function)}: the type of {parameter.name!r}"

    class Annotated:
        __annotations__ = {parameter.name: parameter.annotation}

    inner = inspect.unwrap(function)
    code, cells = getattr(inner, "__code__", None), getattr(inner, "__closure__", None) or ()
    enclosing = {name: cell.cell_contents for name, cell in zip(code.co_freevars if code else (), cells, strict=False)}
    try:
        wanted = get_type_hints(Annotated, getattr(inner, "__globals__", {}), enclosing, include_extras=True)
        found = wanted[parameter.name]
        msgspec.convert(_NOTHING, found, dec_hook=_read_model)
    except NameError as error:
        raise TypeError(f"{what} is not known ({error}): define or import it at the module's top") from None
    except msgspec.ValidationError:  # as it has to be
        return found
    except (TypeError, NotImplementedError) as error:
        raise TypeError(f"{what} cannot be checked: {error}") from None
    return found


_NOTHING = object()


def _read_model(wanted: Any, value: Any) -> Any:
    """Read a pydantic model; whatever else ``msgspec`` does not know is none of the types that a client can send."""
    if not (isinstance(wanted, type) and issubclass(wanted, BaseModel)):
        raise NotImplementedError(f"{wanted!r} is no plain type, msgspec.Struct, dataclass or pydantic model")
    try:
        return wanted.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_TOLD]
        raise ValueError("; ".join(f"{fault['msg']} - at `{_path(fault['loc'])}`" for fault in faults)) from None


def _path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
