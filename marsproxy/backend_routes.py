"""The proxy's own routes about backends: what is known of each, and taking one out of service and back.

Every route is a coroutine, as in ``marsproxy.app``.
"""

from typing import Any

from fastapi import Depends, FastAPI

from marsproxy import errors
from marsproxy.admin import admin
from marsproxy.audit import audited
from marsproxy.backend import Backend
from marsproxy.backends import Backends
from marsproxy.config import Config
from marsproxy.core.headroom import BackendState
from marsproxy.dispatcher import Dispatcher
from marsproxy.errors import Refuse


def add_backend_routes(api: FastAPI, config: Config, dispatcher: Dispatcher, backends: Backends) -> None:
    is_admin = Depends(audited(admin(config.admin.token)))

    @api.get("/mars/v1/backends", dependencies=[is_admin])
    async def list_backends() -> dict[str, Any]:
        """All that the policy knows, those included that are gone but for turns in flight."""
        now = dispatcher.journal.now()
        views = [
            {"name": name, **admin_view(state, backends.get(name), now)}
            for name, state in dispatcher.policy.backends.items()
        ]
        return {"backends": views}

    @api.post("/mars/v1/backends/{name:path}/drain", dependencies=[is_admin])
    async def drain(name: str) -> dict[str, Any]:
        """No new session goes there; those that it has go on until they rest. Saying it twice is fine."""
        return await drained(name, is_draining=True)

    @api.post("/mars/v1/backends/{name:path}/undrain", dependencies=[is_admin])
    async def undrain(name: str) -> dict[str, Any]:
        return await drained(name, is_draining=False)

    async def drained(name: str, *, is_draining: bool) -> dict[str, Any]:
        if not backends.is_believed(name):
            raise Refuse(errors.not_found("backend"))
        backends.drain(name, is_draining=is_draining)
        await dispatcher.journal.settle()
        state = dispatcher.policy.backends.get(name)
        return {
            "name": name,
            "draining": is_draining,
            "counted_sessions": 0 if state is None else len(state.counted),
        }


def backend_view(state: BackendState, backend: Backend | None, now: float) -> dict[str, Any]:
    """For everybody.

    Args:
        backend: None where this replica has not found it, or it is gone.
    """
    observed_at_s = state.observed_at_s
    finding = None if backend is None else backend.patch.finding
    capabilities = None if finding is None else finding.capabilities
    return {
        "reachable": state.is_reachable and observed_at_s is not None,
        "kv_tokens_total": state.kv_tokens_total,
        "counted_sessions": len(state.counted),
        "patch": {
            "state": "unknown" if finding is None else finding.state.value,
            "why": None if finding is None else finding.why or None,
            "version": None if capabilities is None else capabilities.patch_version,
            "vllm_version": None if capabilities is None else capabilities.vllm_version,
        },
        "headroom": {
            "source": "none" if backend is None else backend.patch.source.value,
            "age_s": None if observed_at_s is None else round(now - observed_at_s, 3),
        },
    }


def admin_view(state: BackendState, backend: Backend | None, now: float) -> dict[str, Any]:
    """The same, and what this replica itself sees of it."""
    return {
        **backend_view(state, backend, now),
        "draining": state.is_draining,
        "gone": state.has_left,
        "models": None if state.models is None else sorted(state.models),
        "here": None
        if backend is None
        else {
            "reachable": backend.is_reachable,
            "breaker": backend.breaker.state.value,
            "answers_under_way": backend.upstream.open_answers,
        },
    }
