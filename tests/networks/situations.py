"""What may happen to clients in bad networks, each by its name."""

from __future__ import annotations

import functools

from support.network.adverse.proxy import Block, Break, Connection, Request

from networks.clients import Tab
from networks.stage import Situation, Stage

STEPS = {
    "asked for": "websocket",
    "opened": "answer",
    "probed": "up 1",
    "answered": "down 1",
    "moving": "up 2",
    "moved": "down 2",
}
"""Of an upgrade, as the proxy sees the WebSocket."""
KINDS: tuple[tuple[str, ...], ...] = ((), ("poll",), ("post",), ("websocket",))
"""Of the connections that are cut; none: all."""
BOTH = ("upgrade", "websocket first")
"""Transports that may have a WebSocket, and need none."""


# What happens to connections.


async def calm(stage: Stage) -> None:
    """Nothing."""
    await stage.begin()


async def half_open(stage: Stage) -> None:
    """The network has changed: nothing comes through old connections any more; new ones work."""
    await stage.begin()
    async with stage.losing():
        stage.proxy.hang()
    await stage.progress()


async def offline(stage: Stage) -> None:
    """The same, and the browser says that it is offline, and online again."""
    await stage.begin()
    stage.proxy.hang()
    tabs = [client for client in stage.clients if isinstance(client, Tab)]
    for tab in tabs:
        await tab.set_online(False)
    await stage.pause(stage.scale.pause)
    for tab in tabs:
        await tab.set_online(True)
    await stage.progress()


async def unreachable(stage: Stage) -> None:
    """Nothing comes through; later it does, by old connections too, or by new ones only."""
    await stage.begin()
    stage.proxy.stop()
    await stage.pause(stage.scale.outage)
    if stage.chance.random() < 0.5:
        stage.proxy.hang()
    stage.proxy.go()
    await stage.progress()


async def refused(stage: Stage) -> None:
    """Connections are refused."""
    await stage.begin()
    async with stage.losing():
        stage.proxy.refuse()
    await stage.pause(stage.scale.outage)
    await stage.proxy.open()
    await stage.progress()


async def resets(stage: Stage) -> None:
    """30 % of the connections are reset, at once or later; of answers on connections that were used before, too."""
    await stage.begin()
    stage.proxy.breaks = lambda chance: Break(chance.choice((0, 0, 500, 2000))) if chance.random() < 0.3 else None
    stage.proxy.lost_answers = 0.3
    async for _ in stage.troubles():
        stage.proxy.cut(reset=True)
    await stage.progress()


async def repeats(stage: Stage) -> None:
    """Half of the answers on connections that were used before are lost: browsers repeat the request."""
    await stage.begin()
    stage.proxy.lost_answers = 0.5
    async for _ in stage.troubles():
        pass
    await stage.progress()
    stage.proxy.lost_answers = 0


async def cuts(stage: Stage) -> None:
    """All connections are cut, or all of a kind, again and again, by FIN or RST."""
    await stage.begin()
    async for _ in stage.troubles():
        stage.proxy.cut(*stage.chance.choice(KINDS), reset=stage.chance.random() < 0.5)
    await stage.progress()


def cut_at(step: str, stage: Stage) -> None:
    """A round trip takes 80 ms, and at a step of the upgrade something is cut, once."""
    stage.proxy.latency = 0.04

    def seen(_connection: Connection, name: str) -> None:
        if name == step and not stage.happened.is_set():
            stage.happened.set()
            stage.proxy.cut(*stage.chance.choice(KINDS), reset=stage.chance.random() < 0.5)

    stage.proxy.on_step = seen


async def cut_once(stage: Stage) -> None:
    """What was prepared happens."""
    await stage.begin()
    stage.note("waiting for what is to happen")
    await stage.happened.wait()
    await stage.progress()


def slow(stage: Stage) -> None:
    """Few bytes a second come through."""
    stage.proxy.rate = stage.scale.rate


def far(stage: Stage) -> None:
    """Each round trip takes long."""
    stage.proxy.latency = stage.scale.latency
    stage.proxy.jitter = stage.scale.latency / 4


# What answers in the server's place.


def block(how: Block, stage: Stage) -> None:
    """WebSockets are blocked."""
    stage.proxy.block = how


