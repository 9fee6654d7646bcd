"""Responses that are written without a server."""

from __future__ import annotations

import pytest

from socketcluster_wire.http_response import closing


def test_a_response_is_whole_and_says_that_the_connection_closes() -> None:
    answer = closing(
        429,
        "text/plain; charset=utf-8",
        "schön\n".encode(),
        fields=[("Retry-After", "5"), ("X-Other", "é")],
        date="Sun, 06 Nov 1994 08:49:37 GMT",
    )
    assert (
        answer
        == (
            "HTTP/1.1 429 Too Many Requests\r\n"
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Length: 7\r\n"
            "Retry-After: 5\r\n"
            "X-Other: é\r\n"
            "Connection: close\r\n\r\n"
        ).encode("latin-1")
        + "schön\n".encode()
    )


@pytest.mark.parametrize(("status", "head_only"), [(200, True), (304, False)])
def test_what_has_no_body_tells_of_its_size_alone(status: int, head_only: bool) -> None:
    answer = closing(status, "text/plain", b"1234", head_only=head_only)
    assert answer.endswith(b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")


def test_a_status_without_a_name_is_given_one() -> None:
    assert closing(599, "text/plain", b"", phrase="Refused").startswith(b"HTTP/1.1 599 Refused\r\n")
    with pytest.raises(ValueError, match="599"):
        closing(599, "text/plain", b"")
