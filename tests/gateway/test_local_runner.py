"""Real processes."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.local_runner import LocalRunner
from gateway.runner import EndedBy, Exit, RunOrder, StartError
from gateway.spool import Pump, Spool

ProcessesOf = Callable[[str], list[int]]


@pytest.fixture
async def runner() -> AsyncIterator[LocalRunner]:
    pump = Pump()
    runner = LocalRunner(pump)
    yield runner
    await runner.close()
    assert len(pump) == 0
    pump.stop()


class Run:
    """One order, with what came of it."""

    def __init__(self, runner: LocalRunner, directory: Path, **fields: Any) -> None:
        self.exec_id = f"ex-test-{os.urandom(4).hex()}"
        self.started = asyncio.Event()
        self.stop: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        max_bytes = fields.pop("max_bytes", 1 << 20)
        self.stdout = Spool(directory / f"{self.exec_id}.out", max_bytes)
        self.stderr = Spool(directory / f"{self.exec_id}.err", max_bytes)
        command = fields.pop("command", "true")
        merge = fields.pop("merge", False)
        self.order = RunOrder(
            exec_id=self.exec_id,
            argv=fields.pop("argv", ("bash", "-c", command)),
            cwd=fields.pop("cwd", str(directory)),
            env={"PATH": os.environ["PATH"], **fields.pop("env", {})},
            stdin=fields.pop("stdin", b""),
            timeout_s=fields.pop("timeout_s", 30),
            kill_grace_s=fields.pop("kill_grace_s", 5),
            stdout=self.stdout,
            stderr=None if merge else self.stderr,
        )
        assert not fields
        self._runner = runner

    async def __call__(self) -> Exit:
        return await self._runner.run(self.order, self.started.set, self.stop)

    async def until_printed(self, text: bytes) -> None:
        while text not in self.stdout.read(0, 1 << 20):
            assert not self.stdout.is_complete
            await self.stdout.readable(self.stdout.kept_bytes, 20)


@pytest.fixture
def make_run(runner: LocalRunner, tmp_path: Path) -> Callable[..., Run]:
    return lambda **fields: Run(runner, tmp_path, **fields)


MakeRun = Callable[..., Run]


async def test_output_and_exit_code(make_run: MakeRun) -> None:
    run = make_run(command="echo out; echo err >&2; exit 3")
    exit_ = await run()
    assert (exit_.by, exit_.returncode) == (EndedBy.ITSELF, 3)
    assert run.stdout.read(0, 100) == b"out\n"
    assert run.stderr.read(0, 100) == b"err\n"


def own_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_usage_is_measured(make_run: MakeRun) -> None:
    # A peak below this process's own cannot be told from it, so the command's is above.
    more_than_we_bytes = own_peak_bytes() + 100_000_000
    hog = f"import time; x = bytearray({more_than_we_bytes})\nwhile time.process_time() < 0.1: pass"
    exit_ = await make_run(argv=("python3", "-c", hog))()
    assert exit_.cpu_s is not None
    assert exit_.cpu_s >= 0.1
    assert exit_.max_rss_mb is not None
    assert exit_.max_rss_mb > more_than_we_bytes / 1e6


async def test_small_peak_is_unknown_not_ours(make_run: MakeRun) -> None:
    assert (await make_run(command="true")()).max_rss_mb is None


async def test_died_of_a_signal(make_run: MakeRun) -> None:
    exit_ = await make_run(command="kill -SEGV $$")()
    assert (exit_.by, exit_.returncode) == (EndedBy.ITSELF, -signal.SIGSEGV)


async def test_merged_streams_keep_their_order(make_run: MakeRun) -> None:
    run = make_run(command="echo 1; echo 2 >&2; echo 3", merge=True)
    await run()
    assert run.stdout.read(0, 100) == b"1\n2\n3\n"


async def test_reopening_stderr_keeps_what_was_written(make_run: MakeRun) -> None:
    """On a regular file `> /dev/stderr` would truncate it."""
    run = make_run(command="echo first >&2; echo second > /dev/stderr; echo third > /dev/stderr")
    await run()
    assert run.stderr.read(0, 100) == b"first\nsecond\nthird\n"


async def test_stdin_is_empty_by_default(make_run: MakeRun) -> None:
    run = make_run(command="cat; echo done")
    await run()
    assert run.stdout.read(0, 100) == b"done\n"


async def test_large_stdin_that_nobody_reads(make_run: MakeRun) -> None:
    assert (await make_run(command="true", stdin=b"x" * 2_000_000)()).returncode == 0


async def test_stdin(make_run: MakeRun) -> None:
    run = make_run(command="wc -c", stdin=b"x" * 2_000_000)
    await run()
    assert run.stdout.read(0, 100) == b"2000000\n"


async def test_it_has_no_terminal_and_a_session_of_its_own(make_run: MakeRun) -> None:
    run = make_run(argv=("python3", "-c", "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))"))
    await run()
    assert run.stdout.read(0, 100) == b"True\n"


async def test_its_environment_is_what_was_ordered(make_run: MakeRun) -> None:
    run = make_run(argv=("env",), env={"A": "b c"})
    await run()
    names = {line.split(b"=")[0] for line in run.stdout.read(0, 10_000).splitlines()}
    assert names == {b"PATH", b"A", b"MARS_EXEC_ID"}


async def test_no_descriptor_of_ours_is_inherited(make_run: MakeRun) -> None:
    run = make_run(command="ls /proc/self/fd")
    await run()
    assert run.stdout.read(0, 100).split() == [b"0", b"1", b"2", b"3"]  # 3 is ls reading the directory


@pytest.mark.parametrize(
    ("fields", "exit_code", "reason"),
    [
        ({"argv": ("no-such-program-x",)}, 127, "no such program"),
        ({"argv": ("/etc/passwd",)}, 126, "may not be entered"),
        ({"cwd": "/no/such/directory"}, None, "working directory does not exist"),
    ],
)
async def test_what_cannot_start_is_refused(
    make_run: MakeRun, fields: dict[str, Any], exit_code: int | None, reason: str
) -> None:
    run = make_run(**fields)
    with pytest.raises(StartError, match=reason) as refused:
        await run()
    assert refused.value.exit_code == exit_code
    assert not run.started.is_set()
    assert run.stdout.is_complete


async def test_timeout_ends_the_group_with_grandchildren(
    make_run: MakeRun, processes_of: ProcessesOf
) -> None:
    run = make_run(command="(sleep 300 & sleep 300) & sleep 300", timeout_s=0.2, kill_grace_s=5)
    exit_ = await run()
    assert exit_.by is EndedBy.TIMEOUT
    assert exit_.returncode == -signal.SIGTERM
    assert processes_of(run.exec_id) == []


async def test_timeout_ends_who_ignores_sigterm(make_run: MakeRun, processes_of: ProcessesOf) -> None:
    run = make_run(command="trap '' TERM; while :; do sleep 0.05; done", timeout_s=0.2, kill_grace_s=0.1)
    exit_ = await run()
    assert (exit_.by, exit_.returncode) == (EndedBy.TIMEOUT, -signal.SIGKILL)
    assert processes_of(run.exec_id) == []


async def test_timeout_leaves_time_to_clean_up(make_run: MakeRun) -> None:
    run = make_run(
        command="trap 'echo tidy; exit 0' TERM; echo up; while :; do sleep 0.02; done", timeout_s=0.3
    )
    exit_ = await run()
    assert (exit_.by, exit_.returncode) == (EndedBy.TIMEOUT, 0)
    assert run.stdout.read(0, 100).endswith(b"tidy\n")


async def test_timeout_ends_an_escapee(make_run: MakeRun, processes_of: ProcessesOf) -> None:
    """setsid leaves the process group; the marker finds it."""
    run = make_run(command="setsid bash -c 'trap \"\" HUP TERM; sleep 300' & sleep 300", timeout_s=0.3)
    exit_ = await run()
    assert exit_.by is EndedBy.TIMEOUT
    assert processes_of(run.exec_id) == []


async def test_background_child_with_the_pipe_does_not_delay(
    make_run: MakeRun, processes_of: ProcessesOf
) -> None:
    run = make_run(command="sleep 300 & echo done")
    exit_ = await asyncio.wait_for(run(), 20)
    assert (exit_.by, exit_.returncode) == (EndedBy.ITSELF, 0)
    assert run.stdout.read(0, 100) == b"done\n"
    assert processes_of(run.exec_id) == []


async def test_daemon_ends_with_its_command(make_run: MakeRun, processes_of: ProcessesOf) -> None:
    run = make_run(command="setsid nohup sleep 300 > /dev/null 2>&1 & sleep 0.1")
    await run()
    assert processes_of(run.exec_id) == []


async def test_stop_gives_the_grace_it_carries(make_run: MakeRun, processes_of: ProcessesOf) -> None:
    run = make_run(command="trap '' TERM; echo up; while :; do sleep 0.05; done", kill_grace_s=300)
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(run())
        await run.until_printed(b"up")
        run.stop.set_result(0.05)
    assert (ended.result().by, ended.result().returncode) == (EndedBy.STOP, -signal.SIGKILL)
    assert processes_of(run.exec_id) == []


async def test_stop_before_start_ends_at_once(make_run: MakeRun) -> None:
    run = make_run(command="sleep 300")
    run.stop.set_result(1)
    assert (await run()).by is EndedBy.STOP


async def test_fifty_megabytes_that_nobody_reads(make_run: MakeRun) -> None:
    run = make_run(command="head -c 50000000 /dev/zero", max_bytes=1000)
    exit_ = await asyncio.wait_for(run(), 30)
    assert exit_.returncode == 0
    assert (run.stdout.total_bytes, run.stdout.kept_bytes) == (50_000_000, 1000)
    assert run.stdout.path.stat().st_size == 1000


async def test_output_is_readable_while_it_runs(make_run: MakeRun) -> None:
    run = make_run(command="echo up; sleep 300")
    async with asyncio.TaskGroup() as group:
        group.create_task(run())
        await run.until_printed(b"up")
        run.stop.set_result(0)


async def test_cancelled_at_any_moment_leaves_nothing(make_run: MakeRun, processes_of: ProcessesOf) -> None:
    """Waiting for the end; in the grace; in the clean-up, and once more in it."""
    for moment in range(4):
        run = make_run(command="trap '' TERM; echo up; while :; do sleep 0.05; done", kill_grace_s=300)
        task = asyncio.get_running_loop().create_task(run())
        await run.until_printed(b"up")
        if moment == 1:
            run.stop.set_result(300)
            await asyncio.sleep(0.02)
        task.cancel()
        if moment >= 2:
            for _ in range(moment):
                await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not run.stdout.is_complete:
            await run.stdout.readable(1 << 20, 20)
        assert processes_of(run.exec_id) == []


async def test_no_descriptor_is_left(make_run: MakeRun, open_fds: Callable[[], int]) -> None:
    await make_run()()
    before = open_fds()
    await asyncio.gather(*(make_run(command="echo x")() for _ in range(20)))
    for _ in range(3):
        with pytest.raises(StartError):
            await make_run(argv=("no-such-program-x",))()
    assert open_fds() == before


async def test_no_zombie_is_left(make_run: MakeRun) -> None:
    await asyncio.gather(*(make_run()() for _ in range(5)))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
