"""The controller of the cluster's tests: lets a client do everything that a controller can do."""

import asyncio
import os

from socketcluster_worker.errors import EventError


def run(worker):
    server = worker.ws_server
    destroyed = []

    @worker.http_server.on("req")
    async def page(request):
        if request.url.path == "/who":
            return {"session": request.session.id, "worker": worker.name, "address": request.client.host}
        if request.url.path == "/set":
            await request.session.set(request.query_params["key"], request.query_params["value"])
            return "ok"
        if request.url.path == "/get":
            return {"value": await request.session.get(request.query_params["key"])}
        if request.url.path == "/echo":
            return (await request.body()) or b"nothing"
        if request.url.path == "/fail":
            raise RuntimeError("the page failed")
        return None

    @server.on("connection")
    async def connected(socket):
        session = socket.session
        socket.emit("greet", "hello")

        @socket.on("who")
        def who():
            address = socket.handshake.address
            return {
                "session": session.id,
                "worker": worker.name,
                "pid": os.getpid(),
                "socket": socket.id,
                "protocol": socket.protocol,
                "address": address and address[0],
                "sockets": len(session.sockets),
            }

        @socket.on("echo")
        def echo(data):
            return data

        @socket.on("set")
        async def set_value(pair):
            await session.set(*pair)

        @socket.on("get")
        async def get_value(keys):
            return await session.get(keys)

        @socket.on("app set")
        async def app_set(pair):
            await worker.store.set(*pair)

        @socket.on("app get")
        async def app_get(keys):
            return await worker.store.get(keys)

        @socket.on("tell session")
        def tell_session(data):
            session.emit("told", data)

        @socket.on("fail")
        def fail():
            raise ValueError("a secret of the server")

        @socket.on("refuse")
        async def refuse():
            raise EventError("not today", name="RefusedError")

        @socket.on("ask me")
        async def ask_me(question):
            return await socket.call("question", question)

        @socket.on("slow")
        async def slow():
            socket.emit("slow began")
            await asyncio.sleep(0.5)
            return "at last"

        @socket.on("destroyed")
        def get_destroyed():
            return destroyed

        @socket.on("disconnect me")
        def disconnect_me(code):
            socket.disconnect(code, "as you wish")

    @server.on("session_destroy")
    def forgotten(session_id):
        destroyed.append(session_id)
        server.exchange.publish("destroyed", {"session": session_id, "worker": worker.name})
