"""What a log line shows: text that others chose can neither begin a line nor steer a terminal."""

from __future__ import annotations

import json
import traceback
from types import TracebackType
from typing import Any, TextIO

from structlog.typing import EventDict, WrappedLogger

MAX_VALUE = 2000
"""Characters of one value, or one line of a traceback, that are shown."""
MAX_TRACEBACK = 200
"""Lines of a traceback that are shown, the first and the last ones."""

_SHOWN_AS_THEY_ARE = ("level", "timestamp", "exc_info")
_TRACEBACKS = ("exception", "stack")
_QUOTED = frozenset(" =\"'")


def harmless(text: str) -> str:
    """Return ``text`` with escapes for what is not printable: controls, line separators, bidi overrides, surrogates."""
    text = shortened(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shortened(text: str) -> str:
    """Return ``text``, or its beginning and how long it is."""
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}... ({len(text)} characters)"


class Shown:
    """A value as a line for people shows it: a text with spaces or quotes in quotes, others as they are."""

    __slots__ = ("_text",)

    def __init__(self, value: object) -> None:
        if isinstance(value, str):
            text = shortened(value)
            self._text = repr(text) if _QUOTED.intersection(text) else harmless(text)
        else:
            self._text = harmless(_repr(value))

    def __repr__(self) -> str:
        return self._text


def for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make an event's text and fields harmless; a processor of structlog."""
    for key, value in event.items():
        if key == "event":
            event[key] = harmless(str(value))
        elif key in _TRACEBACKS:
            event[key] = marked(str(value))
        elif key not in _SHOWN_AS_THEY_ARE:
            event[key] = Shown(value)
    return event


def for_programs(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Bound an event's text and fields, which JSON escapes; a processor of structlog."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = clipped(value) if key in _TRACEBACKS else shortened(value)
        elif value is not None and not isinstance(value, bool | int | float):
            text = _repr(value)
            event[key] = shortened(text) if len(text) > MAX_VALUE else value
    return event


def to_json(event: EventDict, **options: Any) -> str:
    """Write an event as one line of ASCII; DEL is the one control character that JSON leaves as it is."""
    return json.dumps(event, **options).replace("\x7f", "\\u007f")


def write_traceback(out: TextIO, exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> None:
    """Write a traceback below its line: marked, because its messages may have lines that look like the log's."""
    out.write("\n" + marked("".join(traceback.format_exception(*exc_info))))


def marked(text: str) -> str:
    """Return lines that belong to the one before, with a mark: none of them can be taken for a line of its own."""
    return "\n".join(f"  | {harmless(line)}" for line in clipped(text).split("\n"))


def clipped(text: str) -> str:
    """Return a traceback's first and last lines, each of bounded length."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        lines[half:-half] = [f"... ({len(lines) - 2 * half} lines)"]
    return "\n".join(map(shortened, lines))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