def gateway(stage: Stage) -> None:
    """WebSockets are refused, and polls that are idle answered 504."""
    stage.proxy.block = Block.REFUSED
    stage.proxy.gateway_timeout = stage.scale.idle


def portal(stage: Stage) -> None:
    """A captive portal answers everything by its page, or by an error, which other origins may read or not."""
    status = stage.chance.choice(
        ("200 OK", "302 Found", "403 Forbidden", "511 Network Authentication Required", "reset")
    )
    cors = stage.chance.random() < 0.5

    def answer(request: Request) -> bytes | None:
        if status == "reset":
            stage.proxy.cut(reset=True)
        location = {"Location": "/portal"} if status.startswith("302") and "/portal" not in request.target else {}
        return request.answer("200 OK" if request.target == "/portal" else status, cors=cors, **location)

    stage.note(f"a portal answers {status}{' for all origins' if cors else ''}")
    stage.proxy.answer = answer


async def portal_first(stage: Stage) -> None:
    """The portal is passed after a while."""
    await stage.pause(stage.scale.trouble)
    stage.proxy.answer = lambda _request: None
    await stage.begin()


async def portal_later(stage: Stage) -> None:
    """The portal comes later, and is passed."""
    await stage.begin()
    portal(stage)
    stage.proxy.cut()
    await stage.pause(stage.scale.trouble)
    stage.proxy.answer = lambda _request: None
    await stage.progress()


# What happens to pages.


async def background(stage: Stage) -> None:
    """The tab is in the background, where its timers are throttled, and loses its connection there."""
    await stage.begin()
    (tab,) = stage.clients
    assert isinstance(tab, Tab)
    front = await tab.beside(f"{stage.cluster_url}/elsewhere")
    await tab.until("document.visibilityState === 'hidden'")
    await stage.pause(stage.scale.away / 2)
    stage.proxy.cut(reset=stage.chance.random() < 0.5)
    await stage.pause(stage.scale.away / 2)
    await tab.show()
    await front.close()
    await tab.until("document.visibilityState === 'visible'")
    await stage.progress()


async def back_and_forward(stage: Stage) -> None:
    """The page is left, kept in the back/forward cache, and comes back."""
    await stage.begin()
    (tab,) = stage.clients
    assert isinstance(tab, Tab)
    await tab.evaluate(f"void setTimeout(() => location.assign('{stage.cluster_url}/elsewhere'))")
    await tab.arrive("document.title === 'elsewhere'")
    await stage.pause(stage.scale.away)
    await tab.evaluate("void setTimeout(() => history.back())")
    await tab.arrive("document.title === 'networks' && window.recorder?.count('kept')")
    await stage.progress()


async def frozen(stage: Stage) -> None:
    """The browser freezes the tab, and goes on with it."""
    await stage.begin()
    (tab,) = stage.clients
    assert isinstance(tab, Tab)
    await tab.freeze(True)
    await stage.pause(stage.scale.away)
    await tab.freeze(False)
    await stage.progress()


SITUATIONS = {
    "calm": Situation(calm),
    "half-open": Situation(half_open),
    "offline": Situation(offline, in_browsers_only=True),
    "unreachable": Situation(unreachable),
    "refused": Situation(refused),
    "resets": Situation(resets),
    "repeats": Situation(repeats, ("polling", "upgrade")),
    "cuts": Situation(cuts),
    **{
        f"upgrade {name}": Situation(cut_once, ("upgrade",), functools.partial(cut_at, step))
        for name, step in STEPS.items()
    },
    "slow": Situation(calm, prepare=slow, interval=4),
    "far": Situation(calm, prepare=far),
    **{f"websocket {how.value}": Situation(calm, BOTH, functools.partial(block, how)) for how in Block},
    "gateway": Situation(calm, ("polling", "upgrade"), gateway),
    "portal first": Situation(portal_first, prepare=portal),
    "portal later": Situation(portal_later),
    "background": Situation(background, in_browsers_only=True),
    "back and forward": Situation(back_and_forward, in_browsers_only=True),
    "frozen": Situation(frozen, in_browsers_only=True),
    "ten tabs": Situation(cuts, ("websocket", "upgrade"), clients=10, interval=5, in_browsers_only=True),
}
