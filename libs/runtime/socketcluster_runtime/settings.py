"""Settings: one class a service, read from ``SOCKETCLUSTER_*`` environment variables, unknown names refused."""

from __future__ import annotations

import difflib
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast, get_args

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.secrets.secret_files import read_secret
from socketcluster_runtime.tls.rpc_tls import RpcTls, load_rpc_tls

PREFIX = "SOCKETCLUSTER_"
PARENT_VARIABLE = f"{PREFIX}PARENT"
"""Set by a launcher that wants its children to die with it: its process id."""

LogLevel = Literal["debug", "info", "warning", "error"]

MAX_LEVEL_CHARACTERS = 100
"""How much of a file is looked at for a log level."""


def wiring(default: Any = ..., **kwargs: Any) -> Any:
    """Declare a field that connects the services with each other: set by the launcher or compose file, not by users."""
    return Field(default, json_schema_extra={"wiring": True}, **kwargs)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the known name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
    service: ClassVar[str]

    app_name: str = Field("socketcluster", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Keeps applications that share a domain or a store apart: it is part of the cookie's name and the store's keys."""
    name: str = wiring(default_factory=socket.gethostname)
    """What this process is called in logs and on the example's page."""
    secret: SecretStr | None = wiring(None)
    """The secret that the services of one cluster share; at least 16 characters."""
    secret_file: Path | None = wiring(None)
    """Where the secret is read from if it is not given; written there by the first service that finds none."""
    rpc_tls_cert: Path | None = None
    """File (PEM) of the certificate that services show each other; with it gRPC goes by mutual TLS between machines."""
    rpc_tls_key: Path | None = None
    """File (PEM) of the private key of ``rpc_tls_cert``, not encrypted."""
    rpc_tls_ca: Path | None = None
    """File (PEM) of the authority that signs these certificates, and nobody else's."""
    rpc_tls_name: str = Field("socketcluster", pattern=r"^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$", max_length=253)
    """The DNS name that these certificates have, the same for all services, wherever they run."""
    log_format: Literal["text", "json"] = Field("text", validation_alias="LOG_FORMAT")
    """``text`` for people, ``json`` for programs: one object a line."""
    log_level: LogLevel = Field("info", validation_alias="LOG_LEVEL")
    """The least important messages that are logged."""
    log_level_file: Path | None = Field(None, validation_alias="LOG_LEVEL_FILE")
    """File with such a level, which counts then; it is read again at SIGHUP."""
    metrics_listen: str | None = wiring(None, pattern=r"^.+:\d{1,5}$")
    """``host:port`` of ``/metrics`` in Prometheus' text format, for no client to reach; none: it is not served."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @classmethod
    def env_name(cls, field: str) -> str:
        """Return the environment variable that sets ``field``."""
        alias = cls.model_fields[field].validation_alias
        return alias if isinstance(alias, str) else PREFIX + field.upper()

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            SettingsError: a ``SOCKETCLUSTER_*`` variable is unknown (its nearest known name is given), or a value is
                malformed.
        """
        known = {cls.env_name(field) for field in cls.model_fields}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in known:
                raise SettingsError(f"{name}: the {cls.service} knows no such option{did_you_mean(name, known)}")
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError(describe(error, cls)) from None

    @model_validator(mode="after")
    def _has_all_of_rpc_tls(self) -> Self:
        given = {name: getattr(self, name) is not None for name in ("rpc_tls_cert", "rpc_tls_key", "rpc_tls_ca")}
        if any(given.values()) and not all(given.values()):
            missing = " and ".join(name for name, there in given.items() if not there)
            raise ValueError(f"rpc_tls_cert, rpc_tls_key and rpc_tls_ca belong together: {missing} is not set")
        return self

    def rpc_tls(self) -> RpcTls | None:
        """Return what gRPC between machines is secured with, read from its files; ``None`` if it is not.

        Raises:
            SettingsError: a file cannot be read, or the other services would not accept the certificate.
        """
        if self.rpc_tls_cert is None or self.rpc_tls_key is None or self.rpc_tls_ca is None:
            return None
        return load_rpc_tls(self.rpc_tls_cert, self.rpc_tls_key, self.rpc_tls_ca, self.rpc_tls_name)

    def current_log_level(self) -> LogLevel:
        """Return the least important level that is logged now.

        Raises:
            SettingsError: ``log_level_file`` names a file that cannot be read, or that has no such level.
        """
        if self.log_level_file is None:
            return self.log_level
        try:
            with self.log_level_file.open(encoding="utf-8", errors="replace") as file:
                said = file.read(MAX_LEVEL_CHARACTERS).strip().lower()
        except OSError as error:
            raise SettingsError(f"log_level_file: {self.log_level_file} cannot be read: {error.strerror}") from None
        for level in get_args(LogLevel):
            if said == level:
                return cast(LogLevel, level)
        levels = ", ".join(get_args(LogLevel))
        raise SettingsError(f"log_level_file: {self.log_level_file} has {said!r}; write one of {levels} into it")

    def shared_secret(self) -> str:
        """Return the cluster's secret, from ``secret`` or from ``secret_file``, which is made if it does not exist.

        Raises:
            SettingsError: there is none, it is too short, or the file can be neither read nor written, or is empty.
        """
        source = f"{PREFIX}SECRET"
        if self.secret is not None:  # compose sets both
            secret = self.secret.get_secret_value()
        elif self.secret_file is not None:
            source = f"{PREFIX}SECRET_FILE: the secret in {self.secret_file}"
            secret = _read_or_create(self.secret_file)
        else:
            raise SettingsError(
                f"{PREFIX}SECRET is not set: give every service of the cluster the same random text, for example "
                "the output of `openssl rand -hex 32`"
            )
        if len(secret) < 16:
            raise SettingsError(f"{source} is too short: it has {len(secret)} characters, 16 are needed")
        return secret


def describe(error: ValidationError, settings: type[ServiceSettings]) -> str:
    """Return one line that says which option is wrong, why, and what was given."""
    parts = []
    for item in error.errors():
        field = str(item["loc"][0]) if item["loc"] else ""
        name = settings.env_name(field) if field in settings.model_fields else field
        given = "" if item["type"] == "missing" or is_secret(settings, field) else f" (got {item['input']!r})"
        parts.append(f"{name}{': ' if name else ''}{item['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(parts)


def is_secret(settings: type[ServiceSettings], field: str) -> bool:
    """Is a field's value to be shown to nobody? That of all fields together (``field`` is empty) is not, either."""
    found = settings.model_fields.get(field)
    typed = found is not None and SecretStr in (found.annotation, *get_args(found.annotation))
    return not field or typed or "secret" in field or "passphrase" in field


def _read_or_create(path: Path) -> str:
    """Read a secret; the first of several services that start together makes it, and a link makes that atomic."""
    try:
        if not path.exists():
            draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_hex(32))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another service was first
            finally:
                draft.unlink()
    except OSError as error:
        raise SettingsError(
            f"{PREFIX}SECRET_FILE: {path} cannot be made: {error.strerror}; make it, with the output of "
            "`openssl rand -hex 32`, or its folder, where this process may write"
        ) from None
    return read_secret(f"{PREFIX}SECRET_FILE", path).strip()
