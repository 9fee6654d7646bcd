"""The proxies that deploy/ has files for, started with those: all but addresses, names and certificates is as there."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.network import certificates
from support.network.ports import free_port

DEPLOY = Path(__file__).parents[3] / "deploy"
HOST = "localhost"
"""What the proxies serve."""


@dataclass(frozen=True)
class Front:
    """A proxy that runs.

    Attributes:
        plain: its port.
        tls: its port.
    """

    plain: int
    tls: int

    async def connect(
        self, *, tls: bool = True, client: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from an address of this machine."""
        context = ssl.create_default_context() if tls else None
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = self.tls if tls else self.plain
        return await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(client, 0), ssl=context, server_hostname=HOST if tls else None
        )


def program(name: str) -> str | None:
    """Return what starts a proxy."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


@asynccontextmanager
async def running(name: str, balancer: int, folder: Path) -> AsyncIterator[Front]:
    """Run ``nginx``, ``haproxy`` or ``caddy`` in front of a port of 127.0.0.1.

    Args:
        name: of the proxy.
        balancer: the port.
        folder: where its configuration is written, and what it keeps.
    """
    found = program(name)
    assert found is not None
    front = Front(free_port(), free_port())
    arguments, environ = _prepare(name, front, balancer, folder)
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(found, *arguments), env={**os.environ, **environ}, stdout=log, stderr=log
        )
    try:
        if not await _listens(front, process):
            raise AssertionError(f"the proxy did not start: see {folder}/{name}.log")
        yield front
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(front: Front, process: asyncio.subprocess.Process) -> bool:
    """Wait until both ports are open; return whether they are before the process ends."""
    while process.returncode is None:
        with suppress(OSError):
            for tls in (False, True):
                _, writer = await front.connect(tls=tls)
                writer.close()
            return True
        await asyncio.sleep(0.02)
    return False


def _fill_in(text: str, changes: Mapping[str, str]) -> str:
    """Return a file with a machine's own addresses and paths; each that is to be changed must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


Prepared = tuple[list[str], dict[str, str]]


def _nginx(front: Front, balancer: int, folder: Path) -> Prepared:
    files = certificates.make(folder, "front")
    site = _fill_in(
        (DEPLOY / "nginx" / "socketcluster.conf").read_text(),
        {
            "listen 80;": f"listen 127.0.0.1:{front.plain};",
            "listen 443 ssl;": f"listen 127.0.0.1:{front.tls} ssl;",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{balancer};",
            "example.com;": f"{HOST};",
            "/etc/ssl/example.com.pem": str(files.cert),
            "/etc/ssl/example.com.key": str(files.key),
        },
    )
    (folder / "socketcluster.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    main = folder / "nginx.conf"
    main.write_text(
        f"user {getpass.getuser()};\ndaemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n  access_log off;\n{paths}  include {folder}/socketcluster.conf;\n}}\n"
    )
    return ["-e", "stderr", "-p", str(folder), "-c", str(main)], {}


def _haproxy(front: Front, balancer: int, folder: Path) -> Prepared:
    files = certificates.make(folder, "front")
    path = folder / "haproxy.cfg"
    path.write_text(
        _fill_in(
            (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
            {
                "bind :80\n": f"bind 127.0.0.1:{front.plain}\n",
                "bind :443 ssl": f"bind 127.0.0.1:{front.tls} ssl",
                "/etc/haproxy/example.com.pem": str(files.both),
                "127.0.0.1:8000": f"127.0.0.1:{balancer}",
            },
        )
    )
    return ["-db", "-q", "-f", str(path)], {}


def _caddy(front: Front, balancer: int, folder: Path) -> Prepared:
    main = folder / "Caddyfile"
    lines = ["admin off", "default_bind 127.0.0.1", "local_certs", "skip_install_trust"]
    lines += ["auto_https disable_redirects", f"storage file_system {folder}/storage"]
    main.write_text("\n\t".join(("{", *lines)) + f"\n}}\nimport {DEPLOY / 'caddy' / 'Caddyfile'}\n")
    environ = {
        "SITE": f"http://{HOST}:{front.plain}, https://{HOST}:{front.tls}",
        "BALANCERS": f"127.0.0.1:{balancer}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    return ["run", "--config", str(main), "--adapter", "caddyfile"], environ


def _prepare(name: str, front: Front, balancer: int, folder: Path) -> Prepared:
    folder.mkdir(exist_ok=True)
    return PREPARE[name](front, balancer, folder)


PREPARE: Mapping[str, Callable[[Front, int, Path], Prepared]] = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}
