import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.spool import Pump, Spool


@pytest.fixture
async def pump() -> AsyncIterator[Pump]:
    pump = Pump()
    yield pump
    pump.stop()


async def test_keeps_the_head_and_counts_the_rest(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "out", max_bytes=10)
    channel, write_fd = pump.open(spool)
    os.write(write_fd, b"0123456789abcdef")
    await pump.finish(channel)
    os.close(write_fd)
    assert (spool.kept_bytes, spool.total_bytes, spool.is_truncated) == (10, 16, True)
    assert spool.read(4, 100) == b"456789"
    assert spool.is_eof(10)
    assert not spool.is_eof(9)


async def test_finish_does_not_wait_for_other_writers(pump: Pump, tmp_path: Path) -> None:
    """What is in the pipe is taken; a writer that stays gets EPIPE."""
    spool = Spool(tmp_path / "out", max_bytes=100)
    channel, write_fd = pump.open(spool)
    os.write(write_fd, b"last words")
    await pump.finish(channel)
    assert spool.read(0, 100) == b"last words"
    with pytest.raises(BrokenPipeError):
        os.write(write_fd, b"x")
    os.close(write_fd)
    assert len(pump) == 0


async def test_hung_up_pipe_finishes(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "out", max_bytes=100)
    channel, write_fd = pump.open(spool)
    os.write(write_fd, b"bye")
    os.close(write_fd)
    await spool.readable(0, 20)
    assert not spool.is_complete
    await pump.finish(channel)
    assert spool.is_complete
    assert spool.read(0, 100) == b"bye"


async def test_reader_wakes_on_output_and_on_completion(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "out", max_bytes=100)
    channel, write_fd = pump.open(spool)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(spool.readable(0, 60))
        await asyncio.sleep(0)
        os.write(write_fd, b"a")
    assert reader.done()
    assert spool.read(0, 100) == b"a"
    async with asyncio.TaskGroup() as group:
        group.create_task(spool.readable(1, 60))
        await asyncio.sleep(0)
        group.create_task(pump.finish(channel))
    assert spool.is_complete
    os.close(write_fd)


async def test_reader_times_out(pump: Pump, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "out", max_bytes=100)
    await spool.readable(0, 0.01)
    assert not spool.is_complete


async def test_full_disk_keeps_what_fits_and_stalls_nobody(pump: Pump, tmp_path: Path) -> None:
    """A limit on the file's size stands in for the full disk: the write fails after a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    spool = Spool(tmp_path / "out", max_bytes=1 << 20)
    channel, write_fd = pump.open(spool)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        for _ in range(3):
            os.write(write_fd, b"x" * 50_000)
        await pump.finish(channel)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        os.close(write_fd)
    assert (spool.kept_bytes, spool.total_bytes, spool.is_truncated) == (100, 150_000, True)


async def test_no_descriptor_is_left(pump: Pump, tmp_path: Path, open_fds: Callable[[], int]) -> None:
    before = open_fds()
    for number in range(20):
        channel, write_fd = pump.open(Spool(tmp_path / str(number), 10))
        os.close(write_fd)
        await pump.finish(channel)
    assert open_fds() == before


async def test_many_streams_at_once(pump: Pump, tmp_path: Path) -> None:
    spools = [Spool(tmp_path / str(n), 1 << 20) for n in range(50)]
    opened = [pump.open(spool) for spool in spools]
    for number, (_, write_fd) in enumerate(opened):
        os.write(write_fd, str(number).encode() * 1000)
        os.close(write_fd)
    await asyncio.gather(*(pump.finish(channel) for channel, _ in opened))
    assert [spool.read(0, 1 << 20) for spool in spools] == [str(n).encode() * 1000 for n in range(50)]
