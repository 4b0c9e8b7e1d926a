"""Which answer a request gets, and what a broken script says of itself."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from backend_patch.script import Asked, Script, ScriptError, ScriptFile, parse_answer


@dataclass(frozen=True)
class Message:
    role: str
    text: str


def asked(*roles: str, user: str = "fix it", session: str | None = None, tools: bool = True) -> Asked:
    messages = [Message("user", user), *(Message(role, "") for role in roles)]
    return Asked(session, messages, tools)


def script(tmp_path: Path, *lines: str) -> Script:
    path = tmp_path / "script.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return Script.read(path)


def test_turns_follow_the_number_of_assistant_messages(tmp_path: Path) -> None:
    play = script(tmp_path, "# a comment", "", '{"turns": [{"text": "1"}, {"text": "2"}]}')
    said = [play.answer(asked(*["assistant"] * turn)) for turn in range(4)]
    assert [each and each.text for each in said] == ["1", "2", "2", "2"]


def test_the_first_line_that_has_an_answer_wins(tmp_path: Path) -> None:
    play = script(
        tmp_path,
        '{"match": {"session": "s1"}, "turns": [{"text": "session"}]}',
        '{"match": {"user": "fix"}, "turns": [{"tool": "bash"}], "after": "none"}',
        '{"match": {"turn": 1, "system": "x"}, "turns": [{"text": "never"}]}',
        '{"match": {"turn": 1, "tools": true}, "turns": [{"text": "turn one"}]}',
        '{"match": {"tools": false}, "turns": [{"text": "a title"}]}',
    )
    cases = {
        "session": asked(session="s1"),
        "turn one": asked("assistant"),
        "a title": asked(tools=False),
    }
    for text, request in cases.items():
        answer = play.answer(request)
        assert answer is not None
        assert answer.text == text
    assert play.answer(asked("assistant", "assistant")) is None
    call = play.answer(asked())
    assert call is not None
    assert [use.name for use in call.calls] == ["bash"]


def test_the_last_message_says_which_step_comes_next(tmp_path: Path) -> None:
    """Also when a client that condenses its history leaves fewer answers in it than were given."""
    play = script(
        tmp_path,
        '{"match": {"user": "fix", "last": "step 1 done"}, "turns": [{"text": "step 2"}]}',
        '{"match": {"user": "fix"}, "turns": [{"text": "step 1"}]}',
    )
    first = [Message("user", "fix it")]
    tool = Message("tool", "... step 1 done")
    said = [play.answer(Asked(None, history, True)) for history in (first, [*first, tool], [tool, *first])]
    assert [each and each.text for each in said] == ["step 1", "step 2", "step 1"]
    assert play.answer(Asked(None, [], True)) is None


def replaced(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text, "utf-8")
    path.with_suffix(".new").replace(path)


def test_a_script_may_be_replaced_while_it_is_played(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "script.jsonl"
    replaced(path, "")
    play = ScriptFile(path)
    assert play.is_empty
    replaced(path, '{"turns": [{"text": "1"}]}')
    assert not play.is_empty
    for broken in ("{", None):
        if broken is None:
            path.unlink()
        else:
            replaced(path, broken)
        answer = play.answer(asked())
        assert answer is not None
        assert answer.text == "1"
        assert play.answer(asked()) == answer
    (record,) = caplog.records
    assert "line 1: Input data was truncated" in str(record.exc_info)
    replaced(path, '{"turns": [{"text": "2"}]}')
    assert play.answer(asked()) != answer


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: Input data was truncated"),
        ('{"turns": [], "match": {}}', "turns must have at least one answer"),
        ('{"turns": [{"texts": "x"}]}', r"unknown field `texts` - at `\$.turns\[0\]`"),
        ('{"match": {"sesion": "x"}, "turns": [{}]}', "unknown field `sesion`"),
        ('{"turns": [{}], "after": "loop"}', "'loop'"),
    ],
)
def test_a_broken_script_says_where(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        script(tmp_path, line)


def test_a_missing_script_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="No such file"):
        Script.read(tmp_path / "none.jsonl")


def test_arguments_keep_their_characters() -> None:
    answer = parse_answer('{"tool": "one", "args": {"a":  1.0}, "tools": [{"name": "two"}]}')
    assert [(use.name, use.arguments) for use in answer.calls] == [("one", '{"a":  1.0}'), ("two", "{}")]


def test_a_broken_answer_says_so() -> None:
    with pytest.raises(ScriptError, match="mars_answer: Object contains unknown field `args_`"):
        parse_answer('{"args_": {}}')
