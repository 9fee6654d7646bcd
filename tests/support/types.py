"""What a user's type checker says."""

from __future__ import annotations

from pathlib import Path

from mypy import api

from support.sources import ROOT


def type_errors(folder: Path, source: str) -> dict[int, str]:
    """Return what mypy says, in strict mode, of a file of a user's, by line."""
    path = folder / "mine.py"
    path.write_text(source)
    # with the cache that `make types` has filled
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    said, trouble, _status = api.run([*options, "--no-error-summary", str(path)])
    assert not trouble
    errors = [line.partition("mine.py:")[2] for line in said.splitlines() if ": error: " in line]
    return {int(line): text for line, _, text in (error.partition(": error: ") for error in errors)}


def lines_marked(mark: str, source: str) -> set[int]:
    """Return the numbers of the lines that end with ``mark``."""
    return {number for number, line in enumerate(source.splitlines(), start=1) if line.endswith(mark)}
