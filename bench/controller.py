"""What the benchmarked cluster runs: an acknowledged event."""


def run(worker):
    @worker.ws_server.on("connection")
    def connected(socket):
        @socket.on("message")
        def message(data):
            socket.send(data)

        @socket.on("echo")
        async def echo(data):
            return data
