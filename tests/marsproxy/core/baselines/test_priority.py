"""Two tags: what goes on, and what is new."""

from marsproxy.core.baselines.priority import ContinuationsFirst
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import arrives, calls_tool, fails, side_call


def test_continuations_are_tagged_before_new_sessions():
    (
        book(ContinuationsFirst)
        .at(0, arrives("a1"), goes("a1", priority=1))
        .at(0, side_call("a2"), goes("a2", "side", priority=0))
        .at(1, calls_tool("a1"))
        .at(2, arrives("a3"), goes("a3", "continuation", priority=0))
        .at(2, arrives("b1", kind=TurnKind.CONTINUATION), goes("b1", "continuation", priority=0))
    )


def test_a_first_turn_that_is_tried_again_is_still_new():
    (
        book(ContinuationsFirst)
        .at(0, arrives("a1"), goes("a1", priority=1))
        .at(1, fails("a1"))
        .at(2, arrives("a2", kind=TurnKind.RETRY), goes("a2", priority=1))
    )
