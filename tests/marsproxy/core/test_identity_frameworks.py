"""What each framework sends, as a transcript: every turn joins its session, with the right kind.

Shapes follow OpenHands SDK 1.58, Codex 0.169, opencode 1.18, Claude Code, mini-swe-agent 2.4,
SWE-agent 1.1, openai-agents 0.24, LangGraph 1.2, smolagents 1.26 and aider.
"""

from marsproxy.core.evidence import Level, Resolution, Schema, TurnKind
from tests.marsproxy.core.identity_playbook import Playbook


def kinds(*resolutions: Resolution) -> list[tuple[str, int, str]]:
    return [(r.kind.value, r.turn, r.level.name) for r in resolutions]


def sessions(*resolutions: Resolution) -> int:
    return len({r.session_id for r in resolutions})


def test_openhands_with_condenser_and_sub_agent() -> None:
    """The condenser's call has no tools and leaves the session alone; the sub-agent names itself."""
    book = Playbook()
    first = book.ask("sys task", id="conv", group_id="conv").answered("a1", "c1")
    sub = book.ask("sub-sys sub-task", id="sub", group_id="conv").answered("b1")
    second = book.ask("sys task a1 r1", id="conv", echoed_call_ids=("c1",)).answered("a2", "c2")
    condenser = book.ask("condense events", id="conv", has_tools=False).answered("summary")
    third = book.ask("sys task+summary a2 r2", id="conv", echoed_call_ids=("c2",)).answered("a3", "c3")
    fourth = book.ask("sys task+summary a2 r2 a3 r3", id="conv", echoed_call_ids=("c2", "c3")).resolution
    assert kinds(first, second, condenser, third, fourth) == [
        ("first", 1, "HEADER"),
        ("continuation", 2, "HEADER"),
        ("side", 0, "HEADER"),
        ("condensed", 3, "HEADER"),
        ("continuation", 4, "HEADER"),
    ]
    assert sessions(first, second, condenser, third, fourth) == 1
    assert sub.session_id != first.session_id
    assert sub.parent_session_id == first.session_id
    assert first.parent_session_id is None


def test_openhands_condensation_is_found_without_ids() -> None:
    """The condenser's own call is a stranger then; the rewritten history carries the last answer back."""
    book = Playbook()
    first = book.ask("sys task").answered("a1", "c1")
    book.ask("sys task a1 r1", echoed_call_ids=("c1",)).answered("a2", "c2")
    condenser = book.ask("condense events", has_tools=False).answered("summary")
    by_call = book.ask("sys task+summary a2 r2", echoed_call_ids=("c2",)).answered("a3", "c3")
    assert kinds(condenser, by_call) == [("first", 1, "NEW"), ("condensed", 3, "CALL_ID")]
    assert by_call.session_id == first.session_id != condenser.session_id


