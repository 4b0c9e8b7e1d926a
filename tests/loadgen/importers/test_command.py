"""``loadgen import``, as it is typed: what it says, what it writes, and above all what it does not write."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.__main__ import run_command
from loadgen.importers import claude_code, codex, openhands
from loadgen.importers.command import write_whole
from loadgen.importers.find import Format
from loadgen.importers.transcript import OTHER_TOOL
from loadgen.run_files import read_run
from loadgen.trace import read_sessions, write_sessions
from loadgen.workload import Session, Turn
from tests.loadgen.importers.samples import (
    SECRET,
    Claude,
    claude_session,
    codex_rollout,
    document,
    lines,
    mini_run,
    write_all,
)

SHIPPED = claude_code.SHIPPED_TOOLS | codex.SHIPPED_TOOLS | openhands.SHIPPED_TOOLS | {"bash", OTHER_TOOL}
KEPT_WORDS = SHIPPED | {source.value for source in Format} | {"characters", "usage", "mixed"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_all(tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "w.jsonl"


def strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for key, item in value.items() for text in (key, *strings_in(item)))
    elif isinstance(value, list):
        yield from (text for item in value for text in strings_in(item))


def documents_in(path: Path) -> Iterator[object]:
    text = path.read_text("utf-8")
    try:
        yield json.loads(text)
    except json.JSONDecodeError:
        yield from map(json.loads, text.splitlines())


def words_of(folder: Path) -> set[str]:
    """Every word with a letter that is in a transcript as a value, or in the name of one."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [text for path in files for found in documents_in(path) for text in strings_in(found)]
    texts += [str(path.relative_to(folder)) for path in files]
    return {word for text in texts for word in re.findall(r"[A-Za-z_-]{3,}[A-Za-z]", text)}


FIELD_NAMES = {name for each in (Session, Turn) for name in each.__struct_fields__} | {"name", "cores"}


def test_no_text_is_kept(folder: Path, out: Path) -> None:
    """Neither the word that is in every text nor any other; nor any string that is not one of ours."""
    assert run_command(["import", str(folder), "--out", str(out)]) == 0
    written = out.read_text("utf-8")
    assert SECRET not in written
    found = words_of(folder)
    assert {SECRET, "cat", "submitted"} & found >= {SECRET, "submitted"}
    ours = " ".join(KEPT_WORDS | FIELD_NAMES)
    assert [word for word in found if word in written and word not in ours] == []
    for session in read_sessions(out):
        assert re.fullmatch(rf"{session.source}-[0-9a-f]{{12}}(\.\d+)?", session.id)
        assert {session.source, session.tokens_by} <= KEPT_WORDS
        assert session.tenant is session.system_id is session.arrival_s is None
        tools = [turn.tool for turn in session.turns if turn.tool]
        assert {tool.name for tool in tools} <= SHIPPED
        assert {tool.command for tool in tools} <= {None}


def test_commands_are_kept_on_request(folder: Path, out: Path) -> None:
    assert run_command(["import", str(folder), "--keep-text", "-o", str(out)]) == 0
    commands = [turn.tool.command for s in read_sessions(out) for turn in s.turns if turn.tool]
    assert len(commands) > 5
    assert all(command is not None and SECRET in command for command in commands)


