"""Nobody waits for ever: in the proxy's queue, and in the engine's."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.commands import ForwardTurn
from marsproxy.core.evidence import TurnKind
from marsproxy.core.priority import DELAY_S, TICKS_PER_S, TurnClass, priority
from tests.marsproxy.core.playbook import Playbook, answers, arrives, goes, waits

TIMES_S = st.floats(0, 1e7, allow_nan=False)
CLASSES = st.sampled_from(TurnClass)


class Crowd:
    """Sessions that come faster than they leave, beside one large turn that waits."""

    def __init__(self, book: Playbook, kind: TurnKind) -> None:
        self.policy = book.policy
        self.kind = kind
        self.running: deque[str] = deque(f"{name}1" for name in "abcdef")
        self.admitted: list[str] = []
        self.comers = 0

    def one_comes(self, now: float) -> None:
        self.comers += 1
        name = f"comer-{self.comers}-"
        self._play(arrives(f"{name}1", kind=self.kind), now)

    def one_leaves(self, now: float) -> None:
        if self.running:
            self._play(answers(self.running.popleft()), now)

    def _play(self, event, now: float) -> None:
        going = [c.turn_id for c in self.policy.handle(event, now) if isinstance(c, ForwardTurn)]
        self.running += going
        self.admitted += going


def crowd_beside_a_large_turn(kind: TurnKind, max_overtakes: int, deadline_slack: float = 0.0) -> Crowd:
    book = Playbook(max_overtakes=max_overtakes, max_hold_s=86_400, deadline_slack=deadline_slack)
    for name in "abcdef":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1"))
    book.at(1, arrives("large1", tokens=80_000), waits("large1"))
    return Crowd(book, kind)


@settings(deadline=None)
@given(comers_per_leaver=st.integers(1, 3), max_overtakes=st.integers(0, 10))
def test_a_large_turn_goes_before_long_in_a_stream_of_small_new_sessions(comers_per_leaver, max_overtakes):
    crowd = crowd_beside_a_large_turn(TurnKind.FIRST, max_overtakes)
    for second in range(2, 40):
        for _ in range(comers_per_leaver):
            crowd.one_comes(second)
        crowd.one_leaves(second)
    assert "large1" in crowd.admitted
    assert crowd.admitted.index("large1") <= max_overtakes


def test_a_large_turn_goes_in_a_stream_of_small_returns():
    """They are due before it by right, but only those that came before half of its work's slack was over."""
    crowd = crowd_beside_a_large_turn(TurnKind.CONTINUATION, max_overtakes=4, deadline_slack=1.0)
    (large,) = crowd.policy.held
    assert large.deadline_s > 500
    for second in range(2, 1000):
        crowd.one_comes(second)
        crowd.one_leaves(second)
        if "large1" in crowd.admitted:
            break
    assert 400 <= second <= large.deadline_s


def test_without_a_cap_on_overtaking_the_large_turn_would_still_wait():
    """What the cap is for: the same stream, and a cap too high to matter."""
    crowd = crowd_beside_a_large_turn(TurnKind.FIRST, max_overtakes=1_000)
    for second in range(2, 200):
        crowd.one_comes(second)
        crowd.one_leaves(second)
    assert "large1" not in crowd.admitted


# -- the engine's queue ---------------------------------------------------------------------------


@given(CLASSES, TIMES_S, CLASSES, TIMES_S)
def test_a_turn_is_overtaken_only_by_sessions_that_came_within_its_delay(mine, my_s, other, other_s):
    """However many turns come later, there is an end to those that may go first."""
    if priority(other, other_s) < priority(mine, my_s):
        assert other_s <= my_s + DELAY_S[mine] + 1 / TICKS_PER_S


@given(TIMES_S, TIMES_S, CLASSES)
def test_older_sessions_go_first_within_a_class(first_s, second_s, turn_class):
    older, younger = sorted((first_s, second_s))
    assert priority(turn_class, older) <= priority(turn_class, younger)


@given(TIMES_S)
def test_of_sessions_of_one_age_the_running_go_before_the_returning_before_the_new(first_arrival_s):
    order = [TurnClass.CONTINUATION, TurnClass.RETURN, TurnClass.NEW]
    ranks = [priority(turn_class, first_arrival_s) for turn_class in order]
    assert ranks == sorted(set(ranks))
    assert priority(TurnClass.SIDE, first_arrival_s) == ranks[0]


def test_the_priority_of_a_turn_counts_from_its_sessions_first_arrival():
    (
        Playbook()
        .at(100, arrives("a1"), goes("a1", priority=7_000))
        .at(110, arrives("a2"), goes("a2", "continuation", priority=1_000))
        .at(120, arrives("b1"), goes("b1", priority=7_200))
        .at(130, answers("b1"))
        .at(140, arrives("b2"), goes("b2", "continuation", priority=1_200))
        .at(150, arrives("old9", kind=TurnKind.CONTINUATION), goes("old9", "return", priority=2_100))
    )
