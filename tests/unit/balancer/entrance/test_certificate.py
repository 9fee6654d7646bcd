"""The certificate that clients are shown, read at the start and again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from support.balancer.bench import Bench, LogLines
from support.balancer.clients import GET, connected, trusting
from support.network import certificates

from socketcluster_runtime.errors import SettingsError


async def test_a_new_certificate_is_for_the_clients_to_come(
    bench: Bench, files: certificates.Files, tmp_path: Path
) -> None:
    worker = await bench.worker("aaaaaaaa")
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        writer.write(b"still here")
        writer.close()

    worker.serve = serve
    await bench.start(worker, tls_cert=files.cert, tls_key=files.key)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        await bench.until(lambda: bench.relays == 1)
        second = certificates.make(tmp_path, "second")
        second.cert.replace(files.cert)
        with pytest.raises(SettingsError, match="tls_key: the key does not belong"):  # it is not there yet
            bench.reload_certificate()
        second.key.replace(files.key)
        said = bench.reload_certificate()
        assert said is not None
        assert said.startswith("CN=second, until ")
        async with connected(bench, trusting(files)) as (_, renewed):
            subject = dict(pair for part in renewed.get_extra_info("peercert")["subject"] for pair in part)
        assert subject["commonName"] == "second"
        go_on.set()
        assert await reader.read() == b"still here"


async def test_a_passphrase_s_file_is_read_again_with_the_certificate(bench: Bench, tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "first", "open sesame")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker, tls_cert=files.cert, tls_key=files.key, tls_passphrase_file=passphrase)
    second = certificates.make(tmp_path, "second", "another one")
    second.cert.replace(files.cert)
    second.key.replace(files.key)
    with pytest.raises(SettingsError, match="tls_passphrase: it does not open"):  # it is not there yet
        bench.reload_certificate()
    passphrase.write_text("another one\n")
    bench.reload_certificate()
    async with connected(bench, trusting(files)) as (_, renewed):
        subject = dict(pair for part in renewed.get_extra_info("peercert")["subject"] for pair in part)
    assert subject["commonName"] == "second"


async def test_the_end_of_a_certificate_is_told_at_the_start_and_after_reading_again(
    bench: Bench, tmp_path: Path, log_lines: LogLines
) -> None:
    authority = certificates.Authority(tmp_path)
    cert, key = authority.issue("own", days=100)
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=cert, tls_key=key)
    assert log_lines(logging.WARNING) == []
    for days, said in ((13, "a certificate expires soon"), (-1, "a certificate has expired, and is not accepted")):
        authority.issue("own", days=days)
        bench.reload_certificate()
        assert log_lines(logging.WARNING)[-1] == said
