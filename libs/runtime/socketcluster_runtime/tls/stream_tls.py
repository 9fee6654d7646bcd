"""Mutual TLS for streams that are not gRPC's, with the same certificates as those."""

from __future__ import annotations

import os
import ssl
from typing import Any

from socketcluster_runtime.tls.rpc_tls import RpcTls


def client_context(tls: RpcTls) -> ssl.SSLContext:
    """Return what a connection to a service needs; the name to ask for is ``tls.name``."""
    return _context(tls, ssl.PROTOCOL_TLS_CLIENT)


def server_context(tls: RpcTls) -> ssl.SSLContext:
    """Return what a server needs: each handshake shows the certificate that ``tls`` has then, and asks for the same.

    No handshake is abbreviated: that would let in who was let in before, by another certificate.
    """
    listening = _context(tls, ssl.PROTOCOL_TLS_SERVER)
    used = {tls.version: listening}

    def choose(connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        if tls.version not in used:
            used.clear()
            used[tls.version] = _context(tls, ssl.PROTOCOL_TLS_SERVER)
        connection.context = used[tls.version]

    set_callback: Any = listening.set_servername_callback  # the stubs ask for more than either kind of connection has
    set_callback(choose)
    return listening


def _context(tls: RpcTls, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    pair = os.memfd_create("pair")  # the files may be others by now, and OpenSSL wants some
    try:
        with open(pair, "wb", closefd=False) as file:
            file.write(tls.key + b"\n" + tls.cert)
        context.load_cert_chain(f"/proc/self/fd/{pair}")
    finally:
        os.close(pair)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    context.load_verify_locations(cadata=tls.ca.decode("ascii", "ignore"))
    return context
