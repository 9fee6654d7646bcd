"""Engine.IO sessions: one connection over long-polling, WebSocket, or first the one and then the other.

https://github.com/socketio/engine.io-protocol, revision 4.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Hashable, Iterator
from time import monotonic

from socketcluster_wire import engineio as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.engineio import Packet, PacketType
from socketcluster_wire.errors import MalformedPacketError
from socketcluster_worker import deadlines, fairness
from socketcluster_worker.connection import NOBODY, Line, Outgoing, Receiver, SlowConsumer
from socketcluster_worker.deadlines import Timed
from socketcluster_worker.transport.engineio.options import EngineOptions, Farewell
from socketcluster_worker.transport.send_queue import SendQueue
from socketcluster_worker.transport.websocket import WebSocket

ABNORMAL = (int(CloseCode.ABNORMAL), "")
PROBE = "probe"
PROBE_TIMEOUT = 25.0
"""Seconds that a WebSocket has from its opening to taking the connection over."""
RELEASE_PAUSE = 0.1
"""Seconds that a poll waits which comes after the probe, as in the reference."""
PACKET_OVERHEAD = 100
"""Bytes that a waiting packet takes beside its data."""
MESSAGE = b"4"
"""What a message packet begins with in a WebSocket's text."""
NOOP = Packet(PacketType.NOOP)
PROOF = b"6"
"""A noop: what a WebSocket sends first that has taken over. Some proxies let no more through than the opening."""
POLL_BYTES = 131_072
"""Bytes from which on no further packet goes into the answer to a poll: the loop waits while it is made."""
LAST_POLL = 10.0
"""Seconds that a connection which ended between two polls, or on its way to a WebSocket, is kept for its client to ask.

Over a network with a round trip of two seconds a request takes up to six of them, on a connection of its own.
"""
RETURN_TIME = 10.0
"""Seconds that a client which numbers its requests has to send one again that was broken off."""


def _size(packet: Packet) -> int:
    return len(packet.data) + PACKET_OVERHEAD


