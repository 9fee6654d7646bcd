"""A worker's life: it joins the stores, runs the controller, takes clients, and drains when it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from socketcluster_proto.v1 import worker_pb2 as pb
from socketcluster_proto.v1 import worker_pb2_grpc as rpc
from socketcluster_runtime import rpc as grpc_runtime
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_runtime.logs import logging
from socketcluster_runtime.metrics import Gauges
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.secrets.secret_files import secret_of
from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_runtime.sockets import descriptors
from socketcluster_runtime.sockets.beats import Beats
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.messages import Position
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.channels.exchange import Exchange
from socketcluster_worker.api.data.tree import AppTree
from socketcluster_worker.api.data.watch import Watches
from socketcluster_worker.api.http_server import HTTPServer
from socketcluster_worker.api.sockets.session import Sessions
from socketcluster_worker.api.sockets.ws_server import WSServer
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.controller import run_controller
from socketcluster_worker.endpoints.router import Router
from socketcluster_worker.health.control import Control
from socketcluster_worker.health.cut_off import CutOff
from socketcluster_worker.health.failures import Failures
from socketcluster_worker.health.readiness import Readiness
from socketcluster_worker.ids import IdGenerator
from socketcluster_worker.mesh.mesh import Mesh
from socketcluster_worker.server import ClientServer
from socketcluster_worker.settings import WorkerSettings
from socketcluster_worker.tasks import Tasks
from socketcluster_worker.tokens import Tokens
from socketcluster_worker.transport.handoff import HandoffServer
from socketcluster_worker.transport.http.forward import Forwarder

log = logging.get_logger(__name__)


class Service:
    """One worker, from its settings to its end."""

    def __init__(self, settings: WorkerSettings, room: Room | None = None) -> None:
        self._settings = settings
        self._room = room or Room()
        self._secret, self._tls = settings.shared_secret(), settings.rpc_tls()
        ids = IdGenerator(settings.name)

        # What runs handlers, and what the log says of those that fail.
        self._failures = Failures()
        self._tasks = Tasks(self._handler_failed, self._failures.add_unavailable)
        self._background = Tasks(self._handler_failed)  # what repeats for ever, and is not waited for
        self._reports = Tasks(self._failures.add)  # async handlers of "error", whose own errors are only logged

        # The stores. What they tell is for the parts below, which are made with the client.
        self._client = StoreClient(
            settings.stores,
            worker_id=ids.worker_id,
            app_name=settings.app_name,
            secret=self._secret,
            tls=self._tls,
            timeout=settings.store_timeout,
            on_session_message=lambda *message: self._sessions.deliver(*message),
            on_session_destroyed=lambda session_id: self._ws_server.session_destroyed(session_id),
            on_session_over=lambda session_id: self._sessions.ended(session_id),
            on_session_renewed=lambda session_id, renewed_id: self._ws_server.session_renewed(session_id, renewed_id),
            on_data_change=lambda change: self._watches.deliver(change),
        )
        self._channel_client = StoreClient(
            settings.stores,
            worker_id=f"{ids.worker_id}.channels",
            app_name=settings.app_name,
            secret=self._secret,
            tls=self._tls,
            timeout=settings.store_timeout,
            framed=True,
            beside=self._client.reach,
            on_channel_message=lambda channel, packed, offset, epoch: self._exchange.deliver(
                channel, packed, Position(epoch, offset)
            ),
            on_channel_gap=lambda gap: self._exchange.missed(gap),
        )

        # What the controller is given.
        self._watches = Watches(self._client, self._tasks)
        self._sessions = Sessions(self._client, self._tasks, self._watches)
        self._exchange = Exchange(
            self._channel_client,
            self._tasks,
            max_channels_per_socket=settings.max_channels_per_socket,
            slow_consumer=settings.slow_consumer,
            max_channel_name_length=settings.max_channel_name_length,
            client_publish=settings.publishable,
        )
        mesh_key = derive_key(self._secret, Purpose.MESH)
        self._mesh = Mesh(ids.worker_id, settings.app_name, mesh_key, self._tls, self._room)
        self._client.workers.on_change = lambda: self._mesh.know(self._client.workers.mesh)
        self._ws_server = WSServer(
            ids.worker_id,
            self._sessions,
            self._exchange,
            self._mesh,
            self._tasks,
            recovery_window=settings.recovery_window,
            serial=settings.serial,
        )
        self._worker = Worker(
            ids.worker_id,
            settings.name,
            settings.app_name,
            http_server=HTTPServer(),
            ws_server=self._ws_server,
            store=AppTree(self._client, self._watches),
            tasks=self._background,
        )

        # Where clients come in, and where their requests go.
        self._tokens = self._read_tokens()
        self._readiness = Readiness()
        proxy_key = derive_key(self._secret, Purpose.PROXY_HEADERS)
        self._router = Router(
            self._worker,
            settings,
            ids,
            SessionCookies(settings.app_name, self._secret),
            self._tokens,
            Forwarder(
                ids.worker_id,
                self._client.workers.find,
                proxy_key,
                limit=settings.max_forwards,
                max_body_bytes=settings.max_http_buffer_size,
                answer_timeout=settings.heartbeat_interval + settings.heartbeat_timeout,
            ),
            self._readiness,
        )
        self._server = ClientServer(
            self._router,
            self._worker.http_server,
            proxy_key,
            TrustedProxies(settings.trusted_proxies, settings.proxy_headers),
            self._room,
        )

    async def run(self, lifecycle: Lifecycle) -> None:
        """Serve until the lifecycle says stop."""
        settings = self._settings
        if any((settings.auth_key_file, settings.auth_public_key, settings.auth_private_key)):
            lifecycle.on_reload("keys of auth tokens", lambda: self._tokens.take_keys(self._read_tokens()))
        lifecycle.keep(self._tls)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._server.unbind)
            host, port = self._server.bind(settings.http_listen)
            bound = f"[{host}]" if ":" in host else host
            if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not listened on
                host = ""
            http = (settings.http_host or host, port)
            stack.callback(self._failures.close)
            for client in (self._client, self._channel_client):
                stack.push_async_callback(client.close)
            stack.push_async_callback(self._mesh.close)
            mesh_port = self._mesh.listen(settings.mesh_listen or f"{bound}:0")
            await self._client.start(http, mesh_port)
            await self._channel_client.start()
            if not await lifecycle.unless_stopping(run_controller(settings.controller, self._worker)):
                return
            for client in (self._client, self._channel_client):
                if not await lifecycle.unless_stopping(client.wait_ready()):
                    return
            for namespace in self._ws_server.everybody():
                listening = namespace.listen()
                if listening is not None:
                    await lifecycle.unless_stopping(_ended(listening))  # nobody who is let in misses what others send
            await lifecycle.unless_stopping(self._mesh.meet())
            stack.push_async_callback(self._server.close, settings.drain_timeout)
            await self._server.start()
            control = await self._listen(stack, http)
            cut_off = CutOff(
                self._client.reach,
                self._readiness,
                others_well=lambda: control.others_well,
                clients=self._leaving,
                timeout=settings.cut_off_timeout or None,
            )
            stack.callback(cut_off.close)
            lifecycle.metrics.register(self._gauges())
            lifecycle.ready()
            log.info("ready", worker_id=self._worker.id, controller=str(settings.controller))
            await lifecycle.stopping.wait()
            log.info("draining", connections=self._router.connections)
            cut_off.close()
            self._readiness.end()
            control.update(ready=False, draining=True)
            await self._drain()

    async def _listen(self, stack: contextlib.AsyncExitStack, http: tuple[str, int]) -> Control:
        settings = self._settings
        self._server.listen()
        beats = None
        status = pb.WorkerStatus(
            worker_id=self._worker.id, name=settings.name, http_host=http[0], http_port=http[1], tags=settings.tags
        )
        if settings.handoff_dir is not None:
            path = settings.handoff_dir / f"{self._worker.id}.sock"
            handoff = HandoffServer(path, self._server.take_over, self._room)
            handoff.start()
            stack.callback(handoff.close)
            status.handoff_path = str(path)
            http_path = path.with_suffix(".http")
            self._server.listen_at(http_path)
            status.http_path = str(http_path)
            beats = self._make_beats(path.with_suffix(".beats"), status)
        control = Control(
            status,
            lambda: self._router.connections,
            lambda: self._client.ready and self._channel_client.ready,
            self._server.relayed.end,
            lambda: self._room.full,
            beats,
        )
        stack.callback(control.close)
        server, health = grpc_runtime.server(self._secret)
        rpc.add_WorkerServicer_to_server(control, server)
        grpc_runtime.listen(server, settings.control_listen, self._tls)
        await server.start()
        stack.push_async_callback(server.stop, 0.5)

        def tell(ready: bool) -> None:
            control.update(ready=ready)
            serving = grpc_runtime.set_serving(health, serving=ready)
            self._background.spawn(serving, "telling health checks how the worker is")

        self._readiness.begin(tell)
        stack.callback(self._room.close)
        self._room.changed = self._room_changed
        return control

    def _make_beats(self, path: Path, status: pb.WorkerStatus) -> Beats | None:
        """Return what shows the balancers of this host that the worker lives."""
        try:
            beats = Beats(path)
        except OSError as error:
            log.warning("signs of life cannot be written: they go by gRPC", error=str(error))
            return None
        status.beats_path = str(path)
        return beats

    async def _drain(self) -> None:
        """Let handlers finish, and have the clients reconnect elsewhere."""
        timeout = self._settings.drain_timeout
        await self._tasks.drain(timeout)
        self._router.close_all(CloseCode.SERVICE_RESTART, "this worker is being replaced")
        await self._tasks.drain(timeout)  # the handlers of "disconnect"
        await self._background.drain(0)
        await self._reports.drain(timeout)

    def _gauges(self) -> Gauges:
        return Gauges(
            ("socketcluster_worker_connections", "Clients, by whatever transport.", lambda: self._router.connections),
            ("socketcluster_worker_sessions", "Sessions that somebody here holds.", lambda: self._sessions.known),
            (
                "socketcluster_worker_refused_for_descriptors",
                "Clients refused so far because there was no descriptor for them.",
                lambda: self._room.refused,
            ),
        )

    def _read_tokens(self) -> Tokens:
        settings = self._settings
        return Tokens.from_options(
            algorithm=settings.auth_algorithm,
            key=secret_of("auth_key", settings.auth_key, settings.auth_key_file),
            public_key=settings.auth_public_key,
            private_key=settings.auth_private_key,
            default_expiry=settings.auth_default_expiry,
            secret=self._secret,
        )

    def _room_changed(self) -> None:
        if self._room.full:
            reason = "this worker has no descriptor for another client"
            self._readiness.refuse("descriptors", reason, spares_connected=True)
        else:
            self._readiness.admit("descriptors")

    def _leaving(self) -> Iterable[Callable[[], None]]:
        """Return what tells each client to reconnect, at another worker."""
        self._server.end_idle()
        return self._router.clients(CloseCode.SERVICE_RESTART, "this worker does not reach the stores")

    def _handler_failed(self, error: BaseException, what: str) -> None:
        self._failures.add(error, what)
        for handler in self._ws_server.handlers("error"):
            self._reports.run(handler.call, ((error, what),), "a handler of 'error'")


async def _ended(pending: asyncio.Future[bytes]) -> None:
    """Wait until something has ended, however."""
    await asyncio.wait((pending,))


async def serve(settings: WorkerSettings, lifecycle: Lifecycle) -> None:
    """Run a worker with these settings."""
    descriptors.warn_of_limit(descriptors.raise_limit(), 1)
    await Service(settings, lifecycle.room).run(lifecycle)
