"""Arguments that are checked where a handler is annotated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from socketcluster_worker.api.handlers.arguments import Arguments
from socketcluster_worker.errors import EventError


class Struct(msgspec.Struct):
    name: str
    age: int = 0


@dataclass
class Data:
    name: str
    at: datetime | None = None


class Model(BaseModel):
    name: str = Field(min_length=2)
    friends: list[int] = []


class Unknown:
    pass


def check(function: Callable[..., Any], *args: Any) -> Any:
    return Arguments(function, own=1).check(("socket", *args))[1:]


def refused(function: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(EventError) as caught:
        check(function, *args)
    assert caught.value.name == "ValidationError"
    return caught.value.message


def plain(socket: Any, number: int, text: str = "default", *rest: float) -> None: ...


def shapes(socket: Any, struct: Struct, data: Data, model: Model) -> None: ...


def nested(socket: Any, models: dict[str, list[Model]]) -> None: ...


def narrow(
    socket: Any, color: Literal["red"], small: Annotated[int, msgspec.Meta(le=9)], either: int | None
) -> None: ...


def anything(socket: Any, value: Any) -> None: ...


def bare(socket, value, more, other=3):  # type: ignore[no-untyped-def]
    ...


def test_plain_types() -> None:
    assert check(plain, 1) == (1,)
    assert check(plain, 1, "x", 2, 3.5) == (1, "x", 2.0, 3.5)
    assert refused(plain) == "number: it is missing"
    assert refused(plain, "1") == "number: Expected `int`, got `str`"
    assert refused(plain, 1, None) == "text: Expected `str`, got `null`"
    assert refused(plain, 1, "x", 1, "y") == "rest: Expected `float`, got `str`"


def test_structs_dataclasses_and_models() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    given = {"name": "a", "age": 3}, {"name": "b", "at": "2030-01-01T00:00:00Z"}, {"name": "cc", "friends": [4]}
    assert check(shapes, *given) == (Struct("a", 3), Data("b", at), Model(name="cc", friends=[4]))
    assert refused(shapes, {"age": 3}) == "struct: Object missing required field `name`"
    assert refused(shapes, {"name": 1}) == "struct: Expected `str`, got `int` - at `$.name`"
    assert refused(shapes, given[0], []) == "data: Expected `object`, got `array`"
    assert refused(shapes, *given[:2], {"name": "c"}) == "model: String should have at least 2 characters - at `$.name`"
    assert refused(shapes, *given[:2]) == "model: it is missing"


def test_models_inside_of_others_are_read_too() -> None:
    assert check(nested, {"a": [{"name": "bb"}]}) == ({"a": [Model(name="bb")]},)
    assert "at `$.name`" in refused(nested, {"a": [{"name": "b"}]})


def test_keys_are_converted_as_json_has_none_but_texts() -> None:
    def function(socket: Any, scores: dict[int, str]) -> None: ...

    assert check(function, {"1": "a"}) == ({1: "a"},)
    assert "Expected `int`" in refused(function, {"x": "a"})


@dataclass
class Checked:
    value: Any

    def __post_init__(self) -> None:
        if self.value + 1 > 9:
            raise ValueError("too much")


class CheckedModel(BaseModel):
    value: Any

    @field_validator("value")
    @classmethod
    def check(cls, value: Any) -> Any:
        if value + 1 > 9:
            raise ValueError("too much")
        return value


def checked_data(socket: Any, value: Checked) -> None: ...


def checked_models(socket: Any, value: list[CheckedModel]) -> None: ...


def test_what_is_no_refusal_of_a_type_is_not_told_as_one() -> None:
    assert check(checked_data, {"value": 1}) == (Checked(1),)
    assert refused(checked_data, {"value": 9}) == "value: too much"
    assert "too much" in refused(checked_models, [{"value": 9}])
    with pytest.raises(TypeError, match="can only concatenate"):
        check(checked_data, {"value": "x"})
    with pytest.raises(TypeError, match="can only concatenate"):
        check(checked_models, [{"value": "x"}])


def test_a_client_is_told_of_few_faults() -> None:
    message = refused(shapes, {"name": "a"}, {"name": "a"}, {"name": "cc", "friends": ["a", "b", "c", "d"]})
    assert message.count(" - at ") == 3


def test_narrow_types() -> None:
    assert check(narrow, "red", 9, None) == ("red", 9, None)
    assert refused(narrow, "blue", 9, None) == "color: Invalid enum value 'blue'"
    assert "`int` <= 9" in refused(narrow, "red", 10, None)
    assert refused(narrow, "red", 9) == "either: it is missing"


def test_any_may_be_anything_but_has_to_be_there() -> None:
    assert check(anything, None, "surplus") == (None,)
    assert refused(anything) == "value: it is missing"


def test_what_is_not_annotated_is_not_checked_and_may_be_missing() -> None:
    assert check(bare) == (None, None)
    assert check(bare, 1, 2) == (1, 2)
    assert check(bare, 1, 2, 4, 5) == (1, 2, 4)


def test_what_a_client_cannot_give_is_an_error_when_the_handler_is_added() -> None:
    def needs(socket: Any, *, by_keyword: int) -> None: ...

    def may(socket: Any, *, by_keyword: int = 1) -> None: ...

    with pytest.raises(TypeError, match="no client can give 'by_keyword'"):
        check(needs)
    assert check(may) == ()

    @functools.wraps(needs)
    def gives(*args: Any) -> None:
        needs(*args, by_keyword=1)

    assert check(gives) == ()
    with pytest.raises(TypeError, match="max does not say what it takes"):
        check(max)


class Methods:
    def method(self, socket: Any, number: int) -> None: ...

    async def __call__(self, socket: Any, struct: Struct) -> None: ...


def given_more(more: str, socket: Any, struct: Struct) -> None: ...


class Made:
    def __init__(self, socket: Any, struct: Struct) -> None: ...


def test_methods_and_wrapped_functions_are_looked_at_too() -> None:
    assert refused(Methods().method, "x") == "number: Expected `int`, got `str`"
    for callable_ in (Methods(), functools.partial(given_more, "x"), Made, functools.partial(Methods())):
        assert check(callable_, {"name": "a"}) == (Struct("a"),)
        assert refused(callable_, 1) == "struct: Expected `object`, got `int`"

    @functools.wraps(plain)
    def wrapped(*args: Any) -> None: ...

    assert refused(wrapped, "x") == "number: Expected `int`, got `str`"


def test_types_of_enclosing_functions_are_found_where_the_code_uses_them() -> None:
    class Inner(msgspec.Struct):
        n: int

    def used(_socket: Any, inner: Inner) -> None:
        assert isinstance(inner, Inner)

    def unused(_socket: Any, inner: Inner) -> None: ...

    assert check(used, {"n": 1}) == (Inner(1),)
    with pytest.raises(TypeError, match=r"unused: the type of 'inner' is not known .*at the module's top"):
        Arguments(unused, own=1)


def test_what_a_handler_uses_of_the_function_around_it_may_come_later() -> None:
    def function(_socket: Any, struct: Struct) -> Any:
        return later(struct), function

    arguments = Arguments(function, own=1)

    def later(struct: Struct) -> str:
        return struct.name

    assert arguments.check(("socket", {"name": "a"})) == ("socket", Struct("a"))
    assert function("socket", Struct("a"))[0] == "a"


@dataclass
class Holds:
    path: Path


class Tree(msgspec.Struct):
    branches: list[Tree]
    path: dict[str, Path]


@pydantic_dataclass
class Positive:
    number: int = Field(gt=0)


def test_what_cannot_be_checked_inside_of_a_type_is_told_too() -> None:
    def deep(socket: Any, thing: list[Path]) -> None: ...

    def field(socket: Any, thing: Holds) -> None: ...

    def recursive(socket: Any, thing: tuple[int, Tree]) -> None: ...

    def raw(socket: Any, thing: msgspec.Raw) -> None: ...

    def unchecked(socket: Any, *things: list[Positive] | None) -> None: ...

    for function in (deep, field, recursive, raw, unchecked):
        with pytest.raises(TypeError, match=r"the type of 'things?' cannot be checked"):
            Arguments(function, own=1)


def test_objects_are_anything() -> None:
    def function(socket: Any, thing: object, *things: dict[str, object]) -> None: ...

    assert check(function, None, {"a": [1]}) == (None, {"a": [1]})
    assert refused(function) == "thing: it is missing"


def test_what_cannot_be_checked_is_told_when_the_handler_is_added() -> None:
    def unknown(socket: Any, thing: Unknown) -> None: ...

    def optional(socket: Any, thing: Unknown | None) -> None: ...

    def ambiguous(socket: Any, thing: Struct | Data) -> None: ...

    for function in (unknown, optional, ambiguous):
        with pytest.raises(TypeError, match="the type of 'thing' cannot be checked"):
            Arguments(function, own=1)
    with pytest.raises(TypeError, match="the socket is the first"):
        Arguments(lambda: None, own=1)
