"""Fuzzes one target, guided by coverage: ``python tests/fuzz/run_atheris.py TARGET [libFuzzer's options]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["socketcluster_wire"]):
    from fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Fuzz until an option of libFuzzer's says stop."""
    name = sys.argv.pop(1)
    for seed in SEEDS[name]:
        TARGETS[name](seed)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
