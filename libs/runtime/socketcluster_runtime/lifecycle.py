"""How a service starts, says that it is ready, and stops."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import uvloop

from socketcluster_runtime import metrics
from socketcluster_runtime.errors import EX_CONFIG, ServiceError, SettingsError
from socketcluster_runtime.garbage import Collector
from socketcluster_runtime.logs import logging
from socketcluster_runtime.settings import PARENT_VARIABLE, ServiceSettings
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.tls.rpc_tls import RpcTls

log = logging.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)


class Lifecycle:
    """What a service's ``serve`` is given to live by."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        """Set by SIGTERM and SIGINT: finish what is under way, then return."""
        self.metrics = metrics.make_registry()
        """What the service has to tell of itself, in numbers."""
        self.room = Room()
        """The descriptors that it has for clients."""
        self.owns_process = False
        """Is there nothing in the process but the service?"""
        self._readable: dict[str, Callable[[], str | None]] = {}
        self._collector: Collector | None = None

    def ready(self) -> None:
        """Say that the service serves: to whoever started it, by systemd's protocol, if it listens for that."""
        if self.owns_process and self._collector is None:
            self._collector = Collector()
        path = os.environ.get("NOTIFY_SOCKET")
        if path is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            address = "\0" + path[1:] if path.startswith("@") else path
            try:
                notify.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), address)
            except OSError as error:
                log.warning("nobody hears that the service is ready", error=str(error))

    def on_reload(self, what: str, read: Callable[[], str | None]) -> None:
        """Have something read again at each SIGHUP.

        Args:
            what: is read, in the words of the log: "certificate".
            read: reads it and puts it to use; returns what there is to say of it, if anything. If it raises
                ``ServiceError``, that is logged, and what was read before has to be still in use.
        """
        self._readable[what] = read

    def keep(self, tls: RpcTls | None) -> None:
        """Have the certificate of gRPC, if there is one, read again at SIGHUP, and warned of before it ends."""
        if tls is not None:
            tls.watch()
            self.on_reload("rpc_tls certificate", tls.reload)

    def reload(self) -> None:
        """Read again what can be, and say what became of it; nothing that is found makes the service end."""
        if not self._readable:
            log.info("nothing to read again: no option names a file that would be", signal="SIGHUP")
        for what, read in self._readable.items():
            try:
                said = read()
            except ServiceError as error:
                log.error("not read again, what was read before stays", what=what, error=str(error))
            except Exception:
                log.exception("not read again, what was read before stays", what=what)
            else:
                log.info("read again", what=what, **({} if said is None else {"now": said}))

    async def unless_stopping(self, work: Coroutine[Any, Any, None]) -> bool:
        """Wait for ``work``, but not after the service was asked to stop; return whether it was done."""
        done: asyncio.Task[None] = asyncio.create_task(work)
        stop = asyncio.create_task(self.stopping.wait())
        await asyncio.wait((done, stop), return_when=asyncio.FIRST_COMPLETED)
        finished = done.done()
        stop.cancel()
        if finished:
            await done
        else:
            done.cancel()
        return finished


def run(settings_class: type[S], serve: Callable[[S, Lifecycle], Awaitable[None]]) -> NoReturn:
    """Run a service until it is asked to stop, and exit.

    The status is 0 after SIGTERM or SIGINT, 78 when no restart will help, 1 otherwise. A second signal ends the
    process at once. SIGHUP ends nothing: it has the service read again what it can (``Lifecycle.on_reload``).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))  # until there is something to read again
    _die_with_parent()
    try:
        settings = settings_class.load()
    except SettingsError as error:
        sys.stderr.write(f"{settings_class.service}: {error}\n")
        sys.exit(EX_CONFIG)
    logging.configure(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings, serve))
        except ServiceError as error:
            log.error(str(error), exc_info=error.__cause__)
            sys.exit(error.exit_status)
    sys.exit(0)


async def _serve(settings: S, serve: Callable[[S, Lifecycle], Awaitable[None]]) -> None:
    lifecycle = Lifecycle()
    lifecycle.owns_process = True
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if lifecycle.stopping.is_set():
            log.warning("stopped at once, by a second signal", signal=signal.Signals(number).name)
            os._exit(128 + number)
        lifecycle.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, lifecycle.reload)
    if settings.log_level_file is not None:
        lifecycle.on_reload("log level", lambda: logging.set_level(settings))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
    try:
        async with metrics.served(lifecycle.metrics, settings.metrics_listen, lifecycle.room):
            await serve(settings, lifecycle)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))  # the loop that hears it ends before the process


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its launcher dies, however the launcher dies."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the request reached the kernel
        os._exit(1)
