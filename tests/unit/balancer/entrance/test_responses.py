"""The answers that the balancer writes itself."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from socketcluster_balancer.entrance import responses
from socketcluster_balancer.errors import RefusedError
from socketcluster_wire.request_head import RequestHead


def parts(response: bytes) -> tuple[str, dict[str, str], str]:
    head, _, body = response.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields), body.decode()


def request(line: str, *fields: str) -> RequestHead:
    head = RequestHead.parse("\r\n".join([line, *fields, "", ""]).encode())
    assert head is not None
    return head


@pytest.mark.parametrize("status", [400, 408, 429, 431, 500, 503])
def test_an_answer_is_whole_and_is_not_kept(status: int) -> None:
    line, fields, body = parts(responses.answer(status))
    assert line == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    assert fields.pop("Date").endswith(" GMT")
    retry = {"Retry-After": "1"} if status in (429, 503) else {}
    assert fields == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        **retry,
        "Connection": "close",
    }


def test_a_browser_is_shown_a_page_and_a_head_nothing() -> None:
    line, fields, body = parts(responses.answer(503, request("GET / HTTP/1.1", "Accept: text/html,*/*")))
    assert (line[9:12], fields["Content-Type"]) == ("503", "text/html; charset=utf-8")
    assert body.startswith("<!DOCTYPE html>")
    _, of_head, nothing = parts(responses.answer(503, request("HEAD / HTTP/1.1", "Accept: text/html,*/*")))
    assert (of_head["Content-Length"], nothing) == (fields["Content-Length"], "")


def test_a_refusal_has_the_controller_s_fields() -> None:
    line, fields, body = parts(responses.refusal(RefusedError(402, "Pay.", headers={"Retry-After": "9"}), None))
    assert (line, fields["Retry-After"], fields["Cache-Control"]) == ("HTTP/1.1 402 Payment Required", "9", "no-store")
    assert body == "Pay.\n"
    _, fields, _ = parts(responses.refusal(RefusedError(599, headers={"cache-control": "private"}), None))
    assert fields["cache-control"] == "private"
    assert "Cache-Control" not in fields


def test_a_refusal_without_a_body_or_a_name() -> None:
    assert parts(responses.refusal(RefusedError(304), None))[2] == ""
    assert parts(responses.refusal(RefusedError(599), None))[0] == "HTTP/1.1 599 Refused"
