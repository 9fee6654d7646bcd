"""What is fuzzed: every decoder that takes a stranger's bytes. A message or a documented error, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_wire import engineio, forwarded, handoff, proxy_protocol, socketcluster, socketio
from socketcluster_wire.close_codes import may_be_sent
from socketcluster_wire.errors import WireError
from socketcluster_wire.request_head import RequestHead
from socketcluster_wire.websocket import CloseReceived, FrameReader, Violation

KEY = b"a key that the fuzzer does not guess"


def websocket(data: bytes) -> None:
    """Any stream, in two reads: events, of which a close or a violation is the last."""
    reader = FrameReader(max_message_bytes=4096)
    cut = data[0] if data else 0
    events = reader.receive(data[1 : cut + 1]) + reader.receive(data[cut + 1 :])
    whole = FrameReader(max_message_bytes=4096).receive(data[1:])
    assert events == whole
    for event in events[:-1]:
        assert not isinstance(event, CloseReceived | Violation)
    for event in events:
        if isinstance(event, str | bytes):
            assert len(event) <= 4096
        elif isinstance(event, CloseReceived):
            assert event.code == 1005 or may_be_sent(event.code)


def socketcluster_message(data: bytes) -> None:
    """A text: messages that can be written again."""
    with suppress(WireError):
        for message in socketcluster.decode(data.decode(errors="surrogateescape")):
            if isinstance(message, socketcluster.Event):
                again = socketcluster.encode_event(message.name, message.data, None)
                assert socketcluster.decode(again.decode())[0] == socketcluster.Event(message.name, message.data, None)


def engineio_payload(data: bytes) -> None:
    """A polling body: packets that can be written again, but for the spelling of base64."""
    with suppress(WireError):
        packets = engineio.decode_payload(data)
        assert engineio.decode_payload(engineio.encode_payload(packets)) == packets


def engineio_packet(data: bytes) -> None:
    """A WebSocket text."""
    with suppress(WireError):
        packet = engineio.decode_packet(data.decode(errors="surrogateescape"))
        assert engineio.decode_packet(engineio.encode_packet(packet)) == packet


def socketio_packets(data: bytes) -> None:
    """Messages, texts and attachments, as the first byte of each line says."""
    decoder = socketio.Decoder()
    with suppress(WireError):
        for line in data.split(b"\n"):
            message = line[1:] if line[:1] == b"b" else line.decode(errors="surrogateescape")
            packet = decoder.receive(message)
            if packet is not None and packet.type in (socketio.PacketType.EVENT, socketio.PacketType.ACK):
                assert packet.data is None or isinstance(packet.data, list)  # nothing: it is for nobody, and ignored


def request_head(data: bytes) -> None:
    """A balancer's first read."""
    with suppress(WireError):
        head = RequestHead.parse(data, 2048)
        if head is not None:
            assert isinstance(head.path, str)
            head.cookie("socketcluster.session")
            head.header("host")


def proxy_header(data: bytes) -> None:
    """What arrives at a worker's own port; without the key no header is believed."""
    with suppress(WireError):
        assert proxy_protocol.parse(data, KEY) is None
    with suppress(WireError):
        assert proxy_protocol.parse(proxy_protocol.SIGNATURE + data, KEY) is None


def trusted_proxy_header(data: bytes) -> None:
    """What a trusted load balancer sends, of either version: the same however it is cut, and never forwarded."""
    for start in (b"", proxy_protocol.SIGNATURE, b"PROXY "):
        received = start + data
        with suppress(WireError):
            header = proxy_protocol.parse(received, KEY, trusted=True)
            if header is None:
                continue
            assert 0 < header.size <= min(len(received), proxy_protocol.MAX_HEADER_BYTES)
            assert not header.forwarded
            assert proxy_protocol.parse(received[: header.size], KEY, trusted=True) == header
            assert proxy_protocol.parse(received[: header.size - 1], KEY, trusted=True) is None
            if header.source is not None:  # its words can be passed on
                again = proxy_protocol.parse(
                    proxy_protocol.encode(header.source, ("::", 0), tls=header.tls, key=KEY), KEY
                )
                assert again is not None
                assert (again.source, again.tls) == (header.source, header.tls)


