"""Which processes make up the cluster, and what each is told; nothing is started here."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from socketcluster.settings import ClusterSettings, Spell, malformed
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.settings import PARENT_VARIABLE, PREFIX, ServiceSettings
from socketcluster_store.settings import StoreSettings
from socketcluster_worker.settings import WorkerSettings

NOT_INHERITED = {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"}
"""What systemd tells the launcher is not meant for its children."""


@dataclass(frozen=True)
class ChildSpec:
    """One process to keep running."""

    name: str
    """What it is called in logs: ``worker-0``."""
    argv: tuple[str, ...]
    """Its command."""
    environ: Mapping[str, str]
    """Its whole environment."""
    pass_fds: tuple[int, ...] = ()
    """Descriptors that it inherits."""


@dataclass(frozen=True)
class Plan:
    """The processes of the cluster."""

    balancers: tuple[ChildSpec, ...]
    workers: tuple[ChildSpec, ...]
    stores: tuple[ChildSpec, ...]


def plan(settings: ClusterSettings, run_dir: Path, listen_fds: Sequence[int]) -> Plan:
    """Return the processes, with their sockets in ``run_dir``, and one listening socket for each balancer."""
    stores = [
        f"127.0.0.1:{port}" if port else f"unix:{run_dir}/store-{index}.sock"
        for index, port in enumerate(settings.stores)
    ]
    controller = _controller(settings, "balancer_controller")
    workers = [f"unix:{run_dir}/worker-{index}.sock" for index in range(len(settings.workers))]
    metrics_ports = itertools.count(settings.metrics_port)

    def child(service: type[ServiceSettings], index: int, wired: dict[str, str], *fds: int) -> ChildSpec:
        name = f"{service.service}-{index}"
        package = service.__module__.partition(".")[0]
        values = _values(settings, service) | wired | {"name": name}
        if settings.metrics_port:
            values["metrics_listen"] = f"127.0.0.1:{next(metrics_ports)}"
        environ = {key: value for key, value in os.environ.items() if _inherited(key)}
        environ |= {service.env_name(field): value for field, value in values.items()}
        environ |= {PARENT_VARIABLE: str(os.getpid()), "NOTIFY_SOCKET": str(notify_path(run_dir))}
        # -P: a file that happens to lie in the current folder must not replace a module of the service
        return ChildSpec(name, (sys.executable, "-P", "-m", package), environ, fds)

    return Plan(
        balancers=tuple(
            child(
                BalancerSettings,
                index,
                {
                    "workers": ",".join(workers),
                    "listen_fd": str(fd),
                    "tls_ticket_dir": str(run_dir / "tickets"),
                    **controller,
                },
                fd,
            )
            for index, fd in enumerate(listen_fds)
        ),
        workers=tuple(
            child(
                WorkerSettings,
                index,
                {
                    "controller": str(settings.worker_controller.absolute()),
                    "stores": ",".join(stores),
                    "client_files": str(client_path()),
                    "control_listen": workers[index],
                    "http_listen": f"127.0.0.1:{port}",
                    "handoff_dir": str(handoff_path(run_dir)),
                },
            )
            for index, port in enumerate(settings.workers)
        ),
        stores=tuple(
            child(
                StoreSettings,
                index,
                {
                    "listen": address,
                    # with fixed ports side by side the next one may be another store's
                    **({"stream_listen": "127.0.0.1:0"} if port else {}),
                    "data_dir": str(store_path(settings)),
                    **_controller(settings, "store_controller"),
                },
            )
            for index, (address, port) in enumerate(zip(stores, settings.stores, strict=True))
        ),
    )


def _controller(settings: ClusterSettings, option: str) -> dict[str, str]:
    """Return another controller: the one that ``option`` names, else the one beside the worker controller, if any."""
    given = settings.service_options.get(option)
    beside = settings.worker_controller.absolute().with_name(f"{option}.py")
    if given is not None:
        return {option: str(Path(given).absolute())}
    return {option: str(beside)} if beside.is_file() else {}


def notify_path(run_dir: Path) -> Path:
    """Return the socket on which the launcher hears that a child is ready."""
    return run_dir / "notify.sock"


def handoff_path(run_dir: Path) -> Path:
    """Return the folder of the workers' handoff sockets."""
    return run_dir / "handoff"


def client_path() -> Path:
    """Return the folder of the browser client's files: the distribution's own, in a checkout where they are written."""
    packaged = Path(str(resources.files("socketcluster") / "browser"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "clients" / "js"


def store_path(settings: ClusterSettings) -> Path:
    """Return the folder of the stores' partitions."""
    return settings.data_dir.absolute() / "store"


def check(settings: ClusterSettings, given: Mapping[str, object], spell: Spell) -> None:
    """Let each service's settings class judge the options that go to it.

    Raises:
        OptionError: a value is malformed; the option is called what it is called in ``given``, else its variable.
    """
    made = plan(settings, Path("/nonexistent"), range(settings.balancers))
    for service, spec in (
        (BalancerSettings, made.balancers[0]),
        (WorkerSettings, made.workers[0]),
        (StoreSettings, made.stores[0]),
    ):
        fields = {service.env_name(field): field for field in service.model_fields}
        try:
            service(**{fields[key]: value for key, value in spec.environ.items() if key in fields})  # type: ignore[arg-type]
        except ValidationError as error:
            raise malformed(error, service, given, spell) from None


def _values(settings: ClusterSettings, service: type[ServiceSettings]) -> dict[str, str]:
    """Return what every process of a service is told, by field."""
    values = {
        "app_name": settings.app_name,
        "log_format": settings.log_format,
        "log_level": settings.log_level,
        **_log_level_file(settings),
        **_rpc_tls(settings),
        **{field: text for field, text in settings.service_options.items() if field in service.model_fields},
    }
    if settings.secret is not None:
        values["secret"] = settings.secret.get_secret_value()
    else:
        values["secret_file"] = str(secret_path(settings))
    return values


def _log_level_file(settings: ClusterSettings) -> dict[str, str]:
    return {} if settings.log_level_file is None else {"log_level_file": str(settings.log_level_file.absolute())}


def _rpc_tls(settings: ClusterSettings) -> dict[str, str]:
    if settings.rpc_tls_cert is None:  # then none of them is set
        return {}
    files = {"rpc_tls_cert", "rpc_tls_key", "rpc_tls_ca"}
    return {name: str(path.absolute()) for name, path in settings.model_dump(include=files).items()} | {
        "rpc_tls_name": settings.rpc_tls_name
    }


def secret_path(settings: ClusterSettings) -> Path:
    """Return the file of the secret: it outlives the cluster, so that signed cookies do."""
    return (settings.secret_file or settings.data_dir / "secret").absolute()


def _inherited(variable: str) -> bool:
    return not variable.startswith(PREFIX) and variable not in NOT_INHERITED