def test_the_end_says_what_there_is(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["import", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in (
        "6 sessions from 6 files",
        "openhands: 2",
        "swe-agent: 1",
        "17 turns",
        "4 sessions by recorded usage",
        "1 session by 4 characters a token",
        "failed calls: 2",
        "other files: 1",
        f"loadgen simulate --workload {out}",
    ):
        assert re.sub(r" +", " ", part) in re.sub(r"turns +(\d+)", r"\1 turns", said.out)


def test_a_broken_file_is_told_and_the_rest_goes_on(
    folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cut.traj").write_text('{"trajectory": [\n{"response": ', "utf-8")
    (rollout,) = folder.glob("codex/**/*.jsonl")
    rollout.write_bytes(rollout.read_bytes()[:-20])
    assert run_command(["import", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"loadgen: {folder / 'cut.traj'}:2: is not valid JSON; was it cut off?" in said.err
    assert f"{rollout}:14: is no JSON object" in said.err
    assert "6 sessions from 6 files" in said.out
    assert SECRET not in said.err.replace(str(rollout), "")


@pytest.mark.parametrize("given", [[], ["absent"], ["notes.txt"], ["empty"], ["none.jsonl"]])
def test_nothing_to_import_is_bad_input(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was there before stays."""
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    answerless = Claude()
    answerless.user(0)
    lines(tmp_path / "none.jsonl", answerless.entries)
    out = tmp_path / "w.jsonl"
    out.write_text("before")
    paths = [str(tmp_path / name) for name in given]
    assert run_command(["import", *paths, "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("loadgen: ")
    assert out.read_text() == "before"


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the writing."""
    out = tmp_path / "w.jsonl"
    out.write_text("before")

    class Interrupted(list[Session]):
        def __iter__(self) -> Iterator[Session]:
            yield Session("a", [Turn(1, 1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(out, Interrupted())
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written_to_is_bad_input(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "settings.json" / "w.jsonl"
    assert run_command(["import", str(folder), "--out", str(out)]) == 2
    assert "loadgen: --out " in capsys.readouterr().err


def test_what_is_given_twice_is_there_once(folder: Path, out: Path) -> None:
    """By a directory and by name; and copied."""
    (rollout,) = folder.glob("codex/**/*.jsonl")
    lines(folder / "copy.jsonl", codex_rollout())
    assert run_command(["import", str(folder), str(rollout), "--out", str(out)]) == 0
    assert len(list(read_sessions(out))) == 6


def test_runs_of_one_name_are_two(tmp_path: Path, out: Path) -> None:
    """An experiment has a directory, its runs are named by their tasks."""
    other = mini_run()
    other["messages"][1]["content"] = "another task"
    document(tmp_path / "in/one/task-1/task-1.traj.json", mini_run())
    document(tmp_path / "in/two/task-1/task-1.traj.json", other)
    assert run_command(["import", str(tmp_path / "in"), "-o", str(out)]) == 0
    assert len(list(read_sessions(out))) == 2


def test_a_format_can_be_said(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And then a file is what it is said to be."""
    path = document(tmp_path / "x.json", mini_run())
    assert run_command(["import", str(path), "--format", "mini-swe-agent", "-o", str(out)]) == 0
    assert run_command(["import", str(path), "--format", "swe-agent", "-o", str(out)]) == 2
    assert "has no list 'trajectory'" in capsys.readouterr().err


def test_other_traces_are_taken_too(tmp_path: Path, out: Path) -> None:
    """When they are named; a directory of who knows what is only looked through for transcripts."""
    path = tmp_path / "t" / "own.jsonl.gz"
    path.parent.mkdir()
    write_sessions(path, [Session("mine", [Turn(9, 9)])])
    assert run_command(["import", str(path), "-o", str(out)]) == 0
    assert [session.id for session in read_sessions(out)] == ["mine"]
    assert run_command(["import", str(path.parent), "-o", str(out)]) == 2
    assert run_command(["import", str(path.parent), "--format", "own", "-o", str(out)]) == 0


def test_arrivals_are_kept_on_request(tmp_path: Path, out: Path) -> None:
    """Since the first; days apart, a replay would wait for days."""
    later = Claude("two")
    later.user(7200)
    later.says(7202, "n1", usage=(10, 0, 0, 5))
    lines(tmp_path / "in/1.jsonl", claude_session("one").entries)
    lines(tmp_path / "in/2.jsonl", later.entries)
    assert run_command(["import", str(tmp_path / "in"), "--keep-arrivals", "-o", str(out)]) == 0
    assert [session.arrival_s for session in read_sessions(out)] == [0.0, 7200.0]


def test_an_import_is_simulated(folder: Path, tmp_path: Path, out: Path) -> None:
    """Times that nobody knows included."""
    steps = [{"response": "x", "action": "ls", "observation": "y"}] * 2
    document(folder / "untimed.traj", {"trajectory": steps, "history": [{"role": "user", "content": "z"}]})
    assert run_command(["import", str(folder), "--out", str(out)]) == 0
    run = ["simulate", "--workload", str(out), "--concurrency", "4", "--max-gap-s", "10"]
    assert run_command([*run, "--out", str(tmp_path / "sim")]) == 0
    summary = read_run(tmp_path / "sim").summary
    assert (summary["sessions"], summary["completed"], summary["failed"]) == (7, 7, 0)
    assert summary["workload_assumed_tool_times"] == 1
