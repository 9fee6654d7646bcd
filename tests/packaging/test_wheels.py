"""The wheels, installed where nothing of the checkout is: what a user has who installs them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest
from support.cluster.local import LocalCluster

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
CONTROLLER = """
import sys

def run(worker):
    @worker.ws_server.on("connection")
    def connected(socket):
        @socket.on("remember")
        async def remember(value):
            await socket.session.set("value", value)
            return await socket.session.get("value")

        @socket.on("loaded")
        def loaded():
            modules = [module for name, module in sys.modules.items() if name.startswith("socketcluster")]
            return [module.__file__ for module in modules if module.__file__]
"""


def command(*argv: str | Path) -> str:
    """Run a program outside the checkout; return what it prints."""
    result = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
    assert result.returncode == 0, result.stdout
    return result.stdout


def packages() -> list[str]:
    """Return the folders that the Makefile installs and builds wheels of."""
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("PACKAGES := "))
    return line.split()[2:]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels") / "dist"
    subprocess.run(["scripts/dist", sys.executable, str(folder), *packages()], check=True, cwd=ROOT)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def environment(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the cluster's pinned requirements, the wheels and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    command(sys.executable, "-m", "venv", "--without-pip", folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    command(*pip, "install", "-q", "-r", ROOT / "requirements" / "cluster.txt")
    command(*pip, "install", "-q", "--no-index", "--no-deps", *wheels)
    command(*pip, "check")
    return folder


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def test_every_package_is_built(wheels: list[Path]) -> None:
    found = [path.parent for at in (".", "libs", "services") for path in (ROOT / at).glob("*/pyproject.toml")]
    assert sorted(packages()) == sorted(str(folder.relative_to(ROOT)) for folder in found)
    assert len(wheels) == len(found)


def test_every_wheel_says_what_it_is_and_has_its_licence(wheels: list[Path]) -> None:
    for wheel in wheels:
        said = metadata(wheel)
        assert said["License-Expression"] == "MIT"
        assert said["Summary"]
        assert said["Requires-Python"] == ">=3.11"
        with zipfile.ZipFile(wheel) as archive:
            (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
            assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
            names = archive.namelist()
        package = said["Name"].replace("-", "_")
        assert {name.partition("/")[0] for name in names} == {package, f"{package}-{said['Version']}.dist-info"}
        assert f"{package}/py.typed" in names


@pytest.mark.timeout(600)  # the requirements are fetched as in `make install`
async def test_the_installed_cluster_serves_a_controller_outside_the_checkout(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = tmp_path / "app" / "controller.py"
    controller.parent.mkdir()
    controller.write_text(CONTROLLER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    program = str(environment / "bin" / "socketcluster")
    async with (
        LocalCluster(controller, tmp_path / "data", workers=1, command=[program]) as cluster,
        cluster.browser() as browser,
    ):
        async with browser.raw() as raw, browser.engine() as engine:
            assert await raw.call("remember", {"n": 1}) == {"n": 1}
            assert await engine.call("remember", "ä") == "ä"
            loaded = await raw.call("loaded")
        for name in ("socketcluster.js", "socketcluster.mjs", "socketcluster.d.ts"):
            response = await browser.http.get(f"/{name}")
            assert (response.status_code, response.content) == (200, (CLIENT / name).read_bytes())
    assert [path for path in loaded if not Path(path).is_relative_to(environment)] == []
    assert loaded


def test_the_installed_command_says_its_version(environment: Path, wheels: list[Path]) -> None:
    (wheel,) = (wheel for wheel in wheels if metadata(wheel)["Name"] == "socketcluster")
    said = command(environment / "bin" / "socketcluster", "--version")
    assert metadata(wheel)["Version"] in said
