from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError, RequestHeadError
from socketcluster_wire.request_head import RequestHead, Target, has_request_line

UPGRADE = (
    b"GET /socketcluster/engine/?EIO=4&transport=polling&sid=abcdefgh%2D123&t=x HTTP/1.1\r\n"
    b"Host: example.org\r\n"
    b"X-Cookie: shop.session=no\r\n"
    b"Accept:\ttext/html, */*;q=0.1 \r\n"
    b'COOKIE: a=b; shop.session=wwwwwwww1234.sig=; empty=;quoted="q"; shop.session=second\r\n'
    b"Cookie2: shop.session=no\r\n"
    b"\r\n"
)


def head(data: bytes | bytearray) -> RequestHead:
    parsed = RequestHead.parse(data)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("made", [bytes, bytearray])
def test_a_head_tells_what_a_worker_is_chosen_by(made: type[bytes] | type[bytearray]) -> None:
    parsed = head(made(UPGRADE + b"the body"))
    assert parsed.method == "GET"
    assert parsed.target == "/socketcluster/engine/?EIO=4&transport=polling&sid=abcdefgh%2D123&t=x"
    assert parsed.path == "/socketcluster/engine/"
    assert parsed.sid == "abcdefgh-123"
    assert parsed.header("host") == "example.org"
    assert parsed.header("accept") == "text/html, */*;q=0.1"
    assert parsed.header("referer") is None
    assert parsed.cookie("shop.session") == "wwwwwwww1234.sig="
    assert parsed.cookie("empty") == ""
    assert parsed.cookie("quoted") == "q"
    assert parsed.cookie("session") is None


def test_every_beginning_waits_for_more() -> None:
    for size in range(len(UPGRADE)):
        assert RequestHead.parse(UPGRADE[:size]) is None


def test_without_headers_there_is_nothing_to_find() -> None:
    parsed = head(b"GET / HTTP/1.0\r\n\r\n")
    assert parsed.sid is None
    assert parsed.header("host") is None
    assert parsed.cookie("a") is None


def test_a_body_is_not_searched() -> None:
    parsed = head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nCookie: a=b\r\n\r\n")
    assert parsed.cookie("a") is None


def test_lines_may_end_with_a_bare_lf_and_follow_empty_ones() -> None:
    parsed = head(b"\r\n\n\r\nGET /x?sid=1 HTTP/1.1\nhost: a\ncookie: k=v\n\n")
    assert (parsed.path, parsed.sid, parsed.header("host"), parsed.cookie("k")) == ("/x", "1", "a", "v")


@pytest.mark.parametrize(
    ("target", "path", "sid"),
    [
        ("/", "/", None),
        ("/?sid=", "/", ""),
        ("/?asid=1&sid=2", "/", "2"),
        ("/?sid=1&sid=2", "/", "2"),
        ("/sid=1", "/sid=1", None),
        ("/a//b?c?sid=5", "/a//b", None),
        ("/a//b?c&sid=5#x&sid=6", "/a//b", "5"),
        ("/pid#x", "/pid", None),
        ("http://example.org?sid=1", "/", "1"),
        ("http://example.org/a?sid=3", "/a", "3"),
        ("http://example.org", "/", None),
        ("*", "*", None),
        ("example.org:443", "example.org:443", None),
        ("/?sid=%ff%zz", "/", "\ufffd%zz"),
    ],
)
def test_targets(target: str, path: str, sid: str | None) -> None:
    parsed = head(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    assert (parsed.path, parsed.sid) == (path, sid)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n",  # HTTP/0.9
        b"GET / FTP/1.0\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET /\x00 HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\n",
        b"\r\r\n",
        b"A" * 33,
    ],
)
def test_what_is_no_request_is_malformed_at_once(data: bytes) -> None:
    with pytest.raises(MalformedHeadError):
        RequestHead.parse(data)


