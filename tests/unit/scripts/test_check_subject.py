"""Which subjects git's hook takes, and what `make hooks` installs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LONGEST = "Keep a session's cookie when its worker is gone, for its client has one!"
assert len(LONGEST) == 72


@pytest.fixture
def message(tmp_path: Path) -> Path:
    return tmp_path / "COMMIT_EDITMSG"


def check(message: Path, text: str, locale: str = "C") -> subprocess.CompletedProcess[str]:
    message.write_text(text, encoding="utf-8")
    command = [ROOT / "scripts" / "check-subject", message]
    environ = os.environ | {"LC_ALL": locale}
    return subprocess.run(command, capture_output=True, check=False, encoding="utf-8", env=environ)


@pytest.mark.parametrize(
    "text",
    [
        LONGEST,
        f"{LONGEST}\n\n{LONGEST} And what is below may be as long as it likes.\n",
        f"\n# Please enter the commit message. {LONGEST * 2}\n{LONGEST}\n# On branch main\n",
        "ä" * 72,  # 144 bytes
        f"fixup! fixup! {LONGEST}",
        "Move\nit\n",
    ],
)
def test_a_subject_of_at_most_72_characters_is_taken(message: Path, text: str) -> None:
    result = check(message, text)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (f"{LONGEST}!", 73),
        ("ä" * 73, 73),
        (f"fixup! {LONGEST}!", 73),
        (f"# a comment\n\n{LONGEST}\nno empty line\n\nbelow", 86),  # git takes both lines for the subject
    ],
)
def test_a_longer_one_is_refused_and_told_what_is_too_much(message: Path, text: str, length: int) -> None:
    result = check(message, text)
    assert result.returncode == 1
    told, shown = result.stderr.splitlines()
    assert f"has {length} characters" in told
    kept, too_much = shown.strip().split("|")
    assert (len(kept), len(too_much)) == (72, length - 72)


@pytest.mark.parametrize("text", ["", "\n\n", "# only comments\n", "fixup! "])
def test_no_subject_is_refused(message: Path, text: str) -> None:
    result = check(message, text)
    assert result.returncode == 1
    assert "no subject" in result.stderr


def test_the_hooks_are_this_repository_s_own_and_run_make_lint() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"\brepo: (.*)", config) == ["local"]  # so nothing is fetched, and .venv has the versions
    assert re.findall(r"\bentry: (.*)", config) == ["make lint", "scripts/check-subject"]
    assert set(re.findall(r"\blanguage: (.*)", config)) == {"system"}
