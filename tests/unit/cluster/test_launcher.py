"""The whole tree of processes, with stand-ins for the services: its life and its death, however it comes."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from socketcluster import OptionError, SocketCluster

LAUNCHER = """
import asyncio, os, sys
from pathlib import Path
from socketcluster.errors import ClusterError
from socketcluster.launcher import supervise
from socketcluster.listen import listen
from socketcluster.plan import ChildSpec
from socketcluster.settings import ClusterSettings
from socketcluster_runtime.logs import logging

run_dir, balancer, worker, store, stop_timeout = sys.argv[1:]
listening = listen("127.0.0.1", 0, 1)
fd = listening[0].fileno()
environ = {**os.environ, "NOTIFY_SOCKET": run_dir + "/notify.sock", "SOCKETCLUSTER_PARENT": str(os.getpid())}

def spec(name, code, *fds):
    return ChildSpec(name, (sys.executable, "-c", code), {**environ, "NAME": name, "FD": str(fd)}, fds)

groups = [
    [spec("balancer-0", balancer, fd)],
    [spec("worker-0", worker), spec("worker-1", worker)],
    [spec("store-0", store)],
]
settings = ClusterSettings(stop_timeout=float(stop_timeout))
logging.configure(settings)
line = f"ready http://127.0.0.1:{listening[0].getsockname()[1]}"
try:
    asyncio.run(supervise(groups, listening, Path(run_dir), line, settings))
except ClusterError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""

SERVICE = """
import asyncio, os, signal, socket, sys
from typing import ClassVar
from socketcluster_runtime.lifecycle import run
from socketcluster_runtime.settings import ServiceSettings

class Settings(ServiceSettings):
    service: ClassVar[str] = "stand-in"

def say(word):
    os.write(2, f"{os.environ['NAME']} {word} {os.getpid()}\\n".encode())
"""
"""What a stand-in begins with: it lives by the services' own lifecycle."""

OBEDIENT = (
    SERVICE
    + """
async def serve(settings, lifecycle):
    lifecycle.ready()
    say("serves")
    await lifecycle.stopping.wait()
    say("stops")
run(Settings, serve)
"""
)

BALANCER = (
    SERVICE
    + """
async def answer(reader, writer):
    writer.write(str(os.getpid()).encode())
    writer.close()

async def serve(settings, lifecycle):
    server = await asyncio.start_server(answer, sock=socket.socket(fileno=int(os.environ["FD"])))
    lifecycle.ready()
    say("serves")
    await lifecycle.stopping.wait()
    say("stops")
run(Settings, serve)
"""
)

STUBBORN = (
    SERVICE
    + """
async def serve(settings, lifecycle):
    lifecycle.ready()
    say("serves")
    await lifecycle.stopping.wait()
    say("ignores")
    await asyncio.Event().wait()
run(Settings, serve)
"""
)


LATE = (
    SERVICE
    + """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
say("waits")
signal.sigwait({signal.SIGUSR1})

async def serve(settings, lifecycle):
    lifecycle.ready()
    say("serves")
    await lifecycle.stopping.wait()
run(Settings, serve)
"""
)
"""Is slow to load: until SIGUSR1 comes, it does not listen to SIGHUP."""


BROKEN_LATER = (
    SERVICE
    + """
async def serve(settings, lifecycle):
    lifecycle.ready()
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(78))
    say("serves")
    await lifecycle.stopping.wait()
run(Settings, serve)
"""
)


class Launched:
    """A launcher under test, and what it and its processes say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line in which ``pattern`` is found."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"never said {pattern}: {''.join(self.log)}")

    def served(self) -> dict[str, int]:
        """Wait until the four processes serve; return their ids by name."""
        pids: dict[str, int] = {}
        while len(pids) < 4:
            found = self.read_until(r"^(\S+) serves (\d+)")
            pids[found[1]] = int(found[2])
        return pids

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the standard output."""
        out, err = self.process.communicate(timeout=60)
        self.log += err.splitlines(keepends=True)
        return self.process.returncode, out


def _hear_hangups() -> None:
    """Undo what ``nohup`` did, under which these tests may run: a signal that is ignored stays so in children."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


Launch = Callable[..., Launched]


@pytest.fixture
def launch(run_dir: Path) -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def start(
        balancer: str = BALANCER,
        worker: str = OBEDIENT,
        store: str = OBEDIENT,
        stop_timeout: float = 30,
        terminal: int | None = None,
    ) -> Launched:
        def prepare() -> None:
            _hear_hangups()
            if terminal is not None:
                os.setsid()
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(run_dir), balancer, worker, store, str(stop_timeout)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )
        started.append(process)
        return Launched(process)

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipes and waits for it
            pass


def all_dead(pids: list[int]) -> bool:
    """Wait until none of the processes runs."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], 60)[0]:
                return False
        finally:
            os.close(descriptor)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(launch: Launch, number: signal.Signals) -> None:
    launched = launch()
    pids = launched.served()
    launched.process.send_signal(number)
    status, out = launched.end()
    assert status == 0
    assert re.fullmatch(r"ready http://127\.0\.0\.1:\d+\n", out)
    assert not any(map(psutil.pid_exists, pids.values()))
    stops = [line.split()[0] for line in launched.log if " stops " in line]
    assert stops[0] == "balancer-0"
    assert set(stops[1:3]) == {"worker-0", "worker-1"}
    assert stops[3:] == ["store-0"]


