"""From calls to sessions: whatever was recorded, a replay's prompts are as long as they were."""

from hypothesis import given
from hypothesis import strategies as st

from loadgen.importers.sessions import KEPT_RATIO, session_id, to_sessions
from loadgen.importers.transcript import Call, Notes, ToolUse, Transcript, Waits
from loadgen.trace.own import check_session

times = st.none() | st.floats(0, 1e9)
tokens = st.none() | st.integers(1, 10**6)
tools = st.builds(
    ToolUse,
    name=st.just("bash"),
    started_at=times,
    ended_at=times,
    duration_s=st.none() | st.floats(0, 1e6),
    waits=st.sampled_from(Waits),
)
calls = st.builds(
    Call,
    added_tokens=st.integers(0, 10**6),
    answer_tokens=st.integers(0, 10**6),
    prompt_tokens=tokens,
    output_tokens=tokens,
    answered_at=times,
    asked_at=times,
    prompted_at=times,
    tools=st.lists(tools, max_size=3),
    is_rewritten=st.booleans(),
)


@given(st.lists(calls, max_size=8))
def test_every_call_is_a_turn_of_a_valid_session(found: list[Call]) -> None:
    sessions = to_sessions(Transcript("codex", "k", found), "characters", Notes())
    assert sum(len(session.turns) for session in sessions) == len(found)
    assert len({session.id for session in sessions}) == len(sessions)
    for session in sessions:
        check_session(session)
        assert session.turns[-1].tool is None
        assert session.turns[-1].think_s is None


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 500), st.integers(0, 100)), min_size=1))
def test_prompts_are_as_long_as_recorded(grown: list[tuple[int, int, int]]) -> None:
    """Also where the next prompt leaves a part of the answer out (its reasoning): no error adds up."""
    found, prompt, slack = [], 0, 0
    for new, output, left_out in grown:
        prompt += new
        found.append(Call(prompt_tokens=prompt, output_tokens=output))
        prompt += output - min(left_out, output)
    (*sessions,) = to_sessions(Transcript("codex", "k", found), "characters", Notes())
    recorded = iter(found)
    for session in sessions:
        context, slack = 0, 0
        for turn in session.turns:
            call = next(recorded)
            context += turn.new_tokens
            assert call.prompt_tokens is not None
            slack = context - call.prompt_tokens
            # Longer only where the history cannot shrink, and then by less than what counts as rewritten.
            assert slack >= 0
            assert slack <= (1 / KEPT_RATIO - 1) * call.prompt_tokens + 2
            assert slack == 0 or turn.new_tokens == 1
            context += turn.output_tokens


def test_a_prompt_that_shrinks_begins_a_session() -> None:
    """Without any mark: a history was cleared or taken up again from earlier."""
    notes = Notes()
    found = [Call(prompt_tokens=1000, output_tokens=10), Call(prompt_tokens=300, output_tokens=10)]
    assert [
        len(session.turns) for session in to_sessions(Transcript("codex", "k", found), "characters", notes)
    ] == [1, 1]
    assert notes.counts["compactions"] == 1


def test_ids_are_the_same_in_every_import_and_differ_between_sources() -> None:
    assert session_id("codex", "a") == session_id("codex", "a")
    assert len({session_id("codex", "a"), session_id("codex", "b"), session_id("openhands", "a")}) == 3


def test_a_mixture_of_tools_and_a_question() -> None:
    """The tool takes its time, and what the user takes longer is a pause."""
    asked = [
        ToolUse("bash", started_at=10, ended_at=12),
        ToolUse("ask", started_at=10, ended_at=40, waits=Waits.USER),
    ]
    found = [Call(10, 5, answered_at=10, tools=asked), Call(10, 5, answered_at=50)]
    (session,) = to_sessions(Transcript("codex", "k", found), "characters", Notes())
    (turn, _) = session.turns
    assert turn.tool is not None
    assert (turn.tool.name, turn.tool.duration_s, turn.think_s) == ("bash", 2.0, 28.0)
