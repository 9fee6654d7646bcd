"""WebSocket connections (RFC 6455) as an asyncio protocol that takes over after the HTTP request was read."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from time import monotonic

from socketcluster_runtime.logs import logging
from socketcluster_wire import websocket as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.deflate import DeflateOptions, Inflater
from socketcluster_worker import fairness
from socketcluster_worker.connection import NOBODY, Handshake, Line, Outgoing, Receiver, SlowConsumer
from socketcluster_worker.transport import corks, tcp
from socketcluster_worker.transport.send_queue import SendQueue
from socketcluster_worker.transport.websocket_opening import answer_opening

log = logging.get_logger(__name__)

CLOSE_TIMEOUT = 5.0
"""Seconds that a client has to answer a close frame, and to take what was sent before it."""
TRANSPORT_BUFFER = 65_536
"""Bytes that asyncio's transport holds beside the kernel's buffer; what is in it is not dropped any more."""
SHORT = 1024
"""Bytes of a text that is far below any limit on what waits."""
FRAMES_AT_A_TIME = 32
"""Frames that are read before somebody looks at the time."""
DROPS_LOGGED_EVERY = 1.0
"""Seconds between two log lines about one client's dropped messages."""

_PONG = object()  # the key under which pongs wait: only the latest ping needs an answer (RFC 6455, section 5.5.3)


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What holds for all WebSockets of a worker."""

    max_message_bytes: int
    """The largest message that is accepted."""
    max_buffered_bytes: int
    """What may wait for a slow client."""
    slow_consumer: SlowConsumer = "disconnect"
    """What happens to messages beyond that, unless they say otherwise."""
    deflate: DeflateOptions | None = None
    """Compression, for clients that offer it."""
    subprotocol: Callable[[Handshake, Sequence[str]], str | None] = lambda _, offered: offered[0]
    """Chooses one of the subprotocols that a client offers, if it offers any (RFC 6455, section 1.9)."""
    chunk: int = field(init=False)
    """Bytes that are written at once, at most."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunk", min(TRANSPORT_BUFFER, self.max_buffered_bytes // 4))


@cache
def _maker(prefix: bytes, window_bits: int) -> Callable[[bytes], bytes]:
    """Return what frames a text behind a prefix, compressed unless ``window_bits`` is 0; the same thing each time."""
    if window_bits:
        return lambda text: wire.deflated_frame(wire.TEXT, prefix + text, window_bits)
    return lambda text: wire.text_frame(prefix + text)


class WebSocket(asyncio.Protocol):
    """One WebSocket connection; a ``Connection`` once it was accepted.

    While its client reads, the frames of one loop turn go to the transport together, in one write.
    When the transport's buffer is full they wait here, where the slow-consumer policy applies.

    Args:
        options: what holds for all of them.
        opened: this worker's open WebSockets; the connection adds itself.
    """

    transport_name = "websocket"
    receiver: Receiver
    # What few connections ever have takes no memory in the others.
    _deflate_from = sys.maxsize  # length from which on messages are compressed
    _window_bits = 0
    _accepted = False
    _writable = False  # between the handshake and the close frame
    _corked_bytes = 0
    _reading = False  # is the receiver at work? What it sends is written when it is done
    _events: deque[wire.Event] | None = None  # what was read and waits for the client's next turn
    _turn_asked = False
    _holds = 0  # how many want nothing more from the client for now
    _paused = False  # is the transport's buffer full?
    _waiting: SendQueue[bytes] | None = None  # what came since it was
    _drops_reported = 0
    _drops_report_due = 0.0
    _ended = False  # has the receiver been told?
    _close: tuple[int, str] = (CloseCode.ABNORMAL, "")
    _close_timer: asyncio.TimerHandle | None = None
    ended_by_client = False
    """Has the client ended it in good order, by a close frame?"""
    dropped = 0
    """Messages that were dropped because the client read too slowly."""

    def __init__(self, options: WebSocketOptions, *, opened: set[WebSocket]) -> None:
        self._options = options
        self._reader = wire.FrameReader(options.max_message_bytes)
        self._opened = opened
        self._transport: asyncio.Transport
        self._corked: list[bytes] = []  # what was sent in this loop turn
        self._corks = corks.of_loop()

    # The opening handshake.

    def accept(
        self,
        transport: asyncio.Transport,
        handshake: Handshake,
        raw_headers: Sequence[tuple[bytes, bytes]] | None,
        extra_headers: Sequence[tuple[str, str]],
    ) -> bool:
        """Answer the opening handshake (RFC 6455, section 4.2); return whether the connection is open.

        If it is, the caller sets ``receiver`` before anything can arrive, and calls ``begin``.
        """
        opening = answer_opening(
            self._options.deflate,
            partial(self._options.subprotocol, handshake),
            handshake,
            raw_headers,
            extra_headers,
        )
        self._transport = transport
        if not opening.is_open:
            transport.write(opening.answer)
            transport.close()
            return False
        self._corked.append(opening.answer)
        self._corked_bytes = len(opening.answer)
        self._accepted = self._writable = True
        self._opened.add(self)
        if self._options.deflate is not None and opening.agreement is not None:
            self._reader = wire.FrameReader(self._options.max_message_bytes, Inflater(opening.agreement))
            self._deflate_from = self._options.deflate.threshold
            self._window_bits = opening.agreement.server_window_bits
        transport.set_write_buffer_limits(self._options.chunk)
        if transport.get_write_buffer_size() > self._options.chunk:
            self.pause_writing()  # the protocol before this one was told, this one was not
        return True

    def begin(self) -> None:
        """Send the answer, and with it what the receiver has sent meanwhile."""
        self.uncork()

    # What asyncio tells.

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._reading = True
        try:
            text = self._reader.short_text(data)
            if text is not None:
                if self._writable:
                    self.receiver.on_message(text)
                return
            self._take(deque(self._reader.receive_any(data, FRAMES_AT_A_TIME)))
        finally:
            self._reading = False
            if len(self._corked) == 1:  # as after nearly every event: its answer
                self._corked_bytes = 0
                self._transport.write(self._corked.pop())
            else:
                self.uncork()

    def _take(self, events: deque[wire.Event]) -> None:
        """Take events and read more, until it is the others' turn or the receiver has enough."""
        end = monotonic() + fairness.SLICE
        while True:
            while events:
                self._event(events.popleft())
                if self._holds or monotonic() >= end:
                    break
            if not events and not self._reader.behind:
                return
            if self._holds or monotonic() >= end:
                self._events = events
                self._transport.pause_reading()
                self._ask_turn()
                return
            events.extend(self._reader.receive_any(b"", FRAMES_AT_A_TIME))

    def _event(self, event: wire.Event) -> None:
        if type(event) is str or type(event) is bytes:  # isinstance takes thrice as long
            if self._writable:
                self.receiver.on_message(event)
        elif isinstance(event, wire.Ping):
            if self._writable:
                self._send(wire.pong_frame(event.payload), "latest_only", _PONG)
        elif isinstance(event, wire.CloseReceived):
            self._close_received(event)
        elif isinstance(event, wire.Violation):
            self.close(event.code, event.reason)
            self._finish()

    def _ask_turn(self) -> None:
        if not self._holds and not self._turn_asked:
            self._turn_asked = True
            fairness.later(self._take_turn)

    def _take_turn(self) -> None:
        """Go on with what was read."""
        self._turn_asked = False
        events, self._events = self._events, None
        if events is None:
            return
        if self._holds:
            self._events = events
            return
        self._reading = True
        try:
            self._take(events)
        finally:
            self._reading = False
            self.uncork()
        self._read_on()

    def _read_on(self) -> None:
        """Read from the client again, unless something else is first."""
        if self._holds:
            return
        if self._events is None:
            self._transport.resume_reading()
        else:
            self._ask_turn()

    def pause_writing(self) -> None:
        """Let messages wait here: the transport's buffer is full."""
        self._paused = True
        if self._writable and self._waiting is None:
            self._waiting = SendQueue(len)

    def resume_writing(self) -> None:
        """Send what waits, until the transport's buffer is full again."""
        self._paused = False
        waiting = self._waiting
        if waiting is None:
            return
        while waiting and not self._paused:
            self._transport.write(b"".join(waiting.take(self._options.chunk)))
        if not self._paused:
            self._waiting = None

    def eof_received(self) -> None:
        """Close: a WebSocket has no use for a half-open connection."""
        self.uncork()
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the TCP connection has ended."""
        self._opened.discard(self)
        self._writable = False
        self._waiting = self._events = None
        self._corked.clear()
        tcp.end_for_all(self._transport)
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._end()

    # What the layer above asks.

    @property
    def held(self) -> bool:
        """Is nothing read from the client at the moment? Then a heartbeat's answer may be on its way for long."""
        return self._holds > 0 or self._events is not None

    def pause_reading(self) -> None:
        """Read nothing more until ``resume_reading`` was called as often."""
        if self._writable:
            self._holds += 1
            if self._holds == 1:
                self._transport.pause_reading()
                tcp.look_after_unread(self._transport)

    def resume_reading(self) -> None:
        """Take back one ``pause_reading``."""
        if self._writable:
            self._holds -= 1
            self._read_on()

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent?"""
        return self._writable and not self._paused and self._transport.get_write_buffer_size() == 0

    def send_text(self, text: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a text message.

        Args:
            text: UTF-8.
            policy: what becomes of it if the client reads too slowly; by default what the options say.
            key: of the messages with ``latest_only`` and one key, only the newest waits.
        """
        if self._writable:
            if len(text) >= self._deflate_from:
                self._send(wire.deflated_frame(wire.TEXT, text, self._window_bits), policy, key)
            elif self._reading and not self._corked and self._waiting is None and len(text) < SHORT:
                frame = wire.text_frame(text)  # the answer to what was just read, nearly always the only one
                self._corked.append(frame)
                self._corked_bytes = len(frame)
            else:
                self._send(wire.text_frame(text), policy, key)

    def send_binary(self, data: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a binary message; see ``send_text``."""
        if self._writable:
            if len(data) >= self._deflate_from:
                self._send(wire.deflated_frame(wire.BINARY, data, self._window_bits), policy, key)
            else:
                self._send(wire.binary_frame(data), policy, key)

    def send_outgoing(
        self, outgoing: Outgoing, policy: SlowConsumer | None = None, key: Hashable = None, prefix: bytes = b""
    ) -> None:
        """Send a text message that goes to other clients too, behind a ``prefix``; see ``send_text``.

        It is framed once, and compressed once for all clients with the same window.
        """
        if self._writable:
            compressed = len(outgoing.text) + len(prefix) >= self._deflate_from
            self._send(outgoing.form(_maker(prefix, self._window_bits if compressed else 0)), policy, key)

    def share(self, outgoing: Outgoing, prefix: bytes = b"") -> tuple[Line, bytes] | None:
        """Return itself and the frame of a text message behind a ``prefix``, for ``send_frame``."""
        if self._window_bits or len(outgoing.text) >= self._options.chunk:
            return None
        return self, outgoing.form(_maker(prefix, 0))

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame, which other clients get too, if nothing waits; return whether that is done."""
        if not self._writable or self._waiting is not None:
            return False
        if not self._corked and not self._reading:
            self._corks.add(self)
        self._corked.append(frame)
        self._corked_bytes += len(frame)
        if self._corked_bytes >= self._options.chunk:
            self.uncork()  # may find that the client does not read, and have the rest wait
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and end; the receiver is told at once, with this code."""
        if not self._writable:
            return
        self._writable = False
        self._close = (code, reason)
        self._write_last(wire.close_frame(code, reason))
        self._limit_close()
        self._end()
        if self.held:  # what it sent is of no use any more, but for its own close frame
            self._holds = 0
            self._read_on()

    def leave(self) -> None:
        """End because the balancer ends that the connection comes by; its client reconnects by another one."""
        self.close(CloseCode.SERVICE_RESTART, "this balancer is being replaced")

    def abort(self) -> None:
        """End at once, without a close frame."""
        self._transport.abort()

    def _send(self, frame: bytes, policy: SlowConsumer | None, key: Hashable) -> None:
        if self._waiting is None:
            self.send_frame(frame)
        else:
            self._wait(self._waiting, frame, policy, key)

    def uncork(self) -> None:
        """Write what was sent in this loop turn: a system call costs more than anything else that a message does."""
        corked = self._corked
        if len(corked) == 1:
            self._corked_bytes = 0
            self._transport.write(corked.pop())
        elif corked:
            self._corked, self._corked_bytes = [], 0
            self._transport.write(b"".join(corked))

    def _wait(self, waiting: SendQueue[bytes], frame: bytes, policy: SlowConsumer | None, key: Hashable) -> None:
        before = waiting.dropped
        waiting.add(frame, policy or self._options.slow_consumer, key)
        room = self._options.max_buffered_bytes - self._transport.get_write_buffer_size()
        enough = waiting.trim(max(room, 0))  # below 0 behind a message that alone is over the limit
        if waiting.dropped != before:
            self.dropped += waiting.dropped - before
            self._report_drops()
        if not enough:
            log.info("a slow client is disconnected", waiting_bytes=waiting.bytes)
            self._waiting = None
            # Behind what the transport holds: the client learns why if it reads again before the connection is aborted.
            self.close(CloseCode.TOO_SLOW, "too much is waiting for a client that does not read")

    def _report_drops(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._drops_report_due:
            log.info("messages for a slow client were dropped", messages=self.dropped - self._drops_reported)
            self._drops_reported, self._drops_report_due = self.dropped, now + DROPS_LOGGED_EVERY

    def _write_last(self, close_frame: bytes) -> None:
        """Hand everything that waits to the transport, and the close frame behind it."""
        self.uncork()
        if self._waiting is not None:
            self._transport.write(b"".join(self._waiting.take(sys.maxsize)))
            self._waiting = None
        self._transport.write(close_frame)

    def _close_received(self, event: wire.CloseReceived) -> None:
        if self._writable:
            self._writable = False
            self.ended_by_client = True
            self._close = (event.code, event.reason)
            self._write_last(wire.close_frame(event.code))
        self._finish()
        self._end()

    def _finish(self) -> None:
        """Close the TCP connection once the client has taken what was sent, but do not wait for ever."""
        self._limit_close()
        self._transport.close()

    def _limit_close(self) -> None:
        if self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _end(self) -> None:
        if self._accepted and not self._ended:
            self._ended = True
            self.receiver.on_close(*self._close)
            self.receiver = NOBODY
