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


def test_a_packed_handshake_says_the_same() -> None:
    headers = [(b"Cookie", b"a=1"), (b"X-One", b"\xfc"), (b"X-Two", b"folded\r\n line"), (b"x-one", b"a:b")]
    handshake = Handshake.parse("http://h:1/?x=1", headers, None, secure=False)
    handshake.pack()
    handshake.pack()
    assert handshake.headers == {"cookie": "a=1", "x-one": "ü, a:b", "x-two": "folded  line", "host": "h:1"}
    assert handshake.with_auth({"a": 1}).headers == handshake.headers


def test_a_handshake_with_credentials_is_the_same_request() -> None:
    handshake = Handshake.parse("/p?x=1", [(b"a", b"b")], ("::1", 5), secure=True)
    handshake.has_session = True
    assert handshake.with_auth(None) is handshake
    other = handshake.with_auth({"token": 1})
    assert (other.auth, handshake.auth) == ({"token": 1}, None)
    assert (other.path, other.query, other.headers, other.address) == ("/p", {"x": "1"}, {"a": "b"}, ("::1", 5))
    assert (other.secure, other.has_session) == (True, True)


def test_what_one_does_to_a_query_is_nothing_to_others() -> None:
    one, other = (Handshake.parse("/?x=1", [], None, secure=False) for _ in range(2))
    assert isinstance(one.query, dict)
    one.query["x"] = "2"
    assert (one.parameter("x"), other.query, other.parameter("y")) == ("1", {"x": "1"}, None)
