"""What a handler's annotations say of its arguments: checked and converted, once for all clients' events."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect as types
from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

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
        try:
            signature, called = inspect.signature(function), inspect.signature(function, follow_wrapped=False)
        except ValueError as error:  # a builtin may have none
            raise TypeError(f"{_name(function)} does not say what it takes: {error}") from None
        for parameter in called.parameters.values():  # what a decorator's own function gives to it is not looked at
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise TypeError(f"{_name(function)}: no client can give {parameter.name!r}, which goes by keyword only")
        for parameter in signature.parameters.values():
            if parameter.kind in _POSITIONAL:
                self._parameters.append(_look_at(function, parameter, is_own=len(self._parameters) < own))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = _look_at(function, parameter, is_own=False)
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

    names, enclosing = _names_known_to(function)
    try:
        wanted = get_type_hints(Annotated, names, enclosing, include_extras=True)
        found = wanted[parameter.name]
        _check_known(types.type_info(found), set())
    except NameError as error:
        raise TypeError(f"{what} is not known ({error}): define or import it at the module's top") from None
    except (TypeError, RecursionError) as error:  # an alias that names itself is endless
        raise TypeError(f"{what} cannot be checked: {error}") from None
    return found


def _names_known_to(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the globals of the code that wrote a function's annotations, and what it uses of the functions around."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if isinstance(inner, type):
        return vars(sys.modules[inner.__module__]), {}
    if not hasattr(inner, "__code__"):  # an object that can be called
        inner = inspect.unwrap(inner.__call__)
    code = getattr(inner, "__code__", None)
    enclosing = {}
    for name, cell in zip(code.co_freevars if code else (), getattr(inner, "__closure__", None) or (), strict=False):
        try:
            enclosing[name] = cell.cell_contents
        except ValueError:  # it gets its value later: the function itself, say
            continue
    return getattr(inner, "__globals__", {}), enclosing


def _check_known(known: types.Type, seen: set[int]) -> None:
    """Raise ``TypeError`` if a type is, or holds, one that nothing a client sends can be."""
    if id(known) in seen:  # it holds itself
        return
    seen.add(id(known))
    match known:
        case types.CustomType(cls=cls) if not _is_model(cls) and cls is not object:
            raise TypeError(f"{cls!r} is no plain type, msgspec.Struct, dataclass or pydantic model")
        case types.DataclassType(cls=cls) if is_pydantic_dataclass(cls):
            raise TypeError(f"the checks of {cls!r} would be left out: make it a pydantic.BaseModel")
        case types.RawType() | types.ExtType():
            raise TypeError(f"a client sends no {type(known).__name__.removesuffix('Type')}")
    for field in known.__struct_fields__:
        value = getattr(known, field)
        for part in value if isinstance(value, tuple) else (value,):
            inside = part.type if isinstance(part, types.Field) else part
            if isinstance(inside, types.Type):
                _check_known(inside, seen)


def _is_model(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, BaseModel)


def _read_model(wanted: Any, value: Any) -> Any:
    """Read a pydantic model, the only type but ``object`` that ``msgspec`` does not know and that is let in."""
    if not _is_model(wanted):
        return value
    try:
        return wanted.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_TOLD]
        raise ValueError("; ".join(f"{fault['msg']} - at `{_path(fault['loc'])}`" for fault in faults)) from None


def _path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
