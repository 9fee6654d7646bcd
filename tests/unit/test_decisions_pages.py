"""The pages of `docs/decisions/` have one form, and their index lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
ROW = re.compile(r"^\| \[(.+)\]\((.+)\) \| (.+) \| (.+) \|$", re.MULTILINE)
STATED = re.compile(r"Date: (\d{4}-\d\d-\d\d).*\. Status: (proposed|accepted|replaced by \[.+\]\(.+\))\.")
MAX_LINES = 45


def test_the_index_lists_every_page_with_its_title_dates_and_status() -> None:
    rows = {
        name: (title, dates, status) for title, name, dates, status in ROW.findall((FOLDER / "README.md").read_text())
    }
    assert sorted(rows) == [path.name for path in PAGES]
    for path in PAGES:
        title, dates, status = rows[path.name]
        heading, _, stated, *_ = path.read_text().splitlines()
        assert heading == f"# {title}"
        assert re.findall(r"\d{4}-\d\d-\d\d", stated) == dates.split(", ")
        assert f"Status: {status}" in stated


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_parts_in_order_and_is_short(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Context", "Decision", "Alternatives", "Consequences"]
    assert STATED.fullmatch(text.splitlines()[2])
    assert len(text.splitlines()) < MAX_LINES


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_links_to_other_pages_lead_somewhere(path: Path) -> None:
    for target, fragment in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", path.read_text()):
        page = path.parent / target
        assert page.is_file(), target
        headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
        assert not fragment or fragment in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
