"""The map of the code in docs/design/internals.md: each folder is on it, with the modules that are there."""

from __future__ import annotations

import re

from support.sources import ROOT, sources

PAGE = ROOT / "docs" / "design" / "internals.md"
ROOTS = ("libs", "services", "cluster")


def on_the_map() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `([\w/]+)/` \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {folder: set(re.findall(r"`(\w+)`", names)) for folder, names in rows}


def in_the_tree() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for root in ROOTS:
        for path in sources(root):
            if not path.stem.startswith("__"):
                found.setdefault(str(path.parent.relative_to(ROOT)), set()).add(path.stem)
    return found


def test_the_map_shows_each_folder_with_its_modules() -> None:
    shown, there = on_the_map(), in_the_tree()
    assert shown.keys() == there.keys()
    wrong = {folder: shown[folder] ^ there[folder] for folder in shown if shown[folder] != there[folder]}
    assert wrong == {}