def test_condensation_is_found_by_messages_alone() -> None:
    """Text mode: the tail that was kept holds the last answer and the message before it."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1").answered("a2")
    book.ask("sys task a1 r1 a2 r2").answered("a3")
    condensed = book.ask("sys summary r2 a3 r3").answered("a4")
    after = book.ask("sys summary r2 a3 r3 a4 r4").resolution
    assert kinds(condensed, after) == [("condensed", 4, "PREFIX"), ("continuation", 5, "PREFIX")]
    assert sessions(first, condensed, after) == 1
    assert after.matched_messages == 6


def test_codex_compaction_under_its_thread_id() -> None:
    book = Playbook()
    responses = {"id": "thread", "schema": Schema.RESPONSES, "family": "thread"}
    first = book.ask("dev env task", **responses).answered("a1", "c1")
    second = book.ask("dev env task a1 r1", echoed_call_ids=("c1",), **responses).answered("a2")
    compacted = book.ask("dev env bridge next", **responses).resolution
    assert kinds(first, second, compacted) == [
        ("first", 1, "HEADER"),
        ("continuation", 2, "HEADER"),
        ("condensed", 3, "HEADER"),
    ]
    assert sessions(first, second, compacted) == 1


def test_opencode_title_before_the_main_call() -> None:
    """Both carry the id and are in flight together; the main call is the first turn, whichever ends first."""
    book = Playbook()
    title = book.ask("title-sys title-please task", id="ses", has_tools=False)
    main = book.ask("sys task", id="ses")
    title.answered("A title")
    main.answered("a1", "c1")
    second = book.ask("sys task a1 r1", id="ses", echoed_call_ids=("c1",)).resolution
    assert kinds(main.resolution, second) == [("first", 1, "HEADER"), ("continuation", 2, "HEADER")]
    assert second.matched_messages == 3
    assert sessions(title.resolution, main.resolution, second) == 1


def test_opencode_title_after_the_main_call() -> None:
    book = Playbook()
    main = book.ask("sys task", id="ses")
    title = book.ask("title-sys title-please task", id="ses", has_tools=False).answered("A title")
    main.answered("a1")
    second = book.ask("sys task a1 more", id="ses").resolution
    assert kinds(main.resolution, title, second) == [
        ("first", 1, "HEADER"),
        ("side", 0, "HEADER"),
        ("continuation", 2, "HEADER"),
    ]


def test_opencode_sub_agent_names_its_parent() -> None:
    book = Playbook()
    sub = book.ask("sub-sys sub-task", id="ses-2", parent_id="ses-1").resolution
    main = book.ask("sys task", id="ses-1").resolution
    assert sub.parent_session_id == main.session_id != sub.session_id


def test_claude_code_sub_agents_that_inherit_the_id() -> None:
    """Two run side by side while the main line waits for their results: each is a line of its own."""
    book = Playbook()
    claude = {"id": "cc", "schema": Schema.MESSAGES}
    main = book.ask("sys task", **claude).answered("a1", "task-1", "task-2")
    one = book.ask("sub-sys find-x", **claude)
    two = book.ask("sub-sys find-y", **claude)
    one.answered("x1", "call-x")
    two.answered("y1", "call-y")
    one_more = book.ask("sub-sys find-x x1 rx", echoed_call_ids=("call-x",), **claude).answered("x2")
    two_more = book.ask("sub-sys find-y y1 ry", echoed_call_ids=("call-y",), **claude).answered("y2")
    echoed = ("task-1", "task-2")
    main_more = book.ask("sys task a1 x2 y2", echoed_call_ids=echoed, **claude).resolution
    assert sessions(main, one.resolution, two.resolution) == 3
    assert one.resolution.parent_session_id == two.resolution.parent_session_id == main.session_id
    assert (one_more.session_id, one_more.turn) == (one.resolution.session_id, 2)
    assert (two_more.session_id, two_more.turn) == (two.resolution.session_id, 2)
    assert (main_more.session_id, main_more.kind, main_more.turn) == (
        main.session_id,
        TurnKind.CONTINUATION,
        2,
    )


def test_claude_code_compaction_keeps_nothing_but_the_system_prompt() -> None:
    book = Playbook()
    main = book.ask("sys task", id="cc").answered("a1", "c1")
    compacted = book.ask("sys what-was-done", id="cc").resolution
    assert kinds(compacted) == [("condensed", 2, "HEADER")]
    assert compacted.session_id == main.session_id


def test_mini_swe_agent_retry_storm() -> None:
    """The SDK sends a request three times and counts; tenacity starts over from 0: all one turn."""
    book = Playbook()
    storm = [book.ask("sys task", retry_count=n).abandoned() for n in (0, 1, 2, 0, 1, 2)]
    last = book.ask("sys task", retry_count=0).answered("a1", "c1")
    after = book.ask("sys task a1 r1", echoed_call_ids=("c1",), retry_count=0).resolution
    assert kinds(*storm, last) == [("first", 1, "NEW")] + [("retry", 1, "PREFIX")] * 6
    assert kinds(after) == [("continuation", 2, "CALL_ID")]
    assert sessions(*storm, last, after) == 1


def test_mini_swe_agent_drops_an_answer_that_it_could_not_read() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("garbled")
    second = book.ask("sys task format-error").answered("a2", "c2")
    third = book.ask("sys task format-error a2 r2", echoed_call_ids=("c2",)).resolution
    assert kinds(second, third) == [("continuation", 2, "PREFIX"), ("continuation", 3, "CALL_ID")]
    assert sessions(first, second, third) == 1
    assert second.matched_messages == 2


def test_swe_agent_history_is_append_only() -> None:
    """Its moving cache markers are gone from the digests; each turn matches with the answer before it."""
    book = Playbook()
    first = book.ask("sys task").answered("a1", "c1")
    second = book.ask("sys task a1 r1", echoed_call_ids=("c1",)).answered("a2", "c2")
    third = book.ask("sys task a1 r1 a2 r2", echoed_call_ids=("c1", "c2")).resolution
    assert [r.matched_messages for r in (first, second, third)] == [0, 3, 5]
    assert sessions(first, second, third) == 1


def test_swe_agent_asks_again_and_forgets_that_it_did() -> None:
    """A malformed answer and the complaint are in the next request only; then history goes on without."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1").answered("malformed")
    again = book.ask("sys task a1 r1 malformed complaint").answered("a2")
    after = book.ask("sys task a1 r1 a2 r2").resolution
    assert kinds(again, after) == [("continuation", 3, "PREFIX"), ("condensed", 4, "PREFIX")]
    assert sessions(first, again, after) == 1
    assert after.matched_messages == 4


