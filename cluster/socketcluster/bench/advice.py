"""What went wrong, in a few kinds, and what to do about each."""

from __future__ import annotations

import socket
import ssl

from socketcluster.bench.dialects import JOIN, PUBLISH
from socketcluster.bench.plan import PATHS, Mode, Plan, Protocol

NO_ANSWER = "no answer in time"
_HTTP = {
    "400": "the server does not take this request for its protocol: is --protocol right, and the URL's path?",
    "401": "the server wants to know who comes: --header 'Authorization: ...', --cookie or --auth",
    "403": "the server refuses this client: nothing is served at this path (the protocol's own is {path}), its origin"
    " is not allowed (--origin), or middleware asks for something (--header, --cookie, --auth)",
    "404": "nothing is served at this path; the protocol's own is {path}: leave the URL's path away",
    "421": "the server does not answer to this host's name (allowed_hosts): use the name that it is reached by",
    "429": "the server limits connections: lower --connect-rate, or raise its limits",
    "503": "the server has no worker that takes clients now, or is at its limit of connections",
}


def kind_of(error: BaseException) -> str:
    """Return what an error to connect is counted as."""
    if isinstance(error, TimeoutError):
        return "connecting took too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return f"no such host: {error.strerror}"
    return str(error) if not isinstance(error, OSError) or error.strerror is None else error.strerror


def advice_of(kind: str, plan: Plan) -> str:
    """Return what to do about errors of a kind; empty: there is nothing more to say."""
    target = plan.target
    if kind.startswith("HTTP "):
        status = kind.split(" ", 2)[1]
        if status[:1] == "3":
            return "the server sends clients elsewhere; only the URL that was given is connected to: give the right one"
        return _HTTP.get(status, "").format(path=PATHS[plan.protocol])
    if kind == "connection refused":
        return f"nobody listens at {target.host} port {target.port}: is the server running, and is this its port?"
    if kind == "no HTTP" or kind.startswith("no WebSocket"):
        return "what answers there is no WebSocket server; http:// and ws:// are without TLS, https:// and wss:// with"
    if kind.startswith("TLS: ") and "WRONG_VERSION" in kind:
        return "the server does not speak TLS at this port: use http:// or ws://"
    if kind.startswith("TLS: "):
        return "its certificate is not trusted here: name its authority with --ca FILE, or look at none with --insecure"
    if kind == "connecting took too long":
        return "fewer at a time (--connect-rate), a longer --timeout; or the server is as fast as it gets"
    if "open files" in kind:
        return "this process may have no more connections: ulimit -n, or --processes"
    if "assign requested address" in kind:
        return "this machine has no port left for that server: fewer --connections, or more client machines"
    if kind == NO_ANSWER or "andler" in kind:
        return controller_hint(plan)
    return ""


def controller_hint(plan: Plan) -> str:
    """Return which handlers the server has to have for a plan, as a controller of this project."""
    needed = snippet(plan)
    if not needed:
        return ""
    named = "message" if plan.protocol in (Protocol.ENGINEIO, Protocol.WEBSOCKET) else f'"{plan.event_name}"'
    what = {Mode.ACK: f"a handler of {named} that answers", Mode.BROADCAST: "handlers that join and publish"}[plan.mode]
    return f"the server needs {what}; as a controller (examples/bench/controller.py has all of them):\n\n{needed}"


def snippet(plan: Plan) -> str:
    """Return a controller that answers a plan's messages; empty: servers answer them without."""
    event = plan.event_name
    lines = {
        (Protocol.SOCKETIO, Mode.ACK): [f'@socket.on("{event}")', "def answer(text):", "    return text"],
        (Protocol.SOCKETCLUSTER, Mode.ACK): [f'@socket.on("{event}")', "def answer(text):", "    return text"],
        (Protocol.ENGINEIO, Mode.ACK): [
            '@socket.on("message")',
            "def answer(text):",
            '    socket.emit("message", text)',
        ],
        (Protocol.ENGINEIO, Mode.BROADCAST): [
            '@socket.on("message")',
            "def publish(text):",
            '    worker.ws_server.emit("message", text)',
        ],
        (Protocol.SOCKETIO, Mode.BROADCAST): [
            f'@socket.on("{event}{JOIN}")',
            "def join(room):",
            "    socket.join(room)",
            "",
            f'@socket.on("{event}{PUBLISH}")',
            "def publish(room, text):",
            f'    worker.ws_server.to(room).emit("{event}", text)',
        ],
    }
    if plan.publishes or (plan.protocol, plan.mode) not in lines:
        return ""
    inner = "\n".join(f"        {line}" if line else "" for line in lines[plan.protocol, plan.mode])
    return f'def run(worker):\n    @worker.ws_server.on("connection")\n    def connected(socket):\n{inner}\n'
