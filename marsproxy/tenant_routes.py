"""Own routes where there are tenants: who may see what, and ``GET /mars/v1/tenants``.

A tenant sees and ends its own sessions with its own key, and is not told whether others exist. Whoever runs
the proxy sees all of them, and what each tenant has of what it may have.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from marsproxy.admin import AdminCheck
from marsproxy.audit import audited
from marsproxy.core.events import Event, TenantLimits
from marsproxy.dispatcher import Dispatcher
from marsproxy.errors import Refuse
from marsproxy.tenants.door import Door, NotAdmitted
from marsproxy.tenants.file import Tenant
from marsproxy.tenants.reload import TenantsFile

Viewer = Callable[[Request], Awaitable[str | None]]
"""The tenant that asks; None for one that may see everybody's.

Raises:
    Refuse: neither.
"""


def viewer(door: Door, check: AdminCheck) -> Viewer:
    """Without tenants everybody may see everything, as ever."""

    async def who(request: Request) -> str | None:
        if not door.is_guarded:
            return None
        try:
            return door.admit(request.headers.raw).tenant
        except NotAdmitted as exc:
            try:
                await check(request)
            except Refuse:
                raise Refuse(exc.refusal) from None
            return None

    return who


class DispatchedLimits:
    """What ``TenantsFile`` asks and tells: the limits in the policy behind the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def leads(self) -> bool:
        return self._dispatcher.journal.leads

    @property
    def told(self) -> tuple[TenantLimits, ...]:
        return self._dispatcher.state.policy.limits

    def tell(self, event: Event) -> None:
        self._dispatcher.tell(event)


def add_tenant_routes(
    api: FastAPI, check: AdminCheck, dispatcher: Dispatcher, file: TenantsFile | None
) -> None:
    is_admin = Depends(audited(check))

    @api.get("/mars/v1/tenants")
    async def tenants(caller: Annotated[str, is_admin]) -> dict[str, Any]:
        """Everybody that the file names, what they may have and what they have now; never a key."""
        named = () if file is None else file.tenants
        return {"tenants": [_view(tenant, dispatcher) for tenant in named]}


def _view(tenant: Tenant, dispatcher: Dispatcher) -> dict[str, Any]:
    limits, now = tenant.limits, dispatcher.journal.now()
    use = dispatcher.state.policy.use_of(limits.tenant)
    bucket = None if use is None else use.bucket
    return {
        "name": tenant.name,
        "id": limits.tenant,
        "keys": [key.id for key in tenant.keys],
        "expires_s": tenant.expires_s,
        "models": None if tenant.models is None else sorted(tenant.models),
        "weight": limits.weight,
        "limits": {
            "open_turns": limits.max_open_turns,
            "sessions": limits.max_sessions,
            "tokens_per_s": limits.tokens_per_s,
            "burst_tokens": None if bucket is None else bucket.burst,
        },
        "use": None
        if use is None
        else {
            "open_turns": use.open_turns,
            "waiting_turns": use.waiting,
            "sessions": None if limits.max_sessions is None else len(use.at_work),
            "tokens": None if bucket is None else round(bucket.balance(now)),
        },
    }
