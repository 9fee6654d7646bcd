"""Which workers a store tells its workers of."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from support.network.ports import free_port
from support.store.running import LinkWorker, StartStore
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc

SECRET = "a secret of the tests"


async def test_every_worker_hears_of_every_other(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store()
    one = await link_worker(store.address, worker_id="worker01", http=("192.0.2.1", 7200))
    silent = await link_worker(store.address, worker_id="worker02")
    two = await link_worker(store.address, worker_id="worker03", http=("", 7201))
    for worker in (one, silent, two):
        await worker.barrier()
        assert worker.client.workers.find("worker01") == ("192.0.2.1", 7200)
        assert worker.client.workers.find("worker02") is None
        assert worker.client.workers.find("worker03") == ("127.0.0.1", 7201)  # it came by a Unix socket


async def test_a_host_that_is_not_given_is_the_one_that_the_link_comes_from(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(listen=f"127.0.0.2:{free_port()}")
    worker = await link_worker(store.address, worker_id="worker01", http=("", 7200))
    await worker.barrier()
    assert worker.client.workers.find("worker01") == ("127.0.0.1", 7200)


async def test_an_impossible_address_is_refused(start_store: StartStore) -> None:
    store = await start_store()
    async with rpc.connect(store.address) as channel:
        call: Any = store_pb2_grpc.StoreStub(channel).Link(metadata=rpc.credentials(SECRET), wait_for_ready=True)
        opening = store_pb2.LinkOpen(worker_id="w", app_name="socketcluster", incarnation="1", http_port=65_536)
        await call.write(store_pb2.LinkRequest(open=opening))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_worker_that_has_gone_is_forgotten_after_a_while(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store()
    one = await link_worker(store.address, worker_id="worker01")
    two = await link_worker(store.address, worker_id="worker02", http=("192.0.2.1", 7200))
    await one.barrier()
    await two.client.close()
    directory = one.client.workers
    await until(lambda: directory._left)  # the store noticed
    assert directory.find("worker02") == ("192.0.2.1", 7200)
    await link_worker(store.address, worker_id="worker02", http=("192.0.2.2", 7201))
    await one.barrier()
    assert directory.find("worker02") == ("192.0.2.2", 7201)


async def test_what_one_store_forgets_another_knows(start_store: StartStore, link_worker: LinkWorker) -> None:
    stores = [await start_store(), await start_store()]
    addresses = [store.address for store in stores]
    one = await link_worker(*addresses, worker_id="worker01")
    await link_worker(*addresses, worker_id="worker02", http=("192.0.2.1", 7200))
    directory = one.client.workers
    await until(lambda: sum("worker02" in told for told in directory._told.values()) == 2)
    await stores[0].stop()
    await until(lambda: len(directory._told) == 1)
    assert directory.find("worker02") == ("192.0.2.1", 7200)
    assert not directory._left
