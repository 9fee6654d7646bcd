"""The page that the gatekeeper in ``balancer_controller.py`` lets clients to: it says which worker serves it."""

from socketcluster_worker import Request, Socket, Worker


def run(worker: Worker) -> None:
    @worker.http_server.on("req")
    def page(request: Request) -> str:
        return f"{request.url.path} is served by {worker.name}"

    @worker.ws_server.on("connection")
    def connected(socket: Socket) -> None:
        socket.emit("greet", f"hello from {worker.name}")
