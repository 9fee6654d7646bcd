"""Who is called when an event happens, and with what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from socketcluster_worker.api.sockets.events import Emitter, Serial, make_handler


def test_arguments_are_trimmed_and_filled_up() -> None:
    emitter = Emitter()
    got: list[Any] = []
    emitter.on("x", lambda: got.append(()))
    emitter.on("x", lambda a: got.append((a,)))
    emitter.on("x", lambda a, b="default": got.append((a, b)))
    emitter.on("x", lambda *all_: got.append(all_))
    emitter.on("x", lambda a, b, c: got.append((a, b, c)))
    for args in ((), (1, 2, 3, 4)):
        for handler in emitter.handlers("x"):
            handler.call(args)
    assert got == [
        *((), (None,), (None, "default"), (), (None, None, None)),
        *((), (1,), (1, 2), (1, 2, 3, 4), (1, 2, 3)),
    ]


def test_once_and_off() -> None:
    emitter = Emitter()
    got: list[Any] = []
    first = emitter.once("x", lambda: got.append("once"))
    second = emitter.on("x")(lambda: got.append("on"))
    for _ in range(2):
        for handler in emitter.handlers("x"):
            handler.call(())
    assert got == ["once", "on", "on"]
    emitter.off("x", first)
    emitter.off("x", second)
    emitter.off("never")
    assert emitter.handlers("x") == ()
    emitter.on("x", first)
    emitter.off("x")
    assert emitter.handlers("x") == ()


class Methods:
    def plain(self, a: Any, b: Any = None) -> None: ...

    def no_self(*args: Any) -> None: ...

    @classmethod
    def of_class(cls, a: Any) -> None: ...

    @staticmethod
    def static(a: Any, b: Any) -> None: ...

    def __call__(self, a: Any, b: Any, c: Any) -> None: ...


def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        return function(*args)

    return wrapped


def with_signature(*_args: Any) -> None: ...


with_signature.__signature__ = inspect.signature(lambda a, b: None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("function", "least", "most"),
    [
        (lambda: None, 0, 0),
        (lambda a, /, b, *, c=1: None, 2, 2),
        (lambda a, b=1, **more: None, 1, 2),
        (lambda a, b, *rest, c=1: None, 2, None),
        (Methods().plain, 1, 2),
        (Methods().no_self, 0, None),
        (Methods().of_class, 1, 1),
        (Methods.static, 2, 2),
        (Methods(), 3, 3),
        (functools.partial(lambda a, b, c: None, 1), 2, 2),
        (wrapper(lambda a, b=1: None), 1, 2),
        (wrapper(Methods().plain), 1, 2),
        (wrapper(wrapper(functools.partial(lambda a, b: None, 1))), 1, 1),
        (functools.lru_cache(lambda a: None), 1, 1),
        (Serial(lambda a, b: None), 2, 2),
        (Serial(Methods().plain), 1, 2),
        (with_signature, 2, 2),
        ([].append, 1, 1),
        (print, 0, None),
    ],
)
def test_a_handler_knows_how_many_arguments_it_takes(
    function: Callable[..., Any], least: int, most: int | None
) -> None:
    handler = make_handler(function)
    assert (handler.least, handler.most) == (least, most)


async def yields(_socket: Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("no function", "is a function, plain or async, not 'no function'"),
        (yields, "is a function, plain or async, not"),
        (functools.partial(yields), "is a function, plain or async, not"),
        (lambda *, c: None, "nobody gives 'c', which goes by keyword only"),
        (functools.partial(lambda a, *, c: None), "nobody gives 'c'"),
    ],
)
def test_what_can_be_no_handler_is_told_when_it_is_added(wrong: Any, told: str, serial: bool) -> None:
    with pytest.raises(TypeError, match=told):
        make_handler(Serial(wrong) if serial else wrong)


def test_a_decorator_may_give_what_goes_by_keyword_only() -> None:
    def needs(a: int, *, c: int) -> None: ...

    @functools.wraps(needs)
    def gives(*args: Any) -> None:
        needs(*args, c=1)

    assert make_handler(gives).least == 1


def test_an_event_has_a_name() -> None:
    with pytest.raises(TypeError, match=r'@emitter\.on\("name"\)'):
        Emitter().on(print)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an event has a name"):
        Emitter().once(None, print)  # type: ignore[call-overload]


class Own(Emitter):
    EVENTS: ClassVar = {"own": 2}
    HAS_OTHERS = False


def test_a_handler_of_an_own_event_wants_no_more_than_it_gets() -> None:
    def three(a: int, b: int, c: int) -> None: ...

    own = Own()
    with pytest.raises(TypeError, match=r"three is called with 2 argument\(s\), and would get nothing for 'c'"):
        own.on("own", three)
    own.on("own", lambda a, b, c: None)  # as it says nothing of c, that is None
    with pytest.raises(ValueError, match="Own has no event 'other', only own"):
        own.on("other", three)
    Emitter().on("other", three)  # who knows what a client sends?
