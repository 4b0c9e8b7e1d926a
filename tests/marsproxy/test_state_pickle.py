"""States and records survive the way between processes, and nothing else does."""

import os
import pickle

import pytest

from marsproxy.core.events import BackendObserved, Ending, TurnEnded
from marsproxy.core.policies import POLICIES
from marsproxy.core.shared_state import Departure, Happening, MemberJoined
from marsproxy.state_pickle import Forbidden, read, read_state, write
from tests.marsproxy.workers.replica import BACKEND, arrival, fresh_state

LATER: list[Happening] = [
    BackendObserved(BACKEND, kv_tokens_total=100_000, running=1, waiting=0),
    Departure(TurnEnded("a.1", Ending.FINISHED, prompt_tokens=100, completion_tokens=5)),
    arrival("a.3", "three"),
]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_copied_state_decides_as_the_original(policy: str) -> None:
    """Of every policy, in the middle of its work."""
    state = fresh_state(policy)
    for now, happening in enumerate([MemberJoined("a"), arrival("a.1"), arrival("a.2", "two")]):
        state.apply(happening, "a", float(now))
    copy = read_state(write(state))
    for now, happening in enumerate(LATER, start=10):
        assert copy.apply(happening, "a", float(now)) == state.apply(happening, "a", float(now))


def test_records_come_back_equal() -> None:
    for happening in [*LATER, arrival("x.1")]:
        assert read(write(happening)) == happening


class Malicious:
    def __reduce__(self) -> object:
        return os.getcwd, ()


@pytest.mark.parametrize("made", [Malicious(), pickle.loads, os.system, eval])
def test_what_could_run_is_refused(made: object) -> None:
    """Functions, and objects that call one when they are made."""
    with pytest.raises(Forbidden):
        read(pickle.dumps(made))


def test_a_state_is_a_state() -> None:
    with pytest.raises(Forbidden, match="dict"):
        read_state(pickle.dumps({}))


def test_attributes_are_those_of_our_objects() -> None:
    """What pickle would fetch from anything, a way to everything."""
    with pytest.raises(Forbidden, match="__class__"):
        read(b"cbuiltins\ngetattr\n(I1\nV__class__\ntR.")


def test_names_that_our_modules_import_are_not_ours() -> None:
    """Else whatever one of them imports could be had through it."""
    with pytest.raises(Forbidden):
        read(b"cmarsproxy.core.identity\nOrderedDict\n.")


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x05", b"(" * 10_000, b"]j\xff\xff\xff\xff."])
def test_what_is_no_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(Forbidden):
        read(data)
