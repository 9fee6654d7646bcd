"""What stands in the place of a client that is gone does nothing, and says so to who waits for an answer."""

from __future__ import annotations

import pytest
from support.worker.running import Probe, StartWorker, until

from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.peer import Gone
from socketcluster_worker.connection import NOBODY
from socketcluster_worker.errors import SocketClosedError
from socketcluster_worker.protocols.dispatch import GONE


async def test_nothing_is_sent_and_no_answer_comes() -> None:
    gone = Gone("socketcluster")
    assert (gone.protocol, gone.writable) == ("socketcluster", False)
    gone.emit("event", (1,))
    gone.emit_shared(Emission("event", (1,)))
    gone.deliver(ChannelMessage("channel", 1), "disconnect")
    gone.kick_out("channel", "go")
    gone.remove_token()
    gone.close(1000, "")
    with pytest.raises(SocketClosedError):
        await gone.call("event", (), 1.0)
    with pytest.raises(SocketClosedError):
        await gone.set_token("token", 1.0)
    GONE.respond(1, "result")
    GONE.fail(1, "Error", "message")
    GONE.unhandled(1, "event")
    NOBODY.on_message("late")
    NOBODY.on_close(1000, "")


async def test_a_handler_that_ends_behind_its_client_answers_nobody(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run)
    websocket = await worker.socket()
    socket = await probe.sockets.get()

    async def slow() -> str:
        await until(lambda: socket not in worker.worker.ws_server.sockets)
        return "too late"

    socket.on("slow", slow)
    await websocket.send_json({"event": "slow", "cid": 7})
    await until(lambda: worker.worker.ws_server.running)
    websocket.client.abort()
    await probe.ends.get()
    await until(lambda: not worker.worker.ws_server.running)
    assert worker.errors.empty()
