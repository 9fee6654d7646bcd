"""Where the Autobahn suite's runner is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BESIDE = Path(__file__).parents[3] / "shared" / "tools" / "autobahn"


def runner() -> str | None:
    """Return what runs the suite (``RUNNER URL OUTDIR CASES...``): $AUTOBAHN, or the one beside the checkout."""
    return shutil.which(os.environ.get("AUTOBAHN") or BESIDE)
