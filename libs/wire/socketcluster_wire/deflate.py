"""permessage-deflate (RFC 7692), without I/O: its negotiation's terms, inflating within limits, deflating.

The server never keeps its compression context from one message to the next (``server_no_context_takeover``): idle
connections hold no compressor, one compressed frame serves all receivers of a broadcast, messages that wait for a slow
client may be dropped, and a connection can be taken over by another process.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory

from socketcluster_wire.errors import InflatedTooBigError, InflateError

TAIL = b"\x00\x00\xff\xff"
"""What a sender leaves out at the end of a message (RFC 7692, section 7.2.1)."""

_LEVEL, _MEMORY_LEVEL = 3, 5  # with a window of 12 bits a tenth of the time of zlib's defaults for a short message


@dataclass(frozen=True, slots=True)
class DeflateOptions:
    """What a server wants of the extension."""

    threshold: int = 1024
    """Bytes below which a message is sent as it is."""
    client_no_context_takeover: bool = True
    """Must clients begin each message with an empty window? If not, a connection holds up to 40 KiB for them."""
    max_window_bits: int = 12
    """The largest window, 9 to 15, as a power of two of bytes, each way; clients that cannot limit theirs use 15."""

    def factory(self) -> ServerPerMessageDeflateFactory:
        """Return what negotiates this in an opening handshake."""
        return ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=self.client_no_context_takeover,
            server_max_window_bits=self.max_window_bits,
            client_max_window_bits=self.max_window_bits,
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """What server and client agreed on."""

    server_window_bits: int
    client_window_bits: int
    client_no_context_takeover: bool

    @classmethod
    def of(cls, extension: PerMessageDeflate) -> Agreement:
        """Read it off what the ``websockets`` library negotiated."""
        return cls(
            extension.local_max_window_bits, extension.remote_max_window_bits, extension.remote_no_context_takeover
        )


class Inflater:
    """Inflates one client's messages, a fragment at a time."""

    __slots__ = ("_bits", "_decoder", "_keeps_context")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.client_window_bits
        self._keeps_context = not agreement.client_no_context_takeover
        self._decoder: zlib._Decompress | None = None

    @property
    def stateless(self) -> bool:
        """Does the next message not depend on those before?"""
        return self._decoder is None

    def inflate(self, data: bytes, final: bool, limit: int) -> bytes:
        """Return what the next bytes of a message inflate to, never making more than ``limit`` bytes and one.

        Args:
            data: a fragment's payload.
            final: does it end the message?
            limit: bytes that it may inflate to.

        Raises:
            InflateError: it is not deflated data.
            InflatedTooBigError: it inflates to more than ``limit`` bytes.
        """
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = zlib.decompressobj(-self._bits)
        try:
            inflated = decoder.decompress(data + TAIL if final else data, limit + 1)
        except zlib.error as error:
            raise InflateError(str(error)) from None
        if len(inflated) > limit:
            raise InflatedTooBigError(f"more than {limit} bytes")
        if decoder.eof:
            # A final block may end a message (section 7.2.3.4), then the empty block follows; more after it may not.
            rest = decoder.unused_data
            if len(rest) > 5 or (final and rest not in (TAIL, b"\x00" + TAIL)):
                raise InflateError("data behind the final block")
        if final:
            if decoder.eof and self._keeps_context:
                self._decoder = zlib.decompressobj(-self._bits, zdict=inflated[-(1 << self._bits) :])
            elif not self._keeps_context:
                self._decoder = None
        return inflated


def deflate(payload: bytes, window_bits: int) -> bytes:
    """Return ``payload`` compressed on its own, as it goes into a frame whose RSV1 is set."""
    encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window_bits, _MEMORY_LEVEL)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]
