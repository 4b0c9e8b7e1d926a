"""Whose a request is, and what its sender may ask for at all.

Open, everybody may come in, and a tenant is whoever has the same key (its fingerprint). With tenants, nobody
without a key of theirs does. Owns that decision and nothing that follows from it; it keeps no count and
remembers no request, so there is nothing in it for anybody to fill.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from marsproxy import errors
from marsproxy.errors import Refusal
from marsproxy.outbound import tenant_of
from marsproxy.tenants.file import Tenant
from marsproxy.tenants.keys import KeyRecord, key_id_of
from marsproxy.wire.requests import ParsedRequest, names_own_xargs, tracked_schema

OPEN_PREFIX = "/v1/"
OPEN_PATHS = frozenset(
    (
        *("/health", "/ping", "/version", "/tokenize", "/detokenize"),
        *("/pooling", "/classify", "/score", "/rerank", "/v2/rerank"),
    )
)
"""Untracked paths of vLLM (0.28 to 0.33) that compute or tell something and change nothing for others."""
CLOSED_PATHS = frozenset(("/v1/load_lora_adapter", "/v1/unload_lora_adapter"))
"""Below ``OPEN_PREFIX``, and the operator's."""


class NotAdmitted(Exception):
    """Whoever asks may not, or not this."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    tenant: str
    """As identity and the policy know it."""
    name: str | None = None
    """As the file calls it; None where there is no file."""
    models: frozenset[str] | None = None
    max_open_turns: int | None = None
    """For what is no turn; those of its turns the policy counts."""

    @property
    def is_named(self) -> bool:
        """Its key was ours to check, and what it asks of the backend is ours to answer for."""
        return self.name is not None

    def check_path(self, method: str, path: str) -> None:
        """Of a request that is passed through unread.

        Raises:
            NotAdmitted: it is not among those that are of no harm to other tenants.
        """
        if self.is_named and not _is_open(method, path):
            raise NotAdmitted(errors.not_for_tenants("this path of the backend is not open to tenants"))

    def check_model(self, model: str | None) -> None:
        """
        Raises:
            NotAdmitted: it may use others only.
        """
        if self.models is not None and model not in self.models:
            allowed = ", ".join(sorted(self.models))
            raise NotAdmitted(errors.not_for_tenants(f"model: not one for this key; allowed: {allowed}"))

    def check_request(self, request: ParsedRequest | None) -> None:
        """
        Raises:
            NotAdmitted: nobody can tell what it asks for, or it would speak to the backend in our name.
        """
        if not self.is_named:
            return
        if request is None:
            raise NotAdmitted(errors.bad_request("bad_body", "the body is not a JSON object"))
        self.check_model(request.model)
        if names_own_xargs(request):
            message = "vllm_xargs: members that begin with mars_ are the proxy's to set"
            raise NotAdmitted(errors.not_for_tenants(message))


@dataclass(frozen=True, slots=True)
class _KnownKey:
    record: KeyRecord
    caller: Caller
    expires_s: float | None


class Door:
    """
    Args:
        wall_clock: seconds since 1970, for keys that expire.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._known: dict[str, _KnownKey] | None = None
        """By the id of the key; None while everybody may come in."""

    @property
    def is_guarded(self) -> bool:
        return self._known is not None

    def guard(self, tenants: Sequence[Tenant]) -> None:
        """From now on only these may come in."""
        self._known = {
            record.id: _KnownKey(
                record,
                Caller(tenant.limits.tenant, tenant.name, tenant.models, tenant.limits.max_open_turns),
                tenant.expires_s,
            )
            for tenant in tenants
            for record in tenant.keys
        }

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who sent a request with these headers.

        Raises:
            NotAdmitted: nobody that is known.
        """
        if self._known is None:
            return Caller(tenant_of(headers))
        keys = list(_keys_in(headers))
        if not keys:
            raise NotAdmitted(
                errors.invalid_api_key("an API key is needed: Authorization: Bearer KEY, or X-Api-Key: KEY")
            )
        # Some clients send an old habit beside the key that they mean; but no request is two tenants'.
        found = {known.caller: known for known in map(self._look_up, keys) if known is not None}
        if len(found) != 1:
            raise NotAdmitted(errors.invalid_api_key("this API key is not known"))
        [(caller, known)] = found.items()
        if known.expires_s is not None and self._wall_clock() >= known.expires_s:
            raise NotAdmitted(errors.invalid_api_key("this API key has expired"))
        return caller

    def _look_up(self, key: str) -> _KnownKey | None:
        key_id = key_id_of(key)
        known = None if key_id is None or self._known is None else self._known.get(key_id)
        return known if known is not None and known.record.fits(key) else None


def _keys_in(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.decode("latin-1").strip()
        elif name == b"authorization":
            scheme, _, key = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":
                yield key.strip()


def _is_open(method: str, path: str) -> bool:
    """As the backend will read it: a path that means another once it is decoded is nobody's."""
    plain = unquote(path)
    if plain != path and (tracked_schema(method, plain) is not None or "%" in plain):
        return False
    if "//" in plain or any(part in (".", "..") for part in plain.split("/")):
        return False
    return plain.rstrip("/") not in CLOSED_PATHS and (plain.startswith(OPEN_PREFIX) or plain in OPEN_PATHS)
