"""What a client can make a worker log: bounded in lines, and nothing that looks like a line."""

from __future__ import annotations

from typing import Any

import pytest
from support.log import WrittenLog
from support.worker.running import Probe, StartWorker, until

from socketcluster_worker.api.worker import Worker

FORGED = "12:00:00 [critical] forged"
MANY = 300


@pytest.mark.parametrize("serial", [False, True])
async def test_handlers_that_fail_fill_no_log(start_worker: StartWorker, service_log: WrittenLog, serial: bool) -> None:
    failed = 0

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            async def fail(text: str) -> None:
                nonlocal failed
                failed += 1
                raise ValueError(text)

            socket.on("fail", fail)

    worker = await start_worker(run, serial=serial)
    websocket = await worker.socket()
    for _ in range(MANY):
        await websocket.send_json({"event": "fail", "data": f"text\n{FORGED}\r\x1b[31m"})
    await until(lambda: failed == MANY)
    await worker.stop()
    service_log.handler.settle()
    assert "ValueError: text" in service_log.text
    assert service_log.text.count(FORGED) < 20
    assert not any(line.startswith(FORGED) for line in service_log.lines)
    assert not {"\r", "\x1b"}.intersection(service_log.text)


async def test_refused_publications_fill_no_log(
    start_worker: StartWorker, service_log: WrittenLog, probe: Probe
) -> None:
    worker = await start_worker(probe.run)
    websocket = await worker.socket()
    before = len(service_log.lines)
    for number in range(MANY):
        data = {"channel": f"c{number}\n{FORGED}" * 200, "data": number}
        await websocket.send_json({"event": "#publish", "data": data, "cid": number + 2})
        assert "error" in await websocket.next_json()
    service_log.handler.settle()
    assert len(service_log.lines) - before < 20
    assert not any(line.startswith(FORGED) for line in service_log.lines)
