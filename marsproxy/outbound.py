"""What goes along with a request on its way through the proxy: which headers are left out, what is added.

Nothing else is changed. What goes into the body is only named here; ``wire.splice`` puts it there.
"""

import hashlib
from collections.abc import Iterable

from backend_patch.protocol import TurnClass, XArg
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.evidence import Resolution, TurnKind
from marsproxy.hints import MODES, milliseconds
from marsproxy.upstream import HOP_BY_HOP, RawHeaders

NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
"""``host`` and ``content-length`` are set anew for the backend; ``expect`` the server has answered."""


OPERATORS = frozenset((b"authorization", b"x-api-key", b"x-vllm-priority", b"x-session-id"))
"""Headers that a tenant of ours does not speak to the backend with: its key is for us, and how urgent its
turns are, and whose, is not its own to say where others wait."""


def to_backend(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    api_key: str | None,
    keeps_length: bool = False,
    is_tenants: bool = False,
) -> RawHeaders:
    """The client's headers, with the configured key in place of its own if there is one.

    Args:
        keeps_length: the body is passed on as a stream, so only the client knows its length.
        is_tenants: they are those of a tenant whose key was checked here.
    """
    dropped = NOT_FORWARDED | OPERATORS if is_tenants else NOT_FORWARDED
    out = [
        (name, value)
        for name, value in headers
        if name not in dropped or (keeps_length and name == b"content-length")
    ]
    if api_key is not None:
        out = [(name, value) for name, value in out if name not in (b"authorization", b"x-api-key")]
        out.append((b"authorization", f"Bearer {api_key}".encode()))
    return out


def tag_turn(headers: RawHeaders, forward: ForwardTurn, session_id: str, *, sets_priority: bool) -> None:
    """Tell vLLM (0.28 and newer) how urgent the turn is and whose it is, unless the client did."""
    present = {name for name, _ in headers}
    if not sets_priority and b"x-vllm-priority" not in present:
        headers.append((b"x-vllm-priority", str(forward.priority).encode()))
    if b"x-session-id" not in present:
        headers.append((b"x-session-id", session_id.encode()))


SIDE_BRANCH = "side"
"""Side calls of a session share no history with its own turns: what is leased of one is not the other's."""


def turn_xargs(forward: ForwardTurn, resolution: Resolution) -> dict[str, str | int | float]:
    """For a backend with the patch: whose turn it is, whom it may push aside, what to keep of it."""
    may_break = forward.may_break_leases
    xargs: dict[str, str | int | float] = {
        XArg.SESSION: resolution.session_id,
        XArg.TURN_CLASS: TurnClass.CONTINUATION if may_break else TurnClass.NEW,
    }
    if resolution.kind is TurnKind.SIDE:
        xargs[XArg.BRANCH] = SIDE_BRANCH
    if forward.lease is not None:
        xargs[XArg.TTL_MS] = milliseconds(forward.lease.ttl_s)
        xargs[XArg.MODE] = MODES[forward.lease.yields_to]
    return xargs


def refuse_compression(headers: RawHeaders) -> RawHeaders:
    """For answers that must be looked into before they are passed on."""
    kept = [(name, value) for name, value in headers if name != b"accept-encoding"]
    return [*kept, (b"accept-encoding", b"identity")]


def without_length(headers: RawHeaders) -> RawHeaders:
    """For a body whose length changes on the way."""
    return [(name, value) for name, value in headers if name != b"content-length"]


def tenant_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """A fingerprint of the API key; "" without one. The key itself goes no further."""
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            return hashlib.blake2b(value, digest_size=8, person=b"mars-tenant").hexdigest()
    return ""
