"""``loadgen run`` and ``compare`` as a user starts them: files, exit codes, Ctrl-C, bad input."""

import io
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.__main__ import run_command
from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.trace import read_sessions, write_sessions
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.upstream import FakeGateway, FakeModel

# Each test runs the command in a process of its own.
pytestmark = pytest.mark.slow

FEW = ("--workload", "demo", "--sessions", "4", "--max-turns", "2", "--scale-gaps", "0.01")
TIMEOUT_S = 60


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def loadgen(*args: str) -> Done:
    """In this process: starting another costs more than most of these runs."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        returncode = run_command(list(args))
    return Done(returncode, stdout.getvalue(), stderr.getvalue())


def lines(path: Path, kind: type) -> list[Any]:
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((out / "summary.json").read_bytes())
    return found


def test_a_run_leaves_records_a_summary_and_a_report(model: FakeModel, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = loadgen("run", "--target", f"{model.url}/v1", *FEW, "--rate", "50", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "4 of 4 sessions completed, 0 failed, 8 turns" in done.stdout
    turns, sessions = lines(out / "turns.jsonl", TurnRecord), lines(out / "sessions.jsonl", SessionRecord)
    assert len(turns) == 8
    assert all(session.is_completed for session in sessions)
    assert (out / "report.html").is_file()
    told = summary(out)
    assert (told["sessions"], told["completed"], told["failed"], told["turns"]) == (4, 4, 0, 8)
    assert (told["workload"], told["seed"], told["rate"], told["target"]) == ("demo", 0, 50.0, model.url)
    assert told["jct_s"]["mean"] > 0
    assert told["client"]["cpu_ms_per_turn"] > 0


def test_token_lengths_follow_the_targets_own_tokenizer(model: FakeModel, tmp_path: Path) -> None:
    out = tmp_path / "run"
    loadgen("run", "--target", model.url, *FEW, "--concurrency", "1", "--out", str(out))
    told = summary(out)
    assert told["chars_per_token_is_measured"] is True
    assert told["chars_per_token"] == pytest.approx(model.chars_per_token, rel=0.01)
    system, user = model.chats[0]["messages"]
    system_tokens = 700 - model.template_tokens
    assert len(system["content"]) == pytest.approx(system_tokens * model.chars_per_token, rel=0.01)
    assert 2800 * model.chars_per_token <= len(user["content"]) <= 3800 * model.chars_per_token


def test_gauges_hold_what_the_server_tells(model: FakeModel, tmp_path: Path) -> None:
    out = tmp_path / "run"
    loadgen("run", "--target", model.url, *FEW, "--concurrency", "2", "--out", str(out))
    first = lines(out / "gauges.jsonl", GaugeSample)[0]
    assert (first.kv_used_ratio, first.running, first.held_sessions) == (0.25, 4, 2)
    assert (first.waiting, first.tools_running) == (None, None)
    assert summary(out)["preemptions"] == 0


def test_the_same_seed_sends_the_same_first_prompts(model: FakeModel, tmp_path: Path) -> None:
    args = ("run", "-t", model.url, "-w", "demo", "-n", "4", "--max-turns", "1", "--concurrency", "1")
    for name in ("a", "b"):
        assert loadgen(*args, "-o", str(tmp_path / name)).returncode == 0
    assert len(model.chats) == 8
    assert model.chats[:4] == model.chats[4:]
    assert len({str(chat["messages"]) for chat in model.chats}) == 4


def test_a_failing_server_fails_sessions_and_the_exit_code(model: FakeModel, tmp_path: Path) -> None:
    model.breaks, model.broken_session = "cut", "demo-0-1"
    args = ("run", "--target", model.url, *FEW, "--concurrency", "2")
    done = loadgen(*args, "--out", str(tmp_path / "a"))
    assert done.returncode == 1
    told = summary(tmp_path / "a")
    assert (told["sessions"], told["completed"], told["failed"]) == (4, 3, 1)
    failed = [one for one in lines(tmp_path / "a" / "sessions.jsonl", SessionRecord) if one.error]
    assert [(one.session, one.is_completed) for one in failed] == [("demo-0-1", False)]
    assert loadgen(*args, "--out", str(tmp_path / "b"), "--allow-failures").returncode == 0


def test_tools_run_through_the_gateway(model: FakeModel, gateway: FakeGateway, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = loadgen(
        *("run", "--target", model.url, *FEW, "--concurrency", "2", "--out", str(out)),
        *("--tools", "gateway", "--gateway", gateway.url),
    )
    assert done.returncode == 0, done.stderr
    assert len(gateway.execs) == 4
    assert gateway.count("DELETE", "/v1/sessions/.*") == 4
    queued = [turn.tool_queue_s for turn in lines(out / "turns.jsonl", TurnRecord)]
    assert sorted(queued, key=str) == [0.5] * 4 + [None] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured(
    model: FakeModel, tmp_path: Path, number: signal.Signals
) -> None:
    model.breaks, model.broken_session = "hang", "demo-0-2"
    out = tmp_path / "run"
    process = start("run", "--target", model.url, *FEW, "--concurrency", "2", "--out", str(out))
    wait_until(lambda: ended_sessions(out) == 3 and len(model.chats) == 7)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "interrupted" in stdout
    told = summary(out)
    assert told["interrupted"] is True
    assert (told["completed"], told["failed"]) == (3, 0)
    hung = [turn for turn in lines(out / "turns.jsonl", TurnRecord) if turn.session == "demo-0-2"]
    assert [(turn.last_token_s, turn.error) for turn in hung] == [(None, None)]
    assert (out / "report.html").is_file()


def test_a_second_interrupt_ends_it_at_once(model: FakeModel, gateway: FakeGateway, tmp_path: Path) -> None:
    model.breaks = "hang"
    gateway.hangs_on_delete = True
    process = start(
        *("run", "--target", model.url, *FEW, "--concurrency", "2", "--out", str(tmp_path / "run")),
        *("--tools", "gateway", "--gateway", gateway.url),
    )
    wait_until(lambda: len(model.chats) >= 2)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: gateway.count("DELETE", ".*") >= 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert not (tmp_path / "run" / "summary.json").exists()


def test_bad_input_is_one_clear_line(model: FakeModel, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "turns.jsonl").touch()
    broken = tmp_path / "w.jsonl"
    broken.write_text('{"id": "a", "turns": [{"new_tokens": 0, "output_tokens": 1}]}\n', "utf-8")
    good = ("-t", model.url, *FEW, "--concurrency", "1")
    for args, says in [
        (("-t", "localhost:1", *FEW, "--rate", "1"), "is no URL; allowed: http://HOST:PORT"),
        (("-t", "http://127.0.0.1:1", *FEW, "--rate", "1", "-o", str(tmp_path / "x")), "does not answer"),
        (("-t", model.url, *FEW), "--rate or --concurrency is needed"),
        (("-t", model.url, "-w", "demo", "--rate", "1"), "--sessions is needed"),
        (("-t", model.url, "-w", str(broken), "--rate", "1"), "w.jsonl:1: field 'turns[0].new_tokens'"),
        ((*good, "--tools", "gateway"), "--tools gateway and --gateway URL go together"),
        ((*good, "--out", str(held)), "holds a run already"),
        ((*good, "--timeout-s", "0"), "--timeout-s is 0.0; allowed: more than 0"),
    ]:
        done = loadgen("run", *args)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("loadgen: ")
        assert says in done.stderr


def test_bad_lines_are_skipped_on_request_and_counted(model: FakeModel, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    write_sessions(path, [Session("a", [Turn(20, 2, ToolCall("t", 0.01)), Turn(5, 1)], arrival_s=0.0)])
    with path.open("a", encoding="utf-8") as file:
        file.write("garbage\n")
    args = ("run", "-t", model.url, "-w", str(path), "-o", str(tmp_path / "run"))
    assert loadgen(*args).returncode == 2
    assert loadgen(*args, "--skip-bad-lines").returncode == 0
    assert summary(tmp_path / "run")["workload_skipped_lines"] == 1
    assert summary(tmp_path / "run")["arrivals"] == "traced"


def test_compare_alternates_and_gives_both_the_same_load(model: FakeModel, tmp_path: Path) -> None:
    out = tmp_path / "compare"
    done = loadgen(
        *("compare", f"direct={model.url}", f"proxy={model.url}/v1", "--engine", model.url),
        *("--workload", "demo", "--sessions", "2", "--max-turns", "1", "--concurrency", "1"),
        *("--repeats", "3", "--seed", "5", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    comparison = msgspec.json.decode((out / "comparison.json").read_bytes())
    assert comparison["baseline"] == "direct"
    assert comparison["repeats"] == {"direct": 3, "proxy": 3}
    assert len(comparison["metrics"]["jct_s.mean"]["proxy"]["values"]) == 3
    seeds = {name: [summary(out / name / f"r{r}")["seed"] for r in (1, 2, 3)] for name in ("direct", "proxy")}
    assert seeds == {"direct": [5, 6, 7], "proxy": [5, 6, 7]}
    started = sorted((summary(out / name / f"r{r}")["started_at"], name) for name in seeds for r in (1, 2, 3))
    assert [name for _, name in started] == ["direct", "proxy", "proxy", "direct", "direct", "proxy"]
    assert model.count("POST", "/reset_prefix_cache") == 6
    prompts = [[chat["messages"] for chat in model.chats[i : i + 2]] for i in range(0, 12, 2)]
    assert prompts[0] == prompts[1]
    assert prompts[2] == prompts[3]
    assert prompts[0] != prompts[2]
    assert "direct" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["http://127.0.0.1:1"], "two targets or more"),
        (["a=http://127.0.0.1:1", "a=http://127.0.0.1:2"], "target name 'a' is there twice"),
        (["a/b=http://127.0.0.1:1", "http://127.0.0.1:2"], "target name 'a/b': allowed are letters"),
    ],
)
def test_compare_needs_targets_that_differ_in_name(args: list[str], says: str) -> None:
    done = loadgen("compare", *args, *FEW, "--rate", "1")
    assert done.returncode == 2
    assert says in done.stderr


def test_sessions_that_do_not_fit_the_model_are_warned_of(model: FakeModel, tmp_path: Path) -> None:
    args = ("run", "-t", model.url, "-w", "demo", "-n", "3", "--scale-gaps", "0", "--concurrency", "3")
    assert (
        "3 of 3 sessions do not fit the model's 8192 tokens"
        in loadgen(*args, "-o", str(tmp_path / "a")).stderr
    )
    cut = loadgen(*args, "--max-context-tokens", "8192", "-o", str(tmp_path / "b"))
    assert (cut.returncode, cut.stderr) == (0, "")


def test_import_joins_traces_into_one_file(tmp_path: Path) -> None:
    first, second, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "all.jsonl.gz"
    sessions = [Session(name, [Turn(5, 5)]) for name in "abc"]
    write_sessions(first, sessions[:2])
    write_sessions(second, sessions[2:])
    done = loadgen("import", str(first), str(second), "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(read_sessions(out)) == sessions
    twice = loadgen("import", "--format", "own", str(first), str(first), "--out", str(out))
    assert (twice.returncode, list(read_sessions(out))) == (0, sessions[:2])


@pytest.mark.slow
def test_a_thousand_sessions_do_not_queue_in_the_driver(model: FakeModel, tmp_path: Path) -> None:
    args = ("--workload", "demo", "--max-turns", "2", "--scale-tokens", "0.2", "--scale-gaps", "0.5")
    medians = {}
    for agents in (20, 1000):
        out = tmp_path / str(agents)
        done = loadgen(
            *("run", "-t", model.url, *args, "-n", str(agents)),
            *("--concurrency", str(agents), "-o", str(out)),
        )
        assert done.returncode == 0, done.stderr
        turns = lines(out / "turns.jsonl", TurnRecord)
        assert len(turns) == 2 * agents
        assert all(math.isfinite(turn.loop_lag_s) for turn in turns)
        # Twenty agents on an idle machine may well see no delay at all; a thousand cannot.
        assert agents < 1000 or any(turn.loop_lag_s > 0 for turn in turns)
        medians[agents] = summary(out)["client"]["loop_lag_p50_s"]
        assert summary(out)["client"]["loop_lag_max_s"] >= max(turn.loop_lag_s for turn in turns) * 0.99
    # Each turn costs what it costs with few agents: the median delay of the loop stays in its order.
    assert medians[1000] < 0.1


def ended_sessions(out: Path) -> int:
    path = out / "sessions.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadgen", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
