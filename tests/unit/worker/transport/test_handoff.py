"""What a worker says when balancers have given its clients to others because it was silent."""

from __future__ import annotations

import socket
from functools import partial

from structlog.testing import capture_logs
from support.network.ports import tcp_pair
from support.worker.running import StartWorker, until

from socketcluster_wire import handoff

LEFT = "clients could not be taken over: their balancer gives them to others"


async def test_clients_whose_links_were_shut_meanwhile_are_left_to_others_and_one_line_says_so(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker(lambda _: None)
    packet = handoff.encode(handoff.Handoff(1, b"GET / HTTP/1.1\r\n\r\n", tls=False, client=None))
    with capture_logs() as lines:
        for _ in range(5):
            client, own = tcp_pair()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link, client:
                link.connect(worker.handoff_path)
                with own:
                    socket.send_fds(link, [packet], [own.fileno()])
                link.shutdown(socket.SHUT_RD)  # as the balancer does, and the worker has no turn before
                client.setblocking(False)
                await until(partial(_has_ended, client))
    assert [line["event"] for line in lines if line["log_level"] in ("warning", "error")] == [LEFT]


def _has_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
