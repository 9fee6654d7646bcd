"""The balancer: what starts when, and what ends when."""

from __future__ import annotations

import asyncio

from socketcluster_balancer.admission.controller import Controller, find
from socketcluster_balancer.counters import Counters
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.entrance.listener import LAST_CALL, Listener, open_socket
from socketcluster_balancer.entrance.proxy_protocol import ProxyEntrance
from socketcluster_balancer.entrance.reception import GRACE
from socketcluster_balancer.metrics import BalancerMetrics
from socketcluster_balancer.placement.dispatcher import Dispatcher
from socketcluster_balancer.placement.relayed import end_relayed
from socketcluster_balancer.placement.workers import WorkerDirectory
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets import descriptors
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies

log = get_logger(__name__)

SPREAD = 0.8
"""The part of the time to stop over which relayed clients are sent away; the last ones have the rest for their end."""


async def serve(settings: BalancerSettings, lifecycle: Lifecycle) -> None:
    """Serve clients until ``lifecycle`` says to stop.

    Raises:
        AddressInUseError: somebody else listens there.
        SettingsError: the secret is missing, or the certificate cannot be used.
        ControllerError: the balancer's controller is missing, has no ``run``, or raised.
    """
    descriptors.warn_of_limit(descriptors.raise_limit(), 2)  # a client whose bytes are copied needs two
    controller = find(settings)
    if controller is not None and not await lifecycle.unless_stopping(controller.run()):
        return
    balancer = Balancer(settings, controller, lifecycle.room)
    lifecycle.metrics.register(BalancerMetrics(balancer, "plain" if settings.tls_cert is None else "tls"))
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(balancer.workers.run())
        balancer.listener.start()
        if settings.tls_cert is not None:
            lifecycle.on_reload("certificate", balancer.dispatcher.reload_certificate)
        lifecycle.keep(balancer.workers.tls)
        host, port = balancer.listener.address
        log.info("listening", host=host, port=port)
        announcing = tasks.create_task(_announce(balancer, lifecycle))
        await lifecycle.stopping.wait()
        announcing.cancel()
        log.info("stopping")
        await balancer.stop(settings.drain_timeout)
        watching.cancel()


async def _announce(balancer: Balancer, lifecycle: Lifecycle) -> None:
    await balancer.workers.any_ready.wait()
    lifecycle.ready()


class Balancer:
    """The balancer's parts, put together."""

    def __init__(
        self, settings: BalancerSettings, controller: Controller | None = None, room: Room | None = None
    ) -> None:
        self.counters = Counters()
        self.room = room or Room()
        self.limits = Limits(settings)
        self.proxies = TrustedProxies(settings.trusted_proxies, settings.proxy_headers)
        if controller is None and not self.limits.count_addresses:  # whose addresses they are matters to nothing here
            self.proxies.forgotten = None
        self.dispatcher = Dispatcher(
            settings,
            self.limits,
            self.counters,
            self.proxies,
            lambda: self.workers.available,
            lambda: self.workers.may_come,
            self.room,
            controller,
        )
        if controller is not None:
            controller.balancer.look_by(lambda: tuple(worker.info() for worker in self.workers.available))
        self.workers = WorkerDirectory(settings, self.dispatcher.make_link, self.dispatcher.workers_changed)
        self.entrance = ProxyEntrance(
            settings, self.counters, self.proxies.by_connection, self.dispatcher.reception.accept
        )
        self.listener = Listener(
            open_socket(settings), self.entrance.accept, self.counters, self.room, answers=settings.tls_cert is None
        )

    async def stop(self, timeout: float) -> None:
        """Stop accepting; clients under way get ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        await self.listener.close(min(LAST_CALL, timeout))
        await self.entrance.drain(min(GRACE, timeout))
        left = max(0, end - loop.time())
        telling: asyncio.Task[None] | None = None
        if self.dispatcher.relays or self.dispatcher.reception.clients:
            telling = loop.create_task(end_relayed(self.workers, self.dispatcher.id, left * SPREAD))
        await self.dispatcher.drain(left)
        if telling is not None:
            telling.cancel()
        self.proxies.close()
        self.room.close()
