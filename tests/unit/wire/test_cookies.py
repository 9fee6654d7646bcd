"""The header ``Cookie``, as servers read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketcluster_wire.cookies import values_of


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("s=1", ["1"]),
        ("a=b; s=1; c=d", ["1"]),
        ("s=first; S=no; s=second", ["first", "second"]),
        ("s=", [""]),
        ("s", []),
        ("s; s=1", ["1"]),
        (";;=;s=1;", ["1"]),
        ("\ts = 1 ;", ["1"]),
        ('s="1"', ["1"]),
        ("s=1=2=", ["1=2="]),
        ("xs=1; s.x=2; x=s=3", []),
        ("", []),
    ],
)
def test_the_values_of_a_name_come_in_their_order(header: str, values: list[str]) -> None:
    assert list(values_of(header, "s")) == values


@given(st.text(alphabet='s=; \t",x', max_size=30))
def test_any_text_has_values_or_none(header: str) -> None:
    for value in values_of(header, "s"):
        assert value in header
        assert value == value.strip(' \t"')
        assert ";" not in value
