"""Formats are told by content, directories are walked, and no bytes do worse than an error with a name."""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import WorkloadError
from loadgen.importers.find import Format, candidates, format_of
from loadgen.importers.import_run import ImportRun
from loadgen.trace.own import check_session
from tests.loadgen.importers.samples import (
    claude_session,
    codex_rollout,
    document,
    lines,
    mini_run,
    new_reading,
    openhands_conversation,
    openhands_list,
    swe_run,
    write_all,
)


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    """Names say nothing; plain or gzip."""
    path = tmp_path / "anything.bin"
    for content, found in [
        (claude_session().entries, Format.CLAUDE_CODE),
        (codex_rollout(), Format.CODEX),
    ]:
        lines(path, content)
        assert format_of(path) is found
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert format_of(path) is found
    for value, found in [
        (mini_run(), Format.MINI_SWE_AGENT),
        (swe_run(), Format.SWE_AGENT),
        (openhands_list(), Format.OPENHANDS),
    ]:
        assert format_of(document(path, value)) is found
        path.write_text(json.dumps(value), "utf-8")
        assert format_of(path) is found
    assert format_of(openhands_conversation().write(tmp_path / "c")) is Format.OPENHANDS


@pytest.mark.parametrize(
    "content", ["", "\n\n", "hello", "{}", "[]", "[1, 2]", '{"a": 1}\n{"b": 2}\n', "{\n" * 99]
)
def test_other_files_are_no_transcripts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.json"
    path.write_text(content, "utf-8")
    assert format_of(path) is None


def test_a_trajectory_that_was_cut_off_is_an_error_and_not_something_else(tmp_path: Path) -> None:
    path = tmp_path / "run.traj"
    path.write_text('{"trajectory": [', "utf-8")
    with pytest.raises(WorkloadError, match="cut off"):
        format_of(path)


def test_a_walk_finds_one_of_every_format(tmp_path: Path) -> None:
    """A conversation is one; its events are not looked at one by one; a sub-agent's is found below."""
    write_all(tmp_path)
    below = tmp_path / "openhands/65f4772c87e04dedb8d6140361be740d/subagents/c2"
    child = openhands_conversation()
    child.id = "c2"
    child.write(below)
    found = [format_of(path) for path in candidates(tmp_path)]
    assert {each for each in found if each} == set(Format)
    assert found.count(Format.OPENHANDS) == 3
    assert found.count(None) == 1


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
NAMES = (
    "type", "kind", "payload", "message", "content", "usage", "id", "uuid", "timestamp", "role",
    "extra", "actions", "response", "trajectory", "query", "messages", "history", "source",
    "action", "observation", "args", "tool_calls", "info", "input_tokens", "isSidechain",
    "parentUuid", "item", "cause",
)  # fmt: skip
values = st.recursive(
    leaves
    | st.sampled_from(["assistant", "user", "ActionEvent", "tool_use", "function_call", "response_item"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.lists(values, max_size=6), st.sampled_from(Format), st.booleans())
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, found: list[object], origin: Format, is_document: bool
) -> None:
    """Fields of any type in any place: other versions, other programs."""
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    if is_document:
        path.write_text(json.dumps({"messages": found, "trajectory": found} if found else found), "utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, found)), "utf-8")
    run = ImportRun(new_reading(), origin)
    sessions = run.read([path])
    assert sessions or run.why_nothing()
    assert all(error.path == str(path) for error in run.reading.notes.broken)


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value))
    below = [place for _, item in inner if isinstance(item, dict | list) for place in places_in(item)]
    return [(value, key) for key, _ in inner] + below


WHOLE = {Format.MINI_SWE_AGENT: mini_run, Format.SWE_AGENT: swe_run, Format.OPENHANDS: openhands_list}
LINES = {Format.CLAUDE_CODE: lambda: claude_session().entries, Format.CODEX: codex_rollout}
SAMPLES: dict[Format, Callable[[], Any]] = {**WHOLE, **LINES}


@settings(max_examples=60)
@given(st.sampled_from(Format), st.lists(st.tuples(st.integers(0, 10**6), values), min_size=1, max_size=3))
def test_a_field_of_another_type_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, origin: Format, changes: list[tuple[int, object]]
) -> None:
    """Of a real transcript, any value anywhere becomes something else."""
    sample = SAMPLES[origin]()
    for number, value in changes:
        places = places_in(sample)
        container, key = places[number % len(places)]
        container[key] = copy.deepcopy(value)
    path = tmp_path_factory.mktemp("changed") / "x.jsonl"
    if origin in WHOLE:
        document(path, sample)
    else:
        path.write_text("\n".join(map(json.dumps, sample)), "utf-8")
    run = ImportRun(new_reading(), origin)
    for session in run.read([path]):
        check_session(session)
    assert all(error.path == str(path) for error in run.reading.notes.broken)


@given(st.binary(max_size=300), st.sampled_from([*Format, None]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, origin: Format | None
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.traj"
    path.write_bytes(content)
    run = ImportRun(new_reading(), origin)
    assert run.read([path]) == []
    assert run.why_nothing()
