"""What a controller imports from the package: lazily, and typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import socketcluster_worker

ROOT = Path(__file__).parents[3]
TYPED = """
from socketcluster_worker import Action, CloseCode, EventError, Exchange, Handlers, Request, Socket, Worker

class Chat(Handlers, namespace="/chat"):
    async def on_join(self, socket: Socket, room: str) -> list[str]:
        return sorted(socket.rooms)

def run(worker: Worker) -> None:
    exchange: Exchange = worker.ws_server.exchange

    @worker.http_server.on("req")
    async def page(request: Request) -> str:
        await request.session.set("seen", True)
        return "hello"

    @worker.ws_server.handler("login")
    async def login(socket: Socket, name: str) -> bool:
        return bool(name)

    worker.ws_server.register(Chat())

    @worker.ws_server.middleware("event")
    async def look(action: Action) -> None:
        if action.socket.session.id == "":
            raise EventError("no", close_code=CloseCode.POLICY_VIOLATION)

    @worker.ws_server.on("connection")
    async def connected(socket: Socket) -> None:
        reveal_type(socket.session)
        reveal_type(socket.namespace)
        reveal_type(await exchange.subscribe("news", print))

        @socket.on("add")
        def add(a: int, b: int) -> int:
            return a + b

        reveal_type(add)

    @worker.ws_server.on("disconnect")
    def gone(socket: Socket, code: int) -> None:
        reveal_type(code)

"""

WRONG = """
from socketcluster_worker import Action, Socket, Worker

def run(worker: Worker) -> None:
    worker.ws_server.exchange.subscribe_to

    @worker.ws_server.middleware("event")
    def allows(action: Action) -> bool:
        return True

    @worker.ws_server.on("connection")
    def connected(socket: str) -> None: ...

    @worker.ws_server.on("disconnect")
    def gone(socket: Socket, code: str) -> None: ...
"""


def mypy(*paths: Path) -> list[str]:
    """Check files as strictly as the project itself; return the lines that say something."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def in_readme() -> str:
    """Return the controller in the README."""
    python = re.compile(r"```python\n(from random import randrange\n.*?)```", re.DOTALL)
    (controller,) = python.findall((ROOT / "README.md").read_text())
    return str(controller)


def test_controllers_that_say_their_types_are_checked_strictly(tmp_path: Path) -> None:
    texts = {
        "in_readme": in_readme(),
        "typed": TYPED,
        "wrong": WRONG,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    told = mypy(*tmp_path.glob("*.py"), *ROOT.glob("examples/*/controller.py"))
    revealed = [line.partition(": note: ")[2] for line in told if "/typed.py" in line]
    assert revealed == [
        'Revealed type is "socketcluster_worker.api.sockets.session.Session"',
        'Revealed type is "socketcluster_worker.api.sockets.namespace.Namespace"',
        'Revealed type is "socketcluster_worker.api.channels.channel.Channel"',
        'Revealed type is "def (a: int, b: int) -> int"',
        'Revealed type is "int"',
    ]
    errors = {line.partition(": error: ")[2].partition("  [")[0] for line in told if ": error: " in line}
    assert errors == {
        '"Exchange" has no attribute "subscribe_to"; maybe "subscribe"?',
        'Value of type variable "Judge" of function cannot be "Callable[[Action], bool]"',
        'Value of type variable "Connected" of function cannot be "Callable[[str], None]"',
        'Value of type variable "Gone" of function cannot be "Callable[[Socket, str], None]"',
    }
    assert all("/wrong.py" in line for line in told if ": error: " in line)


@pytest.mark.parametrize("name", socketcluster_worker.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(socketcluster_worker, name).__name__ == name
    assert name in dir(socketcluster_worker)


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="'Sokcet'"):
        socketcluster_worker.Sokcet  # type: ignore[attr-defined]  # noqa: B018  # which type checkers refuse as well


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    program = "import sys, socketcluster_worker; print(*(name for name in sys.modules if 'socketcluster_w' in name))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.split() == ["socketcluster_worker"]
