"""A pin ends in one of five ways."""

import pytest

from marsproxy.core.baselines.pins import Pins
from marsproxy.core.commands import Command
from marsproxy.core.sessions import SessionState
from tests.marsproxy.core.baselines.hint_words import pins as pinned
from tests.marsproxy.core.baselines.hint_words import releases, swaps_out


def with_turns(*turn_ids: str) -> SessionState:
    """Session a with these in flight."""
    return SessionState("a", "", "", 0.0, 0.0, open_turns=set(turn_ids))


@pytest.fixture
def orders() -> list[Command]:
    return []


@pytest.fixture
def pins(orders: list[Command]) -> Pins:
    """Session a is pinned from 10 to 12."""
    pins = Pins(orders.append)
    pins.keep("a", "gpu", 2.0, now=10.0)
    assert orders == [pinned("a", 2.0)]
    orders.clear()
    return pins


def test_it_is_live_until_its_time_is_over(pins: Pins):
    assert [pins.is_live("a", at) for at in (10.0, 12.0, 12.001)] == [True, True, False]
    assert not pins.is_live("b", 10.0)


def test_it_waits_with_a_turn_that_came_in_time(pins: Pins, orders: list[Command]):
    assert pins.await_turn(with_turns("a1"), "gpu", 11.0)
    assert orders == [pinned("a", None)]
    assert pins.is_live("a", 1e9)
    assert pins.await_turn(with_turns("a1", "a2"), "gpu", 1e9), "a second turn beside the first"
    assert orders == [pinned("a", None)]


def test_it_does_not_wait_for_a_turn_that_is_late(pins: Pins, orders: list[Command]):
    assert not pins.await_turn(with_turns("a1"), "gpu", 12.001)
    assert (orders, len(pins)) == ([], 0)


def test_it_is_released_when_the_turn_goes_elsewhere(pins: Pins, orders: list[Command]):
    assert not pins.await_turn(with_turns("a1"), "other", 11.0)
    assert (orders, len(pins)) == ([releases("a")], 0)


def test_it_is_released_once(pins: Pins, orders: list[Command]):
    pins.release("a")
    pins.release("a")
    assert orders == [releases("a")]


def test_what_started_or_was_refused_need_not_be_released(pins: Pins, orders: list[Command]):
    pins.started("a")
    pins.release("a")
    pins.keep("a", "gpu", 1.0, now=20.0)
    orders.clear()
    pins.refused(with_turns())
    pins.release("a")
    assert (orders, len(pins)) == ([], 0)


def test_beside_a_side_call_it_only_lasts_its_time(pins: Pins, orders: list[Command]):
    assert pins.await_turn(with_turns("side", "a1"), "gpu", 11.0)
    assert orders == []
    assert not pins.is_live("a", 12.001)


def test_blocks_in_use_are_no_refusal(pins: Pins):
    pins.refused(with_turns("side"))
    assert pins.is_live("a", 11.0)


def test_what_is_swapped_out_is_not_pinned(pins: Pins, orders: list[Command]):
    pins.swap_out("a", "gpu")
    assert (orders, len(pins)) == ([swaps_out("a")], 0)
