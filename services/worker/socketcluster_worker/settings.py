"""The worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from socketcluster_runtime.networks import Networks
from socketcluster_runtime.secrets.secret_files import check_one_form
from socketcluster_runtime.settings import ServiceSettings, wiring
from socketcluster_runtime.trusted_proxies import ProxyHeaders
from socketcluster_worker.connection import SlowConsumer
from socketcluster_worker.endpoints.hosts import HostPolicy
from socketcluster_worker.endpoints.origins import OriginPolicy

CLIENT_FILES = Path(__file__).parents[3] / "clients" / "js"
"""Where the browser client lies in a checkout; the image says otherwise."""
Algorithm: TypeAlias = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
"""How auth tokens are signed (RFC 7518, section 3.1); ``none`` is no choice."""


class WorkerSettings(ServiceSettings):
    """What a worker can be told, beside what every service can."""

    service: ClassVar[str] = "worker"

    controller: Path = wiring(Path("/controller/controller.py"))
    """The user's module, with ``run(worker)``."""
    stores: Annotated[tuple[str, ...], NoDecode] = wiring(..., min_length=1)
    """gRPC addresses of the stores, comma-separated; ``dns:///store:7000`` means every host of that name."""
    control_listen: str = wiring("0.0.0.0:7100")
    """gRPC address on which balancers watch this worker."""
    http_listen: str = wiring("0.0.0.0:7200", pattern=r":\d{1,5}$")
    """``host:port`` for relayed connections; port 0 means any."""
    http_host: str = wiring("", max_length=255)
    """Host at which other workers reach ``http_listen``; else the one it names, or the one that stores see."""
    mesh_listen: str = wiring("")
    """``host:port`` at which other workers link to this one; default: any free port where ``http_listen`` is."""
    handoff_dir: Path | None = wiring(None)
    """Folder of the handoff socket, shared with the balancers of this host; without it there is no handover."""
    tags: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], ...], NoDecode] = Field(
        (), max_length=16
    )
    """Words, comma-separated, by which a balancer's controller may route clients to this worker and its like."""
    client_files: Path = wiring(CLIENT_FILES)
    """Folder of ``socketcluster.js``."""

    path: str = Field("/socketcluster/", pattern=r"^/[A-Za-z0-9_./-]*/$")
    """Where the realtime endpoints begin; starts and ends with a slash."""
    socketio_path: str = Field("/socket.io/", pattern=r"^/[A-Za-z0-9_./-]*/$")
    """Where Socket.IO clients connect."""
    engineio_path: str = Field("/engine.io/", pattern=r"^/[A-Za-z0-9_./-]*/$")
    """Where plain Engine.IO clients connect."""
    origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Other origins whose pages may connect: ``https://app.example.com,example.com:*``; ``*:*`` is all, no cookies."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts that requests may be for (``Host``): ``example.com,*.example.com``; without any, all. Others get 400."""
    match_origin_protocol: bool = True
    """Refuse a page by http that connects by https, and the reverse; to be switched off if a proxy hides that."""
    trusted_proxies: Networks = ()
    """Networks of proxies in front, comma-separated, who say of each client who it is (see ``proxy_headers``)."""
    proxy_headers: ProxyHeaders = "proxy-protocol"
    """How they tell: ``proxy-protocol``, or in each request ``x-forwarded`` (-For, -Proto, -Host) or ``forwarded``."""
    protocol_version: int = Field(2, ge=1, le=2)
    """Version of SocketCluster's protocol at ``path``: 1 for clients before version 15."""
    strict_handshake: bool = True
    """Is a SocketCluster client disconnected whose first message is no handshake? If not, its messages wait for it."""
    batch_interval: float = Field(0.0, ge=0, le=60)
    """Seconds for which what goes to one SocketCluster client is collected, to be sent at once; 0 means not at all."""
    auth_algorithm: Algorithm = "HS256"
    """The algorithm of auth tokens; those of another are refused."""
    auth_key: SecretStr | None = None
    """The key of auth tokens for HS256, HS384 and HS512; without it, one that is derived from the cluster's secret."""
    auth_key_file: Path | None = None
    """File of ``auth_key``: an argument shows in the list of processes."""
    auth_public_key: Path | None = None
    """File (PEM) of the key that RS256, RS384, RS512, ES256, ES384 and ES512 verify auth tokens with."""
    auth_private_key: Path | None = None
    """File (PEM) of the key that these algorithms sign auth tokens with; without it, none can be made here."""
    auth_default_expiry: float = Field(86400.0, gt=0)
    """Seconds that an auth token is good for unless the controller says otherwise."""
    serial: bool = False
    """Does each event of a client wait until the handlers of the one before have ended?"""
    heartbeat_interval: float = Field(25.0, gt=0, le=3600)
    """Seconds between two pings to a client."""
    heartbeat_timeout: float = Field(20.0, gt=0, le=3600)
    """Seconds that a client has to answer a ping."""
    handshake_timeout: float = Field(10.0, gt=0, le=3600)
    """Seconds from connecting to the handshake, twice as many by polling; half as many again may a body stall."""
    recovery_window: float = Field(0, ge=0, le=86_400)
    """Seconds for which a Socket.IO client that lost its connection may take up where it was; 0 means never."""
    ack_timeout: float = Field(10.0, gt=0, le=3600)
    """Seconds that ``socket.call`` waits for an answer unless it is told otherwise."""
    max_http_buffer_size: int = Field(1_000_000, ge=1000, le=100_000_000)
    """Bytes that one message, or one polling request, may have."""
    max_request_body: int = Field(100_000_000, ge=1000)
    """Bytes that the body of a request to your own pages may have; it is answered 413 otherwise."""
    max_buffered_bytes: int = Field(1_048_576, ge=1000)
    """Bytes that may wait for one client that reads slowly; a single longer message may wait alone."""
    slow_consumer: SlowConsumer = "disconnect"
    """What happens when more wait: ``disconnect`` the client, ``drop_oldest`` messages, or keep the ``latest_only``."""
    per_message_deflate: bool = False
    """Compress WebSocket messages for clients that offer it (permessage-deflate)."""
    deflate_threshold: int = Field(1024, ge=0)
    """Bytes below which a message is sent uncompressed."""
    deflate_window_bits: int = Field(12, ge=9, le=15)
    """The largest window for compression, as a power of two of bytes, each way."""
    client_no_context_takeover: bool = True
    """Have clients compress each message on its own; if not, a connection holds up to 40 KiB for it."""
    max_channels_per_socket: int = Field(1000, ge=1)
    """Channels that one client may be subscribed to at a time."""
    max_channel_name_length: int = Field(200, ge=1, le=1000)
    """Characters of a channel's name."""
    client_publish: Annotated[tuple[str, ...], NoDecode] = ("allow",)
    """Channels to which clients may publish: ``allow`` (all), ``deny`` (none), or patterns: ``chat:*,news``."""
    max_forwards: int = Field(8192, ge=0)
    """Requests for sessions of other workers that are forwarded at a time, WebSockets included; others are refused."""
    store_timeout: float = Field(10.0, gt=0, le=600)
    """Seconds that an operation waits for its store, a restart of the store included."""
    cut_off_timeout: float = Field(60.0, ge=0, le=86_400)
    """Seconds without the stores after which clients are told to reconnect, if another worker has them; 0: never."""
    drain_timeout: float = Field(10.0, ge=0, le=600)
    """Seconds that handlers and HTTP requests have to finish when the worker stops."""

    @field_validator("stores", "origins", "allowed_hosts", "tags", "client_publish", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        HostPolicy(value)
        return value

    @field_validator("client_publish")
    @classmethod
    def _check_client_publish(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or (len(value) > 1 and not {"allow", "deny"}.isdisjoint(value)):
            raise ValueError("give allow, deny, or patterns of channels, comma-separated")
        return value

    @property
    def publishable(self) -> tuple[str, ...] | None:
        """Patterns of the channels to which clients may publish; ``None``: to any."""
        if self.client_publish == ("allow",):
            return None
        return () if self.client_publish == ("deny",) else self.client_publish

    @field_validator("origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        OriginPolicy(value)
        return value

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        check_one_form("auth_key", self.auth_key, self.auth_key_file)
        return self