def handoff_packet(data: bytes) -> None:
    """What arrives at a worker's handoff socket."""
    with suppress(WireError):
        found = handoff.decode(data)
        assert handoff.decode(handoff.encode(found)) == found
    with suppress(WireError):
        handoff.decode_reply(data)


def forwarded_fields(data: bytes) -> None:
    """What a client writes into fields that a trusted proxy adds to: nothing of it is believed."""
    text = data.decode("latin-1")
    for style, names in forwarded.FIELDS.items():
        told = forwarded.read(style, dict.fromkeys(names, text), ("192.0.2.1", 1), ("192.0.2.1",))
        assert proxy_protocol.encode(told.client, ("", 0), tls=bool(told.secure), key=KEY)  # its words can be passed on
        added = "203.0.113.7" if style == "x-forwarded" else "for=203.0.113.7;proto=https;host=h"
        values = dict.fromkeys(names, f"{text}, {added}")
        told = forwarded.read(style, values, ("192.0.2.1", 1), ("192.0.2.1",))
        assert told.client == ("203.0.113.7", 0)
        if style == "forwarded":
            assert (told.secure, told.host, told.fault) == (True, "h", "")


def framed_stream(data: bytes) -> None:
    """What comes on a stream between services, in two reads: the same messages and end as in one."""
    told = []
    for cut in (data[0] if data else 0, len(data)):
        messages: list[bytes] = []
        ends: list[bytes | None] = []
        stream = FramedStream(messages.append, ends.append, max_bytes=64)
        for part in (data[1 : cut + 1], data[cut + 1 :]):
            stream.data_received(part)
        assert len(ends) <= 1
        assert all(len(message) <= 64 for message in messages)
        told.append((messages, ends, stream.error is not None))
    assert told[0] == told[1]


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        websocket,
        socketcluster_message,
        engineio_payload,
        engineio_packet,
        socketio_packets,
        request_head,
        proxy_header,
        trusted_proxy_header,
        handoff_packet,
        forwarded_fields,
        framed_stream,
    )
}

SEEDS: dict[str, list[bytes]] = {
    "websocket": [
        b"\x03\x81\x85\0\0\0\0hello\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
        b"\x01\x01\x82\0\0\0\0hi\x80\x80\0\0\0\0",
    ],
    "socketcluster_message": [
        b'{"event":"#handshake","data":{"authToken":null},"cid":1}',
        b'[{"rid":1,"error":{"name":"x"}}]',
    ],
    "engineio_payload": [b"4hello\x1ebAAEC\x1e2probe", b"0{}"],
    "engineio_packet": [b"4hello", b"bAAEC", b"2probe"],
    "socketio_packets": [
        b'52-/admin,13["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]\nbone\nbtwo',
        b'0/admin,{"token":"x"}\n2["chat",{"a":[1,2.5,null]}]\n31["ok"]\n1',
    ],
    "request_head": [
        b"GET /socket.io/?EIO=4&sid=abc HTTP/1.1\r\nHost: x\r\nCookie: a=b; socketcluster.session=c\r\n\r\n"
    ],
    "trusted_proxy_header": [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 ::1 ::1 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        proxy_protocol.SIGNATURE + b"\x21\x11\x00\x14" + bytes(12) + b"\x20\x00\x05\x01\0\0\0\0",
    ],
    "proxy_header": [proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=True, key=b"another key")],
    "handoff_packet": [
        handoff.encode(handoff.Handoff(7, b"GET / HTTP/1.1\r\n\r\n", tls=True, client=("2001:db8::1", 5))),
        handoff.encode_ack(7),
        handoff.encode_decline(7),
        handoff.encode_ended([7, 8]),
    ],
    "forwarded_fields": [
        b'for="[2001:db8::7]:4711";proto=https;host="app.example:443", for=_hidden;by=unknown',
        b"203.0.113.7:80, [2001:db8::7], unknown",
    ],
    "framed_stream": [b"\x07\x01\0\0\0\x02hi\x01\0\0\0\0\x02\0\0\0\x03OK ", b"\x03\x01\0\0\0\x41"],
}
