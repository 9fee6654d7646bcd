"""The page that the gatekeeper in ``balancer_controller.py`` lets clients to: it says which worker serves it."""


def run(worker):
    @worker.http_server.on("req")
    def page(request):
        return f"{request.url.path} is served by {worker.name}"

    @worker.ws_server.on("connection")
    def connected(socket):
        socket.emit("greet", f"hello from {worker.name}")
