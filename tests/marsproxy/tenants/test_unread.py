"""Requests that are no turns have the same bound as turns, and leave nothing behind."""

import pytest

from marsproxy.tenants.door import Caller, NotAdmitted
from marsproxy.tenants.unread import UnreadRequests

FEW = Caller("few", "few", max_open_turns=1)


def test_one_more_than_allowed_is_refused_until_one_is_over() -> None:
    unread = UnreadRequests()
    with unread.one(FEW):
        with pytest.raises(NotAdmitted) as refused, unread.one(FEW):
            pass
        assert (refused.value.refusal.status, refused.value.refusal.code) == (429, "tenant_turns")
        assert refused.value.refusal.closes_connection
        with unread.one(Caller("other", "other", max_open_turns=1)):
            assert len(unread) == 2
    with unread.one(FEW):
        assert len(unread) == 1
    assert len(unread) == 0


def test_one_that_fails_is_over() -> None:
    unread = UnreadRequests()
    with pytest.raises(ConnectionError), unread.one(FEW):
        raise ConnectionError
    assert len(unread) == 0


def test_who_has_no_limit_is_not_refused() -> None:
    unread = UnreadRequests()
    with unread.one(Caller("free")), unread.one(Caller("free")):
        assert len(unread) == 2
