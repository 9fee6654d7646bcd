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
        if request.url.path == "/login":
            await request.session.renew()
            await request.session.set("user", "ada")
            return {"session": request.session.id}
        if request.url.path == "/logout":
            await request.session.destroy()
            return "ok"
        if request.url.path == "/echo":
            return (await request.body()) or b"nothing"
        if request.url.path == "/fail":
            raise RuntimeError("the page failed")
        return None

    @server.on("connection")
    async def connected(socket):
        session = socket.session
        socket.emit("greet", "hello")
        answer_handshake(socket)

        @socket.on("*")
        async def count(event, *args):
            if event == "count":
                await worker.store.add(["counts", socket.id], 1)

        @socket.on("counted")
        async def counted(socket_id):
            return await worker.store.get(["counts", socket_id])

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

        @socket.on("echo all")
        def echo_all(*args):
            return args

        @socket.on("renew")
        async def renew():
            return await session.renew()

        @socket.on("set")
        async def set_value(pair):
            await session.set(*pair)

        @socket.on("get")
        async def get_value(keys):
            return await session.get(keys)

        @socket.on("append")
        async def append(pair):
            return await session.add(*pair)

        @socket.on("app set")
        async def app_set(pair):
            await worker.store.set(*pair)

        @socket.on("app get")
        async def app_get(keys):
            return await worker.store.get(keys)

        @socket.on("app run")
        async def app_run(call):
            return await worker.store.run(*call)

        @socket.on("app watch")
        async def app_watch(what):
            keys, number = what
            async with worker.store.watch(keys) as changes:
                socket.emit("watching", keys)
                return [(await anext(changes))[1:] for _ in range(number)]

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

        add_rooms(socket)

    admin = server.of("/admin")

    @admin.use("handshake")
    async def only_admins(action):
        if (action.socket.handshake.auth or {}).get("password") != "open sesame":
            raise EventError("not for you", data={"hint": "say please"})

    @admin.on("connection")
    def admin_connected(socket):
        socket.emit("welcome", {"rooms": sorted(room for room in socket.rooms if room != socket.id)})

        answer_handshake(socket)

        @socket.on("shout")
        def shout(text):
            admin.emit("heard", text)

    @server.on("session_destroy")
    def forgotten(session_id):
        destroyed.append(session_id)
        server.exchange.publish("destroyed", {"session": session_id, "worker": worker.name})


def answer_handshake(socket):
    @socket.on("handshake")
    def handshake():
        return {"query": dict(socket.handshake.query), "auth": socket.handshake.auth}


def add_rooms(socket):
    namespace = socket.namespace

    @socket.on("*")
    def remember(event, *args):
        if event != "last":
            socket.data["last"] = [event, len(args)]

    @socket.on("last")
    def last():
        return socket.data["last"]

    @socket.on("remember")
    def keep(value):
        socket.data["kept"] = value

    @socket.on("remembered")
    def kept():
        return socket.data["kept"]

    @socket.on("authenticate")
    def authenticate(data):
        return ["got", data]

    @socket.on("emit reserved")
    def emit_reserved(name):
        try:
            namespace.emit(name, "to everybody")
        except ValueError as error:
            return type(error).__name__

    @socket.on("message")
    def message(data):
        socket.send(data)

    @socket.on("several")
    def several(one, two):
        return two, one  # a tuple is several arguments of the acknowledgement

    @socket.on("join")
    def join(room):
        socket.join(room)

    @socket.on("leave")
    def leave(room):
        socket.leave(room)

    @socket.on("rooms")
    def rooms():
        return sorted(room for room in socket.rooms if room != socket.id)

    @socket.on("name to room")
    def name_to_room(room):
        namespace.to(room).emit("room", room)

    @socket.on("to room")
    def to_room(room, data):
        namespace.to(room).emit("room", data)

    @socket.on("to others in room")
    def to_others_in_room(room, data):
        socket.to(room).emit("room", data)

    @socket.on("to everybody else")
    def to_everybody_else(data):
        socket.broadcast.emit("everybody", data)

    @socket.on("to everybody but room")
    def to_everybody_but_room(room, data):
        namespace.except_(room).emit("everybody", data)

    @socket.on("volatile")
    def volatile(data):
        socket.volatile.emit("maybe", data)
