"""The first example: greets each client, and sends every tab of a browser the same random number each second.

Its page publishes to no channel, so run it with ``make run OPTIONS="--client-publish deny"``: by default every client
may publish to every channel.
"""

from pathlib import Path
from random import randrange
from typing import Any

from socketcluster_worker import Request, Session, Socket, Worker

PAGE = Path(__file__).with_name("index.html").read_text()


def run(worker: Worker) -> None:
    http_server = worker.http_server
    ws_server = worker.ws_server
    active_sessions: dict[str, Session] = {}

    @http_server.on("req")
    async def page(request: Request) -> str | dict[str, bool] | None:
        if request.url.path == "/":
            return PAGE
        if request.url.path == "/login" and request.method == "POST":
            await request.session.renew()  # a new id and cookie: who knew the old id, or planted it, has nothing
            await request.session.set("is_user_authorized", True)
            return {"ok": True}
        return None

    @ws_server.on("connection")
    async def connected(socket: Socket) -> None:
        socket.emit("greet", "hello world")
        active_sessions[socket.session.id] = socket.session

        @socket.on("who")
        def who() -> dict[str, str]:
            return {"session": socket.session.id, "worker": worker.name, "socket": socket.id}

        @socket.on("login")
        async def login(credentials: Any) -> dict[str, bool]:
            # of a program, in whose cookies nobody plants any; pages post to /login
            await socket.session.set("is_user_authorized", True)
            return {"ok": True}

        @socket.on("status")
        async def status() -> dict[str, bool]:
            return {"authorized": bool(await socket.session.get("is_user_authorized"))}

    @ws_server.on("session_renew")
    def renewed(session_id: str, renewed_id: str) -> None:
        if session_id in active_sessions:
            active_sessions[renewed_id] = active_sessions.pop(session_id)

    @ws_server.on("session_destroy")
    def forgotten(session_id: str) -> None:
        active_sessions.pop(session_id, None)

    @worker.every(1.0)
    def tick() -> None:
        for session in active_sessions.values():
            session.emit("rand", randrange(100))  # reaches every tab of that browser, on whatever worker
