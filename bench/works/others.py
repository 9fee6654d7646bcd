"""The balancer beside HAProxy, and the store beside redis-server: what these measurements of their own print."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from bench.reporting.sections import Section
from bench.works.bench import Bench

ROOT = Path(__file__).parents[2]


async def run_balancer(bench: Bench) -> Section:
    """Have the balancer measured."""
    options = bench.options
    arguments: tuple[object, ...] = (
        "--clients",
        options.many(8000),
        "--seconds",
        max(0.5, options.seconds),
        "--rounds",
        options.few,
    )
    arguments += ("--only", "relay") if options.tiny else ()
    return await _print(bench, Section("balancer", "Balancer beside HAProxy", "`make bench-balancer`."), *arguments)


async def run_store(bench: Bench) -> Section:
    """Have the store measured."""
    options = bench.options
    sessions = 0 if options.tiny else options.many(100_000)
    arguments: tuple[object, ...] = ("--seconds", options.seconds, "--rounds", options.few, "--sessions", sessions)
    arguments += ("--only", "lmdb/everysec") if options.tiny else ()
    return await _print(bench, Section("store", "Store beside redis-server", "`make bench-store`."), *arguments)


async def _print(bench: Bench, section: Section, *arguments: object) -> Section:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"bench.{section.key}", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"},
    )
    output, errors = await process.communicate()
    section.output = output.decode()
    for line in errors.decode().splitlines():
        if "is left out" in line:  # a peer is missing
            section.notes.append(line)
    if process.returncode:
        bench.failed(section, f"bench.{section.key}", RuntimeError(errors.decode()[-400:]))
    bench.say(f"  {section.key}: done")
    return section
