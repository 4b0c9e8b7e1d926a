"""Who may change how the proxy runs: whoever has the admin token, or, where none is set, this machine.

Owns the decision and nothing that follows from it. Behind a reverse proxy everybody seems to be on this
machine, so a request that says it was passed on is not believed to be.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from enum import StrEnum

from fastapi import Request

from marsproxy import errors
from marsproxy.config import Secret
from marsproxy.errors import Refuse

PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""What proxies add: RFC 7239, its forerunner, nginx's usual setting, RFC 9110 section 7.6.3."""


class AdminCaller(StrEnum):
    """Who it was, as far as the proxy can tell."""

    TOKEN = "token"
    LOOPBACK = "loopback"


AdminCheck = Callable[[Request], Awaitable[AdminCaller]]


def admin(token: Secret | None) -> AdminCheck:
    """A dependency for FastAPI: ``caller: Annotated[AdminCaller, Depends(admin(token))]``.

    Raises:
        Refuse: 401 without the token, 403 from elsewhere where there is none.
    """

    async def check(request: Request) -> AdminCaller:
        if token is None:
            if not _is_here(request):
                raise Refuse(
                    errors.forbidden("admin routes are for this machine only while no admin.token is set")
                )
            return AdminCaller.LOOPBACK
        wanted = f"Bearer {token.reveal()}".encode()
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(wanted, given):
            raise Refuse(errors.unauthorized("authorization: the admin token is needed, as a bearer token"))
        return AdminCaller.TOKEN

    return check


def _is_here(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in PASSED_ON):
        return False
    try:
        address = ipaddress.ip_address(request.client.host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, where one socket serves both
    return (mapped or address).is_loopback
