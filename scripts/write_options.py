"""Writes the types of the options that ``SocketCluster(...)`` takes, as the settings classes have them.

::

    python scripts/write_options.py cluster/socketcluster/options.py
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import IPvAnyNetwork, SecretStr

from socketcluster.settings import OPTIONS, SERVICES, ClusterSettings, Option
from socketcluster_runtime.settings import ServiceSettings
from socketcluster_store.data.channel_rules import HistoryRule

HEAD = '''
"""The types of the options of ``SocketCluster(...)``, for editors and type checkers.

``make options`` writes this file: what it says is what the settings classes say.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict


class ProtocolOptions(TypedDict, total=False):
    """What ``https`` needs."""

    cert: str | PathLike[str]
    """The option ``tls_cert``."""
    key: str | PathLike[str]
    """The option ``tls_key``."""
    passphrase: str
    """The option ``tls_passphrase``."""
    passphrase_file: str | PathLike[str]
    """The option ``tls_passphrase_file``."""


class Options(TypedDict, total=False):
    """What ``SocketCluster(...)`` can be told. What is left out, or ``None``, the environment or a default says."""

    protocol: Literal["http", "https"] | None
    """What clients come by; ``https`` needs ``protocol_options``, or a ``tls_cert``. Default: ``http``."""
    protocol_options: ProtocolOptions | None
    """Of ``https``: ``cert``, ``key`` and ``passphrase`` or ``passphrase_file``, for ``tls_cert`` and so on."""
'''
TYPES = {bool: "bool", int: "int", float: "float", str: "str", SecretStr: "str", Path: "str | PathLike[str]"}
TEXTS = "str | Sequence[str]"
LISTS = {int: "int | Sequence[int]", str: TEXTS, IPvAnyNetwork: TEXTS, HistoryRule: "str"}
"""What may be given for several of a type; a text has them comma-separated, rules of histories by semicolons."""
KEPT = "\N{NO-BREAK SPACE}"
WIDTH = 116
"""Of a docstring's lines, without their indentation."""


def type_of(annotation: Any) -> str:
    """Return what may be given for a field of a settings class, as source."""
    kind, args = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType):
        return " | ".join(type_of(each) for each in args if each is not NoneType)
    if kind is Literal:
        return f"Literal[{', '.join(repr(each) for each in args)}]"
    if kind is tuple:
        return LISTS[args[0].__origin__ if get_origin(args[0]) is Annotated else args[0]]
    return TYPES[annotation]


def lines_of(option: Option) -> str:
    """Return an option's line and its docstring."""
    settings: list[type[ServiceSettings]] = [ClusterSettings, *SERVICES]
    found = [each.model_fields[option.name].annotation for each in settings if option.name in each.model_fields]
    of_launcher = option.name in ClusterSettings.model_fields  # what services call so may be wiring
    (spelled,) = {type_of(annotation) for annotation in (found[:1] if of_launcher else found)}
    default = repr(option.default) if isinstance(option.default, bool) else option.default_text
    text = f"{option.help} Default:{KEPT}``{default}``." if default else option.help
    doc = textwrap.wrap(f'"""{text}"""', WIDTH, break_on_hyphens=False, break_long_words=False)
    return textwrap.indent("\n".join([f"{option.name}: {spelled} | None", *doc]).replace(KEPT, " "), "    ")


def main(path: Path) -> None:
    """Write the module."""
    source = HEAD.lstrip() + "\n".join(lines_of(option) for option in OPTIONS.values()) + "\n"
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length=120", "-"]
    done = subprocess.run(ruff, input=source, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    path.write_text(done.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
