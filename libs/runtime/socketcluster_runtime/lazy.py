"""Names that a package offers its users without importing them before they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names_of(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package (PEP 562) that imports a module with the first use of one of its names.

    Type checkers do not run it: the package imports the same names ``if TYPE_CHECKING``, and has them in ``__all__``.

    Args:
        package: its name.
        modules: names by the module that has them, which is called as seen from the package: ``data.procedures``.
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find
