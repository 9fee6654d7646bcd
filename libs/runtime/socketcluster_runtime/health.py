"""``python -m socketcluster_runtime.health ADDRESS``: is the service there well? For compose's health checks.

The address is a gRPC one (``127.0.0.1:7000``, ``unix:/path``), asked by the standard health protocol with the secret
and the ``rpc_tls`` options of the environment, or a URL, which must answer 200. Exit status 0: it serves; 1: it does
not, with the reason.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from socketcluster_runtime.errors import SettingsError

if TYPE_CHECKING:
    from socketcluster_runtime.tls.rpc_tls import RpcTls

TIMEOUT = 10.0
"""Seconds that a service has to answer."""


def check_http(url: str) -> str | None:
    """Return ``None`` if ``url`` answers 200, otherwise a line that says what it did."""
    # A check runs every few seconds: without TLS it goes without what takes most of its time to load.
    return _check_plain(url) if url.startswith("http:") else _check_https(url)


def _check_plain(url: str) -> str | None:
    authority, _, path = url.removeprefix("http://").partition("/")
    host, _, port = authority.rpartition(":") if authority.rpartition(":")[2].isdecimal() else (authority, "", "80")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT) as connection:
            connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
            line = connection.makefile("rb").readline(1000).decode("latin-1").strip()
    except (OSError, OverflowError) as error:
        return str(error)
    protocol, _, status = line.partition(" ")
    if not protocol.startswith("HTTP/"):
        return f"no HTTP: {line[:100]!r}"
    return None if status.startswith("200") else "HTTP Error " + status.replace(" ", ": ", 1)


def _check_https(url: str) -> str | None:
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context()
    context.check_hostname = False  # the certificate is for the name by which clients come, not for this one
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=context):  # noqa: S310  # the caller names the scheme
            return None
    except (OSError, urllib.error.URLError) as error:
        return str(error)


def serves(address: str, secret: str) -> bool:
    """Does the gRPC service at ``address``, without TLS, say at once that it serves? If not, it may say why elsewhere.

    That is one call in HTTP/2, written by hand: the library takes ten times as long to load as this takes, and nearly
    every check of a running service finds it well. Whatever else comes is for ``check_grpc``, which understands it.
    """
    try:
        with _connection(address) as connection:
            connection.sendall(_health_call(address, secret))
            stream = connection.makefile("rb")
            while len(head := stream.read(9)) == 9:
                payload = stream.read(int.from_bytes(head[:3], "big"))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == _DATA and number == 1 and payload:
                    return payload == _SERVING
                if kind in (_SETTINGS, _PING) and not flags & 1:
                    connection.sendall(_frame(kind, 1, 0, payload if kind == _PING else b""))
                elif kind not in (_SETTINGS, _PING, _WINDOW_UPDATE, _HEADERS) or (kind == _HEADERS and flags & 1):
                    return False
    except (OSError, ValueError):
        pass
    return False


_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_SERVING = b"\0\0\0\0\2\x08\1"
"""The message HealthCheckResponse(status=SERVING), as gRPC frames it."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _health_call(address: str, secret: str) -> bytes:
    from socketcluster_runtime.secrets.keys import Purpose, derive_key

    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": "localhost" if address.startswith("unix:") else address,
        "te": "trailers",
        "content-type": "application/grpc",
        "authorization": f"Bearer {derive_key(secret, Purpose.CALLS).hex()}",
    }
    block = b"".join(  # HPACK's literals: no table, no Huffman code; lengths over 126 would take more than a byte
        b"\0" + b"".join(bytes((len(text),)) + text for text in (name.encode(), value.encode()[:126]))
        for name, value in fields.items()
    )
    return b"".join(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(_SETTINGS, 0, 0, b""),
            _frame(_HEADERS, 4, 1, block),  # all of them
            _frame(_DATA, 1, 1, bytes(5)),  # an empty message, and no more
        )
    )


def _connection(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(TIMEOUT)
            connection.connect(address.removeprefix("unix:"))
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)


def check_grpc(address: str, secret: str, tls: RpcTls | None = None) -> str | None:
    """Return ``None`` if the gRPC service at ``address`` says that it serves, otherwise a line that says why not."""
    # Imported late: a check runs every few seconds, and an HTTP one does without what takes long to load.
    import grpc
    from grpc_health.v1 import health_pb2
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from socketcluster_runtime.rpc import Options, channel_credentials, credentials

    options: Options = [("grpc.enable_http_proxy", 0)]
    secured = channel_credentials(address, tls)
    with (
        grpc.insecure_channel(address, options)
        if secured is None
        else grpc.secure_channel(address, secured[0], [*options, *secured[1]])
    ) as channel:
        stub: Any = HealthStub(channel)  # its methods are made at run time, which its types leave out
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, metadata=credentials(secret))
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _means() -> tuple[str, RpcTls | None]:
    from typing import ClassVar

    from pydantic import ValidationError

    from socketcluster_runtime.settings import ServiceSettings, describe

    class HealthSettings(ServiceSettings):
        """Only the secret and TLS are used; the options of the service whose environment this is are not looked at."""

        service: ClassVar[str] = "health check"

    try:
        settings = HealthSettings()
        return settings.shared_secret(), settings.rpc_tls()
    except ValidationError as error:  # which as it is shows the secret
        sys.exit(describe(error, HealthSettings))
    except SettingsError as error:
        sys.exit(str(error))


def _plain_secret() -> str:
    """Return the secret if the environment shows it, and nothing of TLS, without loading all that judges options."""
    if os.environ.get("SOCKETCLUSTER_RPC_TLS_CERT"):
        return ""
    secret, path = os.environ.get("SOCKETCLUSTER_SECRET", ""), os.environ.get("SOCKETCLUSTER_SECRET_FILE", "")
    if not secret and path:
        try:
            with open(path) as file:  # noqa: PTH123  # without pathlib
                secret = file.read().strip()
        except (OSError, UnicodeDecodeError):
            return ""
    return secret


def main() -> None:
    """Check the service named on the command line and exit."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    address = sys.argv[1]
    if address.startswith(("http://", "https://")):
        problem = check_http(address)
    elif (secret := _plain_secret()) and serves(address, secret):
        problem = None
    else:
        problem = check_grpc(address, *_means())
    sys.exit(problem and f"{address}: {problem}")


if __name__ == "__main__":
    main()
