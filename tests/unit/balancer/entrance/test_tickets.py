"""TLS session tickets: a client's session is resumed by every balancer of a host, until the key changes."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.balancer.bench import Bench, LogLines
from support.network import certificates

from socketcluster_balancer.entrance import tickets
from socketcluster_balancer.entrance.tickets import KEY_BYTES, PERIOD, TicketKeys, set_key
from socketcluster_balancer.entrance.tls import load

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Clock:
    now = 100 * PERIOD

    def __call__(self) -> float:
        return self.now


class Host:
    """A certificate, and balancers' contexts for it."""

    def __init__(self, folder: Path) -> None:
        self.files = certificates.make(folder, "any")

    def context(self) -> ssl.SSLContext:
        return load(self.files.both, None, None).context

    def client(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.files.cert))
        context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def make_keys(tmp_path: Path) -> Iterator[Callable[[Clock], TicketKeys]]:
    made: list[TicketKeys] = []

    def make(clock: Clock) -> TicketKeys:
        made.append(TicketKeys(tmp_path / "tickets", clock))
        return made[-1]

    yield make
    for keys in made:
        keys.close()


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Any:
    """Return the client's side after a handshake, with the ticket that came behind it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1", session=session)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [one, other]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    other.write(b"hello")
    assert one.read() == b"hello"
    return one


@VERSIONS
async def test_a_session_is_resumed_by_another_balancer_until_the_key_changes(
    host: Host, make_keys: Callable[[Clock], TicketKeys], version: ssl.TLSVersion
) -> None:
    clock = Clock()
    first, second, client = host.context(), host.context(), host.client(version)
    session = handshake(client, first).session
    assert not handshake(client, second, session).session_reused  # as it is without
    for context in (first, second):
        make_keys(clock).use_in(context)
    session = handshake(client, first).session
    for context in (second, first):
        assert handshake(client, context, session).session_reused
    clock.now += PERIOD
    make_keys(clock).use_in(second)
    assert not handshake(client, second, session).session_reused
    make_keys(clock).use_in(first)
    session = handshake(client, second).session
    assert handshake(client, first, session).session_reused


async def test_the_key_changes_while_the_balancer_runs(
    host: Host, make_keys: Callable[[Clock], TicketKeys], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "LOOK_INTERVAL", 0.001)
    clock = Clock()
    make_keys(clock).use_in(host.context())
    (key,) = (tmp_path / "tickets").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    before = key.read_bytes()
    assert len(before) == KEY_BYTES
    left, another_s = key.with_name(f".100.{'0a' * 8}"), key.with_name("server.key")
    for path in (left, another_s):
        path.write_bytes(before)
    clock.now += PERIOD
    async with asyncio.timeout(60):
        while key.exists() or left.exists():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)
    another_s.unlink()  # was left alone
    (after,) = (tmp_path / "tickets").iterdir()
    assert after.read_bytes() != before


async def test_a_new_certificate_s_tickets_have_the_same_key(
    bench: Bench, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = host.files
    options = {"tls_cert": files.cert, "tls_key": files.key, "tls_ticket_dir": tmp_path / "tickets"}
    await bench.start(await bench.worker("aaaaaaaa"), **options)
    client = host.client(ssl.TLSVersion.TLSv1_3)
    session = handshake(client, bench.context).session
    bench.reload_certificate()
    assert handshake(client, bench.context, session).session_reused


async def test_a_key_that_cannot_be_shared_is_said_and_hinders_nothing(
    host: Host,
    make_keys: Callable[[Clock], TicketKeys],
    tmp_path: Path,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tickets").write_text("in the way")
    context, client = host.context(), host.client(ssl.TLSVersion.TLSv1_3)
    make_keys(Clock()).use_in(context)
    assert [line.partition(":")[0] for line in log_lines(30)] == ["the key of TLS session tickets cannot be shared"]
    (tmp_path / "tickets").unlink()
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets" / "100.key").write_bytes(b"too short")
    make_keys(Clock()).use_in(context)
    assert len(log_lines(30)) == 2
    (tmp_path / "tickets" / "100.key").unlink()
    monkeypatch.setattr(tickets, "_library", lambda: None)
    make_keys(Clock()).use_in(context)
    assert log_lines(30)[-1].startswith("this Python has no way to set the key of TLS session tickets")
    session = handshake(client, context).session
    assert handshake(client, context, session).session_reused


def test_the_key_is_set_by_this_python(host: Host) -> None:
    assert set_key(host.context(), bytes(range(KEY_BYTES)))


def test_a_context_that_is_not_where_it_is_expected_is_left_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tickets._library()
    assert library is not None
    control = library.SSL_CTX_ctrl

    class Elsewhere:
        SSL_CTX_ctrl = control

        @staticmethod
        def SSL_CTX_get_options(_pointer: int) -> int:  # noqa: N802  # OpenSSL's name
            return 0

    monkeypatch.setattr(tickets, "_library", Elsewhere)
    assert not set_key(host.context(), bytes(KEY_BYTES))


def test_unknown_pythons_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets._library.cache_clear()
    monkeypatch.setattr(tickets, "KNOWN_VERSIONS", ())
    assert tickets._library() is None
    tickets._library.cache_clear()
