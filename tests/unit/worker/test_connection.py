"""What a handshake says of the request with which a client came."""

from __future__ import annotations

from socketcluster_worker.connection import Handshake


def test_a_handshake_is_what_the_request_says() -> None:
    headers = [(b"Cookie", b"a=1"), (b"X-One", b"\xfc"), (b"cookie", b"b=2"), (b"x-one", b"two")]
    handshake = Handshake.parse("/a%20b?x=1&y=%C3%BC&empty=", headers, ("::1", 5), secure=True)
    assert handshake.path == "/a b"
    assert handshake.query["x"] == "1"
    assert handshake.query["y"] == "ü"
    assert handshake.headers == {"cookie": "a=1; b=2", "x-one": "ü, two"}
    assert (handshake.address, handshake.secure) == (("::1", 5), True)


def test_a_handshake_has_all_parameters_of_its_query() -> None:
    handshake = Handshake.parse("/?token=&flag&a=1&b=2&a=%20&a=1", [], None, secure=False)
    assert handshake.query == {"token": "", "flag": "", "a": "1", "b": "2"}
    assert handshake.query_all == {"token": ("",), "flag": ("",), "a": ("1", " ", "1"), "b": ("2",)}
