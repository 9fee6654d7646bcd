"""Names of a package that are imported when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import shop

assert "Till" in dir(shop)
assert "shop.till" not in sys.modules
from shop import Till
assert Till is sys.modules["shop.till"].Till
assert "shop.back.room" not in sys.modules
assert shop.Room is sys.modules["shop.back.room"].Room
try:
    from shop import Tills
except ImportError as error:
    print(error.name, end="")
assert not hasattr(shop, "Tills")
assert {"Room", "Till", "__all__"} < set(dir(shop))
from shop import *
assert (Room, Till) == (shop.Room, shop.Till)
"""


def test_a_module_is_imported_with_the_first_use_of_one_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "shop" / "back").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text(
        "from socketcluster_runtime.lazy import names_of\n"
        "__getattr__, __dir__ = names_of(__name__, {'shop.till': ['Till'], 'shop.back.room': ['Room']})\n"
        "__all__ = ['Room', 'Till']\n"
    )
    (tmp_path / "shop" / "till.py").write_text("class Till: ...\n")
    (tmp_path / "shop" / "back" / "room.py").write_text("class Room: ...\n")
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert (said.stdout, said.stderr) == ("shop", "")
