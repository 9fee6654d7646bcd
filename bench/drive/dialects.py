"""What clients say to each kind of server to do the same work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """The words of one message protocol; each pattern has ``{n}``, the number of the message, where that has one.

    Attributes:
        path: where a client connects.
        greetings: texts that it sends first.
        ready: what the server's last answer to them contains.
        call: an event that is to be acknowledged, with its name ``{event}`` and its argument ``{data}``, as JSON.
        answers: what an acknowledgement begins with.
        join: asks to become a member of ``{room}``; it is acknowledged.
        say: has the server send ``{data}`` to each member of ``{room}``; it is not acknowledged.
        said: what members get begins with it; without these three there are no rooms.
        pings: texts of the server's signs of life, with the client's answers.
    """

    path: str
    greetings: tuple[str, ...]
    ready: bytes
    call: str
    answers: bytes
    join: str = ""
    say: str = ""
    said: bytes = b""
    pings: tuple[tuple[bytes, str], ...] = ()

    def event(self, number: int, event: str, data: str) -> str:
        """Return the text of an event that is to be acknowledged."""
        return self.call.replace("{n}", str(number)).replace("{event}", event).replace("{data}", data)

    def joining(self, number: int, room: str) -> str:
        """Return the text that makes the client a member."""
        return self.join.replace("{n}", str(number)).replace("{room}", room)

    def saying(self, room: str, data: str) -> str:
        """Return the text that has the server tell the members."""
        return self.say.replace("{room}", room).replace("{data}", data)


DIALECTS = {
    "socketio": Dialect(
        "/socket.io/?EIO=4&transport=websocket",
        ("40",),
        b'40{"sid"',
        '42{n}["{event}",{data}]',
        b"43",
        '42{n}["join","{room}"]',
        '42["say","{room}",{data}]',
        b'42["said"',
        ((b"2", "3"),),
    ),
    "socketcluster": Dialect(
        "/socketcluster/",
        ('{"event":"#handshake","data":{"authToken":null},"cid":1}',),
        b'"pingTimeout"',
        '{"event":"{event}","data":{data},"cid":{n}}',
        b'{"rid"',
        '{"event":"#subscribe","data":{"channel":"{room}"},"cid":{n}}',
        '{"event":"#publish","data":{"channel":"{room}","data":{data}}}',
        b'{"event":"#publish"',
        ((b"", ""),),
    ),
    "plain": Dialect(
        "/",
        (),
        b"",
        '{"event":"{event}","data":{data},"cid":{n}}',
        b'{"rid"',
        '{"event":"join","data":"{room}","cid":{n}}',
        '{"event":"say","room":"{room}","data":{data}}',
        b'{"event":"said"',
    ),
    "floor": Dialect(
        "/",
        (),
        b"",
        '{"event":"{event}","data":{data},"cid":{n}}',
        b'{"event":"',
        '{"event":"join","data":"{room}","cid":{n}}',
        '{"event":"say","room":"{room}","data":{data}}',
        b'{"event":"say"',
    ),
}
"""By name; ``plain`` is that of the servers that have no protocol but WebSocket's."""