def test_swe_agent_elides_old_observations() -> None:
    """LastNObservations rewrites the middle every turn."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    second = book.ask("sys task a1 r1").answered("a2")
    third = book.ask("sys task a1 elided-1 a2 r2").answered("a3")
    fourth = book.ask("sys task a1 elided-1 a2 elided-2 a3 r3").resolution
    assert sessions(first, second, third, fourth) == 1
    assert [r.kind for r in (third, fourth)] == [TurnKind.CONDENSED] * 2


def test_openai_agents_chat_runs_the_same_prompt_twice() -> None:
    """The second run differs in ``stream`` only: same messages, but a run of its own."""
    book = Playbook()
    one = book.ask("sys user").answered("a1", "c1")
    book.ask("sys user a1 r1", echoed_call_ids=("c1",)).answered("a2")
    follow_up = book.ask("sys user a1 r1 a2 user-2", echoed_call_ids=("c1",)).answered("a3")
    other = book.ask("sys user", body="stream").answered("b1", "d1")
    other_more = book.ask("sys user b1 s1", echoed_call_ids=("d1",)).resolution
    assert one.session_id == follow_up.session_id
    assert other.session_id == other_more.session_id != one.session_id


def test_openai_agents_responses_chain() -> None:
    """Only what is new is sent; the id of the stored response says what it follows."""
    book = Playbook()
    responses = {"schema": Schema.RESPONSES}
    first = book.ask("user", **responses).answered("a1", response_id="r-1")
    other = book.ask("user", **responses).answered("a1", response_id="r-9")
    second = book.ask("output", previous_response_id="r-1", **responses).answered("a2", response_id="r-2")
    other_second = book.ask("output", previous_response_id="r-9", **responses).resolution
    third = book.ask("thanks", previous_response_id="r-2", **responses).resolution
    assert kinds(second, third) == [("continuation", 2, "BODY"), ("continuation", 3, "BODY")]
    assert sessions(first, second, third) == 1
    assert other.session_id == other_second.session_id != first.session_id


def test_langgraph_user_turns() -> None:
    book = Playbook()
    turns = [
        book.ask("sys user").answered("a1", "c1"),
        book.ask("sys user a1 r1", echoed_call_ids=("c1",)).answered("a2"),
        book.ask("sys user a1 r1 a2 user-2", echoed_call_ids=("c1",)).answered("a3"),
    ]
    assert sessions(*turns) == 1
    assert kinds(turns[2]) == [("continuation", 3, "CALL_ID")]


def test_langgraph_summary_asked_for_without_tools() -> None:
    """The whole history and a request to sum it up, then the run goes on from before or after it."""
    book = Playbook()
    first = book.ask("sys user").answered("a1")
    summary = book.ask("sys user a1 sum-up", has_tools=False).answered("summary")
    second = book.ask("sys user a1 user-2").resolution
    assert kinds(second) == [("continuation", 3, "PREFIX")]
    assert sessions(first, summary, second) == 1


def test_smolagents_sends_answers_in_its_own_words() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1", "c1")
    second = book.ask("sys task said-a1 observation-1").answered("a2", "c2")
    third = book.ask("sys task said-a1 observation-1 said-a2 observation-2").resolution
    assert kinds(second, third) == [("continuation", 2, "PREFIX"), ("continuation", 3, "PREFIX")]
    assert sessions(first, second, third) == 1


def test_aider_puts_fresh_files_before_each_message() -> None:
    """Examples are the same for all its sessions, files change; what comes back for sure is the answer."""
    book = Playbook()
    aider = {"has_tools": False}
    mine = book.ask("sys ex-1 ex-2 files-1 ask-1", **aider).answered("a1")
    other = book.ask("sys ex-1 ex-2 files-1 ask-9", **aider).answered("b1")
    commit = book.ask("commit-sys diff", **aider).answered("message")
    mine_2 = book.ask("sys ex-1 ex-2 ask-1 a1 files-2 ask-2", **aider).answered("a2")
    other_2 = book.ask("sys ex-1 ex-2 ask-9 b1 files-7 ask-10", **aider).answered("b2")
    mine_3 = book.ask("sys ex-1 ex-2 ask-1 a1 ask-2 a2 files-3 ask-3", **aider).resolution
    assert sessions(mine, mine_2, mine_3) == 1
    assert sessions(other, other_2) == 1
    assert sessions(mine, other, commit) == 3
    assert kinds(mine_2, mine_3) == [("condensed", 2, "PREFIX"), ("condensed", 3, "PREFIX")]


def test_text_mode_agent_with_an_id() -> None:
    """No tools at all: its turns are turns, and a call with another system prompt is a side call."""
    book = Playbook()
    text = {"id": "mine", "has_tools": False}
    first = book.ask("sys task", **text).answered("a1")
    second = book.ask("sys task a1 r1", **text).answered("a2")
    title = book.ask("title-sys task", **text).answered("A title")
    condensed = book.ask("sys summary r1 a2 r2", **text).resolution
    assert kinds(first, second, title, condensed) == [
        ("first", 1, "HEADER"),
        ("continuation", 2, "HEADER"),
        ("side", 0, "HEADER"),
        ("condensed", 3, "HEADER"),
    ]


def test_completions_with_a_program_id() -> None:
    """A raw prompt is one message that never repeats: the id alone carries the session."""
    book = Playbook()
    raw = {"id": "program", "schema": Schema.COMPLETIONS, "has_tools": False, "explicit_level": Level.BODY}
    first = book.ask("prompt-1", **raw).answered("a1")
    second = book.ask("prompt-2", **raw).resolution
    assert kinds(first, second) == [("first", 1, "BODY"), ("continuation", 2, "BODY")]
