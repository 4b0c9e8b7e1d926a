"""What may be asked of somebody else, and what the client is told."""

import pytest

from marsproxy.failures import may_be_repeated, may_go_elsewhere, refusal_of
from marsproxy.upstream import (
    UpstreamBroke,
    UpstreamError,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnreachable,
)

NAME = "http://gpu:8000"


@pytest.mark.parametrize(
    ("failure", "elsewhere", "any_method", "code"),
    [
        (UpstreamUnreachable(NAME, "x", may_have_begun=False), True, True, "backend_unreachable"),
        (UpstreamUnreachable(NAME, "x"), True, False, "backend_unreachable"),
        (UpstreamTimeout(NAME, "x", may_have_begun=False), True, True, "backend_timeout"),
        (UpstreamTimeout(NAME, "x"), False, False, "backend_timeout"),
        (UpstreamBroke(NAME, "x"), True, False, "backend_broke_off"),
        (UpstreamSilent(NAME, "x"), False, False, "backend_broke_off"),
    ],
)
def test_failures(failure: UpstreamError, elsewhere: bool, any_method: bool, code: str) -> None:
    """Of turns, of requests of which nothing is known, and in the client's words."""
    assert may_go_elsewhere(failure) is elsewhere
    assert may_be_repeated(failure, "POST") is any_method
    assert may_be_repeated(failure, "GET")
    assert refusal_of(failure).code == code
