"""The header ``Cookie``, as servers read it (RFC 6265, section 5.4, and the parts of 5.2 that concern a pair)."""

from __future__ import annotations

from collections.abc import Iterator


def values_of(header: str, name: str) -> Iterator[str]:
    """Give the value of each cookie ``name``, in their order, which says which path is the longest.

    A browser sends one for each path and domain that has one. White space around a name or a value, and the quotes
    around a value, are none of it; what has no ``=`` is no cookie.

    Args:
        header: the field's value; of several fields, joined by semicolons.
        name: with its case.
    """
    for pair in header.split(";"):
        if name in pair:  # which most are not
            key, equals, value = pair.partition("=")
            if equals and key.strip(" \t") == name:
                yield value.strip(' \t"')
