"""A cluster as on many machines, whose services talk to each other by mutual TLS."""

from __future__ import annotations

from pathlib import Path

from support.clients.browser import Browser
from support.cluster.cluster import until
from support.cluster.separate import SeparateServices
from support.network.certificates import Authority

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"


def options(authority: Authority, name: str, days: int = 1) -> dict[str, str]:
    """Return the options of a service with a certificate of its own."""
    cert, key = authority.issue(name, days=days)
    return {"RPC_TLS_CERT": str(cert), "RPC_TLS_KEY": str(key), "RPC_TLS_CA": str(authority.cert)}


async def test_a_cluster_whose_services_show_each_other_certificates(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "own"), Authority(tmp_path / "strange", "another authority")
    async with SeparateServices(tmp_path) as services:
        stores = [await services.store(name, **options(authority, name)) for name in ("store-0", "store-1")]
        workers = [
            await services.worker(name, CONTROLLER, stores, **options(authority, name)) for name in ("one", "other")
        ]
        url = await services.balancer(workers, **options(authority, "balancer"))

        async def names() -> set[str]:
            found = set()
            for _ in range(8):
                async with Browser(url) as browser:
                    answer = await browser.http.get("/who")
                    if answer.status_code == 200:  # otherwise the balancer knows of no worker yet
                        found.add(answer.json()["worker"])
            return found

        assert await until(names, lambda found: found == {"one", "other"})
        async with Browser(url) as browser, browser.raw() as raw, browser.engine() as engine:
            await raw.call("set", ["key", "value"])
            assert await engine.call("get", "key") == "value"

        # Who has the secret, but no certificate or a stranger's, gets no answer, and says why.
        for address in (*stores, *workers):
            assert await services.unwell(address, **options(authority, "asking")) == ""
            assert "UNAVAILABLE" in await services.unwell(address)
            assert "UNAVAILABLE" in await services.unwell(address, **options(stranger, "asking"))
        await services.worker("plain", CONTROLLER, stores)
        await services.worker("stranger", CONTROLLER, stores, **options(stranger, "stranger"))
        await services.balancer(workers)
        await services.logged("plain: the store and this worker do not accept each other's TLS")
        await services.logged("stranger: the store and this worker do not accept each other's TLS")
        await services.logged("a worker and this balancer do not accept each other's TLS")
        assert await until(names, lambda found: len(found) >= 2) == {"one", "other"}
        assert "ssl_transport_security" not in await services.log()  # gRPC's own lines: one an attempt


async def test_a_service_does_not_start_with_what_others_would_not_accept(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    expired = options(authority, "expired", days=-1)
    absent = options(authority, "absent")
    absent["RPC_TLS_KEY"] += ".absent"
    common = {"LISTEN": "127.0.0.1:0", "DATA_DIR": str(tmp_path / "data"), "WORKERS": "127.0.0.1:1"}
    common |= {"STORES": "127.0.0.1:1", "CONTROLLER": str(CONTROLLER), "CONTROL_LISTEN": "127.0.0.1:0"}
    wanted = {
        "store": ("LISTEN", "DATA_DIR"),
        "worker": ("STORES", "CONTROLLER", "CONTROL_LISTEN"),
        "balancer": ("LISTEN", "WORKERS"),
    }
    async with SeparateServices(tmp_path) as services:
        for service, names in wanted.items():
            for given, text in ((expired, "certificate has expired"), (absent, "absent.key.absent cannot be read")):
                process = await services.start(service, "tested", **{name: common[name] for name in names}, **given)
                assert await process.wait() == 78
                assert text in services.log_path.read_text()
                services.log_path.write_text("")
