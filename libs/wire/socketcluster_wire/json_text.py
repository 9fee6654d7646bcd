"""JSON texts as JavaScript writes them, and how deeply they may be nested.

``JSON.stringify`` cuts a surrogate pair in two where a program cut its string. A lone half is a legal escape in JSON,
and nothing that UTF-8 can carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 128
"""Arrays and objects in each other in one text. What is accepted goes on to others, each of which adds levels of its
own and reads it deeper in its calls, where a decoder's limit is another: so this one is far below them."""

SHALLOW = 2 * MAX_DEPTH
"""Characters of a text that cannot be nested deeper than ``MAX_DEPTH``, as nearly every one is."""

_CONTAINERS = (list, dict)
_PLAIN = frozenset((str, int, float, bool, type(None)))
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rf"((?:{_HIGH}{_LOW}|\\[^u]|\\u(?!{_HIGH[3:]}|{_LOW[3:]}))++)|{_HIGH}|{_LOW}")


def replace_lone_surrogates(text: str) -> str:
    """Return the JSON text with U+FFFD for each escaped half of a surrogate pair, as in what else a browser sends."""
    return _LONE_SURROGATE.sub(lambda found: found[1] or "\\ufffd", text)


def may_nest_deeply(text: str) -> bool:
    """Tell whether a text may be nested deeper than ``MAX_DEPTH``; one of up to ``SHALLOW`` characters is not."""
    return text.count("[") + text.count("{") > MAX_DEPTH


def may_hold_binary(values: Iterable[Any]) -> bool:
    """Tell whether there is anything but plain JSON.

    msgspec writes bytes as base64 without asking its enc_hook. This walk takes 0.2 µs for a small event, half of what
    it takes to write MessagePack and to look for its marks of binary, which floats are full of too.
    """
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is dict:
            for item in value.values():  # a call fewer for most events
                if type(item) not in _PLAIN and may_hold_binary((item,)):
                    return True
        elif (kind is not list and kind is not tuple) or may_hold_binary(value):
            return True
    return False


def nest_deeper(values: Iterable[Any], most: int) -> bool:
    """Tell whether lists and dicts in any of the values are nested deeper than ``most``; empty ones do not count."""
    level = [value for value in values if type(value) in _CONTAINERS]
    for _ in range(most):
        if not level:
            return False
        level = [
            item
            for value in level
            for item in (value.values() if type(value) is dict else value)
            if type(item) in _CONTAINERS and item
        ]
    return bool(level)
