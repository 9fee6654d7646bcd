"""What a store says of a Valkey that may lose what it acknowledges, and when it refuses to start on one."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.store.valkey import Cluster, Server, until_replicated, valkey_engine

from socketcluster_store.engines.valkey.durability import Setup, setup_of
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.errors import EngineError
from socketcluster_store.executor import ExecutorOptions

pytestmark = pytest.mark.valkey

Line = MutableMapping[str, Any]
EVICTS = "Valkey evicts partitions when its memory is full"
UNKNOWN = "it could not be looked at whether Valkey keeps what it acknowledges"


@pytest.fixture
def servers(tmp_path: Path) -> Any:
    """Starts servers."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        server = Server(tmp_path / f"valkey{len(started)}", *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.end()


def told(lines: list[Line]) -> list[str]:
    return [line["event"] for line in lines if line["log_level"] in ("warning", "error")]


async def said_of(server: Server | Cluster, **options: Any) -> list[str]:
    """Return what is said of a server at the start, twice: what is known is not said again."""
    with capture_logs() as lines:
        async with valkey_engine(server, ExecutorOptions(1 << 20), **options) as engine:
            await engine._durability.look()
    return told(lines)


async def setup(engine: ValkeyEngine) -> Setup:
    ((_, client),) = await engine._servers.all()
    return await setup_of(client)


async def test_a_server_that_keeps_everything_is_not_warned_of(own: Server) -> None:
    assert await said_of(own) == []


async def test_a_store_does_not_start_where_partitions_may_be_evicted(own: Server) -> None:
    own.ask("CONFIG", "SET", "maxmemory", 100_000_000)
    own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(EngineError, match=r"evicts keys .*allkeys-lru.*noeviction.*VALKEY_ALLOW_EVICTION"):
        await said_of(own)
    (said,) = await said_of(own, allow_eviction=True)
    assert "valkey_allow_eviction allows" in said


@pytest.mark.parametrize(("maxmemory", "policy"), [(0, "allkeys-lru"), (100_000_000, "volatile-lru")])
async def test_a_policy_that_evicts_no_partition_now_is_warned_of(own: Server, maxmemory: int, policy: str) -> None:
    own.ask("CONFIG", "SET", "maxmemory", maxmemory)
    own.ask("CONFIG", "SET", "maxmemory-policy", policy)
    assert await said_of(own) == ["the maxmemory-policy of Valkey is not noeviction"]


async def test_a_policy_that_changes_while_a_store_runs_is_one_condition(own: Server) -> None:
    with capture_logs() as lines:
        async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
            own.ask("CONFIG", "SET", "maxmemory", 100_000_000)
            own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
            for _ in range(3):
                await engine._durability.look()
            assert told(lines) == [EVICTS]
            own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await engine._durability.look()
            assert lines[-1]["event"] == "Valkey does not evict partitions any more"


async def test_a_server_that_keeps_nothing_on_a_disk_is_warned_of_until_it_does(own: Server) -> None:
    own.ask("CONFIG", "SET", "appendonly", "no")
    with capture_logs() as lines:
        async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
            own.ask("CONFIG", "SET", "save", "3600 1")
            await engine._durability.look()
            own.ask("CONFIG", "SET", "appendonly", "yes")
            await engine._durability.look()
    assert told(lines) == ["Valkey keeps nothing on a disk", "Valkey keeps snapshots only"]
    assert lines[-1]["event"] == "a warning about Valkey holds no longer"


async def test_replicas_that_nothing_waits_for_are_warned_of(servers: Callable[..., Server]) -> None:
    primary = servers("--repl-diskless-sync-delay", "0")
    until_replicated(primary, servers("--replicaof", f"127.0.0.1 {primary.port}"))
    loses = "a failover of Valkey loses what its replica does not have yet"
    assert await said_of(primary) == [loses]
    assert await said_of(primary, replicas=1) == []
    assert await said_of(primary, replicas=2) == ["Valkey has fewer replicas than valkey_wait_replicas"]
    primary.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    assert await said_of(primary) == []


@pytest.mark.parametrize(("forbidden", "known"), [(("-config",), True), (("-config", "-info"), False)])
async def test_what_may_not_be_asked_is_read_elsewhere_or_said_once(
    own: Server, forbidden: tuple[str, ...], known: bool
) -> None:
    own.ask("ACL", "SETUSER", "default", *forbidden)
    async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
        found = await setup(engine)
        assert found.policy == ("noeviction" if known else None)
        assert found.appendonly == (True if known else None)
    assert await said_of(own) == ([] if known else [UNKNOWN])


async def test_eviction_is_noticed_though_only_info_may_be_asked(own: Server) -> None:
    own.ask("CONFIG", "SET", "maxmemory", 100_000_000)
    own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    own.ask("ACL", "SETUSER", "default", "-config")
    with pytest.raises(EngineError, match="allkeys-lfu"):
        await said_of(own)


async def test_every_server_of_a_cluster_is_looked_at(valkey_cluster: Cluster) -> None:
    last = valkey_cluster.primaries[2]
    last.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with capture_logs() as lines:
            await said_of(valkey_cluster)
        async with valkey_engine(valkey_cluster, ExecutorOptions(1 << 20)) as engine:
            assert len(await engine._servers.all()) == 3
            (warned,) = [where for where, risks in engine._durability._said.items() if risks]
            assert warned.endswith(str(last.port))
    finally:
        last.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert lines == []  # of which the other capture has all
