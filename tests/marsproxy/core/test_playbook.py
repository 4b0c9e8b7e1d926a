"""The transcript helper must fail where a test that uses it ought to."""

import pytest

from marsproxy.core.events import SessionEnded
from tests.marsproxy.core.playbook import Playbook, arrives, calls_tool, forgotten, goes, waits


def test_a_command_that_nobody_wrote_down_fails():
    with pytest.raises(AssertionError, match=r"\+ ForwardTurn\(turn_id='a1'"):
        Playbook().at(1, arrives("a1"))


def test_a_command_that_does_not_come_fails_with_what_came_instead():
    with pytest.raises(AssertionError) as failure:
        Playbook().at(1, arrives("a1"), waits("a1"))
    assert "- HoldTurn(turn_id='a1'" in str(failure.value)
    assert "+ ForwardTurn(turn_id='a1'" in str(failure.value)
    assert ">> 1 TurnArrived(turn_id='a1'" in str(failure.value)


def test_the_order_of_commands_matters():
    book = Playbook(pool_tokens=20_000).at(1, arrives("a1"), goes("a1")).at(1, arrives("b1"), waits("b1"))
    book.at(2, calls_tool("a1"))
    with pytest.raises(AssertionError, match="expected"):
        book.at(3, SessionEnded("a"), goes("b1"), forgotten("a"))


def test_a_timer_that_causes_commands_must_be_written():
    book = Playbook(pool_tokens=20_000).at(1, arrives("a1"), goes("a1")).at(1, arrives("b1"), waits("b1"))
    book.at(2, calls_tool("a1"))
    with pytest.raises(AssertionError, match=r"\+ ForwardTurn\(turn_id='b1'"):
        book.quiet_until(100)


def test_a_timer_that_is_not_armed_does_not_fire():
    book = Playbook().at(1, arrives("a1"), goes("a1"))
    with pytest.raises(AssertionError, match="the timer is armed for None, not for 31"):
        book.fires(31)
