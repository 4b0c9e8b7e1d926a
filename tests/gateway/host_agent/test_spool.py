"""Pipes and files alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.spool import PIECE_BYTES, Pump, Spool
from gateway.host_agent.wire import Op
from tests.gateway.host_agent.host import open_host


@pytest.fixture
async def pump() -> AsyncIterator[Pump]:
    pump = Pump()
    yield pump
    assert len(pump) == 0


async def test_the_cap_is_exact_and_so_is_the_count(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 10)
    channel, write_fd = pump.open(spool)
    for piece in (b"12345", b"67890ab", b"cd"):
        os.write(write_fd, piece)
        await asyncio.sleep(0)
    channel.finish()
    os.close(write_fd)
    assert (spool.total_bytes, spool.kept_bytes, spool.read(0, 100)) == (14, 10, b"1234567890")
    assert (spool.is_complete, spool.is_full, spool.is_eof(9), spool.is_eof(10)) == (True, False, False, True)


async def test_one_piece_a_turn(pump: Pump, tmp_path: Path) -> None:
    """However much is waiting, a loud stream and a quiet one get a turn each."""
    loud, quiet = Spool(tmp_path / "loud", 1 << 30), Spool(tmp_path / "quiet", 100)
    ends = [pump.open(loud), pump.open(quiet)]
    os.set_blocking(ends[0][1], False)
    os.write(ends[0][1], b"x" * (1 << 20))
    os.write(ends[1][1], b"q")
    await quiet.readable(0, 60)
    assert PIECE_BYTES <= loud.total_bytes < 4 * PIECE_BYTES
    for channel, write_fd in ends:
        channel.finish()
        os.close(write_fd)


async def test_a_reader_waits_for_more_and_for_the_end(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 100)
    channel, write_fd = pump.open(spool)
    await spool.readable(0, 0.01)
    assert spool.kept_bytes == 0
    async with asyncio.TaskGroup() as group:
        group.create_task(spool.readable(0, 60))
        group.create_task(spool.readable(0, 60))
        await asyncio.sleep(0.01)
        os.write(write_fd, b"x")
    assert spool.read(0, 10) == b"x"
    async with asyncio.TaskGroup() as group:
        group.create_task(spool.readable(1, 60))
        await asyncio.sleep(0.01)
        channel.finish()
    os.close(write_fd)
    assert spool.is_eof(1)


async def test_who_still_holds_the_pipe_delays_nobody(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 100)
    channel, write_fd = pump.open(spool)
    with subprocess.Popen(["yes"], stdout=write_fd) as writer:  # noqa: ASYNC220 - it does not wait
        await spool.readable(0, 60)
        channel.finish()
        total = spool.total_bytes
        os.close(write_fd)
        assert writer.wait(60) == -signal.SIGPIPE
    assert (spool.total_bytes, spool.is_complete) == (total, True)


async def test_after_the_end_of_output_writers_go_on_unheard(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 100)
    channel, write_fd = pump.open(spool)
    os.write(write_fd, b"heard")
    channel.end_of_output()
    os.set_blocking(write_fd, False)
    for _ in range(30):
        os.write(write_fd, b"x" * 60_000)
        await asyncio.sleep(0)
    assert (spool.total_bytes, spool.read(0, 100)) == (5, b"heard")
    os.close(write_fd)
    await channel.hung_up(60)
    assert channel.is_hung_up
    channel.close()


async def test_a_file_that_went_reads_as_empty(pump: Pump, tmp_path: Path) -> None:
    spool = Spool.of_ended(tmp_path / "none", 10, 5)
    assert (spool.read(0, 5), spool.is_eof(5), spool.total_bytes) == (b"", True, 10)


@pytest.fixture
def small_files() -> Iterator[int]:
    """Nothing that we write may be larger, which is answered as by a full disk."""
    most = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    yield most
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_keeps_what_there_is_and_the_command_goes_on(
    tmp_path: Path, small_files: int
) -> None:
    async with open_host(tmp_path) as host:
        ended = await host.run("head -c 300000 /dev/zero; echo after >&2; exit 3")
        assert (ended["returncode"], ended["err"]) == (3, b"after\n")
        assert ended["stdout"] == (300_000, small_files)
        assert ended["is_spool_full"]
        assert not (await host.run("echo x"))["is_spool_full"]


@contextlib.contextmanager
def small_disk(at: Path, size_bytes: int) -> Iterator[bool]:
    """Yields whether we may mount one."""
    at.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(at)]
    is_mounted = subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(at)], check=True)


async def test_on_a_full_disk_the_end_is_still_written_down(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2_000_000) as is_small:
        async with open_host(tmp_path / "disk") as host:
            ended = await host.run("head -c 5000000 /dev/zero; exit 3", output={"max_bytes": 1 << 30})
        async with open_host(tmp_path / "disk") as host:
            again = await host.ended(ended["exec"])
            assert (again["returncode"], again["stdout"]) == (3, ended["stdout"])
            total, kept = ended["stdout"]
            assert (total, ended["is_spool_full"], kept < total) == (5_000_000, is_small, is_small)
            assert len(await host.output(ended["exec"])) == kept > 1_000_000
            if is_small:
                with pytest.raises(Refused, match="No space left"):
                    await host.start("true", exec="ex-1")
                await host.ask(Op.FORGET, exec=ended["exec"])
            assert (await host.run("true", exec="ex-1"))["returncode"] == 0
