"""Orphans, in a process of their own: who adopts them must reap all, and this one has children of others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from gateway.host_agent.process_use import stat_fields
from tests.gateway.host_agent.host import open_host

def children():
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (fields := stat_fields(pid)) and int(fields[1]) == os.getpid()]

async def main():
    async with open_host(Path(sys.argv[1])) as host:
        assert host.execs.capabilities()["adopts_orphans"]
        kept = await host.start("setsid sleep 0.2 & setsid sleep 300 & true", on_exit="keep")
        assert (await host.ended(kept))["returncode"] == 0
        while len(children()) != 1:
            await asyncio.sleep(0.02)
        leader = await host.start("(setsid sleep 0.1 &) ; sleep 0.5; exit 7")
        assert (await host.ended(leader))["returncode"] == 7
        assert len(children()) == 1
        await host.execs.end_session("s")
        while children():
            await asyncio.sleep(0.02)
        assert host.execs.running == 0
        released = await host.start("sleep 0.2 & true", on_exit="keep")
        await host.ended(released)
        while host.execs.running:
            await asyncio.sleep(0.02)
    print("reaped", flush=True)

asyncio.run(main())
"""


async def test_orphans_are_reaped_and_leaders_are_not(tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path),
        str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(program.communicate(), 60)
    assert (out, program.returncode) == (b"reaped\n", 0), err.decode()
