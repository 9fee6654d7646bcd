"""What a client can be refused with."""

from __future__ import annotations

from typing import Any

import pytest

from socketcluster_balancer.errors import RefusedError


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (200, {}, "status"),
        (600, {}, "status"),
        (True, {}, "status"),
        ("403", {}, "status"),
        (403, {"a b": "c"}, "no header field"),
        (403, {"a": "b\r\nc: d"}, "no header field"),
        (403, {"Content-Length": "9"}, "not yours"),
    ],
)
def test_what_cannot_be_answered_is_an_error_where_it_is_raised(status: Any, headers: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RefusedError(status, headers=headers)
