"""TLS of framed streams: both sides show a certificate of the cluster's authority, a renewed one once it is there."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from support.network.certificates import Authority

from socketcluster_runtime.tls.rpc_tls import RpcTls, load_rpc_tls
from socketcluster_runtime.tls.stream_tls import client_context, server_context

NAME = "socketcluster"


def loaded(authority: Authority, name: str) -> RpcTls:
    return load_rpc_tls(*authority.issue(name), authority.cert, NAME)


def shaken(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = NAME
) -> tuple[bytes | None, bytes | None]:
    """Return the certificates that client and server were shown."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    ends[1].write(b"x")
    assert ends[0].read() == b"x"  # the client hears only then whether it was accepted
    shown = [end.getpeercert(binary_form=True) for end in ends]
    return shown[0], shown[1]


def test_strangers_are_not_let_in(tmp_path: Path) -> None:
    own, stranger = (loaded(Authority(tmp_path / name, name), "service") for name in ("own", "stranger"))
    assert all(shaken(client_context(own), server_context(own)))
    for client, server in ((own, stranger), (stranger, own)):
        with pytest.raises(ssl.SSLError):
            shaken(client_context(client), server_context(server))
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(own.files[2])
    with pytest.raises(ssl.SSLError):
        shaken(nobody, server_context(own))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(client_context(own), server_context(own), "another name")


def test_each_handshake_has_what_there_is_then(tmp_path: Path) -> None:
    authority, successor = Authority(tmp_path), Authority(tmp_path, "successor")
    server, client = loaded(authority, "server"), loaded(authority, "client")
    listening = server_context(server)
    first, _ = shaken(client_context(client), listening)
    cert, key, ca = server.files
    for path, renewed in zip((cert, key), successor.issue("renewed"), strict=True):
        path.write_bytes(renewed.read_bytes())
    ca.write_bytes(successor.cert.read_bytes())
    server.reload()
    with pytest.raises(ssl.SSLError):  # its authority is believed no more
        shaken(client_context(client), listening)
    second, _ = shaken(client_context(loaded(successor, "another client")), listening)
    assert first != second
    assert shaken(client_context(loaded(successor, "client")), listening)[0] == second
