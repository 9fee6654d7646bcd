"""A controller with middleware at every stage, for the tests of authentication and of what clients may not do."""

import time

import jwt

from socketcluster_worker.errors import EventError

KEY = "the key of the tests' auth tokens, of which the tests know"


def run(worker):
    server = worker.ws_server

    @server.use("handshake")
    async def let_in(action):
        if action.socket.handshake.query.get("refuse"):
            raise EventError("not you", name="RefusedClientError")
        if action.socket.handshake.query.get("ban"):
            raise EventError("never you", name="BannedClientError", close_code=4501)
        if (name := action.socket.handshake.query.get("login")) is not None:
            await action.socket.set_auth_token({"name": name})

    @server.use("authenticate")
    def judge(action):
        if action.data["name"] == "Eve":
            raise EventError("not Eve", name="EveError")

    @server.use("subscribe")
    async def let_subscribe(action):
        if action.channel == "forbidden":
            raise EventError("members only", name="ForbiddenError")
        if action.channel == "members" and (
            action.socket.auth_token is None or action.data not in (None, {"ticket": 7})
        ):
            raise EventError("who are you?", name="ForbiddenError")

    @server.use("publish_in")
    def let_publish(action):
        if action.channel == "forbidden":
            raise EventError("read only", name="ForbiddenError")

    @server.use("publish_out")
    async def let_out(action):
        if action.data == "filtered":
            raise EventError("not for this one")

    @server.on("connection")
    def connected(socket):
        events = []
        socket.emit("greet", "hello")
        socket.on("authenticate", lambda claims: events.append(["authenticate", claims["name"]]))
        socket.on("deauthenticate", lambda claims: events.append(["deauthenticate", claims["name"]]))
        socket.on("auth events", lambda: events)
        socket.on("echo", lambda data: data)
        socket.on("who am I", lambda: socket.auth_token)
        socket.on("null", lambda: (None,))
        socket.on("nothing", lambda: None)
        socket.on("login", socket.set_auth_token)
        socket.on("log me out", socket.deauthenticate)
        socket.on("kick me out", lambda args: socket.kick_out(*args))
        socket.on("disconnect me", lambda code: socket.disconnect(code, "as you wish"))

        @socket.on("make token")
        def make_token(args):
            claims, seconds = args
            return jwt.encode({**claims, "exp": int(time.time()) + seconds}, KEY, "HS256")

        @socket.on("fail")
        def fail():
            raise ValueError("a secret of the server")

        @socket.on("refuse")
        def refuse():
            raise EventError("not today", name="RefusedError")

        @socket.on("ask me")
        async def ask_me(question):
            return await socket.call("question", question)
