"""With how many a replica shares that has lost the others."""

from marsproxy.store.company import REUNION_S, Company


def test_those_who_were_there_count() -> None:
    company = Company(expected=5)
    company.met()
    assert company.lose(members=3, now=10.0) == 3


def test_who_has_met_nobody_goes_by_what_it_was_told() -> None:
    assert Company(expected=4).lose(members=1, now=10.0) == 4
    assert Company(expected=1).lose(members=1, now=10.0) == 1


def test_lost_again_before_all_are_back_those_of_before_count() -> None:
    """A founder by itself is no proof that the others are gone. After a while it is."""
    company = Company(expected=1)
    company.met()
    assert company.lose(members=3, now=10.0) == 3
    assert company.lose(members=1, now=15.0) == 3
    assert company.lose(members=2, now=16.0 + REUNION_S) == 2
