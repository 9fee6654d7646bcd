"""What holds for all Engine.IO connections of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from socketcluster_worker.connection import SlowConsumer


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Times in seconds, sizes in bytes; see the options of the same names."""

    heartbeat_interval: float
    heartbeat_timeout: float
    max_http_buffer_size: int
    max_buffered_bytes: int
    slow_consumer: SlowConsumer


Farewell = Callable[[int, str], bytes]
"""Returns the message that tells a polling client, which gets no close frame, the code and the reason of the end."""
