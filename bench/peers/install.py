"""Puts the peers into a folder outside the source: ``python -m bench.peers.install [FOLDER]``.

Each set has a folder whose name comes from what it is made of, so another version is installed beside the one before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = (HERE / "requirements.txt", HERE.parents[1] / "requirements" / "constraints.txt")
SECONDS = 600
"""That an installation has."""


class MissingError(Exception):
    """A part cannot be installed here; the text says why."""


@dataclass
class Peers:
    """What is installed.

    Attributes:
        node: the folder of the packages for Node.js (``node_modules``).
        python: the Python that has those for Python.
        floor: the program of the floor.
        lacks: by the name of a part that is missing (``node``, ``python``, ``floor``), why.
    """

    node: Path | None = None
    python: Path | None = None
    floor: Path | None = None
    lacks: dict[str, str] = field(default_factory=dict)


def default_folder() -> Path:
    """Return where the peers are put unless something else is said."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "socketcluster-bench"


def install(folder: Path, say: Callable[[str], None]) -> Peers:
    """Install what is not there yet; what cannot be is told in ``lacks``."""
    peers = Peers()
    for part, make in (("node", _node), ("python", _python), ("floor", _floor)):
        try:
            setattr(peers, part, make(folder, say))
        except MissingError as error:
            peers.lacks[part] = str(error)
            say(f"not installed: {part}: {error}")
    return peers


def _node(folder: Path, say: Callable[[str], None]) -> Path:
    _need("node", "npm")
    place = folder / f"node-{_digest(HERE / 'package.json')}"

    def make(fresh: Path) -> None:
        shutil.copy(HERE / "package.json", fresh)
        _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", cwd=fresh)

    return _once(place, make, say) / "node_modules"


def _python(folder: Path, say: Callable[[str], None]) -> Path:
    version = "{}.{}.{}".format(*sys.version_info)
    place = folder / f"python-{version}-{_digest(*REQUIREMENTS, Path(sys.executable).resolve())}"

    def make(fresh: Path) -> None:
        _run(sys.executable, "-m", "venv", str(fresh))
        python = str(fresh / "bin" / "python")
        _run(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", str(REQUIREMENTS[0]))

    return _once(place, make, say) / "bin" / "python"


def _floor(folder: Path, say: Callable[[str], None]) -> Path:
    (compiler,) = _need("cc")
    place = folder / f"floor-{_digest(HERE / 'floor.c')}"

    def make(fresh: Path) -> None:
        _run(compiler, "-O2", "-o", str(fresh / "floor"), str(HERE / "floor.c"))

    return _once(place, make, say) / "floor"


def _once(place: Path, make: Callable[[Path], None], say: Callable[[str], None]) -> Path:
    """Have a folder made, wholly or not at all, unless it is there."""
    if not (place / "complete").exists():
        say(f"installing {place}")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # a virtual environment cannot be moved, so it is made where it stays
        place.mkdir()
        make(place)
        (place / "complete").touch()
    return place


def _need(*programs: str) -> list[str]:
    found = [shutil.which(program) for program in programs]
    missing = [program for program, path in zip(programs, found, strict=True) if path is None]
    if missing:
        raise MissingError(f"there is no {' and no '.join(missing)} here")
    return [path for path in found if path is not None]


def _run(*argv: str, cwd: Path | None = None) -> None:
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(argv, cwd=cwd, check=True, timeout=SECONDS, stdout=output, stderr=output)  # noqa: S603
        except (OSError, subprocess.SubprocessError) as error:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
            raise MissingError(f"{Path(argv[0]).name} failed: {last[0]}") from None


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    found = install(folder, lambda line: print(line, flush=True))  # noqa: T201
    sys.exit(len(found.lacks))
