"""A cluster's secret is used for nothing itself: each purpose has a key of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from grpc import HandlerCallDetails, aio
from itsdangerous import Signer

from socketcluster_proto.v1.store_pb2 import LinkOpen
from socketcluster_runtime import rpc
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.streams.dialing import GrpcDialer

SECRET = "a secret of the tests"


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 100])
def test_keys_are_those_of_the_standard(size: int) -> None:
    for purpose in Purpose:
        info = f"{purpose.value}\0application".encode()
        expected = HKDF(hashes.SHA256(), size, b"socketcluster", info).derive(SECRET.encode())
        assert derive_key(SECRET, purpose, "application", size) == expected


def test_no_two_purposes_applications_or_clusters_share_a_key() -> None:
    keys = {
        derive_key(secret, purpose, context)
        for secret in (SECRET, f"{SECRET} too")
        for purpose in Purpose
        for context in ("", "one", "other")
    }
    assert len(keys) == 2 * len(Purpose) * 3
    assert SECRET.encode() not in b"".join(keys)


async def test_a_call_carries_the_key_of_calls_and_not_the_secret() -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    class Looking(aio.ServerInterceptor):
        async def intercept_service(
            self, continuation: Callable[[HandlerCallDetails], Awaitable[Any]], details: HandlerCallDetails
        ) -> Any:
            seen.put_nowait(dict(details.invocation_metadata or ()))
            return await continuation(details)

    server = aio.server(interceptors=[Looking()])
    port = rpc.listen(server, "127.0.0.1:0")
    await server.start()
    link = StoreLink(f"127.0.0.1:{port}", LinkOpen(), None, GrpcDialer(SECRET, None))  # type: ignore[arg-type]  # it is told nothing
    link.start()
    metadata = await seen.get()
    await link.close()
    await server.stop(None)
    assert metadata["authorization"] == f"Bearer {derive_key(SECRET, Purpose.CALLS).hex()}"
    assert SECRET not in str(metadata)


def test_who_knows_the_key_of_calls_signs_no_cookie() -> None:
    cookies = SessionCookies("one", SECRET)
    assert cookies.read(cookies.write("id", secure=False).partition(";")[0], secure=False) == "id"
    for key in (SECRET.encode(), *(derive_key(SECRET, purpose) for purpose in Purpose)):
        forged = Signer(key, key_derivation="none", digest_method=sha256).sign("id").decode()
        assert cookies.read(f"one.session={forged}", secure=False) is None
