"""What the parts may know of each other, and the rules that every file keeps."""

from __future__ import annotations

import ast
import re

import pytest
from support.sources import ROOT, circle_in, import_graph, imported, imports, modules, sources, those_of, tracked

SERVICES = ("balancer", "store", "worker")
SERVICE_PACKAGES = {f"socketcluster_{service}" for service in SERVICES}
IO_MODULES = {"asyncio", "grpc", "logging", "select", "selectors", "socket", "ssl", "structlog", "threading", "uvloop"}
SOCKETS = "socketcluster_worker.api.sockets"
MAX_LINES = 500
MAX_FILES = 14
"""Python files of a folder, beside ``__init__.py``."""
WIRE_PROTOCOLS = {f"socketcluster_wire.{name}" for name in ("engineio", "socketcluster", "socketio", "websocket")}
PACKAGES = ("libs/wire", "libs/runtime", "libs/store_client", *(f"services/{name}" for name in SERVICES), "cluster")
CIRCLES = {
    (f"{SOCKETS}.socket", f"{SOCKETS}.namespace"): "a socket gives controllers its namespace, which has its sockets",
    (f"{SOCKETS}.socket", f"{SOCKETS}.session"): "a socket gives controllers its session, which has its sockets",
}
"""Imports that close a circle, each with the reason for which it stays."""
ONE_SCRIPT_TAG = {"clients/js/socketcluster.js"}
"""Longer than the limit, because a page loads it with one tag and nothing builds it."""


# Who imports whom.


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b as c, d
from e.f import g, h
from . import i
def late():
    from j import *
    if late:
        import importlib
        importlib.import_module("k.l")
    class Inner:
        __import__("m")
"""
    found = {"a.b", "d", "e.f.g", "e.f.h", "j.*", "importlib", "k.l", "m"}
    assert set(imports(source)) == found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_service_and_not_the_cluster(service: str) -> None:
    found = imported(f"services/{service}")
    assert those_of(found, SERVICE_PACKAGES - {f"socketcluster_{service}"} | {"socketcluster"}) == []
    assert those_of(found, {f"socketcluster_{service}"})  # so the search finds something


@pytest.mark.parametrize("folder", ["libs", "proto"])
def test_what_is_shared_imports_no_service(folder: str) -> None:
    assert those_of(imported(folder), SERVICE_PACKAGES | {"socketcluster"}) == []


def test_the_wire_library_does_no_io() -> None:
    found = imported("libs/wire")
    assert those_of(found, IO_MODULES | {"socketcluster_runtime", "socketcluster_proto"}) == []


def test_what_controllers_see_knows_no_wire_protocol() -> None:
    found = imported("services/worker/socketcluster_worker/api")
    named = {f"{path} imports {name}" for path, name in found if ".".join(name.split(".")[:2]) in WIRE_PROTOCOLS}
    assert named == set()


def test_the_cluster_knows_of_the_services_only_their_settings() -> None:
    found = imported("cluster")
    of_services = {(path, name) for path, name in found if name.split(".")[0] in SERVICE_PACKAGES}
    assert [f"{path} imports {name}" for path, name in of_services if name.split(".")[1:2] != ["settings"]] == []
    assert {name.split(".")[0] for _, name in of_services} == SERVICE_PACKAGES


# Circles.


def test_a_circle_of_imports_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    graph = import_graph(modules("libs/wire"))
    assert "socketcluster_wire.errors" in graph["socketcluster_wire.engineio"]


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_modules_import_each_other(folder: str) -> None:
    graph = import_graph(modules(folder))
    allowed = {edge for edge in CIRCLES if edge[0] in graph}
    without = {name: targets - {to for by, to in allowed if by == name} for name, targets in graph.items()}
    assert circle_in(without) == []
    for by, to in allowed:  # an exception that is no longer needed goes
        assert to in graph[by], f"{by} does not import {to}"
        assert circle_in({**without, by: without[by] | {to}}), f"{by} may import {to}"


# Files.


def too_long() -> dict[str, int]:
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in tracked()
        if name.endswith((".py", ".js")) and not re.search(r"_pb2(_grpc)?\.py$", name)
    }
    assert lengths
    return {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_no_source_file_is_over_500_lines() -> None:
    over = too_long()
    assert {name: lines for name, lines in over.items() if name not in ONE_SCRIPT_TAG} == {}
    assert over.keys() == ONE_SCRIPT_TAG  # an exception that is no longer needed goes


@pytest.mark.parametrize("folder", [*PACKAGES, "proto", "bench", "tests/support"])
def test_no_folder_has_more_files_than_one_looks_through(folder: str) -> None:
    in_each: dict[str, int] = {}
    for path in sources(folder):
        if path.name != "__init__.py":
            name = str(path.parent.relative_to(ROOT))
            in_each[name] = in_each.get(name, 0) + 1
    assert {name: files for name, files in in_each.items() if files > MAX_FILES} == {}


@pytest.mark.parametrize("folder", PACKAGES)
def test_each_folder_says_what_lives_there_and_what_may_be_imported(folder: str) -> None:
    packages = [path for path in sources(folder) if path.name == "__init__.py"]
    texts = {str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())) or "" for path in packages}
    assert packages
    assert [name for name, text in texts.items() if not re.fullmatch(r"[^\n]+\.\n\n\S.*", text, re.DOTALL)] == []


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_made_of_its_own_service_only(service: str) -> None:
    dockerfile = (ROOT / "services" / service / "Dockerfile").read_text()
    assert set(re.findall(r"\bservices/([\w.*-]*)", dockerfile)) == {service}
    assert not re.search(r"\bservices(?!/\w)", dockerfile)  # the folder as a whole
    assert set(re.findall(r"\bsocketcluster_(\w+)", dockerfile)) == {service}
    assert set(re.findall(r"requirements/(\w+)\.txt", dockerfile)) == {service, "build"}
    assert not re.search(r"^(COPY|ADD)\s+(--\S+\s+)*\.\s", dockerfile, re.MULTILINE)  # the repository as a whole


def test_every_folder_of_a_service_is_looked_at() -> None:
    assert {path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists()} == set(SERVICES)
