"""``SocketCluster``: runs the cluster as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

from socketcluster.errors import OptionError
from socketcluster.folders import data_dir, run_dir
from socketcluster.listen import listen, url
from socketcluster.notify import NotifyListener
from socketcluster.options import Options, ProtocolOptions
from socketcluster.plan import ChildSpec, check, notify_path, plan
from socketcluster.settings import ClusterSettings, Spell
from socketcluster.supervisor import Supervisor
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs import logging

log = logging.get_logger(__name__)

HANGUP_TIME = 1.0
"""Seconds after SIGHUP at which it is known whether the terminal has gone."""


class SocketCluster:
    """A cluster of local processes: balancers, workers and stores.

    Args:
        options: those of ``Options``, which says what each means; they are what ``socketcluster run --help`` lists,
            with underscores, and ``protocol`` with ``protocol_options``.

    What is not given comes from the environment (``SOCKETCLUSTER_SESSION_TIMEOUT``), else from the default.

    Raises:
        OptionError: an option is unknown (its nearest known name is given) or malformed.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        protocol, details = options.pop("protocol", None), options.pop("protocol_options", None)
        self.settings = resolve({**options, **_tls_options(protocol, details or {}, options)})

    def run(self) -> None:
        """Run the cluster until SIGINT or SIGTERM; must be called in the main thread, with no loop running.

        SIGHUP has every process read its files again, unless it comes because the terminal is gone: then it stops.
        Prints ``ready URL`` on standard output when clients are served; everything else goes to the log, on standard
        error.

        Raises:
            PortInUseError: somebody else listens on the port; nothing was started.
            DataInUseError: another cluster uses the data folder; nothing was started.
            ListenError: the host or port cannot be used; nothing was started.
            OptionError: the data folder or the secret cannot be used; nothing was started.
            ChildFailedError: a process says that no restart will help; everything was stopped.
        """
        run_cluster(self.settings)


def _tls_options(protocol: str | None, protocol_options: ProtocolOptions, options: Options) -> dict[str, object]:
    """Return the options that ``protocol`` and ``protocol_options`` stand for."""
    names = ("cert", "key", "passphrase", "passphrase_file")
    known = {name: f"tls_{name}" for name in names}
    for name in protocol_options:
        if name not in known:
            raise OptionError(f"protocol_options: there is no {name!r}, only {', '.join(known)}")
    if protocol not in (None, "http", "https"):
        raise OptionError(f"protocol: it is http or https, not {protocol!r}")
    if protocol != "https" and protocol_options:
        raise OptionError('protocol_options: they are for protocol="https"')
    if protocol == "https" and "cert" not in protocol_options and "tls_cert" not in options:
        raise OptionError('protocol: https needs a certificate: protocol_options={"cert": "...", "key": "..."}')
    return {known[name]: value for name, value in protocol_options.items()}


def resolve(given: dict[str, object], spell: Spell = str) -> ClusterSettings:
    """Return checked settings from what was given (``None``: not given) and the environment.

    Raises:
        OptionError: an option is unknown or malformed; ``spell`` says how the caller writes its name.
    """
    given = {name: value for name, value in given.items() if value is not None}
    settings = ClusterSettings.resolve(given, spell)
    check(settings, given, spell)
    return settings


def run_cluster(settings: ClusterSettings) -> None:
    """Do what :meth:`SocketCluster.run` says."""
    logging.configure(settings)
    controller = settings.worker_controller.absolute()
    if not controller.is_file():
        log.error("there is no such controller; the workers are tried again until there is", path=str(controller))
    with data_dir(settings) as lock:
        listening = listen(settings.host, settings.port, settings.balancers)
        try:
            with run_dir(lock) as path:
                made = plan(settings, path, [each.fileno() for each in listening])
                scheme = "https" if "tls_cert" in settings.service_options else "http"
                line = f"ready {url(settings.host, listening[0].getsockname()[1], scheme)}"
                asyncio.run(supervise([made.balancers, made.workers, made.stores], listening, path, line, settings))
        finally:
            _close(listening)


async def supervise(
    groups: Sequence[Sequence[ChildSpec]],
    listening: list[socket.socket],
    sockets_dir: Path,
    ready_line: str,
    settings: ClusterSettings,
) -> None:
    """Keep the processes running until a signal; then stop group after group, in the order given.

    ``ready_line`` is printed when the first process of the first group is ready.

    Raises:
        ChildFailedError: a process says that no restart will help; everything was stopped.
    """
    announced = asyncio.Event()

    def announce() -> None:
        if not announced.is_set():
            announced.set()
            sys.stdout.write(f"{ready_line}\n")
            sys.stdout.flush()

    supervised = [
        [Supervisor(spec, on_ready=announce if number == 0 else _nothing) for spec in group]
        for number, group in enumerate(groups)
    ]
    everyone = [each for group in supervised for each in group]

    def on_ready(pid: int) -> None:
        for each in everyone:
            if each.pid == pid:
                each.ready()

    with NotifyListener(notify_path(sockets_dir), on_ready), _signals(settings, everyone) as stopping:
        lives = [asyncio.create_task(each.run(), name=each.name) for each in everyone]
        stop = asyncio.create_task(stopping.wait(), name="stop")
        try:
            await asyncio.wait([stop, *lives], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            _close(listening)  # clients that come from now on are refused at once
            for group in supervised:
                await asyncio.gather(*(each.stop(settings.stop_timeout) for each in group))
        await asyncio.gather(*lives)


def _nothing() -> None:
    """Nobody waits for the readiness of the workers and stores: the balancers do."""


@contextlib.contextmanager
def _signals(settings: ClusterSettings, everyone: Sequence[Supervisor]) -> Iterator[asyncio.Event]:
    """Set the event at the first signal to stop; kill every process at a Ctrl-C after it; pass SIGHUP on.

    A second SIGTERM changes nothing: a wrapper (``timeout``, ``make``) may well pass one signal on twice.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    # nohup means to survive the terminal; who never had one, as under systemd, cannot lose it
    dies_with_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()

    def stop(number: int) -> None:
        name = signal.Signals(number).name
        if not stopping.is_set():
            log.info("stopping", signal=name)
            stopping.set()
        elif number == signal.SIGINT:
            log.warning("killing every process", signal=name)
            for each in everyone:
                each.kill()

    def hang_up() -> None:
        if stopping.is_set():
            return
        if dies_with_terminal and not _has_terminal():
            stop(signal.SIGHUP)
            return
        if settings.log_level_file is not None:
            try:
                logging.set_level(settings)
            except SettingsError as error:
                log.error("the log level stays", error=str(error))
        log.info("every process reads its files again", signal="SIGHUP")
        for each in everyone:
            each.reload()
        if dies_with_terminal:  # the kernel may say so before it takes the terminal away
            loop.call_later(HANGUP_TIME, lambda: None if _has_terminal() else stop(signal.SIGHUP))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield stopping
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is left to do is to end


def _has_terminal() -> bool:
    """Has this process a terminal that would end it, as a shell's job has?"""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
