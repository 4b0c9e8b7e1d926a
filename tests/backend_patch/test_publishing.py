"""How often the state goes out."""

from backend_patch.publishing import Interval, NoPublisher


def test_interval() -> None:
    """At once, then not before it has passed; a clock that was set back does not silence it."""
    interval = Interval(1.0)
    assert interval.is_due(5.0)
    interval.done(5.0)
    assert [interval.is_due(now) for now in (5.0, 5.9, 6.0, 4.0)] == [False, False, True, True]


def test_nobody_reads() -> None:
    """Nothing is kept, nothing is needed."""
    publisher = NoPublisher()
    publisher.write(b"x")
    publisher.close()
    assert vars(publisher) == {}
