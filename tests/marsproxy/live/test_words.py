"""Sentences: the numbers that are known are in them, and those that are not are called unknown."""

import pytest

from marsproxy.core.commands import ForwardTurn, HintKv, HoldTurn, KvAction, Reason, RejectTurn
from marsproxy.core.events import (
    Ending,
    LeaseExpired,
    LeaseResumed,
    ToolHostsObserved,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.live.story import Entry, Numbers
from marsproxy.live.words import ARRIVED, WHY, kind_of, seconds, sentence, tokens

FULL = Numbers("gpu", 40_000, 36_000.0, 35_100.0, 1_200, 2_500.0)


@pytest.mark.parametrize(
    ("what", "numbers", "said"),
    [
        (
            HoldTurn("t", Reason.KV_FULL, 4),
            FULL,
            (
                "Held, number 4 in the queue: the KV budget has no room for it. It needs 2,500 tokens. "
                "gpu has promised 35,100 of the 36,000 tokens that it may; 1,200 are in leases."
            ),
        ),
        (
            HoldTurn("t", Reason.TELEMETRY_UNKNOWN, 1),
            Numbers("gpu"),
            (
                "Held, number 1 in the queue: the load of the backends is unknown, and the fixed cap on "
                "sessions is reached. The KV budget of gpu is unknown."
            ),
        ),
        (
            HoldTurn("t", Reason.TOOLS_BUSY, 2),
            Numbers(tools=ToolHostsObserved(cores=8, running=20)),
            (
                "Held, number 2 in the queue: the tool hosts are full. Cores 8, tools that run 20, "
                "that wait unknown, memory available unknown MB."
            ),
        ),
        (
            RejectTurn("t", Reason.HELD_TOO_LONG, 5.0),
            Numbers(waited_s=600.0),
            (
                "Refused after 10.0 min: nothing became free in the longest time that a turn may wait; "
                "told to try again in 5.0 s."
            ),
        ),
        (
            ForwardTurn("t", "gpu", 40, "new"),
            Numbers("gpu", None, None, None, None, 2_500.0, 5.21),
            (
                "Admitted as a new session after 5.2 s in the queue; to gpu, with priority 40 (lower runs "
                "earlier). It counts for 2,500 tokens. The KV budget of gpu is unknown."
            ),
        ),
        (
            HintKv("s", "gpu", KvAction.KEEP, 60.0),
            None,
            "Asked gpu to keep its KV blocks for up to 60.0 s.",
        ),
        (TurnEnded("t", Ending.ABORTED), None, "The client went away or cancelled."),
        (TurnEnded("t", Ending.FAILED), None, "It ended with an error."),
        (
            TurnEnded("t", Ending.FINISHED),
            None,
            (
                "Answered: an unknown number of tokens of prompt; an unknown number of tokens generated. "
                "No tool was called."
            ),
        ),
        (
            TurnFirstToken("t"),
            Numbers(waited_s=0.042),
            "First token, 42 ms after the turn arrived.",
        ),
        (LeaseResumed("s", "gpu", 500, 480), None, "Found 480 tokens of 500 tokens that were kept for it."),
        (LeaseExpired("s", "gpu", 500), None, "The lease on 500 tokens of its KV ran out at gpu."),
    ],
)
def test_sentences(what: object, numbers: Numbers | None, said: str) -> None:
    assert sentence(Entry(1.0, what, numbers)) == said  # type: ignore[arg-type]


def test_every_reason_and_kind_has_words() -> None:
    """A new one breaks this, and not the page."""
    assert set(WHY) == set(Reason)
    assert set(ARRIVED) == set(TurnKind)
    assert kind_of(Entry(0.0, TurnBounced("t", "gpu"), None)) == "bounced"


def test_unknown_is_said() -> None:
    assert (tokens(None), seconds(None)) == ("an unknown number of tokens", "an unknown time")
    assert (tokens(0), seconds(0.0)) == ("0 tokens", "0 ms")
