"""The compose file for HTTPS: what workers know of such clients, and a certificate that is renewed under way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clients.browser import Browser, Messages
from support.cluster.cluster import until
from support.cluster.compose import ComposeCluster
from support.network import certificates

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

CONTROLLER = """
def run(worker):
    @worker.http_server.on("req")
    def page(request):
        if request.url.path == "/how":
            return {"session": request.session.id, "scheme": request.url.scheme}

    @worker.ws_server.on("connection")
    def connected(socket):
        @socket.on("how")
        def how():
            handshake = socket.handshake
            return {"session": socket.session.id, "socket": socket.id, "secure": handshake.secure}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The controller's folder, and the one of the certificates; the containers' user may read both."""
    app, tls = tmp_path_factory.mktemp("app"), tmp_path_factory.mktemp("tls")
    (app / "controller.py").write_text(CONTROLLER)
    made = certificates.make(tls, "first", "open sesame")
    made.cert.rename(tls / "cert.pem")
    made.key.rename(tls / "key.pem")
    for folder in (app, tls):
        folder.chmod(0o755)
    return app, tls


@pytest.fixture(scope="module")
def cluster(folders: tuple[Path, Path]) -> Iterator[ComposeCluster]:
    app, tls = folders
    cluster = ComposeCluster(
        app,
        workers=2,
        COMPOSE_FILE="docker-compose.yml:docker-compose.tls.yml",
        TLS_DIR=str(tls),
        SOCKETCLUSTER_TLS_PASSPHRASE="open sesame",
    )
    try:
        cluster.up()
        cluster.url = cluster.url.replace("http:", "https:")
        yield cluster
    finally:
        cluster.down()


async def test_clients_by_https_are_known_as_such_and_outlive_a_new_certificate(
    cluster: ComposeCluster, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, tls = folders
    second = certificates.make(tmp_path, "second", "open sesame")
    trusting = ssl.create_default_context(cafile=tls / "cert.pem")
    async with Browser(cluster.url, trusting) as browser:
        page = await browser.http.get("/how")
        assert page.json()["scheme"] == "https"
        assert "; secure" in page.headers["set-cookie"].lower()
        async with browser.raw() as raw, browser.engine() as engine, browser.polling() as polling:
            sockets: list[Messages] = [raw, engine, polling]
            before = [await socket.call("how") for socket in sockets]
            assert [how["secure"] for how in before] == [True] * 3
            assert {how["session"] for how in before} == {page.json()["session"]}

            (balancer,) = cluster.containers("balancer")
            (tls / "cert.pem").write_bytes(second.cert.read_bytes())
            (tls / "key.pem").write_bytes(second.key.read_bytes())
            await asyncio.to_thread(cluster.compose, "kill", "--signal", "HUP", "balancer")
            renewed = second.cert.read_text().replace("\n", "")
            assert await until(lambda: _certificate(cluster.url), lambda found: found == renewed)

            after = [await socket.call("how") for socket in sockets[:2]]
            assert after == before[:2]  # on the connections that they had
            trusting.load_verify_locations(second.cert)
            assert await polling.call("how") == before[2]
            (still,) = cluster.containers("balancer")
            assert (still["Id"], still["State"]["Pid"]) == (balancer["Id"], balancer["State"]["Pid"])
            assert still["State"]["Health"]["Status"] == "healthy"

        async with Browser(cluster.url, ssl.create_default_context(cafile=second.cert)) as other, other.raw() as socket:
            assert (await socket.call("how"))["secure"]


async def test_a_certificate_that_cannot_be_used_leaves_the_one_before(
    cluster: ComposeCluster, folders: tuple[Path, Path]
) -> None:
    _, tls = folders
    before = await _certificate(cluster.url)
    key = (tls / "key.pem").read_bytes()
    (tls / "key.pem").write_text("no key")
    try:
        await asyncio.to_thread(cluster.compose, "kill", "--signal", "HUP", "balancer")

        async def refused() -> bool:
            return "what was read before stays" in await asyncio.to_thread(cluster.logs)

        assert await until(refused, bool)
        assert await _certificate(cluster.url) == before
    finally:
        (tls / "key.pem").write_bytes(key)


async def _certificate(url: str) -> str:
    """Return the certificate that new clients get."""
    host, _, port = url.removeprefix("https://").partition(":")
    return (await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))).replace("\n", "")
