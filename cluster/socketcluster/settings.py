"""The launcher's settings, and the options of the services that it passes through.

An option comes from an argument, else from the environment, else from its default. The services' settings classes are
the only place where their options are declared: whatever they have that is not wiring is an option of the launcher too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import NoDecode, SettingsConfigDict

from socketcluster.errors import OptionError
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.settings import PREFIX, ServiceSettings, did_you_mean, is_secret, wiring
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.partitioning import PARTITION_COUNT
from socketcluster_worker.settings import WorkerSettings

SERVICES: tuple[type[ServiceSettings], ...] = (BalancerSettings, WorkerSettings, StoreSettings)

MAX_INSTANCES = 512
"""More processes of one kind than this are a mistake: a port that was meant as a list, for example."""

Spell = Callable[[str], str]
"""How the caller writes the name of an option: ``session_timeout`` or ``--session-timeout``."""


def _instances(value: object) -> tuple[int, ...]:
    """Return the port of each process, 0 where any will do, from a count or a list of ports."""
    parts: list[object]
    if isinstance(value, str) and "," in value:
        parts = [part for part in value.split(",") if part.strip()]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        count = _whole(value)
        if not 1 <= count <= MAX_INSTANCES:
            hint = f"; for a list of one port write {count}," if MAX_INSTANCES < count <= 65535 else ""
            raise ValueError(f"a count is between 1 and {MAX_INSTANCES}{hint}")
        return (0,) * count
    ports = tuple(_whole(part) for part in parts)
    if not 1 <= len(ports) <= MAX_INSTANCES or not all(1 <= port <= 65535 for port in ports):
        raise ValueError("a list has at least one port, each between 1 and 65535")
    if len(set(ports)) < len(ports):
        raise ValueError("each port of a list may be there once")
    return ports


def _whole(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return int(value)
        except ValueError:
            pass
    raise ValueError("give a count, or a comma-separated list of ports")


Instances = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_instances)]


def _cores() -> tuple[int, ...]:
    return (0,) * min(len(os.sched_getaffinity(0)), MAX_INSTANCES)


class ClusterSettings(ServiceSettings):
    """What the launcher itself can be told."""

    model_config = SettingsConfigDict(validate_default=False)
    service: ClassVar[str] = "cluster"

    name: str = wiring("launcher")
    worker_controller: Path = Path("controller.py")
    """The Python file with ``run(worker)`` that every worker runs."""
    workers: Instances = Field(default_factory=_cores)
    """Worker processes: a count, or the HTTP port of each, comma-separated (``9100,`` is one); default: one a core."""
    stores: Instances = Field((0,), max_length=PARTITION_COUNT)
    """Store processes: a count, or the gRPC port of each, comma-separated (``9200,`` is one)."""
    balancers: int = Field(1, ge=1, le=MAX_INSTANCES)
    """Balancer processes, which share the port."""
    host: str = Field("127.0.0.1", min_length=1)
    """Address on which clients are accepted; 0.0.0.0 means every network of this machine."""
    port: int = Field(8000, ge=0, le=65535)
    """Port on which clients are accepted; 0 means any free one."""
    data_dir: Path = Path("data")
    """Folder of the stores' data and of the cluster's secret."""
    metrics_port: int = Field(0, ge=0, le=65000)
    """First port on 127.0.0.1 of the processes' metrics: balancers, workers, stores, a port each; 0: none."""
    stop_timeout: float = Field(15.0, gt=0, le=3600)
    """Seconds that the balancers, then the workers, then the stores have to stop before they are killed."""

    service_options: dict[str, str] = wiring(default_factory=dict)
    """Options of the services that were given, as their environment will spell them."""

    @classmethod
    def resolve(cls, given: Mapping[str, object], spell: Spell = str) -> Self:
        """Return the settings from arguments and the environment.

        Raises:
            OptionError: an option is unknown or malformed.
        """
        for name in given:
            if name not in OPTIONS:
                raise OptionError(f"{spell(name)}: there is no such option{did_you_mean(name, OPTIONS)}")
        known = {option.env for option in OPTIONS.values()} | {f"{PREFIX}SECRET", f"{PREFIX}SECRET_FILE"}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in known:
                raise OptionError(f"{name}: there is no such option{did_you_mean(name, known)}")
        passed = {
            option.name: text(given.get(option.name, os.environ.get(option.env)))
            for option in OPTIONS.values()
            if option.name not in cls.model_fields and (option.name in given or option.env in os.environ)
        }
        own: dict[str, Any] = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            return cls(**own | {"service_options": passed})
        except ValidationError as error:
            raise malformed(error, cls, given, spell) from None


def malformed(
    error: ValidationError, settings: type[ServiceSettings], given: Mapping[str, object], spell: Spell
) -> OptionError:
    """Return the one-line error that names each wrong option in the way in which it was given."""
    parts = []
    fields = {settings.env_name(field): field for field in settings.model_fields}
    for item in error.errors():
        place = str(item["loc"][0]) if item["loc"] else ""
        field = fields.get(place, place)
        variable = settings.env_name(field) if field in settings.model_fields else place
        name = spell(field) if field in given else variable
        value = given.get(field, os.environ.get(variable, item["input"]))
        shown = "" if is_secret(settings, field) else f" (got {value!r})"
        parts.append(f"{name}{': ' if name else ''}{item['msg'].removeprefix('Value error, ')}{shown}")
    return OptionError("; ".join(parts))


@dataclass(frozen=True)
class Option:
    """An option of the class and the command."""

    name: str
    """The keyword of the class, and the field of the settings classes that have it."""
    env: str
    """Its environment variable."""
    help: str
    """One line on what it does."""
    default: Any
    """What holds if it is not given; ``None`` if it depends."""

    @property
    def default_text(self) -> str:
        """The default as it would be given, empty if there is none or it depends."""
        if self.default is None:
            return ""
        return str(len(self.default)) if self.name in {"workers", "stores"} else text(self.default)


def _options() -> dict[str, Option]:
    """Gather the options of the launcher, then those of the services that are not the launcher's already."""
    options = {name: _option(ClusterSettings, name) for name in _user_fields(ClusterSettings)}
    for settings in SERVICES:
        for name in _user_fields(settings):
            if name in ClusterSettings.model_fields:
                continue
            option, known = _option(settings, name), options.get(name)
            if known is not None and known.help != option.help:  # two services have it, each with its own meaning
                option = replace(option, help=f"{known.help} {option.help}")
            options[name] = option
    return options


def _user_fields(settings: type[ServiceSettings]) -> dict[str, FieldInfo]:
    return {name: field for name, field in settings.model_fields.items() if field.json_schema_extra != {"wiring": True}}


def _option(settings: type[ServiceSettings], name: str) -> Option:
    field = settings.model_fields[name]
    default = None if field.default is PydanticUndefined else field.default
    return Option(name, settings.env_name(name), " ".join((field.description or "").split()), default)


OPTIONS = _options()
"""Every option by its name: the launcher's own first."""


def text(value: object) -> str:
    """Write a value as the environment of a service spells it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(text(part) for part in value)
    return str(value)
