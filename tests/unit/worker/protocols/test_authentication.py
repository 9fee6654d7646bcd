"""SocketCluster's authentication on the wire: the handshake's token, ``#authenticate``, ``#setAuthToken``, expiry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from support.clients.raw import RawWebSocket, event
from support.worker.running import Probe, RunningWorker, StartWorker

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import AuthTokenError, EventError, NotSerializableError, SocketClosedError
from socketcluster_worker.tokens import Tokens

KEY = "a key of the tests that has sixty-four bytes, enough for HS512 too"
GOOD = {"name": "Ann"}


class Story(Probe):
    """Remembers authentication, too."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def run(self, worker: Worker) -> None:
        super().run(worker)

        @worker.ws_server.on("connection")
        async def connected(socket: Any) -> None:
            socket.on("authenticate", lambda claims: self.told.put_nowait(("authenticate", claims)))
            socket.on("deauthenticate", lambda claims: self.told.put_nowait(("deauthenticate", claims)))
            socket.on("who", lambda: socket.auth_token)

            socket.on("login", socket.set_auth_token)


Begin = Callable[..., Any]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
async def worker(start_worker: StartWorker, story: Story) -> RunningWorker:
    return await start_worker(story.run, auth_key=SecretStr(KEY))


def token(key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode(claims or GOOD, key, algorithm)


async def shake(worker: RunningWorker, auth_token: Any) -> tuple[RawWebSocket, list[Any]]:
    """Make a handshake with a token; return all that came up to its answer."""
    websocket = await worker.websocket()
    await websocket.send_text(event("#handshake", {"authToken": auth_token}, 1))
    got = [await websocket.next_json()]
    while "rid" not in got[-1]:
        got.append(await websocket.next_json())
    return websocket, got


# The handshake.


async def test_a_handshake_with_a_good_token_authenticates(worker: RunningWorker, story: Story) -> None:
    websocket, (answer,) = await shake(worker, token(**GOOD))
    assert answer["data"]["isAuthenticated"] is True
    assert "authError" not in answer["data"]
    assert await story.told.get() == ("authenticate", GOOD)
    assert (await websocket.call("who"))["data"] == GOOD
    assert (await story.sockets.get()).handshake.auth["authToken"] == token(**GOOD)


@pytest.mark.parametrize("auth_token", [None])
async def test_a_handshake_without_a_token_is_no_error(worker: RunningWorker, auth_token: None) -> None:
    _, (answer,) = await shake(worker, auth_token)
    assert answer["data"]["isAuthenticated"] is False
    assert "authError" not in answer["data"]


@pytest.mark.parametrize(
    ("auth_token", "name"),
    [
        (token(exp=1_000), "AuthTokenExpiredError"),
        (token("another key of the tests that has sixty-four bytes, enough for HS512"), "AuthTokenInvalidError"),
        (token(algorithm="HS384"), "AuthTokenInvalidError"),
        (jwt.encode(GOOD, None, algorithm="none"), "AuthTokenInvalidError"),  # type: ignore[arg-type]
        ("garbage", "AuthTokenInvalidError"),
        (17, "AuthTokenError"),
    ],
)
async def test_a_bad_token_is_told_and_taken_away(worker: RunningWorker, auth_token: Any, name: str) -> None:
    websocket, (removed, answer) = await shake(worker, auth_token)
    assert removed == {"event": "#removeAuthToken"}
    assert answer["data"]["isAuthenticated"] is False
    error = answer["data"]["authError"]
    assert (error["name"], error["isBadToken"]) == (name, True)
    assert error["message"]
    assert error.get("expiry") == ("1970-01-01T00:16:40.000Z" if name == "AuthTokenExpiredError" else None)
    assert (await websocket.call("echo", "and it goes on"))["data"] == "and it goes on"


async def test_a_token_that_is_not_good_yet_is_kept(worker: RunningWorker) -> None:
    _, (answer,) = await shake(worker, token(nbf=4_000_000_000))
    assert answer["data"]["isAuthenticated"] is False
    assert answer["data"]["authError"] == {
        "name": "AuthTokenNotBeforeError",
        "message": "jwt not active",
        "isBadToken": False,
        "date": "2096-10-02T07:06:40.000Z",
    }


# The middleware.


async def test_the_middleware_may_refuse_a_token_at_the_handshake(worker: RunningWorker, story: Story) -> None:
    @worker.worker.ws_server.middleware.use("authenticate")
    async def judge(action: Any) -> None:
        await asyncio.sleep(0)
        if action.data["name"] == "Eve":
            raise EventError("not Eve", name="EveError", data={"why": "a snake"})
        if action.data["name"] == "Old":
            raise AuthTokenError("revoked", name="RevokedError")
        action.data = action.data | {"checked": True}

    _, (answer,) = await shake(worker, token(name="Eve"))
    assert answer["data"]["isAuthenticated"] is False
    told = {"name": "EveError", "message": "not Eve", "data": {"why": "a snake"}, "isBadToken": False}
    assert answer["data"]["authError"] == told
    _, (removed, answer) = await shake(worker, token(name="Old"))
    assert removed == {"event": "#removeAuthToken"}
    assert answer["data"]["authError"] == {"name": "RevokedError", "message": "revoked", "isBadToken": True}
    websocket, (answer,) = await shake(worker, token(name="Ann"))
    assert answer["data"]["isAuthenticated"] is True
    assert (await websocket.call("who"))["data"] == {"name": "Ann", "checked": True}


async def test_what_a_failing_middleware_says_stays_here(worker: RunningWorker) -> None:
    @worker.worker.ws_server.middleware.use("authenticate")
    def judge(action: Any) -> None:
        raise RuntimeError("a secret of the server")

    _, (answer,) = await shake(worker, token())
    error = answer["data"]["authError"]
    assert error == {"name": "InternalServerError", "message": "the middleware failed", "isBadToken": False}
    assert str((await worker.errors.get())[0]) == "a secret of the server"


async def test_the_middleware_of_the_handshake_gets_the_claims(worker: RunningWorker) -> None:
    seen = []
    worker.worker.ws_server.middleware.use("handshake", lambda action: seen.append(action.data))
    await shake(worker, token(**GOOD))
    await shake(worker, "garbage")
    assert seen == [GOOD, None]


# #authenticate and #removeAuthToken.


async def test_authenticate_with_a_good_token(worker: RunningWorker, story: Story) -> None:
    websocket = await worker.socket()
    assert (await websocket.call("who")).get("data") is None
    answer = await websocket.call("#authenticate", token(**GOOD))
    assert answer["data"] == {"isAuthenticated": True, "authError": None}
    assert await story.told.get() == ("authenticate", GOOD)
    assert (await websocket.call("who"))["data"] == GOOD


async def test_authenticate_with_a_bad_token_fails_and_takes_the_old_one_away(
    worker: RunningWorker, story: Story
) -> None:
    websocket, _ = await shake(worker, token(**GOOD))
    assert await story.told.get() == ("authenticate", GOOD)
    await websocket.send_text(event("#authenticate", "garbage", 5))
    assert await websocket.next_json() == {"event": "#removeAuthToken"}
    answer = await websocket.next_json()
    assert answer["rid"] == 5
    assert answer["error"]["name"] == "AuthTokenInvalidError"
    assert answer["error"]["isBadToken"] is True
    assert await story.told.get() == ("deauthenticate", GOOD)
    assert (await websocket.call("who")).get("data") is None


async def test_authenticate_with_a_token_that_is_refused_but_not_bad_does_not_fail(worker: RunningWorker) -> None:
    websocket = await worker.socket()
    answer = await websocket.call("#authenticate", token(nbf=4_000_000_000))
    assert "error" not in answer
    assert answer["data"]["isAuthenticated"] is False
    assert answer["data"]["authError"]["isBadToken"] is False


async def test_what_follows_authenticate_waits_for_its_middleware(worker: RunningWorker) -> None:
    may_go_on = asyncio.Event()

    @worker.worker.ws_server.middleware.use("authenticate")
    async def judge(action: Any) -> None:
        await may_go_on.wait()

    websocket = await worker.socket()
    await websocket.send_text(event("#authenticate", token(**GOOD), 2))
    await websocket.send_text(event("who", None, 3))
    asyncio.get_running_loop().call_later(0.05, may_go_on.set)
    assert (await websocket.next_json())["rid"] == 2
    assert (await websocket.next_json())["data"] == GOOD


async def test_a_client_removes_its_token(worker: RunningWorker, story: Story) -> None:
    websocket, _ = await shake(worker, token(**GOOD))
    await websocket.send_json({"event": "#removeAuthToken"})
    assert (await websocket.call("who")).get("data") is None
    assert await story.told.get() == ("authenticate", GOOD)
    assert await story.told.get() == ("deauthenticate", GOOD)


async def test_a_client_cannot_feign_authentication(worker: RunningWorker, story: Story) -> None:
    websocket = await worker.socket()
    assert (await websocket.call("authenticate", {"name": "root"}))["error"]["name"] == "NoHandlerError"
    assert (await websocket.call("deauthenticate", GOOD))["error"]["name"] == "NoHandlerError"
    assert story.told.empty()


# set_auth_token and deauthenticate.


async def test_set_auth_token_waits_for_the_client(worker: RunningWorker, story: Story) -> None:
    websocket = await worker.socket()
    await websocket.send_text(event("login", GOOD, 9))
    given = await websocket.next_json()
    assert given["event"] == "#setAuthToken"
    assert jwt.decode(given["data"]["token"], KEY, ["HS256"])["name"] == "Ann"
    claims = (await story.told.get())[1]
    assert claims["exp"] - claims["iat"] == 86_400
    await websocket.send_json({"rid": given["cid"]})
    assert (await websocket.next_json())["rid"] == 9
    _, (answer,) = await shake(worker, given["data"]["token"])
    assert answer["data"]["isAuthenticated"] is True


async def test_set_auth_token_of_claims_without_a_json_form(worker: RunningWorker, story: Story) -> None:
    await worker.socket()
    socket = await story.sockets.get()
    with pytest.raises(NotSerializableError):
        await socket.set_auth_token({"what": object()})
    assert socket.auth_token is None


async def test_set_auth_token_for_a_client_that_is_gone(worker: RunningWorker, story: Story) -> None:
    websocket = await worker.socket()
    socket = await story.sockets.get()
    await websocket.end()
    await story.ends.get()
    with pytest.raises(SocketClosedError):
        await socket.set_auth_token(GOOD)


async def test_deauthenticate_takes_the_token_away(worker: RunningWorker, story: Story) -> None:
    websocket, _ = await shake(worker, token(**GOOD))
    socket = await story.sockets.get()
    await websocket.call("who")  # it has taken in the handshake's answer
    socket.deauthenticate()
    assert await websocket.next_json() == {"event": "#removeAuthToken"}
    assert socket.auth_token is None
    assert await story.told.get() == ("authenticate", GOOD)
    assert await story.told.get() == ("deauthenticate", GOOD)


async def test_a_token_right_after_the_handshake_waits_until_the_client_has_its_answer(
    start_worker: StartWorker, story: Story
) -> None:
    def run(worker: Worker) -> None:
        story.run(worker)

        @worker.ws_server.on("connection")
        async def connected(socket: Any) -> None:
            socket.emit("first")
            await socket.set_auth_token(GOOD)
            socket.emit("confirmed")

    worker = await start_worker(run, auth_key=SecretStr(KEY))
    websocket, (answer,) = await shake(worker, None)
    assert answer["data"]["isAuthenticated"] is False
    assert await websocket.next_json() == {"event": "first"}
    assert await websocket.next_text() == ""  # a ping, whose answer shows that
    await websocket.send_text("")
    given = await websocket.next_json()
    assert given["event"] == "#setAuthToken"
    await websocket.send_json({"rid": given["cid"]})
    assert await websocket.next_json() == {"event": "confirmed"}


async def test_deauthenticate_right_after_the_handshake_waits_too(worker: RunningWorker, story: Story) -> None:
    websocket, _ = await shake(worker, token(**GOOD))
    socket = await story.sockets.get()
    socket.deauthenticate()
    giving = asyncio.create_task(socket.set_auth_token({"name": "Bob"}))
    assert await websocket.next_text() == ""
    await websocket.send_text("")
    assert await websocket.next_json() == {"event": "#removeAuthToken"}
    given = await websocket.next_json()
    assert given["event"] == "#setAuthToken"
    await websocket.send_json({"rid": given["cid"]})
    await giving
    assert (await websocket.call("who"))["data"]["name"] == "Bob"


async def test_what_waits_for_a_client_that_goes_ends(worker: RunningWorker, story: Story) -> None:
    websocket = await worker.socket()
    socket = await story.sockets.get()
    giving = asyncio.create_task(socket.set_auth_token(GOOD))
    assert await websocket.next_text() == ""
    await websocket.end()
    with pytest.raises(SocketClosedError):
        await giving


# In the handshake's middleware.


@pytest.mark.parametrize("brought", [None, token(name="Old"), "garbage"])
async def test_a_token_that_the_handshake_s_middleware_gives_is_that_of_both_sides(
    worker: RunningWorker, story: Story, brought: str | None
) -> None:
    told: list[Any] = []
    worker.worker.ws_server.on("authenticate", lambda socket, claims: told.append(claims["name"]))

    @worker.worker.ws_server.use("handshake")
    async def login(action: Any) -> None:
        await action.socket.set_auth_token(GOOD)
        assert action.socket.auth_token["name"] == "Ann"

    websocket, got = await shake(worker, brought)
    assert [one.get("event") for one in got[:-1]] == (["#removeAuthToken"] if brought == "garbage" else [])
    assert got[-1]["data"]["isAuthenticated"] is (brought is not None and brought != "garbage")
    assert await websocket.next_text() == ""
    await websocket.send_text("")
    given = await websocket.next_json()
    assert given["event"] == "#setAuthToken"
    assert jwt.decode(given["data"]["token"], KEY, ["HS256"])["name"] == "Ann"
    assert (await websocket.call("who"))["data"]["name"] == "Ann"
    assert (await story.told.get())[1]["name"] == "Ann"
    assert told == ["Ann"]


async def test_a_token_that_the_handshake_s_middleware_takes_away_is_gone_on_both_sides(
    worker: RunningWorker, story: Story
) -> None:
    @worker.worker.ws_server.use("handshake")
    async def logout(action: Any) -> None:
        await action.socket.set_auth_token({"name": "Eve"})
        action.socket.deauthenticate()

    websocket, (removed, answer) = await shake(worker, token(**GOOD))
    assert removed == {"event": "#removeAuthToken"}
    assert answer["data"]["isAuthenticated"] is False
    assert (await websocket.call("who")).get("data") is None
    assert story.told.empty()


async def test_a_refused_client_gets_no_token(worker: RunningWorker, story: Story) -> None:
    @worker.worker.ws_server.use("handshake")
    async def refuse(action: Any) -> None:
        await action.socket.set_auth_token(GOOD)
        raise EventError("no")

    websocket, (answer,) = await shake(worker, None)
    assert "error" in answer
    await websocket.next_close()
    assert story.told.empty()


# Expiry.


@pytest.mark.parametrize("message", ["", event("who", None, 3), event("#subscribe", {"channel": "a"}, 3)])
async def test_a_token_that_expires_while_connected_ends_before_the_next_message(
    worker: RunningWorker, story: Story, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    due = time.time() + 3600
    websocket, (answer,) = await shake(worker, token(exp=due))
    assert answer["data"]["isAuthenticated"] is True
    socket = await story.sockets.get()
    assert socket.auth_token == {"exp": due}
    monkeypatch.setattr(Tokens, "now", lambda _tokens: due)
    assert socket.auth_token is None
    await websocket.send_text(message)
    assert await websocket.next_json() == {"event": "#removeAuthToken"}
    assert [await story.told.get(), await story.told.get()] == [
        ("authenticate", {"exp": due}),
        ("deauthenticate", {"exp": due}),
    ]
    if message:
        answer = await websocket.next_json()
        assert answer["rid"] == 3
        assert answer.get("data") is None


async def test_the_key_may_be_in_a_file(start_worker: StartWorker, story: Story, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    worker = await start_worker(story.run, auth_key_file=path)
    _, messages = await shake(worker, token(**GOOD))
    assert messages[-1]["data"]["isAuthenticated"] is True
