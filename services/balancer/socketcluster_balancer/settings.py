"""What the balancer can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from socketcluster_runtime.addresses import DNS_SCHEME, split_host_port
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.networks import Networks
from socketcluster_runtime.secrets.secret_files import check_one_form
from socketcluster_runtime.settings import ServiceSettings, wiring
from socketcluster_runtime.trusted_proxies import ProxyHeaders
from socketcluster_wire.handoff import MAX_PACKET_BYTES

_LABEL = r"[A-Za-z0-9_-]{1,63}"
_HOST_PORT = re.compile(rf"(?:\[[0-9A-Fa-f:.%]+\]|{_LABEL}(?:\.{_LABEL})*\.?):[0-9]{{1,5}}")


def _check(host_port: str, *, any_port: bool) -> None:
    if not _HOST_PORT.fullmatch(host_port):
        raise ValueError(f"{host_port!r} is not host:port")
    try:
        split_host_port(host_port, any_port=any_port)
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _listen_address(value: str) -> str:
    _check(value, any_port=True)
    return value


def _addresses(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _worker_address(value: str) -> str:
    if not value.startswith("unix:"):
        _check(value.removeprefix(DNS_SCHEME), any_port=False)
    return value


class BalancerSettings(ServiceSettings):
    """The balancer's settings."""

    service: ClassVar[str] = "balancer"

    listen: Annotated[str, AfterValidator(_listen_address)] = wiring("0.0.0.0:8000")
    """Where clients connect, as ``host:port``; port 0 means any free one."""
    listen_fd: int | None = wiring(None, ge=0)
    """The number of a listening socket that is inherited, instead of ``listen``."""
    workers: Annotated[list[Annotated[str, AfterValidator(_worker_address)]], NoDecode, BeforeValidator(_addresses)] = (
        wiring(min_length=1)
    )
    """The workers' gRPC addresses, comma-separated; ``dns:///worker:7100`` means every host of that name."""
    handoff: bool = True
    """Hand sockets to workers on the same host; otherwise every client's bytes are copied."""
    handoff_timeout: float = Field(2.0, gt=0)
    """Seconds that a worker has to take a client over before another worker is asked."""
    worker_wait: float = Field(3.0, ge=0)
    """Seconds that a client waits for a worker to become ready before it is answered 503."""
    max_waiting: int = Field(1024, ge=0)
    """How many clients may wait for a worker; the ones over it are answered 503 at once."""
    max_pending_handovers: int = Field(8192, ge=0)
    """How many clients may queue for one worker to take them over; the ones over it are for other workers."""
    socket_limit: int = Field(0, ge=0)
    """Connections through one balancer at a time; the ones over it are answered 503. 0 means any number."""
    address_socket_limit: int = Field(0, ge=0)
    """Connections of one client address (of IPv6, a /64 network) at a time; others are answered 429. 0: any number."""
    address_connection_rate: float = Field(0, ge=0)
    """New connections a second that an address may go on making; the ones over it are answered 429. 0: any number."""
    address_connection_burst: int = Field(50, ge=1)
    """New connections that an address which made none for a while may make at once, beyond that rate."""
    max_head_bytes: int = Field(16 * 1024, ge=256, le=MAX_PACKET_BYTES - 2048)
    """The size of the largest first request head; a client that sends a larger one is answered 431."""
    head_timeout: float = Field(10.0, gt=0)
    """Seconds that a client has to send its first request's head, from its first byte on, before it is answered 408."""
    first_byte_timeout: float = Field(10.0, gt=0)
    """Seconds that a client may be silent, or take for its TLS handshake, before it is disconnected."""
    defer_accept: bool = True
    """Have the kernel keep connections that say nothing, for about ``first_byte_timeout``, before they are accepted."""
    trusted_proxies: Networks = ()
    """Networks of proxies in front, comma-separated, who say of each client who it is (see ``proxy_headers``)."""
    proxy_headers: ProxyHeaders = "proxy-protocol"
    """How they tell: ``proxy-protocol``, or in each request ``x-forwarded`` (-For, -Proto, -Host) or ``forwarded``."""
    tls_cert: Path | None = None
    """File of the certificate and its issuers' (PEM), or a PFX file; with it clients come by HTTPS alone."""
    tls_key: Path | None = None
    """File of the certificate's private key (PEM), if it is not in the certificate's file."""
    tls_passphrase: SecretStr | None = None
    """What ``tls_key`` is encrypted with, if it is."""
    tls_passphrase_file: Path | None = None
    """File of ``tls_passphrase``: an argument shows in the list of processes."""
    tls_ticket_dir: Path | None = wiring(None)
    """Folder, of this host's balancers alone, of the key of TLS session tickets; none: each has a key of its own."""
    balancer_controller: Path | None = None
    """The Python file with ``run(balancer)``, for middleware; default: ``balancer_controller.py`` beside the other."""
    controller_timeout: float = Field(2.0, gt=0, le=60)
    """Seconds that the middleware of the balancer's controller has for a client before that is answered 503."""
    drain_timeout: float = Field(10.0, ge=0)
    """Seconds that clients under way get when the balancer is asked to stop."""

    @model_validator(mode="after")
    def _has_a_certificate_for_the_key(self) -> Self:
        others = (self.tls_key, self.tls_passphrase, self.tls_passphrase_file)
        if self.tls_cert is None and any(other is not None for other in others):
            raise ValueError("tls_key, tls_passphrase and tls_passphrase_file belong to a tls_cert, which is not set")
        check_one_form("tls_passphrase", self.tls_passphrase, self.tls_passphrase_file)
        return self
