"""What is remembered of sessions, and that it has an end."""

import pickle

from marsproxy.core.commands import ForgetSession
from marsproxy.core.events import (
    Ending,
    KvReclaimed,
    SessionEnded,
    TimerFired,
    ToolObserved,
    ToolPhase,
    TurnEnded,
)
from marsproxy.live.story import KEPT_S, MAX_ENTRIES, MAX_SESSIONS, Stories
from marsproxy.live.watch import MAX_DECISIONS
from tests.marsproxy.live.playback import Playback

PROMPT = 12_000
"""Of a pool of 40,000 three fit."""


def crowded(sessions: int = 5) -> tuple[Playback, list[str]]:
    play = Playback()
    play.reading()
    return play, [play.arrives(f"s{number}", prompt_tokens=PROMPT) for number in range(sessions)]


def test_a_hold_says_its_numbers() -> None:
    """Those that the policy decided by."""
    play, _ = crowded()
    log = play.watch.stories.get("s4")
    assert log is not None
    numbers = log.entries[-1].numbers
    session = play.policy.sessions.get("s4")
    assert session is not None
    assert numbers is not None
    assert numbers.needed_tokens == session.needed_tokens
    assert numbers.budget_tokens == play.policy.budget_tokens(play.now)["gpu"]
    assert numbers.reserved_tokens == play.policy.reserved_tokens(play.now)["gpu"]
    assert numbers.leased_tokens is None
    assert numbers.needed_tokens is not None
    assert numbers.reserved_tokens + numbers.needed_tokens > numbers.budget_tokens
    assert play.state("s4") == "held"


def test_a_held_turn_that_goes_says_how_long_it_waited() -> None:
    play, turns = crowded()
    held = list(play.watch.holding)
    play.now += 4.0
    play.reading()
    play.tell(TurnEnded(turns[0], Ending.ABORTED))
    play.tell(TurnEnded(turns[1], Ending.ABORTED))
    gone = [turn_id for turn_id in held if turn_id not in play.watch.holding]
    assert gone
    session = gone[0].partition(".")[0]
    assert "after 4.0 s in the queue" in play.words(session)[-1]
    assert play.state(session) == "generating"


def test_a_gap_is_told_beside_what_was_expected() -> None:
    """When the session returns."""
    play = Playback()
    play.reading()
    play.answered(play.arrives("a"))
    assert play.state("a") == "tool"
    assert "half of such gaps are over in" in play.words("a")[-1]
    play.now += 7.0
    play.reading()
    play.arrives("a", 2)
    words = " ".join(play.words("a"))
    assert "The gap before it took 7.0 s" in words
    assert "were expected" in words


def test_a_lost_place_is_told_with_its_time() -> None:
    """Nothing is said to the shell when a place is lost by waiting."""
    play = Playback()
    play.reading()
    play.answered(play.arrives("a"))
    lost_after_s = 1_000.0
    play.now += lost_after_s
    play.tell(TimerFired())
    session, log = play.policy.sessions.get("a"), play.watch.stories.get("a")
    assert session is not None
    assert log is not None
    assert play.watch.note_loss(session, log)
    assert not play.watch.note_loss(session, log), "once"
    assert log.entries[-1].at_s == session.lost_place_s
    assert play.state("a") == "evicted"
    play.reading()
    play.arrives("a", 2)
    assert play.state("a") == "generating"


def test_an_eviction_by_the_engine_and_an_end_are_told() -> None:
    play = Playback()
    play.reading()
    play.answered(play.arrives("a"), tool=None)
    play.tell(KvReclaimed("a", "gpu", 512))
    assert play.words("a")[-1] == "Evicted: gpu took back 512 tokens of its KV before it had returned."
    assert ForgetSession("a") in play.tell(SessionEnded("a"))
    assert play.state("a") == "over"


def test_a_tool_is_told_of_the_session_that_waits_for_it() -> None:
    """By the command's digest, as the policy joined it."""
    play = Playback()
    play.reading()
    play.answered(play.arrives("a"))
    for phase, run_s in ((ToolPhase.STARTED, None), (ToolPhase.FINISHED, 1.25)):
        play.tell(
            ToolObserved("x", phase, "g", command_digest="0" * 64, tool_signature="pytest", run_s=run_s)
        )
    assert play.words("a")[-1] == "Tool pytest ended after 1.2 s."
    play.tell(ToolObserved("y", ToolPhase.STARTED, "g", command_digest="1" * 64, tool_signature="secret"))
    assert not any("secret" in words for words in play.words("a"))


def test_watching_decides_nothing() -> None:
    """The state that replicas share, byte for byte, with and without somebody who looks all the time."""
    watched, alone = Playback(), Playback()
    for play in (watched, alone):
        play.reading()
        if play is watched:
            play.feed.subscribe()
        for number in range(8):
            turn = play.arrives(f"s{number}", prompt_tokens=PROMPT)
            play.answered(turn, prompt_tokens=PROMPT) if number < 3 else None
            play.now += 1.0
            play.reading()
            if play is watched:
                play.feed.changes_since(0)
                play.feed.whole()
    assert pickle.dumps(watched.policy) == pickle.dumps(alone.policy)


def test_everything_has_a_bound() -> None:
    stories = Stories()
    for number in range(MAX_SESSIONS + 10):
        stories.begin(f"s{number}", "", float(number) / 1000)
    assert len(stories) == MAX_SESSIONS
    assert len(stories.begin("late", "", KEPT_S * 10)) == MAX_SESSIONS
    assert len(stories) == 1
    play, _ = crowded(3)
    for turn in range(2, 200):
        play.arrives("s0", turn, prompt_tokens=PROMPT)
        play.tell(TurnEnded(f"s0.{turn}", Ending.FAILED))
    log = play.watch.stories.get("s0")
    assert log is not None
    assert len(log.entries) == MAX_ENTRIES
    assert len(play.watch.turns) == play.policy.open_turns
    assert len(play.watch.decisions) <= MAX_DECISIONS


def test_another_state_is_begun_anew() -> None:
    """Turns of the old one may never end."""
    play, _ = crowded()
    play.watch.adopted()
    assert (len(play.watch.turns), len(play.watch.holding)) == (0, 0)
