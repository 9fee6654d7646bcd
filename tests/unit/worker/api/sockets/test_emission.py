"""What goes to many clients is encoded once for each message protocol, and fails once."""

from __future__ import annotations

import pytest

from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.errors import NotSerializableError


def test_each_form_is_made_once() -> None:
    made: list[str] = []

    def make(emission: Emission) -> str:
        made.append(emission.event)
        return f"{emission.event}{emission.args}"

    emission = Emission("news", (1,))
    assert [emission.form(key, make) for key in ("a", "b", "a")] == ["news(1,)"] * 3
    assert made == ["news", "news"]
    assert emission.forms == {"a": "news(1,)", "b": "news(1,)"}


def test_that_there_is_no_form_is_found_out_once() -> None:
    tried: list[str] = []

    def refuse(emission: Emission) -> str:
        tried.append(emission.event)
        raise NotSerializableError("no")

    emission = Emission("news", ())
    for key in ("a", "a", "b", "a"):
        with pytest.raises(NotSerializableError, match="no"):
            emission.form(key, refuse)
    assert tried == ["news", "news"]
    assert emission.form("c", lambda emission: emission.event) == "news"
