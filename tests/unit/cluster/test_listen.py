"""The client port: in use, shared by balancers, named for people."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from socketcluster.errors import ListenError, PortInUseError
from socketcluster.listen import listen, url


def test_balancers_share_one_port() -> None:
    sockets = listen("127.0.0.1", 0, 3)
    addresses = {each.getsockname() for each in sockets}
    assert len(addresses) == 1
    clients = [socket.create_connection(addresses.copy().pop()) for _ in range(60)]
    waiting = 0
    for each in sockets:
        each.setblocking(False)
        accepted = 0
        while True:
            try:
                each.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
        assert accepted > 0
        waiting += accepted
    assert waiting == len(clients)
    for open_socket in [*clients, *sockets]:
        open_socket.close()


@pytest.mark.parametrize("shared", [False, True], ids=["plain", "of another cluster"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_port_in_use(shared: bool, count: int) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"^port {port} is in use: choose another with --port$"):
            listen("127.0.0.1", port, count)


def test_two_clusters_do_not_share_a_port() -> None:
    (first,) = listen("127.0.0.1", 0, 1)
    with first, pytest.raises(PortInUseError):
        listen("127.0.0.1", first.getsockname()[1], 1)


def test_a_port_that_was_just_left_is_free() -> None:
    (first,) = listen("127.0.0.1", 0, 1)
    address = first.getsockname()
    client = socket.create_connection(address)
    first.accept()[0].close()  # the server's side closes first: its port stays in TIME_WAIT
    client.close()
    first.close()
    (again,) = listen(address[0], address[1], 1)
    again.close()


def test_a_host_that_is_not_here() -> None:
    with pytest.raises(ListenError, match=r"cannot accept clients on host 192\.0\.2\.1: "):
        listen("192.0.2.1", 0, 1)


def test_a_port_that_is_not_for_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(_: socket.socket, __: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ListenError, match=r"port 80 is not for this user: choose one above 1023 with --port"):
        listen("127.0.0.1", 80, 1)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104
        ("::", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_address_that_people_are_shown(host: str, shown: str) -> None:
    assert url(host, 8000) == shown
    assert url(host, 8000, "https") == shown.replace("http", "https")
