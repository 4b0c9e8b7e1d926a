"""Every known trace becomes the one workload form; every broken one says where and why."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import LoadgenError, WorkloadError
from loadgen.trace import BadLines, Select, TraceKind, parse_select, read_sessions, write_sessions
from loadgen.trace.detect import detect
from loadgen.workload import Session, ToolCall, Turn

seconds = st.floats(0, 1e6)
tools = st.builds(
    ToolCall,
    name=st.text(min_size=1, max_size=20),
    duration_s=st.none() | seconds,
    cores=st.floats(0, 64),
    memory_mb=st.floats(0, 1e5),
    command=st.none() | st.text(max_size=50),
)
turns = st.builds(
    Turn,
    new_tokens=st.integers(1, 10**6),
    output_tokens=st.integers(1, 10**5),
    tool=st.none() | tools,
    think_s=st.none() | seconds,
)
session_lists = st.lists(
    st.builds(
        Session,
        id=st.text(min_size=1, max_size=20),
        turns=st.lists(turns, min_size=1, max_size=5),
        arrival_s=st.none() | seconds,
        tenant=st.none() | st.text(max_size=10),
        system_tokens=st.integers(0, 10**5),
        system_id=st.none() | st.text(max_size=10),
        source=st.none() | st.text(max_size=10),
        parent=st.none() | st.text(max_size=10),
        tokens_by=st.none() | st.text(max_size=10),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda session: session.id,
)


@given(session_lists, st.sampled_from(["w.jsonl", "w.jsonl.gz"]))
def test_what_is_written_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[Session], name: str
) -> None:
    path = tmp_path_factory.mktemp("trace") / name
    assert write_sessions(path, sessions) == len(sessions)
    assert list(read_sessions(path)) == sessions


@given(st.binary(max_size=400))
def test_no_bytes_do_worse_than_a_located_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("trace") / "w.jsonl"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=r"w\.jsonl"):
        list(read_sessions(path))


GOOD = {"id": "a", "turns": [{"new_tokens": 10, "output_tokens": 5}]}


def bad(**change: Any) -> dict[str, Any]:
    return {"id": "b", "turns": [{"new_tokens": 10, "output_tokens": 5} | change]}


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        (json.dumps(bad(new_tokens=0)), "turns[0].new_tokens", "allowed: a finite number >= 1"),
        (json.dumps(bad(output_tokens=0)), "turns[0].output_tokens", "is 0"),
        (json.dumps(bad(think_s=-1)), "turns[0].think_s", "allowed: a finite number >= 0"),
        (
            json.dumps(bad(tool={"name": "t", "duration_s": -2})),
            "turns[0].tool.duration_s",
            "allowed: a finite number >= 0",
        ),
        (json.dumps(bad(new_tokens="ten")), "turns[0].new_tokens", "Expected `int`, got `str`"),
        (json.dumps(bad(surprise=1)), "turns[0]", "unknown field `surprise`"),
        (json.dumps({"id": "b"}), None, "missing required field `turns`"),
        (json.dumps({"id": "b", "turns": []}), "turns", "at least one turn"),
        (json.dumps({"id": "", "turns": GOOD["turns"]}), "id", "is empty"),
        ('{"id": "b", "turns": [', None, "not valid JSON"),
        ("not json at all", None, "not valid JSON"),
    ],
)
def test_a_bad_line_is_located(tmp_path: Path, line: str, field: str | None, says: str) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n", "utf-8")
    with pytest.raises(WorkloadError) as caught:
        list(read_sessions(path))
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), 2, field)
    assert says in str(caught.value)


def test_bad_lines_can_be_counted_instead(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    lines = [json.dumps(GOOD), "garbage", json.dumps(bad(new_tokens=0)), json.dumps(GOOD | {"id": "c"})]
    path.write_text("\n".join(lines), "utf-8")
    bad_lines = BadLines(skip=True)
    assert [session.id for session in read_sessions(path, bad_lines=bad_lines)] == ["a", "c"]
    assert [(error.line, bad_lines.count) for error in bad_lines.errors] == [(2, 2), (3, 2)]


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match="is empty"):
        list(read_sessions(path))


def test_a_missing_file_and_a_broken_gzip_are_errors(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 50)[:40])
    for path in (tmp_path / "none.jsonl", cut):
        with pytest.raises(WorkloadError, match="cannot be read"):
            list(read_sessions(path))


def test_an_id_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD), "utf-8")
    with pytest.raises(WorkloadError, match="twice"):
        list(read_sessions(path))


def agent_session(*turns: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"id": "s", "src": "x", "lic": "MIT", "model": "m", "turns": list(turns)})


def traced(prompt: int, out: int, new: int, **gap: Any) -> dict[str, Any]:
    return {
        "in": prompt,
        "out": out,
        "new": new,
        "llm_s": 1.0,
        "tools": [],
        "gap_s": None,
        "gap": "end",
    } | gap


def test_agent_sessions_grow_as_their_prompts_did(tmp_path: Path) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_bytes(
        agent_session(
            traced(1000, 50, 1000, tools=[["edit", 0.2], ["test", 0.3]], gap_s=0.6, gap="tool"),
            traced(1500, 20, 450, gap_s=9.0, gap="client"),
            traced(1600, 30, 80, gap_s=120.0, gap="user"),
            # The history was rewritten: what is new is all there is to go by.
            traced(400, 10, 130, gap_s=1.0, gap="end"),
        )
    )
    (session,) = read_sessions(path)
    assert session.turns == [
        Turn(1000, 50, ToolCall("edit", 0.5, 1.0)),
        Turn(450, 20, ToolCall("client", 9.0, 0.0)),
        Turn(80, 30, think_s=120.0),
        Turn(100, 10),
    ]


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        (traced(0, 1, 1), "turns[0].in"),
        (traced(1, -1, 1), "turns[0].out"),
        (traced(1, 1, 1, gap_s=-0.5), "turns[0].gap_s"),
        (traced(1, 1, 1, tools=[["x", -1.0]]), "turns[0].tools"),
    ],
)
def test_agent_sessions_are_checked(tmp_path: Path, turn: dict[str, Any], field: str) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_bytes(agent_session(turn))
    with pytest.raises(WorkloadError) as caught:
        list(read_sessions(path, kind=TraceKind.AGENT_SESSIONS))
    assert (caught.value.line, caught.value.field) == (1, field)


def test_an_aborted_call_has_the_shortest_answer(tmp_path: Path) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_bytes(agent_session(traced(1000, 0, 1000, gap_s=1.0, gap="client"), traced(1200, 5, 200)))
    (session,) = read_sessions(path)
    assert session.turns == [Turn(1000, 1, ToolCall("client", 1.0, 0.0)), Turn(200, 5)]


def from_sources(path: Path, *sources: str | None) -> Path:
    lines = [
        msgspec.json.encode({"id": str(i), "turns": [traced(10, 1, 10)]} | ({"src": src} if src else {}))
        for i, src in enumerate(sources)
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def test_sessions_are_selected_by_a_field_of_theirs(tmp_path: Path) -> None:
    path = from_sources(tmp_path / "agents.jsonl", "red", "blue", None, "red")
    assert [session.id for session in read_sessions(path, select=parse_select("src=red"))] == ["0", "3"]
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps(GOOD | {"tenant": "a"}) + "\n" + json.dumps(GOOD | {"id": "2"}), "utf-8")
    assert [session.tenant for session in read_sessions(own, select=Select("tenant", "a"))] == ["a"]


def test_a_broken_line_that_cannot_be_selected_is_passed_over(tmp_path: Path) -> None:
    path = from_sources(tmp_path / "agents.jsonl", "red")
    path.write_bytes(path.read_bytes() + b"\n{broken\n[1]\n")
    assert [session.id for session in read_sessions(path, select=Select("src", "red"))] == ["0"]


def test_what_could_have_been_selected_is_named(tmp_path: Path) -> None:
    path = from_sources(tmp_path / "agents.jsonl", "red", "blue")
    with pytest.raises(WorkloadError, match="no session with src=green; in the file: blue, red"):
        list(read_sessions(path, select=Select("src", "green")))
    with pytest.raises(WorkloadError, match="no field 'kind'"):
        list(read_sessions(path, select=Select("kind", "x")))


def test_only_where_a_line_is_a_session_one_is_selected(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(request(0, 10, 1, [1]), "utf-8")
    with pytest.raises(WorkloadError, match="is mooncake; src=x can be selected only where"):
        list(read_sessions(path, select=Select("src", "x")))


@pytest.mark.parametrize("text", ["src", "=x", "src=", ""])
def test_a_selection_needs_a_field_and_a_value(text: str) -> None:
    with pytest.raises(LoadgenError, match="allowed: FIELD=VALUE"):
        parse_select(text)


def request(at_ms: int, length: int, out: int, blocks: list[int]) -> str:
    return json.dumps({"timestamp": at_ms, "input_length": length, "output_length": out, "hash_ids": blocks})


def test_mooncake_requests_join_by_their_longest_prefix(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    lines = [
        request(1000, 1200, 100, [1, 2, 3]),
        request(2000, 700, 10, [1, 9]),
        # Continues the first: its two whole blocks, then others.
        request(5000, 2000, 50, [1, 2, 7, 8]),
        # Shares only the first block with anything: a common prompt.
        request(6000, 600, 10, [1, 5]),
    ]
    path.write_text("\n".join(lines), "utf-8")
    sessions = list(read_sessions(path))
    assert [(session.arrival_s, session.turns) for session in sessions] == [
        (0.0, [Turn(1200, 100, think_s=4.0), Turn(700, 50)]),
        (1.0, [Turn(700, 10)]),
        (5.0, [Turn(600, 10)]),
    ]


def test_mooncake_lines_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(request(0, 10, 1, [1]) + "\n" + request(5, 10, 0, [2]), "utf-8")
    with pytest.raises(WorkloadError, match="output_length") as caught:
        list(read_sessions(path))
    assert caught.value.line == 2


def test_a_transcript_is_sent_to_import(tmp_path: Path) -> None:
    path = tmp_path / "run.traj.json"
    path.write_text(json.dumps({"messages": []}, indent=1), "utf-8")
    with pytest.raises(WorkloadError, match="`loadgen import` makes one"):
        list(read_sessions(path))


def test_formats_are_told_apart_by_content(tmp_path: Path) -> None:
    path = tmp_path / "anything.bin"
    for content, kind in [
        (json.dumps(GOOD).encode(), TraceKind.OWN),
        (gzip.compress(agent_session(traced(5, 5, 5))), TraceKind.AGENT_SESSIONS),
        (request(0, 1, 1, []).encode(), TraceKind.MOONCAKE),
    ]:
        path.write_bytes(content)
        assert detect(path) is kind
