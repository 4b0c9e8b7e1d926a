"""What a backend's failure means: to the client that sees it, and to whether another backend may be asked.

A request may go elsewhere as long as nothing of an answer has reached its client and the first backend is
known not to work on it any more: there was no connection, it broke, or an answer said so. Silence is no such
sign, and a 500 is an answer: the engine's, to this very request.
"""

from marsproxy import errors
from marsproxy.upstream import UpstreamBroke, UpstreamError, UpstreamSilent, UpstreamTimeout

NOT_TAKEN = frozenset((502, 503))
"""Answers that say that nobody worked on the request: of something in front of the engine that does not reach
it, and of an engine that is dead, starts or stops. Not 504, behind which it may be at work, and not 429, with
which a gateway in front means this client."""
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
"""They ask for nothing to be done (RFC 9110, section 9.2.1)."""


class NotTaken(Exception):
    """The backend did not take the turn, and another may have it."""


def refusal_of(failure: UpstreamError) -> errors.Refusal:
    if isinstance(failure, UpstreamTimeout):
        return errors.backend_timeout(failure.backend)
    if isinstance(failure, UpstreamBroke):
        return errors.backend_broke_off(failure.backend)
    return errors.backend_unreachable(failure.backend)


def may_go_elsewhere(failure: UpstreamError) -> bool:
    """A turn, of which nothing has reached its client. What the backend had begun it gives up with the
    connection."""
    if isinstance(failure, UpstreamTimeout):
        return not failure.may_have_begun
    return not isinstance(failure, UpstreamSilent)


def may_be_repeated(failure: UpstreamError, method: str) -> bool:
    """A request of which nothing is known but its method."""
    return method in SAFE_METHODS or not failure.may_have_begun
