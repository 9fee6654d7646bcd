"""Socket.IO packets as they arrive."""

from __future__ import annotations

import pytest

from socketcluster_wire.errors import MalformedPacketError
from socketcluster_wire.socketio import Decoder, Packet


def receive(text: str, *attachments: bytes) -> Packet:
    """Return the packet that a text and its attachments are."""
    decoder = Decoder()
    messages: list[str | bytes] = [text, *attachments]
    for awaiting in messages[:-1]:
        assert decoder.receive(awaiting) is None
    packet = decoder.receive(messages[-1])
    assert packet is not None
    return packet


def refuse(message: str | bytes) -> str:
    """Return why a packet is refused."""
    with pytest.raises(MalformedPacketError) as caught:
        Decoder().receive(message)
    str(caught.value).encode()  # it goes into a close frame
    return str(caught.value)
