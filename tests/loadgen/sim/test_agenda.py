"""What is due when."""

from loadgen.sim.agenda import Agenda


def test_calls_come_by_time_and_then_by_order() -> None:
    agenda, called = Agenda(), []
    for at_s, name in ((2.0, "late"), (1.0, "first"), (1.0, "second"), (0.5, "early")):
        agenda.add(at_s, lambda now, name=name: called.append((name, now)))
    assert (agenda.next_s, len(agenda)) == (0.5, 4)
    agenda.call_due(1.0)
    assert called == [("early", 1.0), ("first", 1.0), ("second", 1.0)]
    assert (agenda.next_s, len(agenda)) == (2.0, 1)


def test_what_is_added_for_now_is_called_too() -> None:
    agenda, called = Agenda(), []

    def again(now: float) -> None:
        called.append(now)
        if len(called) < 3:
            agenda.add(now, again)

    agenda.add(1.0, again)
    agenda.call_due(4.0)
    assert called == [4.0, 4.0, 4.0]
    assert agenda.next_s is None
