"""Who may wait to be let in where services take framed streams: few at once, with TLS and without."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from support.network.certificates import Authority
from support.worker.running import until

from socketcluster_runtime.sockets import entrance as module
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.entrance import Entrance, listening_socket
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_runtime.tls.rpc_tls import load_rpc_tls
from socketcluster_runtime.tls.stream_tls import client_context, server_context


class House:
    """Has an entrance."""

    def __init__(self) -> None:
        self.streams: list[FramedStream] = []
        self.heard: list[bytes] = []
        self.lost = 0

    def come(self) -> FramedStream:
        """Take a connection."""
        stream = FramedStream(self.heard.append, lambda _reason: self.entrance.left(stream), self._lost)
        self.streams.append(stream)
        return stream

    def open(self, entrance: Entrance) -> None:
        """Let them come."""
        self.entrance = entrance

    def _lost(self) -> None:
        self.lost += 1


@pytest.mark.parametrize("is_secured", [False, True])
async def test_a_flood_of_strangers_is_bounded_and_who_was_known_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_secured: bool
) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 3)
    tls = None
    if is_secured:
        authority = Authority(tmp_path, "own")
        tls = load_rpc_tls(*authority.issue("service"), authority.cert, "socketcluster")
    bound = listening_socket("127.0.0.1", 0)
    address, house = bound.getsockname(), House()
    house.open(Entrance(bound, house.come, Room(), context=server_context(tls) if tls else None, patience=60.0))
    known = FramedStream(lambda _message: None, lambda _reason: None)
    await asyncio.get_running_loop().create_connection(
        lambda: known,
        *address,
        ssl=client_context(tls) if tls else None,
        server_hostname=tls.name if tls else None,
    )
    known.send(b"it is me")
    await until(lambda: house.heard)
    house.entrance.known(house.streams[0])

    flood = [socket.create_connection(address) for _ in range(20)]  # all wait when the loop turns
    for each in flood:
        each.setblocking(False)
    await until(lambda: sum(map(is_over, flood)) == 17)
    assert [is_over(each) for each in flood] == 17 * [True] + 3 * [False]
    known.send(b"still there")
    await until(lambda: len(house.heard) == 2)
    house.entrance.close()
    await until(lambda: all(map(is_over, flood)))
    known.abort()
    await until(lambda: all(not stream.open for stream in house.streams) and house.lost >= len(house.streams))
    for each in flood:
        each.close()


async def test_whoever_fails_its_handshake_is_gone(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "own")
    tls = load_rpc_tls(*authority.issue("service"), authority.cert, "socketcluster")
    bound = listening_socket("127.0.0.1", 0)
    house = House()
    house.open(Entrance(bound, house.come, Room(), context=server_context(tls), patience=60.0))
    with socket.create_connection(bound.getsockname()) as stranger:
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: house.lost)
    assert not house.entrance._strangers
    house.entrance.close()


async def test_all_addresses_are_those_of_both_kinds() -> None:
    with listening_socket("::", 0) as both, socket.create_connection(("127.0.0.1", both.getsockname()[1])):
        accepted, address = both.accept()
        accepted.close()
        assert address[0] == "::ffff:127.0.0.1"


def is_over(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
