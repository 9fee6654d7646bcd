"""The types of the options of ``SocketCluster(...)``, for editors and type checkers.

``make options`` writes this file: what it says is what the settings classes say.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict


class ProtocolOptions(TypedDict, total=False):
    """What ``https`` needs."""

    cert: str | PathLike[str]
    """The option ``tls_cert``."""
    key: str | PathLike[str]
    """The option ``tls_key``."""
    passphrase: str
    """The option ``tls_passphrase``."""
    passphrase_file: str | PathLike[str]
    """The option ``tls_passphrase_file``."""


class Options(TypedDict, total=False):
    """What ``SocketCluster(...)`` can be told. What is left out, or ``None``, the environment or a default says."""

    protocol: Literal["http", "https"] | None
    """What clients come by; ``https`` needs ``protocol_options``, or a ``tls_cert``. Default: ``http``."""
    protocol_options: ProtocolOptions | None
    """Of ``https``: ``cert``, ``key`` and ``passphrase`` or ``passphrase_file``, for ``tls_cert`` and so on."""
    app_name: str | None
    """Keeps applications that share a domain or a store apart: it is part of the cookie's name and the store's keys.
    Default: ``socketcluster``."""
    rpc_tls_cert: str | PathLike[str] | None
    """File (PEM) of the certificate that services show each other; with it gRPC goes by mutual TLS between machines."""
    rpc_tls_key: str | PathLike[str] | None
    """File (PEM) of the private key of ``rpc_tls_cert``, not encrypted."""
    rpc_tls_ca: str | PathLike[str] | None
    """File (PEM) of the authority that signs these certificates, and nobody else's."""
    rpc_tls_name: str | None
    """The DNS name that these certificates have, the same for all services, wherever they run.
    Default: ``socketcluster``."""
    log_format: Literal["text", "json"] | None
    """``text`` for people, ``json`` for programs: one object a line. Default: ``text``."""
    log_level: Literal["debug", "info", "warning", "error"] | None
    """The least important messages that are logged. Default: ``info``."""
    log_level_file: str | PathLike[str] | None
    """File with such a level, which counts then; it is read again at SIGHUP."""
    worker_controller: str | PathLike[str] | None
    """The Python file with ``run(worker)`` that every worker runs. Default: ``controller.py``."""
    workers: int | Sequence[int] | None
    """Worker processes: a count, or the HTTP port of each, comma-separated (``9100,`` is one); default: one a core."""
    stores: int | Sequence[int] | None
    """Store processes: a count, or the gRPC port of each, comma-separated (``9200,`` is one). Default: ``1``."""
    balancers: int | None
    """Balancer processes, which share the port. Default: ``1``."""
    host: str | None
    """Address on which clients are accepted; 0.0.0.0 means every network of this machine. Default: ``127.0.0.1``."""
    port: int | None
    """Port on which clients are accepted; 0 means any free one. Default: ``8000``."""
    data_dir: str | PathLike[str] | None
    """Folder of the stores' data and of the cluster's secret. Default: ``data``."""
    metrics_port: int | None
    """First port on 127.0.0.1 of the processes' metrics: balancers, workers, stores, a port each; 0: none.
    Default: ``0``."""
    stop_timeout: float | None
    """Seconds that the balancers, then the workers, then the stores have to stop before they are killed.
    Default: ``15.0``."""
    handoff: bool | None
    """Hand sockets to workers on the same host; otherwise every client's bytes are copied. Default: ``True``."""
    handoff_timeout: float | None
    """Seconds that a worker has to take a client over before another worker is asked. Default: ``2.0``."""
    worker_wait: float | None
    """Seconds that a client waits for a worker to become ready before it is answered 503. Default: ``3.0``."""
    max_waiting: int | None
    """How many clients may wait for a worker; the ones over it are answered 503 at once. Default: ``1024``."""
    max_pending_handovers: int | None
    """How many clients may queue for one worker to take them over; the ones over it are for other workers.
    Default: ``8192``."""
    socket_limit: int | None
    """Connections through one balancer at a time; the ones over it are answered 503. 0 means any number.
    Default: ``0``."""
    address_socket_limit: int | None
    """Connections of one client address (of IPv6, a /64 network) at a time; others are answered 429. 0: any number.
    Default: ``0``."""
    address_connection_rate: float | None
    """New connections a second that an address may go on making; the ones over it are answered 429. 0: any number.
    Default: ``0``."""
    address_connection_burst: int | None
    """New connections that an address which made none for a while may make at once, beyond that rate.
    Default: ``50``."""
    max_head_bytes: int | None
    """The size of the largest first request head; a client that sends a larger one is answered 431.
    Default: ``16384``."""
    head_timeout: float | None
    """Seconds that a client has to send its first request's head, from its first byte on, before it is answered 408.
    Default: ``10.0``."""
    first_byte_timeout: float | None
    """Seconds that a client may be silent, or take for its TLS handshake, before it is disconnected.
    Default: ``10.0``."""
    defer_accept: bool | None
    """Have the kernel keep connections that say nothing, for about ``first_byte_timeout``, before they are accepted.
    Default: ``True``."""
    trusted_proxies: str | Sequence[str] | None
    """Networks of proxies in front, comma-separated, who say of each client who it is (see ``proxy_headers``)."""
    proxy_headers: Literal["proxy-protocol", "x-forwarded", "forwarded"] | None
    """How they tell: ``proxy-protocol``, or in each request ``x-forwarded`` (-For, -Proto, -Host) or ``forwarded``.
    Default: ``proxy-protocol``."""
    tls_cert: str | PathLike[str] | None
    """File of the certificate and its issuers' (PEM), or a PFX file; with it clients come by HTTPS alone."""
    tls_key: str | PathLike[str] | None
    """File of the certificate's private key (PEM), if it is not in the certificate's file."""
    tls_passphrase: str | None
    """What ``tls_key`` is encrypted with, if it is."""
    tls_passphrase_file: str | PathLike[str] | None
    """File of ``tls_passphrase``: an argument shows in the list of processes."""
    balancer_controller: str | PathLike[str] | None
    """The Python file with ``run(balancer)``, for middleware; default: ``balancer_controller.py`` beside the other."""
    controller_timeout: float | None
    """Seconds that the middleware of the balancer's controller has for a client before that is answered 503.
    Default: ``2.0``."""
    drain_timeout: float | None
    """Seconds that clients under way get when the balancer is asked to stop. Seconds that handlers and HTTP requests
    have to finish when the worker stops. Default: ``10.0``."""
    tags: str | Sequence[str] | None
    """Words, comma-separated, by which a balancer's controller may route clients to this worker and its like."""
    path: str | None
    """Where the realtime endpoints begin; starts and ends with a slash. Default: ``/socketcluster/``."""
    socketio_path: str | None
    """Where Socket.IO clients connect. Default: ``/socket.io/``."""
    engineio_path: str | None
    """Where plain Engine.IO clients connect. Default: ``/engine.io/``."""
    origins: str | Sequence[str] | None
    """Other origins whose pages may connect: ``https://app.example.com,example.com:*``; ``*:*`` is all, no cookies."""
    allowed_hosts: str | Sequence[str] | None
    """Hosts that requests may be for (``Host``): ``example.com,*.example.com``; without any, all. Others get 400."""
    match_origin_protocol: bool | None
    """Refuse a page by http that connects by https, and the reverse; to be switched off if a proxy hides that.
    Default: ``True``."""
    protocol_version: int | None
    """Version of SocketCluster's protocol at ``path``: 1 for clients before version 15. Default: ``2``."""
    strict_handshake: bool | None
    """Is a SocketCluster client disconnected whose first message is no handshake? If not, its messages wait for it.
    Default: ``True``."""
    batch_interval: float | None
    """Seconds for which what goes to one SocketCluster client is collected, to be sent at once; 0 means not at all.
    Default: ``0.0``."""
    auth_algorithm: Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] | None
    """The algorithm of auth tokens; those of another are refused. Default: ``HS256``."""
    auth_key: str | None
    """The key of auth tokens for HS256, HS384 and HS512; without it, one that is derived from the cluster's secret."""
    auth_key_file: str | PathLike[str] | None
    """File of ``auth_key``: an argument shows in the list of processes."""
    auth_public_key: str | PathLike[str] | None
    """File (PEM) of the key that RS256, RS384, RS512, ES256, ES384 and ES512 verify auth tokens with."""
    auth_private_key: str | PathLike[str] | None
    """File (PEM) of the key that these algorithms sign auth tokens with; without it, none can be made here."""
    auth_default_expiry: float | None
    """Seconds that an auth token is good for unless the controller says otherwise. Default: ``86400.0``."""
    serial: bool | None
    """Does each event of a client wait until the handlers of the one before have ended? Default: ``False``."""
    heartbeat_interval: float | None
    """Seconds between two pings to a client. Default: ``25.0``."""
    heartbeat_timeout: float | None
    """Seconds that a client has to answer a ping. Default: ``20.0``."""
    handshake_timeout: float | None
    """Seconds from connecting to the handshake, twice as many by polling; half as many again may a body stall.
    Default: ``10.0``."""
    recovery_window: float | None
    """Seconds for which a Socket.IO client that lost its connection may take up where it was; 0 means never.
    Default: ``0``."""
    ack_timeout: float | None
    """Seconds that ``socket.call`` waits for an answer unless it is told otherwise. Default: ``10.0``."""
    max_http_buffer_size: int | None
    """Bytes that one message, or one polling request, may have. Default: ``1000000``."""
    max_request_body: int | None
    """Bytes that the body of a request to your own pages may have; it is answered 413 otherwise.
    Default: ``100000000``."""
    max_buffered_bytes: int | None
    """Bytes that may wait for one client that reads slowly; a single longer message may wait alone.
    Default: ``1048576``."""
    slow_consumer: Literal["disconnect", "drop_oldest", "latest_only"] | None
    """What happens when more wait: ``disconnect`` the client, ``drop_oldest`` messages, or keep the ``latest_only``.
    Default: ``disconnect``."""
    per_message_deflate: bool | None
    """Compress WebSocket messages for clients that offer it (permessage-deflate). Default: ``False``."""
    deflate_threshold: int | None
    """Bytes below which a message is sent uncompressed. Default: ``1024``."""
    deflate_window_bits: int | None
    """The largest window for compression, as a power of two of bytes, each way. Default: ``12``."""
    client_no_context_takeover: bool | None
    """Have clients compress each message on its own; if not, a connection holds up to 40 KiB for it.
    Default: ``True``."""
    max_channels_per_socket: int | None
    """Channels that one client may be subscribed to at a time. Default: ``1000``."""
    max_channel_name_length: int | None
    """Characters of a channel's name. Default: ``200``."""
    client_publish: str | Sequence[str] | None
    """Channels to which clients may publish: ``allow`` (all), ``deny`` (none), or patterns: ``chat:*,news``.
    Default: ``allow``."""
    max_forwards: int | None
    """Requests for sessions of other workers that are forwarded at a time, WebSockets included; others are refused.
    Default: ``8192``."""
    store_timeout: float | None
    """Seconds that an operation waits for its store, a restart of the store included. Default: ``10.0``."""
    cut_off_timeout: float | None
    """Seconds without the stores after which clients are told to reconnect, if another worker has them; 0: never.
    Default: ``60.0``."""
    engine: Literal["lmdb", "memory", "valkey"] | None
    """What keeps the data: ``lmdb`` on disk, ``valkey`` in Valkey or Redis, ``memory`` as long as the process lives.
    Default: ``lmdb``."""
    valkey_url: str | None
    """Where Valkey or Redis is: ``valkey://user:password@host:6379``; several hosts of a Cluster with commas."""
    valkey_timeout: float | None
    """Seconds that Valkey may not answer before partitions are given up until it does; ``store_timeout`` is longer.
    Default: ``5.0``."""
    valkey_wait_replicas: int | None
    """Replicas of Valkey that must have a write before it is acknowledged. Default: ``0``."""
    valkey_allow_eviction: bool | None
    """Start though Valkey evicts keys when its memory is full, whole partitions and what was acknowledged with them.
    Default: ``False``."""
    fsync: Literal["none", "everysec", "always"] | None
    """When data is forced to the disk, for the sake of a power cut; a killed process loses nothing whatever it says.
    Default: ``everysec``."""
    session_timeout: float | None
    """Seconds from a session's last socket (or, without sockets, its last write) to its end. Default: ``1200.0``."""
    link_grace: float | None
    """Seconds that a worker whose link broke has to come back before its sessions count as left. Default: ``5.0``."""
    store_hang_timeout: float | None
    """Seconds without a sign of life after which the other stores take a store's partitions over. Default: ``3.0``."""
    max_value_bytes: int | None
    """The largest value at a top-level key, in bytes of MessagePack; also of an event and of a channel's message.
    Default: ``1048576``."""
    max_session_bytes: int | None
    """The most data that a session may hold: bytes of its keys and of its values' MessagePack. Default: ``8388608``."""
    store_controller: str | PathLike[str] | None
    """The Python file with ``run(store)``, for procedures; default: ``store_controller.py`` beside the other."""
    procedure_timeout: float | None
    """Seconds after which a procedure is ended and undone; everybody waits for it. Below ``store_hang_timeout``.
    Default: ``0.5``."""
    channel_history: str | None
    """Which channels keep their messages: ``pattern: count, age`` and so on, by semicolons; age in seconds."""
    max_history_channels: int | None
    """Channels that may have a history at a time, a 64th of them in each partition. Default: ``100000``."""
    message_id_window: float | None
    """Seconds within which what is published to a channel with the same id again is not published again.
    Default: ``300.0``."""
    max_link_bytes: int | None
    """Bytes that may wait for a worker that does not read before its link is closed. Default: ``67108864``."""
