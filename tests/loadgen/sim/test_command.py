"""``loadgen simulate``, as it is typed."""

from math import inf
from pathlib import Path

import msgspec
import pytest

from loadgen.__main__ import run_command
from loadgen.event_log import read_event_log
from loadgen.run_files import read_run
from marsproxy.core.log_format import LogHeader

WORK = """\
{"id":"a","arrival_s":1.0,"turns":[{"new_tokens":900,"output_tokens":40,"tool":{"name":"bash","duration_s":2.0}},{"new_tokens":20,"output_tokens":30}]}
{"id":"b","arrival_s":0.5,"turns":[{"new_tokens":700,"output_tokens":20,"think_s":5.0},{"new_tokens":20,"output_tokens":10}]}
"""


@pytest.fixture
def work(tmp_path: Path) -> str:
    path = tmp_path / "work.jsonl"
    path.write_text(WORK)
    return str(path)


def test_a_run_leaves_what_a_live_one_does(
    work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--kv-tokens", "16000", "--host-kv-tokens", "8000", "--backends", "2", "--tool-cores", "2"]
    options += ["--tool-memory-gb", "1.5", "--tool-hosts", "2", "--tool-discipline", "sharing", "--no-hints"]
    assert run_command(["simulate", "-p", "infercept", "-w", work, *options, "--out", str(out)]) == 0
    run = read_run(out)
    assert run.notes == []
    assert [(session.session, session.arrival_s) for session in run.sessions] == [("a", 1.0), ("b", 0.5)]
    assert len(run.turns) == run.summary["turns"] == 4
    assert (run.summary["policy"], run.summary["arrivals"], run.summary["backends"]) == (
        "infercept",
        "traced",
        2,
    )
    assert run.summary["flags"]["takes_hints"] is False
    assert "<html" in (out / "report.html").read_text("utf-8")
    printed = capsys.readouterr().out
    assert "2 of 2 sessions in " in printed
    assert "mean JCT " in printed
    assert f"records and report: {out}" in printed


def test_an_event_log_is_written_if_asked_for(work: str, tmp_path: Path) -> None:
    arguments = ["simulate", "-w", work, "--concurrency", "1", "--kv-tokens", "16000"]
    log, out = tmp_path / "log", tmp_path / "out"
    assert run_command([*arguments, "--event-log", str(log), "--out", str(out)]) == 0
    header, *lines = read_event_log(log)
    assert isinstance(header.entry, LogHeader)
    assert header.entry.policy == "mars"
    assert sum(type(line.entry).__name__ == "TurnEnded" for line in lines) == 4


def test_a_cap_on_sessions_is_an_option(work: str, tmp_path: Path) -> None:
    arguments = ["simulate", "-w", work, "-p", "static_cap", "--static-cap", "1", "--kv-tokens", "16000"]
    out = tmp_path / "out"
    assert run_command([*arguments, "--out", str(out)]) == 0
    a, b = sorted(read_run(out).sessions, key=lambda session: session.session)
    assert a.end_s is not None
    assert b.end_s is not None
    first_of_a = min(turn.first_token_s or inf for turn in read_run(out).turns if turn.session == "a")
    first_answer_of_b = min(turn.last_token_s or inf for turn in read_run(out).turns if turn.session == "b")
    assert first_of_a > first_answer_of_b, "b came first, and rests after its first answer"


@pytest.mark.slow
def test_sessions_that_fail_are_an_exit_code(tmp_path: Path) -> None:
    """One more at a time than the session table has rows."""
    path = tmp_path / "crowd.jsonl"
    turn = {"new_tokens": 100, "output_tokens": 5}
    rows = [{"id": f"s{i}", "arrival_s": 0.0, "turns": [turn]} for i in range(20_001)]
    path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    out = tmp_path / "out"
    assert run_command(["simulate", "-p", "fcfs", "-w", str(path), "--out", str(out)]) == 1
    assert read_run(out).summary["failed"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-p", "fastest"], "--policy: 'fastest' is not known; allowed: "),
        (["--kv-tokens", "512"], "session a grows to 990 tokens and never fits a KV cache of 512"),
        (["--backends", "0"], "--backends is 0; allowed: 1 or more"),
        (["--tool-cores", "-1"], "cores of a tool host are -1.0; allowed: more than 0"),
        (["-p", "fcfs", "--sizes", "true"], "--sizes and --size-factor are for mars"),
        (["--sizes", "no-history", "--event-log", "{log}"], "--event-log excludes --sizes"),
        (["--static-cap", "4"], "--static-cap is for --policy static_cap, not for mars"),
        (["-p", "static_cap", "--static-cap", "0"], "--static-cap: admission.static_cap_sessions: 0 is not"),
        (["--rate", "1", "--concurrency", "1"], "--rate and --concurrency exclude each other"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_file(
    options: list[str], words: str, work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    options = [option.format(log=log) for option in options]
    assert run_command(["simulate", "-w", work, "--out", str(out), *options]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()
    assert not log.exists()
