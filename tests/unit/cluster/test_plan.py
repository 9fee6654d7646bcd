"""What reaches which process: options, addresses, files and secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.cluster.options import failure, planned

from socketcluster_balancer.settings import BalancerSettings
from socketcluster_store.settings import StoreSettings
from socketcluster_worker.endpoints.client_files import NAMES
from socketcluster_worker.settings import WorkerSettings


def test_workers_and_stores_as_counts() -> None:
    made = planned(workers=3, stores=2, balancers=2)
    assert [spec.name for spec in made.workers] == ["worker-0", "worker-1", "worker-2"]
    assert {spec.environ["SOCKETCLUSTER_HTTP_LISTEN"] for spec in made.workers} == {"127.0.0.1:0"}
    assert [spec.environ["SOCKETCLUSTER_LISTEN"] for spec in made.stores] == [
        "unix:/run-dir/store-0.sock",
        "unix:/run-dir/store-1.sock",
    ]
    assert [(spec.name, spec.pass_fds) for spec in made.balancers] == [("balancer-0", (10,)), ("balancer-1", (11,))]


def test_workers_are_told_where_the_browser_client_is() -> None:
    (told,) = {spec.environ["SOCKETCLUSTER_CLIENT_FILES"] for spec in planned(workers=2).workers}
    assert all((Path(told) / name).is_file() for name in NAMES)


@pytest.mark.parametrize("given", [[9100, 9101], (9100, 9101), "9100,9101", " 9100 , 9101,"])
def test_workers_and_stores_as_ports(given: object) -> None:
    made = planned(workers=given, stores=given)
    assert [spec.environ["SOCKETCLUSTER_HTTP_LISTEN"] for spec in made.workers] == ["127.0.0.1:9100", "127.0.0.1:9101"]
    assert [spec.environ["SOCKETCLUSTER_LISTEN"] for spec in made.stores] == ["127.0.0.1:9100", "127.0.0.1:9101"]
    assert made.workers[1].environ["SOCKETCLUSTER_STORES"] == "127.0.0.1:9100,127.0.0.1:9101"
    assert {spec.environ["SOCKETCLUSTER_STREAM_LISTEN"] for spec in made.stores} == {
        "127.0.0.1:0"
    }  # no port of another
    assert all("SOCKETCLUSTER_STREAM_LISTEN" not in spec.environ for spec in planned(stores=2).stores)


def test_the_store_controller_is_the_one_named_or_beside_the_other(tmp_path: Path) -> None:
    def found(**options: Any) -> str | None:
        (store,) = planned(worker_controller=tmp_path / "controller.py", **options).stores
        return store.environ.get("SOCKETCLUSTER_STORE_CONTROLLER")

    assert found() is None
    (tmp_path / "store_controller.py").touch()
    assert found() == str(tmp_path / "store_controller.py")
    assert found(store_controller="other.py") == str(Path("other.py").absolute())


def test_the_balancer_controller_is_the_one_named_or_beside_the_other(tmp_path: Path) -> None:
    def found(**options: Any) -> str | None:
        (balancer,) = planned(worker_controller=tmp_path / "controller.py", **options).balancers
        return balancer.environ.get("SOCKETCLUSTER_BALANCER_CONTROLLER")

    assert found() is None
    (tmp_path / "balancer_controller.py").touch()
    assert found() == str(tmp_path / "balancer_controller.py")
    assert found(balancer_controller="other.py") == str(Path("other.py").absolute())


def test_the_processes_find_each_other() -> None:
    made = planned(workers=2, stores=2)
    assert made.balancers[0].environ["SOCKETCLUSTER_WORKERS"] == ",".join(
        spec.environ["SOCKETCLUSTER_CONTROL_LISTEN"] for spec in made.workers
    )
    for worker in made.workers:
        assert worker.environ["SOCKETCLUSTER_STORES"] == ",".join(
            spec.environ["SOCKETCLUSTER_LISTEN"] for spec in made.stores
        )
    for spec in (*made.balancers, *made.workers, *made.stores):
        assert spec.environ["SOCKETCLUSTER_NAME"] == spec.name
        assert spec.environ["SOCKETCLUSTER_PARENT"] == str(os.getpid())
        assert spec.environ["NOTIFY_SOCKET"] == "/run-dir/notify.sock"


def test_each_process_has_a_port_of_its_own_for_its_metrics() -> None:
    made = planned(workers=2, stores=1, balancers=2, metrics_port=9300)
    specs = (*made.balancers, *made.workers, *made.stores)
    assert [spec.environ["SOCKETCLUSTER_METRICS_LISTEN"] for spec in specs] == [
        f"127.0.0.1:{port}" for port in range(9300, 9305)
    ]
    assert not any("SOCKETCLUSTER_METRICS_LISTEN" in spec.environ for spec in planned(stores=1).stores)


def test_an_option_goes_to_the_services_that_know_it() -> None:
    made = planned(session_timeout=60, head_timeout=3.5, max_http_buffer_size=2000, drain_timeout=1, app_name="chat")
    assert made.stores[0].environ["SOCKETCLUSTER_SESSION_TIMEOUT"] == "60"
    assert made.balancers[0].environ["SOCKETCLUSTER_HEAD_TIMEOUT"] == "3.5"
    assert made.workers[0].environ["SOCKETCLUSTER_MAX_HTTP_BUFFER_SIZE"] == "2000"
    assert "SOCKETCLUSTER_SESSION_TIMEOUT" not in made.workers[0].environ
    assert "SOCKETCLUSTER_HEAD_TIMEOUT" not in made.stores[0].environ
    for spec in (made.balancers[0], made.workers[0]):
        assert spec.environ["SOCKETCLUSTER_DRAIN_TIMEOUT"] == "1"
    for spec in (made.balancers[0], made.workers[0], made.stores[0]):
        assert spec.environ["SOCKETCLUSTER_APP_NAME"] == "chat"


def test_each_service_accepts_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(workers=1, stores=[9200], session_timeout=60, handoff=False, log_format="json", log_level="error")
    for service, spec in (
        (BalancerSettings, made.balancers[0]),
        (WorkerSettings, made.workers[0]),
        (StoreSettings, made.stores[0]),
    ):
        with monkeypatch.context() as patch:
            for name, value in spec.environ.items():
                patch.setenv(name, value)
            patch.delenv("SOCKETCLUSTER_PARENT")  # taken by the lifecycle, before the settings are read
            settings = service.load()
        assert settings.name == spec.name
        assert (settings.log_format, settings.log_level) == ("json", "error")
        if isinstance(settings, BalancerSettings):
            assert settings.handoff is False
            assert settings.listen_fd == 10
            assert settings.tls_ticket_dir is not None
        if isinstance(settings, StoreSettings):
            assert settings.session_timeout == 60
            assert settings.listen == "127.0.0.1:9200"


def test_argument_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> Mapping[str, str]:
        return planned().stores[0].environ

    assert "SOCKETCLUSTER_SESSION_TIMEOUT" not in told()
    assert told()["LOG_LEVEL"] == "info"
    monkeypatch.setenv("SOCKETCLUSTER_SESSION_TIMEOUT", "70")
    monkeypatch.setenv("SOCKETCLUSTER_WORKERS", "9100,9101,9102")
    monkeypatch.setenv("LOG_LEVEL", "error")
    assert told()["SOCKETCLUSTER_SESSION_TIMEOUT"] == "70"
    assert told()["LOG_LEVEL"] == "error"
    assert len(planned().workers) == 3
    made = planned(session_timeout=80, workers=1, log_level="debug")
    assert made.stores[0].environ["SOCKETCLUSTER_SESSION_TIMEOUT"] == "80"
    assert made.stores[0].environ["LOG_LEVEL"] == "debug"
    assert len(made.workers) == 1
    # the launcher's own variables mean something else to a balancer, and nothing to a store
    assert made.balancers[0].environ["SOCKETCLUSTER_WORKERS"] == "unix:/run-dir/worker-0.sock"
    assert "SOCKETCLUSTER_WORKERS" not in made.stores[0].environ


def test_what_systemd_tells_the_launcher_is_not_for_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("MY_OWN", "kept")
    environ = planned().workers[0].environ
    assert "LISTEN_FDS" not in environ
    assert environ["MY_OWN"] == "kept"


def test_the_secret_is_a_file_unless_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ = planned(data_dir=tmp_path).workers[0].environ
    assert environ["SOCKETCLUSTER_SECRET_FILE"] == str(tmp_path / "secret")
    assert "SOCKETCLUSTER_SECRET" not in environ
    monkeypatch.setenv("SOCKETCLUSTER_SECRET", "0123456789abcdef")
    environ = planned(data_dir=tmp_path).workers[0].environ
    assert environ["SOCKETCLUSTER_SECRET"] == "0123456789abcdef"
    assert "SOCKETCLUSTER_SECRET_FILE" not in environ


def test_https_is_three_options_of_the_balancers() -> None:
    options = {"cert": "a.crt", "key": Path("a.key"), "passphrase": "open sesame"}
    made = planned(protocol="https", protocol_options=options)
    assert {made.balancers[0].environ[f"SOCKETCLUSTER_TLS_{name.upper()}"] for name in options} == {
        "a.crt",
        "a.key",
        "open sesame",
    }
    assert "SOCKETCLUSTER_TLS_CERT" not in made.workers[0].environ
    assert "SOCKETCLUSTER_TLS_CERT" not in planned(protocol="http").balancers[0].environ
    assert planned(protocol="https", tls_cert="b.pem").balancers[0].environ["SOCKETCLUSTER_TLS_CERT"] == "b.pem"


def test_a_secret_may_be_in_a_file_instead() -> None:
    options = {"cert": "a.crt", "passphrase_file": Path("a.pass")}
    made = planned(protocol="https", protocol_options=options, auth_key_file="a.key")
    assert made.balancers[0].environ["SOCKETCLUSTER_TLS_PASSPHRASE_FILE"] == "a.pass"
    assert made.workers[0].environ["SOCKETCLUSTER_AUTH_KEY_FILE"] == "a.key"
    for said in (
        failure("--auth-key", "hush", "--auth-key-file", "a.key"),
        failure("--tls-cert", "a.crt", "--tls-passphrase", "hush", "--tls-passphrase-file", "a.pass"),
    ):
        assert re.fullmatch(r"socketcluster: (\w+) and \1_file are both set: give one of them\n", said)


def test_every_service_is_told_of_tls_between_them() -> None:
    files = {"rpc_tls_cert": Path("a.crt"), "rpc_tls_key": "a.key", "rpc_tls_ca": "/ca.crt"}
    made = planned(**files, rpc_tls_name="chat")
    for spec in (*made.balancers, *made.workers, *made.stores):
        told = {name: value for name, value in spec.environ.items() if "_RPC_TLS_" in name}
        assert told == {
            "SOCKETCLUSTER_RPC_TLS_CERT": f"{Path.cwd()}/a.crt",
            "SOCKETCLUSTER_RPC_TLS_KEY": f"{Path.cwd()}/a.key",
            "SOCKETCLUSTER_RPC_TLS_CA": "/ca.crt",
            "SOCKETCLUSTER_RPC_TLS_NAME": "chat",
        }
    assert not [name for name in planned().workers[0].environ if "_RPC_TLS_" in name]
    said = failure("--rpc-tls-cert", "a.crt", "--rpc-tls-ca", "ca.crt")
    assert said == "socketcluster: rpc_tls_cert, rpc_tls_key and rpc_tls_ca belong together: rpc_tls_key is not set\n"
