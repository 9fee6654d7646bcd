"""Mutual TLS between the services: what is wrong with the files is named at the start, and strangers are not let in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from support.network.certificates import Authority

from socketcluster_runtime import rpc
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_runtime.tls.rpc_tls import RpcTls, load_rpc_tls

SECRET = "a secret of the tests"
NAME = "socketcluster"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_certificates_for_both_sides_are_accepted(authority: Authority) -> None:
    for usages in ((), (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)):
        cert, key = authority.issue("one", usages=usages)
        tls = load_rpc_tls(cert, key, authority.cert, NAME)
        assert (tls.cert, tls.ca, tls.name) == (cert.read_bytes(), authority.cert.read_bytes(), NAME)
        assert tls.key == key.read_bytes()


def test_what_is_wrong_with_a_file_is_named(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("one")
    _, other_key = authority.issue("other")
    stranger = Authority(tmp_path, "stranger")
    locked, nothing, absent = tmp_path / "locked.key", tmp_path / "nothing", tmp_path / "absent"
    nothing.write_text("no PEM")
    private = load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")))
    ca = authority.cert
    for given, text in (
        ((absent, key, ca), "rpc_tls_cert: {0} cannot be read: No such file"),
        ((cert, absent, ca), "rpc_tls_key: {1} cannot be read: No such file"),
        ((cert, key, absent), "rpc_tls_ca: {2} cannot be read: No such file"),
        ((nothing, key, ca), "rpc_tls_cert: no certificate in {0}, or no key in {1}"),
        ((cert, nothing, ca), "rpc_tls_cert: no certificate in {0}, or no key in {1}"),
        ((cert, key, nothing), "rpc_tls_ca: no certificate in {2}"),
        ((cert, other_key, ca), "rpc_tls_key: {1} does not belong to the certificate {0}"),
        ((cert, locked, ca), "rpc_tls_key: {1} is encrypted"),
        ((cert, key, stranger.cert), "rpc_tls_cert: {0} .*: unable to get local issuer certificate; it has to be"),
    ):
        with pytest.raises(SettingsError, match=text.format(*map(re.escape, map(str, given)))):
            load_rpc_tls(*given, NAME)


def test_a_certificate_that_others_would_not_accept_is_refused(authority: Authority) -> None:
    for number, (issued, reason) in enumerate(
        (
            (authority.issue("1", "another"), "Hostname mismatch"),
            (authority.issue("2", days=-1), r"certificate has expired \(CN=2 is valid from \S+Z to \S+Z\)"),
            (authority.issue("3", usages=[ExtendedKeyUsageOID.SERVER_AUTH]), "unsuitable certificate purpose"),
            (authority.issue("4", usages=[ExtendedKeyUsageOID.CLIENT_AUTH]), "unsuitable certificate purpose"),
        ),
        1,
    ):
        with pytest.raises(SettingsError, match=rf"^rpc_tls_cert: \S+/{number}.crt would not be accepted .*{reason}"):
            load_rpc_tls(*issued, authority.cert, NAME)


def test_a_chain_out_of_order_is_named(tmp_path: Path) -> None:
    root = Authority(tmp_path, "root")
    upper = Authority(tmp_path, "upper", above=root)
    lower = Authority(tmp_path, "lower", above=upper)
    cert, key = lower.issue("own")
    leaf, *issuers = (path.read_bytes() for path in (cert, lower.cert, upper.cert))
    cert.write_bytes(issuers[0] + leaf)
    with pytest.raises(SettingsError, match=rf"^rpc_tls_cert: {cert}: .* first one is CN=lower, but .* to CN=own; put"):
        load_rpc_tls(cert, key, root.cert, NAME)
    cert.write_bytes(b"".join((leaf, *reversed(issuers))))
    with structlog.testing.capture_logs() as lines:
        load_rpc_tls(cert, key, root.cert, NAME)
    assert [(line["option"], line["path"]) for line in lines] == [("rpc_tls_cert", str(cert))]
    assert lines[0]["problem"].endswith("put them so: 1. CN=own, 2. CN=lower, 3. CN=upper")


async def test_the_end_of_a_certificate_is_told_at_the_start_and_after_reading_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)  # which ends in a day
    cert, key = authority.issue("own", days=100)
    tls = load_rpc_tls(cert, key, authority.cert, NAME)
    lifecycle = Lifecycle()
    with structlog.testing.capture_logs() as lines:
        lifecycle.keep(tls)
        assert [(line["event"], line["option"]) for line in lines] == [("a certificate expires soon", "rpc_tls_ca")]
        lines.clear()
        authority.issue("own", days=2)
        lifecycle.reload()
    tls.close()
    assert [line["now"].partition(",")[0] for line in lines if line["event"] == "read again"] == ["CN=own"]
    assert [line["option"] for line in lines if line["event"] == "a certificate expires soon"] == [
        "rpc_tls_cert",
        "rpc_tls_ca",
    ]
    Lifecycle().keep(None)


async def ask(address: str, tls: RpcTls | None) -> StatusCode:
    async with rpc.connect(address, tls) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            await check(health_pb2.HealthCheckRequest(), metadata=rpc.credentials(SECRET), timeout=60)
        except aio.AioRpcError as error:
            failed = error
        else:
            return StatusCode.OK
    assert rpc.is_about_tls(failed.details()), failed.details()
    return failed.code()


async def test_each_side_lets_in_only_its_own(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    own, other, foreign = (
        load_rpc_tls(*each.issue(name), each.cert, NAME)
        for each, name in ((authority, "own"), (authority, "other"), (stranger, "foreign"))
    )
    for listening, coming, status in (
        (own, own, StatusCode.OK),
        (own, other, StatusCode.OK),
        (own, None, StatusCode.UNAVAILABLE),
        (None, own, StatusCode.UNAVAILABLE),
        (own, foreign, StatusCode.UNAVAILABLE),
        (own, replace(own, cert=foreign.cert, key=foreign.key), StatusCode.UNAVAILABLE),
        (foreign, replace(foreign, cert=own.cert, key=own.key), StatusCode.UNAVAILABLE),
        (own, replace(own, name="another"), StatusCode.UNAVAILABLE),
    ):
        server, _health = rpc.server(SECRET)
        port = rpc.listen(server, "127.0.0.1:0", listening)
        await server.start()
        assert await ask(f"127.0.0.1:{port}", coming) is status
        await server.stop(None)


async def test_what_is_read_again_is_shown_to_who_connects_from_then_on(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("own")
    tls = load_rpc_tls(cert, key, authority.cert, NAME)
    renewed = Authority(tmp_path, "renewed")
    new_cert, new_key = renewed.issue("new")
    new = load_rpc_tls(new_cert, new_key, renewed.cert, NAME)
    server, _health = rpc.server(SECRET)
    port = rpc.listen(server, "127.0.0.1:0", tls)
    await server.start()
    assert await ask(f"127.0.0.1:{port}", tls) is StatusCode.OK
    new_cert.replace(cert)
    with pytest.raises(SettingsError, match=r"rpc_tls_key: \S+ does not belong"):  # its key is not there yet
        tls.reload()
    assert await ask(f"127.0.0.1:{port}", tls) is StatusCode.OK
    new_key.replace(key)
    renewed.cert.replace(authority.cert)
    tls.reload()
    assert await ask(f"127.0.0.1:{port}", new) is StatusCode.OK
    assert await ask(f"127.0.0.1:{port}", tls) is StatusCode.OK
    await server.stop(None)


async def test_a_unix_socket_never_leaves_the_machine_and_stays_as_it_is(authority: Authority, tmp_path: Path) -> None:
    tls = load_rpc_tls(*authority.issue("own"), authority.cert, NAME)
    server, _health = rpc.server(SECRET)
    rpc.listen(server, f"unix:{tmp_path}/socket", tls)
    await server.start()
    assert await ask(f"unix:{tmp_path}/socket", None) is StatusCode.OK
    assert await ask(f"unix:{tmp_path}/socket", tls) is StatusCode.OK
    await server.stop(None)


@pytest.mark.parametrize(
    "details",
    [
        None,
        "",
        "Socket closed",
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        "failed to connect to all addresses; last error: UNAVAILABLE: unix:/path: Socket closed",
    ],
)
def test_other_reasons_are_not_taken_for_tls(details: str | None) -> None:
    assert not rpc.is_about_tls(details)