def test_sighup_has_every_process_read_its_files_again_and_ends_none(launch: Launch) -> None:
    launched = launch()
    pids = launched.served()
    launched.process.send_signal(signal.SIGHUP)
    for _ in pids:
        launched.read_until("nothing to read again")
    launched.process.terminate()
    status, _ = launched.end()
    assert status == 0
    assert " died" not in "".join(launched.log)


def test_a_terminal_that_goes_takes_the_cluster_with_it(launch: Launch) -> None:
    controller, terminal = os.openpty()
    launched = launch(terminal=terminal)
    os.close(terminal)
    pids = launched.served()
    os.close(controller)
    status, _ = launched.end()
    assert status == 0
    assert not any(map(psutil.pid_exists, pids.values()))
    assert "store-0 stops" in "".join(launched.log)


def test_sighup_waits_for_a_process_that_still_loads(launch: Launch) -> None:
    launched = launch(worker=LATE)
    waiting: list[str] = []
    while len(waiting) < 2 or not any("balancer-0 serves" in line for line in launched.log):
        found = launched.read_until(r"^(?:worker-\d waits (\d+)|balancer-0 serves)")
        waiting += [found[1]] if found[1] else []
    launched.process.send_signal(signal.SIGHUP)
    launched.read_until("every process reads its files again")
    for pid in waiting:
        os.kill(int(pid), signal.SIGUSR1)
    while sum("nothing to read again" in line for line in launched.log) < 4:
        launched.read_until("nothing to read again")
    launched.process.terminate()
    assert launched.end()[0] == 0
    assert " died" not in "".join(launched.log)


def test_what_cannot_run_any_more_is_tried_again_while_the_others_serve(launch: Launch) -> None:
    launched = launch(worker=BROKEN_LATER)
    pids = launched.served()
    os.kill(pids["worker-0"], signal.SIGUSR1)
    launched.read_until("died .*how='status 78'")
    launched.read_until("^worker-0 serves")
    launched.process.terminate()
    assert launched.end()[0] == 0


def test_sigkill_of_the_launcher_leaves_nothing_behind(launch: Launch) -> None:
    launched = launch(worker=STUBBORN)
    pids = launched.served()
    launched.process.kill()
    launched.process.wait()
    assert all_dead(list(pids.values()))


def test_a_second_ctrl_c_kills_at_once(launch: Launch) -> None:
    launched = launch(worker=STUBBORN, stop_timeout=3600)
    pids = launched.served()
    launched.process.send_signal(signal.SIGINT)
    launched.read_until("worker-. ignores")
    launched.process.send_signal(signal.SIGINT)
    status, _ = launched.end()
    assert status == 0
    assert not any(map(psutil.pid_exists, pids.values()))


def test_a_repeated_sigterm_is_no_second_ctrl_c(launch: Launch) -> None:
    launched = launch(worker=STUBBORN, stop_timeout=0.5)
    launched.served()
    launched.process.send_signal(signal.SIGTERM)
    launched.read_until("worker-. ignores")
    launched.process.send_signal(signal.SIGTERM)
    status, _ = launched.end()
    assert status == 0
    log = "".join(launched.log)
    assert "did not stop in time" in log
    assert "store-0 stops" in log


def test_what_no_restart_will_help_stops_everything(launch: Launch) -> None:
    launched = launch(store="import sys; sys.exit(78)")
    status, _ = launched.end()
    assert status == 1
    assert launched.log[-1] == "store-0 cannot run, its own message says why (status 78)\n"


def test_clients_wait_while_the_balancer_is_started_again(launch: Launch) -> None:
    launched = launch()
    pids = launched.served()
    assert launched.process.stdout is not None
    ready = launched.process.stdout.readline()
    address = ("127.0.0.1", int(ready.rpartition(":")[2]))
    os.kill(pids["balancer-0"], signal.SIGKILL)
    assert all_dead([pids["balancer-0"]])
    with socket.create_connection(address, timeout=60) as client:
        answered_by = int(client.recv(100))
    assert answered_by not in pids.values()
    launched.process.terminate()
    status, out = launched.end()
    assert (status, out) == (0, "")  # ready was said once
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_each_death_is_one_line_that_says_how(launch: Launch) -> None:
    launched = launch()
    pids = launched.served()
    os.kill(pids["worker-1"], signal.SIGKILL)
    launched.read_until("worker-1 serves")
    launched.process.terminate()
    launched.end()
    (line,) = [line for line in launched.log if "died" in line]
    for part in ("worker-1", "signal SIGKILL", "restart_in"):
        assert part in line


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the real command, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "socketcluster", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command("run", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"socketcluster: port {port} is in use: choose another with --port"
    assert done.stdout == ""


def test_a_missing_controller_is_named_by_its_whole_path(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = command("run", "nowhere.py", "--port", str(other.getsockname()[1]), cwd=tmp_path)
    assert f"path={tmp_path / 'nowhere.py'}" in done.stderr


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = command("run", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("socketcluster: the data folder cannot be used: ")


def test_the_version(tmp_path: Path) -> None:
    assert command("--version", cwd=tmp_path).stdout == "socketcluster, version 0.1.0\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protocol": "https"}, "protocol: https needs a certificate"),
        ({"protocol": "gopher"}, "protocol: it is http or https, not 'gopher'"),
        ({"protocol_options": {"cert": "a"}}, 'they are for protocol="https"'),
        ({"protocol": "https", "protocol_options": {"pfx": "a"}}, "there is no 'pfx', only cert, key, pass"),
        ({"tls_key": "a.key"}, "belong to a tls_cert, which is not set"),
        ({"tls_passphrase_file": "a"}, "belong to a tls_cert, which is not set"),
    ],
)
def test_what_https_must_not_be(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(text)):
        SocketCluster(**options)
