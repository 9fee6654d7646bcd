"""What `socketcluster bench` needs of a server: events that are answered, and rooms that are published to.

`socketcluster run examples/bench/controller.py`, and in another terminal `socketcluster bench http://localhost:8000`.
Any client may publish to any room here: not for servers that others reach.
"""

from socketcluster_worker import Socket, Worker


def run(worker: Worker) -> None:
    ws_server = worker.ws_server

    @ws_server.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("bench")  # --mode ack
        def answer(text: str) -> str:
            return text

        @socket.on("bench:join")  # --mode broadcast
        def join(room: str) -> None:
            socket.join(room)

        @socket.on("bench:publish")
        def publish(room: str, text: str) -> None:
            ws_server.to(room).emit("bench", text)

        @socket.on("message")  # --protocol engineio
        def echo(text: str) -> None:
            socket.emit("message", text)
