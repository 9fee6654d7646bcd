"""JSON texts as JavaScript writes them: ``JSON.stringify`` cuts a surrogate pair in two where a program cut its string.

A lone half is a legal escape in JSON, and nothing that UTF-8 can carry.
"""

from __future__ import annotations

import re

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rf"((?:{_HIGH}{_LOW}|\\[^u]|\\u(?!{_HIGH[3:]}|{_LOW[3:]}))++)|{_HIGH}|{_LOW}")


def replace_lone_surrogates(text: str) -> str:
    """Return the JSON text with U+FFFD for each escaped half of a surrogate pair, as in what else a browser sends."""
    return _LONE_SURROGATE.sub(lambda found: found[1] or "\\ufffd", text)
