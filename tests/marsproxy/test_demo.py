"""The demonstration, as small as it goes: it ends, says where the report is, and leaves nothing running."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest


@pytest.mark.slow
async def test_a_small_demonstration(tmp_path: Path) -> None:
    """Two sessions against both targets."""
    out = tmp_path / "out"
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "marsproxy", "demo", "--sessions", "2", "--out", str(out)),
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(110):
        said = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, said
    assert await asyncio.to_thread(lambda: list(out.rglob("report.html"))), said
    for line in said.splitlines():
        what, _, url = line.partition(": http://127.0.0.1:")
        if url and what in ("proxy", "tool gateway"):
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection("127.0.0.1", int(url.split("/")[0]))
