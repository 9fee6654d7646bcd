"""The controller of the tests in bad networks: keeps what ran, publishes what it is asked to, and serves the page.

A run's judge asks each worker by itself, over connections that are sound, what calls and emits of that run it has
carried out.
"""

import asyncio
from collections import defaultdict
from pathlib import Path

RECORDER = Path(__file__).with_name("recorder.js").read_text()
PAGE = f"""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>networks</title>
<script src="/socketcluster.js"></script><script>{RECORDER}</script>"""


def run(worker):
    server = worker.ws_server
    exchange = server.exchange
    ran = defaultdict(list)

    @worker.http_server.on("req")
    async def serve(request):
        query = request.query_params
        if request.url.path == "/page":
            return PAGE
        if request.url.path == "/elsewhere":
            return '<!doctype html><link rel="icon" href="data:,"><title>elsewhere</title>'
        if request.url.path == "/ran":
            return {"ran": ran[query["run"]]}
        if request.url.path == "/publish":
            return {"offset": (await exchange.publish(query["channel"], query["text"])).text}
        if request.url.path == "/history":
            return {"messages": await history(query["channel"])}
        return None

    async def history(channel):
        found = []
        since = 0
        while True:
            page = await exchange.history(channel, since, 1000)
            found += [message.data for message in page.messages]
            if not page.messages:
                return found
            since = page.messages[-1].offset

    @server.on("connection")
    def connected(socket):
        @socket.on("*")
        def emitted(event, *args):
            kind, _, number = event.partition(" ")
            if kind == "emit":
                ran[args[0]["run"]].append(["emit", args[0]["client"], int(number)])

        @socket.on("do")
        async def do(what):
            ran[what["run"]].append(["call", what["client"], what["number"]])
            if what["channel"]:
                await exchange.publish(what["channel"], f"{what['client']} {what['number']}")
            await asyncio.sleep(what["seconds"])
            return what["number"]
