"""A link to a store whose channel does what the test wants, when the test wants it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.network.certificates import Authority
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.tls.rpc_tls import load_rpc_tls
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.streams import dialing
from socketcluster_store_client.streams.dialing import GrpcDialer


class Channel:
    """A channel that connects when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.connected = asyncio.Event()
        self.closed = False

    async def channel_ready(self) -> None:
        self.asked.set()
        await self.connected.wait()

    async def close(self) -> None:
        self.closed = True


class Nobody:
    """Is told of nothing."""

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        raise AssertionError(reply)

    def on_broken(self, link: StoreLink) -> None:
        raise AssertionError(link)


async def test_a_link_ends_that_is_closed_in_the_turn_in_which_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()

    def connect(address: str, _tls: Any) -> Any:
        assert not channel.closed, f"the link connects to {address} again after it was closed"
        return channel

    monkeypatch.setattr(rpc, "connect", connect)
    link = StoreLink("somewhere:1", store_pb2.LinkOpen(), Nobody(), GrpcDialer("a secret of the tests", None))
    link.start()
    await channel.asked.wait()
    channel.connected.set()
    await asyncio.sleep(0)  # the wait for the channel has ended, the wait for that has not
    await link.close()
    assert channel.closed


async def test_why_there_is_no_link_is_told_once_if_tls_is_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dialing, "CONNECT_TIMEOUT", 0.01)
    own, stranger = Authority(tmp_path, "own"), Authority(tmp_path, "stranger")
    here, there = (load_rpc_tls(*each.issue("x"), each.cert, "socketcluster") for each in (own, stranger))
    server, _health = rpc.server("a secret of the tests")
    port = rpc.listen(server, "127.0.0.1:0", there)
    await server.start()
    with capture_logs() as lines:
        dialer = GrpcDialer("a secret of the tests", here)
        link = StoreLink(f"127.0.0.1:{port}", store_pb2.LinkOpen(), Nobody(), dialer)
        link.start()
        tried = 0
        explain = dialer._explain

        async def count(channel: Any, address: str) -> None:
            nonlocal tried
            await explain(channel, address)
            tried += 1

        monkeypatch.setattr(dialer, "_explain", count)
        await until(lambda: tried >= 3 and lines)
        await link.close()
    await server.stop(None)
    (line,) = lines
    assert line["store"] == f"127.0.0.1:{port}"
    assert "CERTIFICATE_VERIFY_FAILED" in line["error"]
    assert "rpc_tls_ca" in line["what_to_do"]
