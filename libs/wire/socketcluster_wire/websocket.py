"""WebSocket frames, the server's side (RFC 6455, sections 5 to 8), without I/O.

The opening handshake is the worker's; frames are read and written here, because they decide what a
message costs. A message is a plain ``str`` or ``bytes``: the common case, one whole unfragmented frame in one read,
allocates nothing else.
"""

from __future__ import annotations

import codecs
import struct
import sys
from dataclasses import dataclass
from typing import TypeAlias

from websockets.utils import apply_mask as apply_mask_slowly

from socketcluster_wire.close_codes import CloseCode, may_be_sent
from socketcluster_wire.deflate import Inflater, deflate
from socketcluster_wire.errors import InflatedTooBigError, InflateError

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library was installed without its C extension
    apply_mask = apply_mask_slowly

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, MASKED = 0x80, 0x80
RSV1, RSV2_AND_3 = 0x40, 0x30
MAX_CONTROL_PAYLOAD = 125
MAX_CLOSE_REASON = 123
MAX_INFLATED = 65_536
"""Bytes that compressed frames may become before no further one is read along: some hundred bytes become a million."""

_FINAL_TEXT, _FINAL_BINARY = FIN | TEXT, FIN | BINARY
_SHORT_TEXT_HEADERS = [bytes((_FINAL_TEXT, length)) for length in range(126)]


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer wants a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a ping, or says unasked that it is alive."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer closes; nothing follows."""

    code: int
    """1005 if the frame carried none."""
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol; what follows is not looked at. Send a close frame with ``code`` and end."""

    code: CloseCode
    reason: str


Event: TypeAlias = str | bytes | Ping | Pong | CloseReceived | Violation


class _ViolationError(Exception):
    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.violation = Violation(code, reason)


class FrameReader:
    """Turns what a client sends after its handshake into events.

    Args:
        max_message_bytes: the largest message, over all its fragments; of a compressed one, both before and after
            inflating.
        inflater: if permessage-deflate was agreed on.
    """

    __slots__ = (
        "_buffer",
        "_decoder",
        "_done",
        "_idle",
        "_inflated",
        "_inflater",
        "_inflating",
        "_max",
        "_message",
        "_opcode",
        "_received",
        "behind",
    )

    def __init__(self, max_message_bytes: int, inflater: Inflater | None = None) -> None:
        self._max = max_message_bytes
        self._inflater = inflater
        self._buffer: bytearray | None = None  # the beginning of a frame whose rest has not arrived
        self._opcode = CONTINUATION  # of the fragmented message under way; CONTINUATION: none
        self._inflating: Inflater | None = None  # if it is compressed
        self._received = 0  # the bytes of its fragments, before inflating
        self._inflated = 0  # what the frames of one call became
        self._message: bytearray | None = None  # its fragments; one buffer, because they may be tiny, even empty
        self._decoder: codecs.IncrementalDecoder | None = None  # finds broken text before the message is whole
        self._done = False
        self._idle = True  # between two messages, and not done?
        self.behind = False
        """Did the last call of ``receive_any`` stop at its limit, so that there may be more to read?"""

    @property
    def clean(self) -> bool:
        """Is nothing half-read, neither a frame nor a fragmented message, nor kept for inflating the next message?"""
        return (
            not self._buffer and self._opcode == CONTINUATION and (self._inflater is None or self._inflater.stateless)
        )

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they came from the network; return the events that they complete.

        A :class:`CloseReceived` or :class:`Violation` is the last event of a connection: later bytes are ignored.
        """
        text = self.short_text(data)
        return self.receive_any(data) if text is None else [text]

    def short_text(self, data: bytes) -> str | None:
        """Return the text if ``data`` is one whole short text frame, as nearly every read of a busy server is.

        Otherwise nothing has happened, and ``data`` is for ``receive_any``.
        """
        size = len(data)
        if 6 <= size < 126 + 6 and data[0] == _FINAL_TEXT and data[1] == size + (MASKED - 6) and self._idle:
            try:
                return str(apply_mask(data[6:], data[2:6]), "utf-8") if size - 6 <= self._max else None
            except UnicodeDecodeError:
                return None
        return None

    def receive_any(self, data: bytes, most: int = sys.maxsize) -> list[Event]:
        """Do what ``receive`` does, for bytes of which ``short_text`` knows nothing.

        Args:
            data: what came; empty to read on where the call before was ``behind``.
            most: frames that are read at a time, fewer if they were compressed and become large. Not every frame
                gives an event.
        """
        events: list[Event] = []
        self.behind = False
        self._inflated = 0
        limited = most < sys.maxsize
        if self._done:
            return events
        buffer: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            buffer = self._buffer
        start = 0
        try:
            while (end := self._frame(buffer, start, events)) is not None:
                start = end
                most -= 1
                if self._done or not most or (limited and self._inflated >= MAX_INFLATED):
                    self.behind = not self._done and start < len(buffer)
                    break
        except _ViolationError as error:
            self._done = True
            events.append(error.violation)
        if self._done or start == len(buffer):
            self._buffer = None
        elif self._buffer is None:
            self._buffer = bytearray(data[start:])
        else:
            del self._buffer[:start]
        self._idle = not self._buffer and self._opcode == CONTINUATION and not self._done
        return events

    def _frame(self, buffer: bytes | bytearray, start: int, events: list[Event]) -> int | None:
        """Read the frame at ``start``; return where it ends, or ``None`` if it is not all there."""
        available = len(buffer) - start
        if available < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        opcode, final, length = first & 0x0F, bool(first & FIN), second & 0x7F
        self._check_header(first, second, opcode, final, length)
        header = 6
        if length == 126:
            header = 8
            if available < 4:
                return None
            (length,) = struct.unpack_from("!H", buffer, start + 2)
            if length < 126:
                raise _ViolationError(CloseCode.PROTOCOL_ERROR, "length is not in its shortest form")
        elif length == 127:
            header = 14
            if available < 10:
                return None
            (length,) = struct.unpack_from("!Q", buffer, start + 2)
            if length < 65536:
                raise _ViolationError(CloseCode.PROTOCOL_ERROR, "length is not in its shortest form")
            if length >> 63:
                raise _ViolationError(CloseCode.PROTOCOL_ERROR, "length is negative")
        if opcode < CLOSE and self._received + length > self._max:
            raise _ViolationError(CloseCode.TOO_BIG, f"message over {self._max} bytes")
        if available < header + length:
            return None
        body = start + header
        end = body + length
        payload = apply_mask(buffer[body:end], buffer[body - 4 : body])
        if opcode >= CLOSE:
            events.append(self._control(opcode, payload))
        else:
            self._data(opcode, final, self._inflater if first & RSV1 else None, payload, events)
        return end

    def _check_header(self, first: int, second: int, opcode: int, final: bool, length: int) -> None:
        if first & RSV2_AND_3 or (first & RSV1 and (self._inflater is None or opcode not in (TEXT, BINARY))):
            raise _ViolationError(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if not second & MASKED:
            raise _ViolationError(CloseCode.PROTOCOL_ERROR, "frame is not masked")
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise _ViolationError(CloseCode.PROTOCOL_ERROR, f"opcode {opcode} is reserved")
        if opcode >= CLOSE:
            if not final:
                raise _ViolationError(CloseCode.PROTOCOL_ERROR, "control frame is fragmented")
            if length > MAX_CONTROL_PAYLOAD:
                raise _ViolationError(CloseCode.PROTOCOL_ERROR, "control frame is too long")
        elif (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            reason = "nothing to continue" if opcode == CONTINUATION else "a fragmented message is not finished"
            raise _ViolationError(CloseCode.PROTOCOL_ERROR, reason)

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        self._done = True
        return _parse_close(payload)

    def _data(self, opcode: int, final: bool, inflater: Inflater | None, payload: bytes, events: list[Event]) -> None:
        if opcode != CONTINUATION:
            if final:
                if inflater is not None:
                    payload = self._inflate(inflater, payload, final)
                events.append(_text(payload) if opcode == TEXT else payload)
                return
            self._opcode, self._inflating = opcode, inflater
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        self._received += len(payload)
        if self._inflating is not None:
            payload = self._inflate(self._inflating, payload, final)
        message = self._message = bytearray() if self._message is None else self._message
        if self._decoder is not None:
            _check_fragment(self._decoder, payload, final)
        message += payload
        if final:
            self._message = None
            events.append(str(message, "utf-8") if self._opcode == TEXT else bytes(message))
            self._opcode, self._decoder, self._inflating, self._received = CONTINUATION, None, None, 0

    def _inflate(self, inflater: Inflater, payload: bytes, final: bool) -> bytes:
        try:
            inflated = inflater.inflate(payload, final, self._max - len(self._message or b""))
        except InflatedTooBigError:
            raise _ViolationError(CloseCode.TOO_BIG, f"message over {self._max} bytes") from None
        except InflateError:
            raise _ViolationError(CloseCode.INVALID_DATA, "compressed data is broken") from None
        self._inflated += len(inflated)
        return inflated


def _check_fragment(decoder: codecs.IncrementalDecoder, payload: bytes, final: bool) -> None:
    try:
        decoder.decode(payload, final)
    except UnicodeDecodeError:
        raise _ViolationError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
    waiting = decoder.getstate()[0]
    if b"\xed\xa0" <= waiting < b"\xee":  # the decoder lets surrogates begin, and then not end
        raise _ViolationError(CloseCode.INVALID_DATA, "text is not UTF-8")


def _text(payload: bytes) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        raise _ViolationError(CloseCode.INVALID_DATA, "text is not UTF-8") from None


def _parse_close(payload: bytes) -> CloseReceived:
    """Read a close frame's payload (RFC 6455, section 5.5.1)."""
    if not payload:
        return CloseReceived(CloseCode.NO_STATUS, "")
    if len(payload) == 1:
        raise _ViolationError(CloseCode.PROTOCOL_ERROR, "close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise _ViolationError(CloseCode.PROTOCOL_ERROR, f"close code {code} may not be sent")
    return CloseReceived(code, _text(payload[2:]))


def text_frame(payload: bytes) -> bytes:
    """Return the frame of a text message; ``payload`` is UTF-8."""
    length = len(payload)
    if length < 126:
        return _SHORT_TEXT_HEADERS[length] + payload
    return _header(_FINAL_TEXT, length) + payload


def deflated_frame(opcode: int, payload: bytes, window_bits: int) -> bytes:
    """Return the frame of a whole message, compressed if that makes it shorter (RFC 7692, section 7.2.1).

    Args:
        opcode: ``TEXT`` or ``BINARY``.
        payload: the message.
        window_bits: the server's window, as it was agreed on.
    """
    compressed = deflate(payload, window_bits)
    if len(compressed) >= len(payload):
        return _header(FIN | opcode, len(payload)) + payload
    return _header(FIN | RSV1 | opcode, len(compressed)) + compressed


def binary_frame(payload: bytes) -> bytes:
    """Return the frame of a binary message."""
    return _header(_FINAL_BINARY, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping.

    Raises:
        ValueError: ``payload`` is over 125 bytes.
    """
    return _control_frame(PONG, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; a code that may not be sent (1005, 1006) gives one without; long reasons are cut."""
    payload = b""
    if may_be_sent(code):
        # A reason may quote anything: what has no UTF-8 becomes a question mark.
        cut = reason.encode(errors="replace")[:MAX_CLOSE_REASON].decode(errors="ignore").encode()
        payload = struct.pack("!H", code) + cut
    return _control_frame(CLOSE, payload)


def _control_frame(opcode: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes")
    return bytes((FIN | opcode, len(payload))) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
