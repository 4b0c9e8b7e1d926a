"""What is known of sessions: bounded, expiring, and quick to say what two have in common."""

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from backend_patch.session_index import SessionIndex, SessionRecord, common_prefix
from tests.backend_patch.fake_pool import sequence
from tests.bench.instructions import instructions_of


def index(records: int = 100, expiry_s: float = 60.0, hashes: int = 10_000) -> SessionIndex:
    return SessionIndex(records, expiry_s, hashes)


def turn(
    sessions: SessionIndex, session: str, hashes: list[Hashable], now: float = 0.0, branch: str = ""
) -> SessionRecord:
    record = sessions.arrived((session, branch), now, now)
    sessions.scheduled(record)
    sessions.learn(record, hashes, 16 * len(hashes))
    sessions.ended(record, now)
    return record


def test_a_turn_is_remembered() -> None:
    """Turns, tokens, who is there."""
    sessions = index()
    record = sessions.arrived(("a", ""), 5.0, 5.0)
    assert (record.live, record.waiting, record.turns) == (1, 1, 0)
    sessions.scheduled(record)
    sessions.learn(record, ["x"], 20)
    sessions.ended(record, 6.0)
    assert (record.live, record.waiting, record.turns, record.tokens) == (0, 0, 1, 20)
    assert sessions.get(("a", "")) is record


def test_branches_share_the_sessions_first_arrival() -> None:
    """An old session's new helper is as old as the session."""
    sessions = index()
    turn(sessions, "a", ["x"], 1.0)
    assert turn(sessions, "a", ["y"], 9.0, "helper").session_arrival_s == 1.0
    turn(sessions, "a", ["x"], 10.0)
    assert [record.key[1] for record in sessions.of_session("a")] == ["helper", ""]


def test_least_recent_makes_room() -> None:
    """Seen last, not made last."""
    sessions = index(records=2)
    for name in ("a", "b", "a", "c"):
        turn(sessions, name, [name])
    assert [record.key[0] for record in sessions] == ["a", "c"]


def test_silent_sessions_are_forgotten() -> None:
    """When somebody else arrives; not while a request of theirs is live."""
    sessions = index(expiry_s=10)
    turn(sessions, "gone", ["x"], 0.0)
    lives = sessions.arrived(("lives", ""), 1.0, 1.0)
    turn(sessions, "new", ["y"], 50.0)
    assert [record.key[0] for record in sessions] == ["lives", "new"]
    sessions.ended(lives, 51.0)
    assert len(sessions) == 2


def test_a_turn_may_outlive_its_record() -> None:
    """All records are of live sessions and there is room for one."""
    sessions = index(records=1)
    first = sessions.arrived(("a", ""), 0.0, 0.0)
    sessions.arrived(("b", ""), 1.0, 1.0)
    sessions.learn(first, ["x"], 5)
    sessions.ended(first, 2.0)
    sessions.forget(first)
    assert [record.key[0] for record in sessions] == ["b"]
    assert not len(sessions._holders)


def test_hashes_are_bounded() -> None:
    """Those of the least recent turn go; the session is known all the same."""
    sessions = index(hashes=10)
    for name in "abc":
        turn(sessions, name, sequence(name, 4))
    assert [len(record.hashes) for record in sessions] == [0, 4, 4]
    assert (sessions.get(("a", "")) or SessionRecord(("", ""), 0, 0)).turns == 1


def test_shared_with_whom() -> None:
    """With any other record, but those that go as well."""
    sessions = index()
    prompt = sequence("prompt", 3)
    one = turn(sessions, "a", sequence("a", 9, prompt))
    helper = turn(sessions, "a", sequence("helper", 8, sequence("a", 6, prompt)), branch="helper")
    turn(sessions, "b", sequence("b", 5, prompt))
    assert sessions.shared_hashes(one, []) == 6
    assert sessions.shared_hashes(one, [one, helper]) == 3
    assert sessions.shared_hashes(helper, [helper]) == 6
    sessions.forget(helper)
    assert sessions.shared_hashes(one, [one]) == 3
    sessions.forget_hashes()
    assert sessions.shared_hashes(one, [one]) == 0


def test_cost_does_not_grow_with_sessions() -> None:
    """Four thousand of them share the system prompt."""

    def cost(count: int) -> int:
        sessions = index(records=5000, hashes=10**6)
        prompt = sequence("prompt", 8)
        for number in range(count):
            turn(sessions, f"s{number}", sequence(f"s{number}", 16, prompt))
        record = sessions.of_session("s0")[0]
        return instructions_of(lambda: sessions.shared_hashes(record, [record]))

    assert cost(2000) <= 1.2 * cost(20)


SEQUENCES = st.lists(st.lists(st.sampled_from("ab"), max_size=6), min_size=1, max_size=12)


@given(SEQUENCES)
def test_counts_are_those_of_the_last_turns(paths: list[list[str]]) -> None:
    """Against a scan of all pairs; hashes are prefixes, as vLLM's are."""
    sessions = index()
    for number, path in enumerate(paths):
        turn(sessions, f"s{number % 4}", ["".join(path[: end + 1]) for end in range(len(path))])
    for record in sessions:
        others = [each for each in sessions if each is not record]
        longest = max((common_prefix(record.hashes, each.hashes) for each in others), default=0)
        assert sessions.shared_hashes(record, [record]) == longest
    for record in sessions:
        sessions.forget(record)
    assert (len(sessions._holders), sessions._hash_count, len(sessions._with_hashes)) == (0, 0, 0)
