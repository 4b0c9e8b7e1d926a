"""A state can be written down at any time, and says the same in every process."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.commands import ForwardTurn, HintKv, HoldTurn
from marsproxy.core.events import BackendObserved, Ending, TimerFired, TurnEnded
from marsproxy.core.policies import POLICIES
from marsproxy.core.shared_state import Arrival, Departure, MemberAlone, MemberJoined, Outcome, SharedState
from tests.marsproxy.core.histories import apply, history, new_state

ROOT = Path(__file__).parents[3]
STEPS = 150
ALONE = (Arrival, Departure, BackendObserved, TimerFired)
"""What happens to one that hears no other."""


def written_and_read(state: SharedState) -> SharedState:
    """As a checkpoint does."""
    read = pickle.loads(pickle.dumps(state))
    assert isinstance(read, SharedState)
    return read


@pytest.mark.parametrize("policy", [*POLICIES])
def test_a_state_goes_on_after_it_was_written_and_read(policy: str) -> None:
    for seed in range(6):
        records = history(seed, STEPS)
        whole, half = new_state(policy), new_state(policy)
        expected = apply(whole, records)
        got = apply(half, records[: STEPS // 2])
        got += apply(written_and_read(half), records[STEPS // 2 :])
        assert got == expected


@pytest.mark.parametrize("policy", [*POLICIES])
def test_every_policy_goes_on_alone_and_together_again(policy: str) -> None:
    """With its own turns, and with no others; none of them is lost."""
    for seed in range(6):
        records = history(seed, 2 * STEPS)
        state = new_state(policy)
        apply(state, records[:STEPS])
        state.apply(MemberJoined("a"), "a", records[STEPS][0])
        state.apply(MemberAlone("a"), "a", records[STEPS][0])
        assert state.policy.open_turns <= len(state._turns)
        assert {turn.member for turn in state._turns.values()} <= {"a"}
        own = [record for record in records[STEPS:] if record[1] == "a" and isinstance(record[2], ALONE)]
        apply(state, own)
        state.apply(MemberJoined("a2"), "a2", records[-1][0])
        for turn_id in [*state._turns]:
            state.apply(Departure(TurnEnded(turn_id, Ending.ABORTED)), "a", records[-1][0])
        assert (state.policy.open_turns, len(state.policy.held)) == (0, 0)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 400), share=st.floats(0, 1))
def test_wherever_it_is_written_and_read(seed: int, steps: int, share: float) -> None:
    records = history(seed, steps)
    cut = int(share * len(records))
    whole, half = new_state(), new_state()
    expected = apply(whole, records)
    assert apply(half, records[:cut]) == expected[:cut]
    assert apply(written_and_read(half), records[cut:]) == expected[cut:]


def test_the_histories_are_worth_it() -> None:
    """Turns go, wait and leave hints; some are resumed."""
    outcomes = [
        each for seed in range(6) for some in apply(new_state(), history(seed, STEPS)) for each in some
    ]
    words = [type(command) for outcome in outcomes for command in outcome.commands]
    assert min(words.count(kind) for kind in (ForwardTurn, HoldTurn, HintKv)) > 20
    assert sum(type(outcome.event).__name__ == "TurnResumed" for outcome in outcomes) > 5


def digest_of_all() -> str:
    """Of everything that every policy makes of a few histories."""
    digest = hashlib.sha256()
    for policy in POLICIES:
        for seed in range(3):
            outcomes: list[list[Outcome]] = apply(new_state(policy), history(seed, STEPS))
            digest.update(repr(outcomes).encode())
    return digest.hexdigest()


@pytest.mark.slow
def test_two_processes_come_to_the_same() -> None:
    """Whatever order each has its sets in."""
    program = "from tests.marsproxy.core.test_histories import digest_of_all; print(digest_of_all())"
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0]) == 64
