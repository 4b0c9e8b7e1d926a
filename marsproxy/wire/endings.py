"""Calls by which an agent says that it is done: nothing runs for them, and nothing comes back by itself.

Owns the names. An answer with no other call is an agent's last word as a text is: its place is free at once,
not when the call has gone unanswered for long enough. Where an agent goes on all the same, that is learned of
its family as after texts.
"""

from hashlib import sha256

from marsproxy.wire.answer_parts import ToolCall

TOOLS = frozenset({"finish", "submit", "final_answer", "attempt_completion"})
"""OpenHands (SDK 1.58); SWE-agent 1.1; smolagents 1.26; Cline and Roo Code."""
COMMANDS = ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",)
"""mini-swe-agent 2.4, whose only tool is the shell."""

_COMMAND_DIGESTS = frozenset(sha256(command.encode()).hexdigest() for command in COMMANDS)


def says_done(calls: tuple[ToolCall, ...]) -> bool:
    """Whether all of them do, and there are any."""
    return bool(calls) and all(map(_is_ending, calls))


def _is_ending(call: ToolCall) -> bool:
    return call.name in TOOLS or call.command_digest in _COMMAND_DIGESTS
