"""gRPC between the services: channels, servers, and the proof that both sides know the cluster's secret."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.tls.rpc_tls import RpcTls

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest gRPC message that a service accepts; a batch of operations must fit."""

KEEPALIVE_MS = 10_000
"""Milliseconds after which either side of an idle link asks whether the other one is still there."""

EXCHANGE_TIME = 0.05
"""Seconds within which a handshake that has begun is no longer about which certificate to show."""

TLS_ADVICE = "do both have rpc_tls_cert, rpc_tls_key and rpc_tls_ca, of the same authority, and the same rpc_tls_name?"

Options = list[tuple[str, Any]]
"""What gRPC is told; it ignores names that it does not know, without a word."""


def channel_options() -> Options:
    """Return the options of a channel."""
    return [
        *_options(),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def server_options() -> Options:
    """Return the options of a server; the channels' pings are to be no abuse to it, or it cuts idle links."""
    return [
        *_options(),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ]


def _options() -> Options:
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # any number: else an idle channel asks twice, then hardly ever
    ]


def connect(address: str, tls: RpcTls | None = None) -> aio.Channel:
    """Open a channel to ``host:port``, ``dns:///host:port`` or ``unix:/path``; it connects and reconnects by itself.

    With ``tls`` both sides show certificates, but on a Unix socket: that never leaves the machine.
    """
    given = channel_credentials(address, tls)
    if given is None:
        return aio.insecure_channel(address, options=channel_options())
    credentials, options = given
    return aio.secure_channel(address, credentials, options=[*channel_options(), *options])


def channel_credentials(address: str, tls: RpcTls | None) -> tuple[grpc.ChannelCredentials, Options] | None:
    """Return what a channel to ``address`` needs for TLS; ``None`` if it has none."""
    if tls is None or is_local(address):
        return None
    options: Options = [("grpc.ssl_target_name_override", tls.name)]  # addresses come from look-ups, and change
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert), options


def is_about_tls(details: str | None) -> bool:
    """Does what gRPC says of a failure to connect mean that the two sides do not accept each other's TLS?

    Whoever comes without TLS, or with a certificate that is not accepted, sees its connection closed at once.
    """
    text = (details or "").lower()
    if not text.startswith("failed to connect") or "unix:" in text:
        return False
    return any(words in text for words in ("handshake failed", "verification check failed", ": socket closed"))


def is_local(address: str) -> bool:
    """Is it a Unix socket?"""
    return address.startswith("unix:")


def peer_host(peer: str) -> str:
    """Return the host in what ``ServicerContext.peer`` says of a caller; that of a Unix socket is this one."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "127.0.0.1"
    return split_host_port(unquote(address), any_port=True)[0]


def credentials(secret: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that a caller sends with each call: a key that is derived from the cluster's secret."""
    return (("authorization", f"Bearer {derive_key(secret, Purpose.CALLS).hex()}"),)


def server(secret: str) -> tuple[aio.Server, health.aio.HealthServicer]:
    """Make a server that refuses callers without the secret, and its health service."""
    made = aio.server(interceptors=[SecretInterceptor(secret)], options=server_options())
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
    return made, servicer


def listen(server: aio.Server, address: str, tls: RpcTls | None = None) -> int:
    """Make ``server`` listen on ``host:port`` (0: any free port) or ``unix:/path``; return the port.

    With ``tls`` it lets in only who shows a certificate of the same authority, but on a Unix socket.

    Raises:
        AddressInUseError: somebody else listens there, or this process may not.
    """
    try:
        if tls is None or is_local(address):
            return server.add_insecure_port(address)
        return server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise AddressInUseError(f"cannot listen on {address}: {error}") from None


def server_credentials(tls: RpcTls) -> grpc.ServerCredentials:
    """Return what a server needs for TLS: it shows what ``tls`` has at each handshake, and asks for the same."""
    exchange: Any = _Exchange(tls)  # the stubs do not know that there may be no other
    return grpc.dynamic_ssl_server_credentials(_configuration(tls), exchange, require_client_authentication=True)


class _Exchange:
    """Gives gRPC, which asks at each handshake, another certificate when there is one.

    gRPC puts it to use without a look at the handshakes that other threads begin at that moment, and frees what they
    may be using: the process ends by SIGSEGV. So for a moment around an exchange no other handshake begins.
    """

    def __init__(self, tls: RpcTls) -> None:
        self._tls = tls
        self._used = tls.version
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            if self._used != self._tls.version:
                time.sleep(EXCHANGE_TIME)  # for those that have begun
                self._used = self._tls.version
                self._quiet_until = time.monotonic() + EXCHANGE_TIME
                return _configuration(self._tls)
        if (wait := self._quiet_until - time.monotonic()) > 0:
            time.sleep(wait)
        return None


def _configuration(tls: RpcTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.cert)], tls.ca)


class SecretInterceptor(aio.ServerInterceptor):
    """Refuses every call whose caller does not show that it knows the cluster's secret."""

    def __init__(self, secret: str) -> None:
        ((_, expected),) = credentials(secret)
        self._expected = expected.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        given_bytes = given.encode() if isinstance(given, str) else given
        if handler is None or hmac.compare_digest(given_bytes, self._expected):
            return handler

        async def refuse(_request: Any, context: aio.ServicerContext[Any, Any]) -> NoReturn:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the cluster's secret is missing or wrong")

        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(refuse)
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(refuse)
        return grpc.stream_stream_rpc_method_handler(refuse)


async def set_serving(servicer: health.aio.HealthServicer, *, serving: bool) -> None:
    """Tell health checks whether the service is well."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    await servicer.set("", status)
