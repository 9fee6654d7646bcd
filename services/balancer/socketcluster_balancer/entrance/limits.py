"""How many connections there may be: in all, of one address, and new ones of one address in a time.

A connection is counted from its accept until it has ended, whoever serves it then. What is remembered of one is its
address's key, which all of that address share.
"""

from __future__ import annotations

import asyncio
import enum
import math
import socket
from collections import OrderedDict

from socketcluster_balancer.settings import BalancerSettings

MAX_ADDRESSES = 16_384
"""Addresses whose rate is remembered; with more at a time, those that were seen longest ago begin anew."""

ADDRESS_RETRY = 5
"""Seconds after which a client whose address has too many connections is told to try again."""

NOBODY = b""
"""What connections are counted under that belong to no address, or not yet."""

_MAPPED = bytes(10) + b"\xff\xff"


class OverLimit(enum.Enum):
    """Why a new connection is refused; the value names the setting."""

    SOCKETS = "socket_limit"
    ADDRESS_SOCKETS = "address_socket_limit"
    ADDRESS_RATE = "address_connection_rate"


def address_key(host: str) -> bytes:
    """Return what the connections of ``host`` are counted under.

    An IPv4 address is its own, also where it comes as an IPv6 one; IPv6 addresses of one /64 network, which a single
    client can have all, are one.
    """
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host.encode()
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]


class Limits:
    """Counts connections and decides on new ones."""

    def __init__(self, settings: BalancerSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = settings.socket_limit or math.inf
        self._most_of_address = settings.address_socket_limit
        self._interval = 1 / settings.address_connection_rate if settings.address_connection_rate else 0.0
        self._allowance = (settings.address_connection_burst - 1) * self._interval
        self._of_address: dict[bytes, int] = {}
        self._due: OrderedDict[bytes, float] = OrderedDict()  # when an address's bucket is full again (GCRA)
        self.connections = 0
        """How many there are."""

    @property
    def count_addresses(self) -> bool:
        """Is there a limit for each address?"""
        return bool(self._most_of_address or self._interval)

    def key(self, host: str) -> bytes:
        """Return what connections of ``host`` are counted under, which is all the same if addresses have no limit."""
        return address_key(host) if self.count_addresses else NOBODY

    def enter(self, key: bytes) -> OverLimit | None:
        """Count a new connection, or say why there must be none."""
        if self.connections >= self._most:
            return OverLimit.SOCKETS
        refusal = self.name(key)
        if refusal is None:
            self.connections += 1
        return refusal

    def name(self, key: bytes) -> OverLimit | None:
        """Count a connection, which was counted under ``NOBODY``, under ``key``, or say why there must be none."""
        if key == NOBODY:
            return None
        count = self._of_address.get(key, 0)
        if self._most_of_address and count >= self._most_of_address:
            return OverLimit.ADDRESS_SOCKETS
        if self._interval and not self._take_token(key):
            return OverLimit.ADDRESS_RATE
        if self._most_of_address:
            self._of_address[key] = count + 1
        return None

    def leave(self, key: bytes) -> None:
        """Count a connection no more, which was counted under ``key``."""
        self.connections -= 1
        if self._most_of_address and key != NOBODY:
            count = self._of_address[key] - 1
            if count:
                self._of_address[key] = count
            else:
                del self._of_address[key]

    def retry_after(self, refusal: OverLimit) -> int:
        """Return the seconds after which a refused client may try again."""
        if refusal is OverLimit.ADDRESS_RATE:
            return math.ceil(self._interval)
        return ADDRESS_RETRY if refusal is OverLimit.ADDRESS_SOCKETS else 1

    def _take_token(self, key: bytes) -> bool:
        """Take a token out of an address's bucket, if there is one (a token bucket, kept as one time: GCRA)."""
        now = self._loop.time()
        due = max(self._due.get(key, now), now)
        if due - now > self._allowance + 1e-9:
            return False
        self._due[key] = due + self._interval
        self._due.move_to_end(key)
        for _ in range(2):  # one comes, two may go
            if len(self._due) > MAX_ADDRESSES or self._due[next(iter(self._due))] <= now:
                self._due.popitem(last=False)
        return True
