"""A fixed budget of fuzzing for every run; ``make fuzz`` goes on for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import SEEDS, TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
RUNS = 50_000


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_bytes_and_any_damage_to_good_ones(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([b"", *SEEDS[name]]))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, len(seed)))
    TARGETS[name](seed[:start] + data.draw(st.binary(max_size=64)) + seed[end:])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    done = subprocess.run(
        [
            *(sys.executable, str(HERE / "run_atheris.py"), name),
            *(f"-runs={RUNS}", "-seed=1", "-max_len=512", "-timeout=10", f"-artifact_prefix={tmp_path}/", str(corpus)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(HERE.parent)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr, done.stderr[-2000:]
