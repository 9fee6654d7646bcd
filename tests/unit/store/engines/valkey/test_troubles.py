"""What Valkey refuses or fails to do: one line for the condition, however many operations meet it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as BrokenError
from structlog.testing import capture_logs
from support.store.running import LinkWorker, StartStore
from support.store.valkey import Server
from support.worker.running import until

from socketcluster_store.engines.valkey import troubles
from socketcluster_store.engines.valkey.troubles import Cause, FewReplicasError, cause_of
from socketcluster_store_client.errors import LinkError

Line = MutableMapping[str, Any]
SESSIONS = [f"session{number}" for number in range(200)]
ONE = msgspec.msgpack.encode(1)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), troubles.UNREACHABLE),
        (BrokenError("refused"), troubles.UNREACHABLE),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), troubles.MEMORY),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'. script: ab"), troubles.MEMORY),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), troubles.DISK),
        (ResponseError("READONLY You can't write against a read only replica."), troubles.READ_ONLY),
        (ReadOnlyError("You can't write against a read only replica."), troubles.READ_ONLY),
        (BusyLoadingError("Redis is loading the dataset in memory"), troubles.LOADING),
        (AuthenticationError("invalid username-password pair"), troubles.ACCESS),
        (NoPermissionError("this user has no permissions"), troubles.ACCESS),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), troubles.FEW_REPLICAS),
        (FewReplicasError("0 replicas of 1 have the batch"), troubles.FEW_REPLICAS),
        (ResponseError("something else"), troubles.REFUSED),
    ],
)  # fmt: skip
def test_causes_are_told_apart(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause


def bad(lines: list[Line]) -> list[Line]:
    """Return what the store complains of; the worker, in the same process, says that operations fail."""
    return [line for line in lines if line["log_level"] in ("error", "critical") and "worker" not in line["event"]]


@pytest.mark.valkey
async def test_what_a_full_server_refuses_is_one_condition(
    own: Server, start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(engine="valkey", valkey_url=own.url)
    worker = await link_worker(store.address)
    with capture_logs() as lines:
        own.ask("CONFIG", "SET", "maxmemory", 1)
        calls = [worker.set(session, "k", value=ONE) for session in SESSIONS]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, LinkError) and "maxmemory" in str(each) for each in outcomes)
        (line,) = bad(lines)
        assert line["event"] == "Valkey has no memory left"
        assert str(own.port) in line["valkey"]
        assert "maxmemory" in line["what_to_do"]
        own.ask("CONFIG", "SET", "maxmemory", 0)
        await worker.set("session", "k", value=ONE)
        (over,) = [each for each in lines if each["event"] == "Valkey has memory again"]
        assert over["times"] > 1
        assert len(bad(lines)) == 1


@pytest.mark.valkey
async def test_a_server_that_is_away_is_one_condition(
    own: Server, start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(engine="valkey", valkey_url=own.url, valkey_timeout=2)
    worker = await link_worker(store.address)
    with capture_logs() as lines:
        own.send(signal.SIGSTOP)
        calls = [asyncio.create_task(worker.set(session, "k", value=ONE)) for session in SESSIONS]
        await until(lambda: bool(bad(lines)))
        await until(lambda: any(line.get("partitions") for line in lines))
        own.send(signal.SIGCONT)
        await asyncio.gather(*calls, return_exceptions=True)  # a partition may be called unavailable meanwhile
        assert {line["event"] for line in bad(lines)} == {"Valkey does not answer"}
        assert all(line["reason"].strip() for line in bad(lines))
        assert any(line["event"] == "Valkey answers again" for line in lines)
        assert not any(": ." in str(value) for line in lines for value in line.values())


@pytest.mark.valkey
async def test_a_replica_that_only_reads_is_named(
    own: Server, start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(engine="valkey", valkey_url=own.url, valkey_timeout=2)
    worker = await link_worker(store.address)
    with capture_logs() as lines:
        own.ask("REPLICAOF", "127.0.0.1", "1")
        calls = [asyncio.create_task(worker.set(session, "k", value=ONE)) for session in SESSIONS]
        await until(lambda: bool(bad(lines)))
        assert {line["event"] for line in bad(lines)} == {"Valkey is a replica, which only reads"}
        own.ask("REPLICAOF", "NO", "ONE")
        await asyncio.gather(*calls, return_exceptions=True)  # a partition may be called unavailable meanwhile
        assert {line["event"] for line in bad(lines)} == {"Valkey is a replica, which only reads"}