def test_the_limit_is_exact() -> None:
    assert RequestHead.parse(UPGRADE + bytes(100), limit=len(UPGRADE)) is not None
    with pytest.raises(HeadTooLargeError):
        RequestHead.parse(UPGRADE, limit=len(UPGRADE) - 1)
    assert RequestHead.parse(UPGRADE[:-2], limit=len(UPGRADE) - 1) is None
    with pytest.raises(HeadTooLargeError):
        RequestHead.parse(UPGRADE[:-2], limit=len(UPGRADE) - 2)
    with pytest.raises(HeadTooLargeError):
        RequestHead.parse(b"\r\n" * 10, limit=20)


@given(st.binary(max_size=200) | st.from_regex(rb"\A[A-Z]{1,9} /[^\r\n]{0,20} HTTP/1\.1\r\n.{0,99}\r\n\r\n"))
@example(b"GET /?sid=%E0%A4%A HTTP/1.1\r\ncookie:;;=;x\r\n\r\n")
@example(b"GET /://? HTTP/1.1\n\n")
def test_any_bytes_are_a_head_or_the_documented_error(data: bytes) -> None:
    try:
        parsed = RequestHead.parse(data)
    except RequestHeadError:
        return
    if parsed is not None:
        assert isinstance(parsed.path, str)
        assert isinstance(parsed.sid, str | None)
        assert isinstance(parsed.header("cookie"), str | None)
        assert isinstance(parsed.cookie("x"), str | None)


@given(st.binary(max_size=60), st.integers(1, 59))
def test_what_is_malformed_stays_malformed(data: bytes, size: int) -> None:
    """A refusal never depends on how the bytes were cut."""
    try:
        RequestHead.parse(data[:size])
    except MalformedHeadError:
        with pytest.raises(MalformedHeadError):
            RequestHead.parse(data)


def test_empty_lines_in_front_are_not_without_end() -> None:
    assert head(b"\r\n" * 16 + b"GET / HTTP/1.1\r\n\r\n").path == "/"
    with pytest.raises(MalformedHeadError):
        RequestHead.parse(b"\r\n" * 17)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x: y", b"\n\r\n"]), max_size=12), st.data())
def test_a_head_that_is_complete_now_may_have_ended_in_what_came(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"GET / HTTP/1.1\r\n" + b"".join(pieces)
    known = data.draw(st.integers(16, len(whole)))
    if RequestHead.parse(whole[:known]) is None and RequestHead.parse(whole) is not None:
        assert RequestHead.may_end(whole, known)
    if RequestHead.parse(whole) is None:
        assert not RequestHead.may_end(whole + b"x", len(whole))


def test_all_header_fields_are_told_those_of_one_name_joined() -> None:
    parsed = head(b"GET / HTTP/1.1\r\nVia: a\r\nCOOKIE:x=1\r\nvia:\tb \r\nCookie: y=2\r\nEmpty:\r\n\r\n")
    assert parsed.headers() == {"via": "a, b", "cookie": "x=1; y=2", "empty": ""}
    assert head(b"GET / HTTP/1.1\r\n\r\n").headers() == {}


def test_parameters_are_decoded_and_keep_their_order() -> None:
    target = Target.parse("/room?tag=b&name=a%20b&tag=a&empty=&bare#tag=c")
    assert target.parameters() == {"tag": ("b", "a"), "name": ("a b",), "empty": ("",), "bare": ("",)}
    assert Target.parse("/room").parameters() == {}


@pytest.mark.parametrize(
    ("data", "has"),
    [
        (b"", None),
        (b"GET /", None),
        (b"\r\n" * 16, None),
        (b"\r\n" * 16 + b"GET /", None),
        (b"\r\n" * 17, False),
        (b"GET / HTTP/1.1\r\n", True),
        (b"\r\n\nGET / HTTP/1.1\n", True),
        (b"GET /\r\n", False),
        (b"\x16\x03\x01\n", False),
    ],
)
def test_whether_bytes_begin_a_request_is_known_with_their_first_line(data: bytes, has: bool | None) -> None:
    assert has_request_line(data) is has
    assert has_request_line(bytearray(data)) is has
