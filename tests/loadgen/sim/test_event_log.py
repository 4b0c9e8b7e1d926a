"""The event log of a simulated run: readable, and replayed to the same commands."""

import stat
from pathlib import Path
from typing import Any

import pytest

from loadgen.arrivals import ClosedLoop
from loadgen.errors import LoadgenError
from loadgen.event_log import read_event_log
from loadgen.sim.event_log import EventLogFile, header_of
from loadgen.sim.run import simulate
from loadgen.sim.settings import SimulationSettings, Sizes
from loadgen.sim.tool_hosts import ToolHostShape
from loadgen.source import Workload
from loadgen.workload import Turn
from marsproxy.core.policies import POLICIES, policy_kind
from marsproxy.log_reader import process_logs
from marsproxy.replay import replay
from tests.loadgen.sim.playing import session, tool

WORK = Workload(
    "squeezed",
    [
        session(
            f"s{i}",
            *(Turn(400 + 90 * i, 300, tool(2.0 * i, memory_mb=400)) for _ in range(4)),
            tenant=f"t{i}",
        )
        for i in range(6)
    ],
)


def settings(policy: str = "mars", **fields: Any) -> SimulationSettings:
    return SimulationSettings(policy, ClosedLoop(4), kv_tokens=8_000, host_kv_tokens=8_000, **fields)


def logged(directory: Path, chosen: SimulationSettings) -> bytes:
    with EventLogFile(directory, header_of(chosen)) as file:
        simulate(chosen, WORK, on_event=file.record)
    return (directory / "events-000001.jsonl").read_bytes()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_it_replays_to_identical_commands(policy: str, tmp_path: Path) -> None:
    chosen = settings(policy, backends=2, tools=ToolHostShape(1.0, 600.0))
    logged(tmp_path / "log", chosen)
    [process] = process_logs(tmp_path / "log")
    header = process.header
    assert (header.policy, header.backends, process.is_whole) == (policy, ("engine-0", "engine-1"), True)
    made = policy_kind(header.policy).make(header.settings, header.backends)
    compared = replay(made, process.entries(), keep=3)
    assert (compared.different, compared.first, compared.stopped) == (0, [], None)
    assert compared.events > 100
    assert compared.commands >= 24


def test_the_same_run_is_the_same_bytes(tmp_path: Path) -> None:
    once, again = (logged(tmp_path / name, settings()) for name in ("once", "again"))
    assert once == again
    other = logged(tmp_path / "other", settings(seed=1))
    assert header_of(settings()).process != header_of(settings(seed=1)).process
    assert other.splitlines()[1:] == once.splitlines()[1:], (
        "a closed loop of given sessions has no chance in it"
    )


def test_our_own_reader_takes_it_and_only_its_owner_may(tmp_path: Path) -> None:
    logged(tmp_path / "log", settings())
    lines = list(read_event_log(tmp_path / "log"))
    assert [line.now for line in lines] == sorted(line.now for line in lines)
    assert {line.process for line in lines} == {header_of(settings()).process}
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "log", *(tmp_path / "log").iterdir())]
    assert modes == [0o700, 0o600]


def test_a_log_is_not_written_over(tmp_path: Path) -> None:
    logged(tmp_path, settings())
    with pytest.raises(LoadgenError, match="holds a log already; name another directory"):
        EventLogFile(tmp_path, header_of(settings()))


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoadgenError, match=r"--event-log .*file' cannot be written: "):
        EventLogFile(tmp_path / "file", header_of(settings()))


@pytest.mark.parametrize("fields", [{"sizes": Sizes.TRUE}, {"size_factor": 2.0}])
def test_a_policy_that_knows_the_future_cannot_be_logged(fields: dict[str, Any]) -> None:
    with pytest.raises(LoadgenError, match="--event-log excludes --sizes and --size-factor"):
        header_of(settings(**fields))
