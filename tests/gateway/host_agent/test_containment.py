"""What this host can hold, it holds; what it cannot, it says and refuses. So the same tests say something of
a host with control groups and of one without."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault
from tests.gateway.host_agent.host import Host, open_host, processes_of

pytestmark = pytest.mark.slow  # real processes throughout

WIPED = "env -i setsid bash -c 'echo $$ > pid; echo away; trap \"\" HUP TERM; while :; do sleep 0.1; done' & "


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as host:
        yield host


async def refused_for(host: Host, limits: dict[str, Any]) -> str:
    with pytest.raises(Refused) as refused:
        await host.start(limits=limits)
    assert refused.value.fault == Fault.NOT_STARTED
    return refused.value.message


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_an_escapee_that_wiped_its_environment(host: Host) -> None:
    """Neither group nor marker finds it; only a control group does."""
    ended = await host.run(WIPED + "while [ ! -s pid ]; do sleep 0.01; done; sleep 0.1")
    pid = int((host.directory / "workspaces/s/pid").read_text())
    is_held = host.execs.capabilities()["containment"] != "process_group"
    try:
        assert (ended["returncode"], is_alive(pid)) == (0, not is_held)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_fork_bomb_within_its_limit(host: Host) -> None:
    limits = {"pids": 30}
    if not host.execs.capabilities()["can_limit_pids"]:
        assert "limits.pids" in await refused_for(host, limits)
        return
    bomb = await host.start(
        "bomb() { bomb | bomb & }; bomb; echo lit; sleep 300", limits=limits, timeout_s=1.5, kill_grace_s=0
    )
    for _ in range(3):
        assert (await host.run("echo calm"))["out"] == b"calm\n"
    assert len(processes_of(bomb)) <= 30
    assert (await host.ended(bomb))["ended_by"] in ("timeout", "itself")
    assert processes_of(bomb) == []


async def test_memory_hog_is_out_of_memory_and_the_agent_is_not(host: Host) -> None:
    limits = {"memory_mb": 60}
    hog = ["python3", "-c", "x = bytearray(200_000_000); print(len(x))"]
    if not host.execs.capabilities()["can_limit_memory"]:
        assert "limits.memory_mb" in await refused_for(host, limits)
        return
    ended = await host.run(argv=hog, limits=limits)
    assert (ended["ended_by"], ended["returncode"]) == ("oom", -signal.SIGKILL)
    assert ended["oom_kills"] >= 1
    assert 40 < ended["max_rss_mb"] < 70
    assert (await host.run(argv=hog))["out"] == b"200000000\n"


async def test_a_child_that_was_out_of_memory(host: Host) -> None:
    """One that deals with it ended by itself; one that fails for it was out of memory."""
    if not host.execs.capabilities()["can_limit_memory"]:
        assert "limits.memory_mb" in await refused_for(host, {"memory_mb": 60})
        return
    hog = "python3 -c 'bytearray(200_000_000)'"
    survived = await host.run(f"{hog} || true", limits={"memory_mb": 60})
    assert (survived["ended_by"], survived["returncode"], survived["oom_kills"]) == ("itself", 0, 1)
    failed = await host.run(f"{hog}; exit $?", limits={"memory_mb": 60})
    assert (failed["ended_by"], failed["returncode"]) == ("oom", 137)


async def test_peak_memory_is_of_all_processes_without_the_file_cache(host: Host) -> None:
    if not host.execs.capabilities()["can_limit_memory"]:
        assert (await host.run("true"))["oom_kills"] is None
        return
    hog = "python3 -c 'x = bytearray(80_000_000); print(1, flush=True); input()'"
    until_told = "< <(until [ -e go ]; do sleep 0.05; done)"
    exec_id = await host.start(
        f"{hog} {until_told} & {hog} {until_told} & wait; head -c 300000000 /dev/zero > big"
    )
    await host.printed(exec_id, b"1\n1\n")
    assert host.execs.usage()[exec_id]["rss_mb"] > 150
    await host.run("touch go")
    ended = await host.ended(exec_id)
    assert 150 < ended["max_rss_mb"] < 300


async def test_cpu_is_held_to_its_share(host: Host) -> None:
    limits = {"cpu_max": 0.2}
    if not host.execs.capabilities()["can_limit_cpu"]:
        assert "limits.cpu_max" in await refused_for(host, limits)
        return
    ended = await host.run("while :; do :; done", limits=limits, timeout_s=1.5, kill_grace_s=0)
    assert 0 < ended["cpu_s"] < 0.5 * ended["run_s"]


async def test_cpu_is_of_all_processes(host: Host) -> None:
    spin = "python3 -c 'import time\nwhile time.process_time() < 0.2: pass'"
    ended = await host.run(f"{spin} & {spin} & wait")
    assert ended["cpu_s"] >= 0.4


async def test_the_largest_file_is_held(host: Host) -> None:
    ended = await host.run("head -c 3000000 /dev/zero > big", limits={"fsize_mb": 1})
    assert ended["returncode"] == 128 + signal.SIGXFSZ
    assert (host.directory / "workspaces/s/big").stat().st_size == 1_000_000


async def test_without_control_groups_limits_are_refused(tmp_path: Path) -> None:
    async with open_host(tmp_path, cgroups=False) as host:
        assert host.execs.capabilities()["containment"] == "process_group"
        for name, value in {"memory_mb": 100, "pids": 10, "cpu_max": 1.5}.items():
            assert f"limits.{name}: " in await refused_for(host, {name: value})
        assert (await host.run(limits={"cpu_weight": 2.0}))["returncode"] == 0


async def test_no_group_is_left(host: Host) -> None:
    ended = await host.run("sleep 300 & true", limits={"cpu_weight": 3.0})
    assert groups_called(ended["exec"]) == []


def groups_called(name: str) -> list[Path]:
    mounts = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line}
    found = (Path(folder) for mount in mounts for folder, _, _ in os.walk(mount))  # Others' come and go.
    return [path for path in found if path.name == name]
