"""What a request to open a WebSocket is answered, at once or by the library."""

from __future__ import annotations

import pytest

from socketcluster_wire.deflate import DeflateOptions
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport import websocket_opening
from socketcluster_worker.transport.websocket_opening import Opening, answer_opening, is_as_usual

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
USUAL = {"host": "a", "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
USUAL |= {"sec-websocket-key": KEY}
DEFLATE = DeflateOptions()
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=9, permessage-deflate",
    "x-other; mode=1, permessage-deflate",
    "x-other",
)


def opening(fields: dict[str, str], deflate: DeflateOptions | None = DEFLATE) -> Opening:
    request = Handshake("/", fields, None, secure=False)
    return answer_opening(deflate, lambda offered: offered[0], request, None, [("Set-Cookie", "a=b")])


def by_library(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Opening:
    with monkeypatch.context() as patch:
        patch.setattr(websocket_opening, "is_as_usual", lambda _: False)
        return opening(fields)


def fields_of(answer: bytes) -> set[bytes]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == b""
    return {line for line in head.split(b"\r\n") if not line.startswith(b"Date:")}


@pytest.mark.parametrize("offer", OFFERS)
def test_the_usual_request_is_answered_as_the_library_does(offer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = USUAL | {"sec-websocket-extensions": offer}
    assert is_as_usual(fields)
    for connection in ("Upgrade", "keep-alive, Upgrade", "upgrade"):
        at_once = opening(fields | {"connection": connection})
        library = by_library(fields | {"connection": connection}, monkeypatch)
        assert at_once.is_open
        assert fields_of(at_once.answer) == fields_of(library.answer)
        assert at_once.agreement == library.agreement
        assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in fields_of(at_once.answer)


def test_nothing_is_compressed_where_the_server_does_not_want_it() -> None:
    answered = opening(USUAL | {"sec-websocket-extensions": OFFERS[0]}, deflate=None)
    assert answered.agreement is None
    assert b"xtensions" not in answered.answer


def test_an_offer_is_agreed_on_anew_for_other_options() -> None:
    fields = USUAL | {"sec-websocket-extensions": OFFERS[1]}
    for bits in (9, 11):
        agreement = opening(fields, DeflateOptions(max_window_bits=bits)).agreement
        assert agreement is not None
        assert agreement.client_window_bits == bits


def test_a_long_offer_is_not_remembered() -> None:
    websocket_opening._agree.cache_clear()
    answered = opening(USUAL | {"sec-websocket-extensions": "x-" + "y" * 1000 + ", permessage-deflate"})
    assert answered.agreement is not None
    assert websocket_opening._agree.cache_info().currsize == 0


@pytest.mark.parametrize(
    "unusual",
    [
        {"sec-websocket-key": "c2hvcnQ="},
        {"sec-websocket-key": f"{KEY}, {KEY}"},
        {"sec-websocket-version": "8"},
        {"upgrade": "websocket, h2c"},
        {"connection": "close"},
        {"sec-websocket-extensions": "permessage-deflate; ="},
    ],
)
def test_what_is_wrong_is_refused_by_the_library(unusual: dict[str, str]) -> None:
    answered = opening(USUAL | unusual)
    assert not answered.is_open
    assert answered.answer.startswith(b"HTTP/1.1 4")
    assert b"Set-Cookie" not in answered.answer


def test_what_is_only_unusual_is_answered_by_the_library() -> None:
    assert opening(USUAL | {"connection": "Upgrade, TE"}).is_open
    chosen = opening(USUAL | {"sec-websocket-protocol": "chat, superchat"})
    assert b"Sec-WebSocket-Protocol: chat" in fields_of(chosen.answer)