class EngineSession:
    """One Engine.IO connection; a ``Connection`` for the message protocol above it.

    Args:
        sid: names it in every request.
        options: times and sizes.
        forget: called when nothing is left to tell after its end.
        farewell: makes the last message of a client that goes by polling.
    """

    receiver: Receiver
    # What few sessions ever have takes no memory in the others.
    websocket: WebSocket | None = None
    """Carries the connection, once it does not go by polling any more."""
    _probing: WebSocket | None = None
    _probed = False  # has it asked, so that its client waits for the last poll to return?
    _probe_timer: asyncio.TimerHandle | None = None
    _queue: SendQueue[Packet] | None = None  # what waits for the next poll
    _poll: asyncio.Future[list[Packet]] | None = None
    _last: tuple[Packet, ...] = ()  # what a poll gets behind all else; a WebSocket has its close frame for it
    _end_with = ABNORMAL
    ended_by_client = False
    """Has the client ended it in good order, by a close packet or its WebSocket's close frame?"""
    closed = False
    """Has it ended? Then it is only kept for the next poll to learn of it."""
    is_telling = False
    """Is its client told why it has ended, or was it told a moment ago?"""
    numbered = False
    """Does the client number its polling requests?"""
    _return_timer: asyncio.TimerHandle | None = None
    _posting = False
    _posted: Iterator[Packet] | None = None  # what a request brought and waits for the client's next turn
    _post_taken: asyncio.Future[bool] | None = None
    _holds = 0  # how many want nothing more from the client for now
    _heard_at = 0.0  # when a pong came since the last ping; 0: none did
    cut_off: Callable[[], object] | None = None
    """Stops the reading of a request with packets; called when the connection ends."""
    deadline: set[Timed] | None = None
    """Those with whom it has what is due next; kept by them."""

    def __init__(
        self, sid: str, options: EngineOptions, forget: Callable[[str], None], farewell: Farewell | None = None
    ) -> None:
        self.sid = sid
        self._options = options
        self._forget = forget
        self._farewell = farewell
        self._loop = asyncio.get_running_loop()
        self._due: Callable[[EngineSession], None] = EngineSession._ping
        self._deadlines = deadlines.of_loop()
        self._deadlines.set(self, options.heartbeat_interval)

    def time_over(self) -> None:
        """Do what is due: the next step of the heartbeat, or of the end."""
        self._due(self)

    @property
    def transport_name(self) -> str:
        """``"websocket"`` or ``"polling"``."""
        return "polling" if self.websocket is None else "websocket"

    def opening(self, *, upgrades: list[str]) -> Packet:
        """Return the packet that opens the connection."""
        options = self._options
        return wire.Open(
            self.sid,
            upgrades,
            round(options.heartbeat_interval * 1000),
            round(options.heartbeat_timeout * 1000),
            options.max_http_buffer_size,
            numbered=self.numbered,
        ).packet()

    # What the layer above asks.

    def send_text(self, text: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a message."""
        if self.websocket is not None:
            self.websocket.send_text(MESSAGE + text, policy, key)
        else:
            self._enqueue(Packet(PacketType.MESSAGE, text.decode()), policy, key)

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent?"""
        return self._poll is not None if self.websocket is None else self.websocket.writable

    def send_binary(self, data: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a binary message."""
        if self.websocket is not None:
            self.websocket.send_binary(data, policy, key)
        else:
            self._enqueue(Packet(PacketType.MESSAGE, data), policy, key)

    def send_outgoing(self, outgoing: Outgoing, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a message that goes to other clients too."""
        if self.websocket is not None:
            self.websocket.send_outgoing(outgoing, policy, key, prefix=MESSAGE)
        else:
            self._enqueue(Packet(PacketType.MESSAGE, outgoing.text.decode()), policy, key)

    def share(self, outgoing: Outgoing) -> tuple[Line, bytes] | None:
        """Return the WebSocket, if there is one, and what goes there for a message that goes to other clients too."""
        return None if self.websocket is None else self.websocket.share(outgoing, prefix=MESSAGE)

    def close(self, code: int, reason: str = "") -> None:
        """End the connection: a close packet by polling, a close frame by WebSocket."""
        if self.closed:
            return
        if self.websocket is not None:
            self.websocket.close(code, reason)  # tells on_close in its turn
        else:
            self._end(code, reason, tell=True)

    def fail(self, code: int, reason: str) -> None:
        """End the connection of a client that broke the protocol, or is silent; its next request finds nothing.

        A client that waits for an answer, or may be about to go over to its WebSocket, is told.
        """
        if self.websocket is None and self._poll is None and not self._probed:
            self._queue = None
            self._end(code, reason)
        else:
            self.close(code, reason)

    # Long-polling.

    def poll(self) -> asyncio.Future[list[Packet]] | None:
        """Return the packets for a polling request, now or to come; ``None`` if one is waiting already.

        A second request at the same time breaks the protocol, and ends the connection.
        """
        if self._poll is not None:
            self.fail(CloseCode.PROTOCOL_ERROR, "two polling requests at a time")
            return None
        self._poll = self._loop.create_future()
        future = self._poll
        if self._queue or self.closed:
            self._flush()
        elif self._probed:  # perhaps its client gave the upgrade up: it is not to poll at the pace of the network
            self._loop.call_later(RELEASE_PAUSE, self.release_poll)
        return future

    def break_off(self) -> None:
        """End the connection: its client broke off a polling request, so it is gone, or begins a new connection.

        If it numbers its requests, it may send this one again, and has some time for that.
        """
        if self.websocket is not None or self.closed:
            return
        if not self.numbered:
            self.fail(CloseCode.ABNORMAL, "the client broke off a request")
            return
        self.come_back()
        self._return_timer = self._loop.call_later(
            RETURN_TIME, self.fail, CloseCode.ABNORMAL, "the client broke off a request and did not come back"
        )

    def release_poll(self) -> None:
        """Have the waiting poll answered, by a noop if there is nothing for it."""
        if self._poll is not None:
            self._flush()

    def come_back(self) -> None:
        """Learn that the client of a request that was broken off is there."""
        if self._return_timer is not None:
            self._return_timer.cancel()
            self._return_timer = None

    @property
    def told(self) -> bool:
        """Has it ended, and was its client given all that there was for it?"""
        return self.closed and not self._queue and not self._last

    def begin_post(self) -> bool:
        """Note that a request with packets is being read; return whether they may come.

        A second request at the same time breaks the protocol, and ends the connection.
        """
        if self._posting:
            self.fail(CloseCode.PROTOCOL_ERROR, "two requests with packets at a time")
            return False
        self._posting = True
        return True

    def end_post(self) -> None:
        """Note that the request is over, or that its client is gone."""
        self._posting = False

    def post(self, packets: Iterator[Packet]) -> asyncio.Future[bool]:
        """Take the packets of a polling request's body, in turns with other clients.

        Returns:
            Were they all well-formed, once they are all taken or the connection has ended? If not, it has.
        """
        self._posted = packets
        taken = self._post_taken = self._loop.create_future()
        self._take_posted()
        return taken

    def _take_posted(self) -> None:
        packets = self._posted
        if packets is None or self._holds:
            return
        end = monotonic() + fairness.SLICE
        try:
            for packet in packets:
                self._packet(packet)
                if self.closed:
                    break
                if self._holds:
                    return
                if monotonic() >= end:
                    fairness.later(self._take_posted)
                    return
        except MalformedPacketError:
            self._all_taken(well=False)
            self.fail(CloseCode.PROTOCOL_ERROR, "a polling request was malformed")
        else:
            self._all_taken(well=True)

    def _all_taken(self, *, well: bool) -> None:
        taken, self._posted, self._post_taken = self._post_taken, None, None
        if taken is not None and not taken.done():
            taken.set_result(well)

    @property
    def held(self) -> bool:
        """Is nothing read from the client at the moment? Then a heartbeat's answer may be on its way for long."""
        return self._posted is not None if self.websocket is None else self.websocket.held

    def pause_reading(self) -> None:
        """Read nothing more until ``resume_reading`` was called as often; by polling the request is not answered."""
        self._holds += 1
        if self._holds == 1 and self.websocket is not None:
            self.websocket.pause_reading()

    def resume_reading(self) -> None:
        """Take back one ``pause_reading``."""
        self._holds -= 1
        if not self._holds and not self.closed:
            if self.websocket is not None:
                self.websocket.resume_reading()
            if self._posted is not None:
                fairness.later(self._take_posted)

    # WebSocket.

    def adopt(self, websocket: WebSocket) -> None:
        """Go by WebSocket from the start; the open packet is sent here."""
        self.websocket = websocket
        websocket.send_text(wire.encode_packet(self.opening(upgrades=[])).encode())

    @property
    def can_upgrade(self) -> bool:
        """May a WebSocket ask to take over?"""
        return not self.closed and self.websocket is None and self._probing is None

    def probe(self, websocket: WebSocket) -> None:
        """A WebSocket is there that may take over."""
        self._probing = websocket
        self._probe_timer = self._loop.call_later(
            PROBE_TIMEOUT, websocket.close, CloseCode.POLICY_VIOLATION, "no upgrade in time"
        )

    def _probe_over(self) -> None:
        self._probing, self._probed = None, False
        if self._probe_timer is not None:
            self._probe_timer.cancel()

    def from_websocket(self, websocket: WebSocket, message: str | bytes) -> None:
        """Take a message of one of the connection's WebSockets."""
        if isinstance(message, bytes):
            packet = Packet(PacketType.MESSAGE, message)
        else:
            try:
                packet = wire.decode_packet(message)
            except MalformedPacketError as error:
                websocket.close(CloseCode.PROTOCOL_ERROR, str(error))
                return
        if websocket is self.websocket:
            self._packet(packet)
        elif websocket is self._probing:
            self._probe_packet(websocket, packet)

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Learn that one of the connection's WebSockets has ended."""
        if websocket is self.websocket:
            self.ended_by_client = self.ended_by_client or websocket.ended_by_client
            self._end(code, reason)
        elif websocket is self._probing:
            self._probe_over()  # polling goes on

    def _probe_packet(self, websocket: WebSocket, packet: Packet) -> None:
        if packet.type is PacketType.PING and packet.data == PROBE:
            self._probed = True
            websocket.send_text(b"3probe")
            self.release_poll()  # the client waits for its poll to return before it goes over
        elif packet.type is PacketType.UPGRADE:
            self._go_over(websocket)
        else:
            websocket.close(CloseCode.PROTOCOL_ERROR, "neither a probe nor an upgrade")

    def _go_over(self, websocket: WebSocket) -> None:
        self._probe_over()
        self.websocket = websocket
        self.come_back()
        if self.numbered:  # such a client waits for proof that what is sent arrives
            websocket.send_text(PROOF)
        self.numbered = False  # its client has the answers of all that it asked for, or would not go over
        if self._holds and not self.closed:
            websocket.pause_reading()
        self.release_poll()
        for waiting in () if self._queue is None else self._queue.take(sys.maxsize):
            if isinstance(waiting.data, bytes):
                websocket.send_binary(waiting.data, "disconnect")
            else:
                websocket.send_text(wire.encode_packet(waiting).encode(), "disconnect")
        self._queue = None
        if self.closed:  # meanwhile
            self._last = ()
            websocket.close(*self._end_with)
            self._over()

    # Inside.

    def _packet(self, packet: Packet) -> None:
        if self.closed:
            return
        match packet.type:
            case PacketType.MESSAGE:
                self.receiver.on_message(packet.data)
            case PacketType.PONG:
                self._heard_at = self._loop.time()
            case PacketType.CLOSE:
                self._closed_by_client()
            case PacketType.PING:
                self.fail(CloseCode.PROTOCOL_ERROR, "a ping, which only the server sends")
            case PacketType.OPEN | PacketType.UPGRADE | PacketType.NOOP:
                pass  # as in the reference

    def _closed_by_client(self) -> None:
        self.ended_by_client = True
        if self.websocket is None:
            self._enqueue(NOOP, "disconnect")
            self._end(CloseCode.NORMAL, "closed by the client")
        else:
            self.websocket.close(CloseCode.NORMAL, "closed by the client")

    def _ping(self) -> None:
        self._heard_at = 0.0
        self._due = EngineSession._pong_due
        self._deadlines.set(self, self._options.heartbeat_timeout)
        if self.websocket is not None:
            self.websocket.send_text(b"2", "disconnect")
        else:
            self._enqueue(Packet(PacketType.PING), "disconnect")

    def _pong_due(self) -> None:
        if self._heard_at:  # from then on the interval counts, as in the reference
            rest = self._heard_at + self._options.heartbeat_interval - self._loop.time()
            self._due = EngineSession._ping
            self._deadlines.set(self, rest)
        elif self.held and (self.websocket is not None or self._poll is not None):  # it is there, but not read from
            self._ping()
        else:
            self.fail(CloseCode.PING_TIMEOUT, "the client did not answer in time")

    def _enqueue(self, packet: Packet, policy: SlowConsumer | None, key: Hashable = None) -> None:
        if self.closed:
            return
        if self._queue is None:
            self._queue = SendQueue(_size)
        self._queue.add(packet, policy or self._options.slow_consumer, key)
        if not self._queue.trim(self._options.max_buffered_bytes):
            self._queue = None
            self._end(CloseCode.TOO_SLOW, "too much is waiting for a client that does not read", tell=True)
        if self._poll is not None:
            self._flush()

    def _flush(self) -> None:
        """Give what waits to the waiting polling request."""
        poll, self._poll = self._poll, None
        if poll is None or poll.done():
            return
        packets = [] if self._queue is None else self._queue.take(POLL_BYTES)
        if not self._queue:
            packets += self._last
            self._last = ()
        poll.set_result(packets or [NOOP])
        if self.told:
            self._over()

    def _over(self) -> None:
        """Forget the connection, of which nothing is left to tell; if its client may come again, in a while."""
        self._deadlines.discard(self)
        if self._probing is not None:
            self._probing.close(CloseCode.GOING_AWAY, "the connection has ended")
        if self.numbered:
            self._due = EngineSession._be_forgotten
            self._deadlines.set(self, LAST_POLL)
        else:
            self._be_forgotten()

    def _be_forgotten(self) -> None:
        self._forget(self.sid)

    def _end(self, code: int, reason: str, *, tell: bool = False) -> None:
        """End; ``tell`` the client why, by what it comes by next: a poll, or the WebSocket that was to take over."""
        if self.closed:
            return
        self.closed = True
        if self.cut_off is not None:
            self.cut_off()
        self._deadlines.discard(self)
        self.come_back()
        self._all_taken(well=True)
        if tell:
            self.is_telling = True
            self._end_with = code, reason
            self._last = (Packet(PacketType.CLOSE),)
            if self._farewell is not None:
                self._last = (Packet(PacketType.MESSAGE, self._farewell(code, reason).decode()), *self._last)
        if self._probing is not None and not (tell and self._probed):
            self._probing.close(CloseCode.GOING_AWAY, "the connection has ended")  # its client polls on
        self.release_poll()
        if self.told:
            self._over()
        else:  # the client has yet to fetch why
            self._due = EngineSession._give_up
            self._deadlines.set(self, LAST_POLL)
        self.receiver.on_close(code, reason)
        self.receiver = NOBODY

    def _give_up(self) -> None:
        """Forget the connection, though its client did not come for what was left to tell."""
        self._queue, self._last = None, ()
        self._over()
