"""What the store can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from socketcluster_runtime.settings import ServiceSettings, wiring
from socketcluster_store.data.channel_rules import MAX_CHANNELS, HistoryRule, parse_rule
from socketcluster_store.engines.valkey.urls import urls_of
from socketcluster_store_client.partitioning import PARTITION_COUNT

MIB = 1024 * 1024


class StoreSettings(ServiceSettings):
    """The store's options."""

    service: ClassVar[str] = "store"

    listen: str = wiring("0.0.0.0:7000")
    """gRPC address that workers link to: ``host:port`` or ``unix:/path``."""
    stream_listen: str = wiring("")
    """``host:port`` of workers' links for channels; default: the port after that of ``listen``, or a path beside it."""
    data_dir: Path = wiring(Path("data"))
    """Folder of the partitions, shared by all stores; one below it for each application."""
    engine: Literal["lmdb", "memory", "valkey"] = "lmdb"
    """What keeps the data: ``lmdb`` on disk, ``valkey`` in Valkey or Redis, ``memory`` as long as the process lives."""
    valkey_url: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """Where Valkey or Redis is: ``valkey://user:password@host:6379``; several hosts of a Cluster with commas."""
    valkey_timeout: float = Field(5.0, gt=0)
    """Seconds that Valkey may not answer before partitions are given up until it does; ``store_timeout`` is longer."""
    valkey_wait_replicas: int = Field(0, ge=0)
    """Replicas of Valkey that must have a write before it is acknowledged."""
    valkey_allow_eviction: bool = False
    """Start though Valkey evicts keys when its memory is full, whole partitions and what was acknowledged with them."""
    fsync: Literal["none", "everysec", "always"] = "everysec"
    """When data is forced to the disk, for the sake of a power cut; a killed process loses nothing whatever it says."""
    session_timeout: float = Field(1200.0, gt=0)
    """Seconds from a session's last socket (or, without sockets, its last write) to its end."""
    link_grace: float = Field(5.0, ge=0)
    """Seconds that a worker whose link broke has to come back before its sessions count as left."""
    store_hang_timeout: float = Field(3.0, ge=1)
    """Seconds without a sign of life after which the other stores take a store's partitions over."""
    max_value_bytes: int = Field(MIB, ge=1024, le=16 * MIB)
    """The largest value at a top-level key, in bytes of MessagePack; also of an event and of a channel's message."""
    max_session_bytes: int = Field(8 * MIB, ge=1024, le=1024 * MIB)
    """The most data that a session may hold: bytes of its keys and of its values' MessagePack."""
    store_controller: Path | None = None
    """The Python file with ``run(store)``, for procedures; default: ``store_controller.py`` beside the other."""
    procedure_timeout: float = Field(0.5, gt=0)
    """Seconds after which a procedure is ended and undone; everybody waits for it. Below ``store_hang_timeout``."""
    channel_history: Annotated[tuple[HistoryRule, ...], NoDecode] = ()
    """Which channels keep their messages: ``pattern: count, age`` and so on, by semicolons; age in seconds."""
    max_history_channels: int = Field(MAX_CHANNELS, ge=PARTITION_COUNT)
    """Channels that may have a history at a time, a 64th of them in each partition."""
    message_id_window: float = Field(300.0, gt=0, le=86_400)
    """Seconds within which what is published to a channel with the same id again is not published again."""
    max_link_bytes: int = Field(64 * MIB, ge=MIB)
    """Bytes that may wait for a worker that does not read before its link is closed."""

    @field_validator("valkey_url")
    @classmethod
    def _check_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            urls_of(value.get_secret_value())
        elif info.data.get("engine") == "valkey":
            raise ValueError("the engine valkey needs it: where is Valkey? For example valkey://127.0.0.1:6379")
        return value

    @field_validator("channel_history", mode="before")
    @classmethod
    def _parse_rules(cls, value: object) -> object:
        return tuple(parse_rule(part) for part in value.split(";") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _streams_are_found(self) -> Self:
        if self.stream_listen and "unix:" in (self.listen[:5], self.stream_listen[:5]):
            raise ValueError(
                "stream_listen is host:port, beside a listen of that form; a Unix socket has that of streams beside it"
            )
        return self

    @model_validator(mode="after")
    def _hangs_no_longer_than_allowed(self) -> Self:
        if self.procedure_timeout >= self.store_hang_timeout:
            raise ValueError(
                f"procedure_timeout ({self.procedure_timeout:g}) must be below store_hang_timeout "
                f"({self.store_hang_timeout:g}): the other stores would take the partitions over meanwhile"
            )
        return self
