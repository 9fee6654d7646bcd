"""The command `socketcluster bench`: its options, and a run from its start to its report."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import click
from rich.console import Console

from socketcluster.bench.generators import GeneratorError, Generators
from socketcluster.bench.plan import PORTS_OF_AN_ADDRESS, Mode, Plan, PlanError, Protocol, source_address
from socketcluster.bench.summary import problems, report, shown
from socketcluster.bench.view import View

BROADCASTS = 10.0
"""Publications a second without ``--rate``."""


@click.command()
@click.argument("url")
@click.option("--protocol", type=click.Choice([each.value for each in Protocol]), default="socketio", show_default=True)
@click.option(
    "--mode",
    type=click.Choice([each.value for each in Mode]),
    default="ack",
    show_default=True,
    help="ack: messages and their answers. broadcast: messages to a room or channel of all connections. idle: hold"
    " connections. storm: all reconnect at once.",
)
@click.option("-c", "--connections", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--connect-rate",
    type=click.FloatRange(0),
    default=0,
    help="New connections a second; 0: as fast as they are taken.",
)
@click.option(
    "-r",
    "--rate",
    type=click.FloatRange(0),
    help="Messages a second of all connections together (broadcast: publications; default 10), at their times however"
    " slow answers are; 0: each waits for the one before, which is the default of ack.",
)
@click.option(
    "-d", "--duration", type=click.FloatRange(0, min_open=True), default=10, show_default=True, help="Seconds."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10,
    show_default=True,
    help="Seconds that a connection, an answer or a delivery may take.",
)
@click.option("--size", type=click.IntRange(1), default=64, show_default=True, help="Bytes of a message's text.")
@click.option(
    "--event",
    default="",
    help="The event that is sent; default: bench. With the protocol socketcluster"
    " and without this, ack publishes to a channel, which needs no handler.",
)
@click.option("--channel", default="bench", show_default=True, help="The channel or room of broadcasts.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that make the load.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of each request.")
@click.option("--cookie", default="", help="The header Cookie: all connections have one session then.")
@click.option("--origin", default="", help="The header Origin; `same` is the URL's own.")
@click.option(
    "--auth",
    default="",
    metavar="JSON",
    help="What Socket.IO's CONNECT carries as auth; for SocketCluster an auth token, or the handshake's data.",
)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Authorities of the server's certificate.")
@click.option("--insecure", is_flag=True, help="Believe any certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and nothing else on standard output.")
def bench(**given: Any) -> None:
    """Load the running server at URL, and say how it did.

    It connects to that URL and nothing else. A URL without a path means the protocol's own: /socket.io/,
    /socketcluster/, /engine.io/. Ack and broadcast need a controller with handlers, but for SocketCluster's channels;
    where one is missing, it is shown.

    The exit status is 0 if all was well, 1 if something could not connect, was lost or not answered.
    """
    as_json = given.pop("as_json")
    try:
        plan = _plan(**given)
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(asyncio.run(_run(plan, as_json=as_json)))


def _plan(headers: tuple[str, ...], cookie: str, origin: str, rate: float | None, **given: Any) -> Plan:
    mode, protocol = Mode(given.pop("mode")), Protocol(given.pop("protocol"))
    given["ca"] = given["ca"] or ""
    plan = Plan(mode=mode, protocol=protocol, **given)
    target = plan.target
    fields = [_header(text) for text in headers]
    if cookie:
        fields.append(("Cookie", cookie))
    if origin:
        fields.append(("Origin", target.origin if origin == "same" else origin))
    if plan.processes > plan.connections:
        raise PlanError(f"--processes {plan.processes} are more than --connections {plan.connections}")
    if plan.auth:
        try:
            json.loads(plan.auth)
        except ValueError as error:
            raise PlanError(f"--auth is no JSON: {error}") from None
    if rate is None:
        rate = BROADCASTS if mode is Mode.BROADCAST else 0.0
    if mode is Mode.BROADCAST and not rate and protocol in (Protocol.ENGINEIO, Protocol.WEBSOCKET):
        raise PlanError(f"--rate 0 waits for the answer to a publication, and {protocol} has none: give a rate")
    return Plan(mode=mode, protocol=protocol, rate=rate, **{**given, "headers": tuple(fields)})


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or "\n" in text or "\r" in text:
        raise PlanError(f"--header {text!r}: a header is 'Name: value'")
    return name.strip(), value.strip()


async def _run(plan: Plan, *, as_json: bool) -> int:
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = 120
    generators = Generators(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, generators.stopped.set)
    if plan.connections > PORTS_OF_AN_ADDRESS and source_address(plan.target.host, PORTS_OF_AN_ADDRESS) is None:
        console.print(
            f"[yellow]{plan.connections:,} connections to one port may be more than this machine's address has ports "
            "for; a loopback address of IPv4, such as 127.0.0.1, has no such limit[/yellow]"
        )
    try:
        async with generators, View(generators, console, lines=not console.is_terminal):
            await generators.run()
    except GeneratorError as error:
        click.echo(f"socketcluster bench: {error}", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(report(generators)))
    else:
        console.print(shown(generators), highlight=False)
    return 1 if problems(generators) else 0
