"""What agents say when they are done, and what only looks like it."""

from hashlib import sha256

import pytest

from marsproxy.wire.answer_parts import ToolCall
from marsproxy.wire.endings import COMMANDS, TOOLS, says_done

FINISH = ToolCall("call_1", "finish")
WORK = ToolCall("call_2", "terminal", sha256(b"make test").hexdigest())


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_a_call_of_an_ending_tool_says_so(name: str) -> None:
    assert says_done((ToolCall("call_1", name),))


@pytest.mark.parametrize("command", COMMANDS)
def test_so_does_an_ending_command_whatever_the_tool(command: str) -> None:
    assert says_done((ToolCall("call_1", "bash", sha256(command.encode()).hexdigest()),))


@pytest.mark.parametrize("calls", [(), (WORK,), (WORK, FINISH), (FINISH, WORK), (ToolCall(None, None),)])
def test_nothing_else_does(calls: tuple[ToolCall, ...]) -> None:
    assert not says_done(calls)
