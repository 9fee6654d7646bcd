"""The client's end of a WebSocket."""

from __future__ import annotations

import os

import pytest

from socketcluster.bench import frames
from socketcluster.bench.plan import Plan
from socketcluster_wire import websocket


def test_the_answer_to_a_key_is_that_of_rfc_6455() -> None:
    assert frames.accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert frames.make_key() != frames.make_key()


def test_given_headers_take_the_place_of_ours() -> None:
    target = Plan(url="http://a:8000/x").target
    said = frames.request(target, "key", [("host", "other"), ("Cookie", "a=b")]).decode()
    assert said.startswith("GET /x?EIO=4&transport=websocket HTTP/1.1\r\n")
    assert said.endswith("\r\n\r\n")
    assert "\r\nhost: other\r\n" in said
    assert "Host: a:8000" not in said
    assert "\r\nCookie: a=b\r\n" in said


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_server_of_this_project_reads_what_is_sent(size: int) -> None:
    payload = os.urandom(size)
    reader = websocket.FrameReader(1 << 20)
    assert reader.receive(frames.frame(payload, frames.BINARY)) == [payload]


@pytest.mark.parametrize("step", [1, 3, 1000, 1 << 20])
def test_what_a_server_of_this_project_sends_is_read_in_whatever_pieces(step: int) -> None:
    sent = [b"x" * size for size in (0, 1, 125, 126, 65_536)]
    data = b"".join(websocket.text_frame(payload) for payload in sent) + websocket.close_frame(1001, "bye")
    reader = frames.Frames()
    got = [each for start in range(0, len(data), step) for each in reader.receive(data[start : start + step])]
    assert got == [*((frames.TEXT, payload) for payload in sent), (frames.CLOSE, b"\x03\xe9bye")]


def test_fragments_are_put_together_and_control_frames_come_in_between() -> None:
    data = b"\x01\x02ab" + b"\x89\x01p" + b"\x00\x01c" + b"\x80\x01d"
    assert list(frames.Frames().receive(data)) == [(frames.PING, b"p"), (frames.TEXT, b"abcd")]
