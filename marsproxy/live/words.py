"""Decisions in plain words, made when somebody asks.

Owns the sentences. It says what was known when it was decided and nothing else: a number that was not known
is called unknown. No prompt, command or key can get here: entries do not hold any.
"""

from marsproxy.core.commands import ForgetSession, ForwardTurn, HintKv, HoldTurn, KvAction, Reason, RejectTurn
from marsproxy.core.events import (
    Ending,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.live.story import Entry, Numbers, PlaceLost

WHY = {
    Reason.KV_FULL: "the KV budget has no room for it",
    Reason.TOOLS_BUSY: "the tool hosts are full",
    Reason.TELEMETRY_UNKNOWN: "the load of the backends is unknown, and the fixed cap on sessions is reached",
    Reason.BEHIND_OTHERS: "others are due before it",
    Reason.QUEUE_FULL: "too many turns wait already",
    Reason.HELD_TOO_LONG: "nothing became free in the longest time that a turn may wait",
    Reason.TABLE_FULL: "every session that the table has room for is at work",
    Reason.BACKEND_LOST: "its backend failed it, and no other could take it",
    Reason.NO_BACKEND: "no backend takes new work for its model",
    Reason.TENANT_TURNS: "its tenant has as many turns open as it may",
    Reason.TENANT_SESSIONS: "its tenant has as many sessions at work as it may",
    Reason.TENANT_TOKENS: "its tenant has used up its tokens for now",
}
"""Of holds and refusals alike."""

WENT = {
    "new": "Admitted as a new session",
    "continuation": "Went at once: its session has its place",
    "return": "Admitted again: its session had lost its place, or is a sub-agent's",
    "side": "Went as a side call, which takes no place",
}

ARRIVED = {
    TurnKind.FIRST: "first of its session",
    TurnKind.CONTINUATION: "goes on where the last one ended",
    TurnKind.RETRY: "the same request again",
    TurnKind.SIDE: "a side call",
    TurnKind.CONDENSED: "goes on with a rewritten history",
}

ADVISED = {
    KvAction.KEEP: "Asked {} to keep its KV blocks",
    KvAction.RELEASE: "Told {} that its KV blocks may be reused, as if just freed",
    KvAction.DEMOTE: "Told {} to reuse its KV blocks first: it is not expected back",
    KvAction.SWAP_OUT: "Told {} to move its KV blocks to host memory",
}


def kind_of(entry: Entry) -> str:
    """One word for programs."""
    match entry.what:
        case TurnArrived():
            return "arrived"
        case HoldTurn():
            return "held"
        case ForwardTurn():
            return "forwarded"
        case RejectTurn():
            return "refused"
        case TurnFirstToken():
            return "first_token"
        case TurnEnded():
            return "ended"
        case TurnBounced():
            return "bounced"
        case HintKv():
            return "hint"
        case HintAnswered():
            return "hint_answered"
        case KvReclaimed():
            return "evicted"
        case PlaceLost():
            return "place_lost"
        case LeaseResumed() | LeaseExpired():
            return "lease"
        case ToolObserved():
            return "tool"
        case SessionEnded() | ForgetSession():
            return "over"
    return "other"


def sentence(entry: Entry) -> str:
    """What happened, and the numbers that led to it."""
    what, numbers = entry.what, entry.numbers or Numbers()
    match what:
        case TurnArrived():
            return _arrived(what, numbers)
        case HoldTurn():
            return _held(what, numbers)
        case ForwardTurn():
            return _forwarded(what, numbers)
        case RejectTurn():
            waited = "" if numbers.waited_s is None else f" after {seconds(numbers.waited_s)}"
            again = f"; told to try again in {seconds(what.retry_after_s)}"
            return f"Refused{waited}: {WHY[what.reason]}{again}."
        case TurnFirstToken():
            return f"First token, {seconds(numbers.waited_s)} after the turn arrived."
        case TurnEnded():
            return _ended(what, numbers)
        case TurnBounced():
            return (
                f"{what.backend} did not take it; no byte of an answer had gone out, so it may go elsewhere."
            )
        case HintKv():
            ttl = "" if what.ttl_s is None else f" for up to {seconds(what.ttl_s)}"
            return f"{ADVISED[what.action].format(what.backend)}{ttl}."
        case HintAnswered():
            return f"{what.backend} keeps {tokens(what.kept_tokens)}."
        case KvReclaimed():
            return (
                f"Evicted: {what.backend} took back {tokens(what.tokens)} of its KV before it had returned."
            )
        case PlaceLost():
            return "Lost its place: the gap lasted longer than keeping the memory for it was worth."
        case LeaseResumed():
            return f"Found {tokens(what.hit_tokens)} of {tokens(what.leased_tokens)} that were kept for it."
        case LeaseExpired():
            return f"The lease on {tokens(what.tokens)} of its KV ran out at {what.backend}."
        case ToolObserved():
            return _tool(what)
        case SessionEnded():
            return "Somebody said that the session is over."
        case ForgetSession():
            return "Forgotten: the session is over, or nothing was heard of it for too long."
    return type(what).__name__


def tokens(count: float | None) -> str:
    return "an unknown number of tokens" if count is None else f"{round(count):,} tokens"


def seconds(value: float | None) -> str:
    if value is None:
        return "an unknown time"
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 99.5:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min"


def _arrived(event: TurnArrived, numbers: Numbers) -> str:
    number = "" if event.kind is TurnKind.SIDE else f" {event.turn}"
    said = (
        f"Turn{number} arrived, {ARRIVED[event.kind]}; about {tokens(event.prompt_tokens_estimate)} of prompt"
    )
    if numbers.gap_s is None:
        return f"{said}."
    expected = "" if numbers.gap_expected_s is None else f"; {seconds(numbers.gap_expected_s)} were expected"
    return f"{said}. The gap before it took {seconds(numbers.gap_s)}{expected}."


def _held(command: HoldTurn, numbers: Numbers) -> str:
    said = f"Held, number {command.position} in the queue: {WHY[command.reason]}."
    if command.reason is Reason.TOOLS_BUSY:
        return f"{said} {_hosts(numbers.tools)}"
    if command.reason is Reason.KV_FULL and numbers.needed_tokens is not None:
        said += f" It needs {tokens(numbers.needed_tokens)}."
    return f"{said}{_room(numbers)}"


def _forwarded(command: ForwardTurn, numbers: Numbers) -> str:
    went = WENT.get(command.decision, f"Went ({command.decision})")
    waited = "" if numbers.waited_s is None else f" after {seconds(numbers.waited_s)} in the queue"
    said = f"{went}{waited}; to {command.backend}, with priority {command.priority} (lower runs earlier)."
    if numbers.needed_tokens is not None and command.decision != "side":
        said += f" It counts for {tokens(numbers.needed_tokens)}."
    if command.lease is not None:
        said += f" Its KV is to be kept for up to {seconds(command.lease.ttl_s)} after the answer."
    return f"{said}{_room(numbers)}"


def _room(numbers: Numbers) -> str:
    """What a backend has, as far as it is known."""
    if numbers.backend is None:
        return ""
    if numbers.budget_tokens is None or numbers.reserved_tokens is None:
        return f" The KV budget of {numbers.backend} is unknown."
    promised, most = round(numbers.reserved_tokens), tokens(numbers.budget_tokens)
    said = f" {numbers.backend} has promised {promised:,} of the {most} that it may"
    return said + ("." if numbers.leased_tokens is None else f"; {numbers.leased_tokens:,} are in leases.")


def _ended(event: TurnEnded, numbers: Numbers) -> str:
    if event.ending is Ending.ABORTED:
        return "The client went away or cancelled."
    if event.ending is Ending.FAILED:
        return "It ended with an error."
    cached = "" if event.cached_tokens is None else f", {event.cached_tokens:,} of them from the cache"
    said = f"Answered: {tokens(event.prompt_tokens)} of prompt{cached}; "
    said += f"{tokens(event.completion_tokens)} generated."
    if not event.tool_calls:
        return f"{said} No tool was called."
    what = "a tool" if event.tool_calls == 1 else f"{event.tool_calls} tools"
    named = "" if event.tool_signature is None else f" ({event.tool_signature})"
    if numbers.gap_expected_s is None:
        return f"{said} It called {what}{named}."
    return f"{said} It called {what}{named}; half of such gaps are over in {seconds(numbers.gap_expected_s)}."


def _tool(event: ToolObserved) -> str:
    name = "A tool" if event.tool_signature is None else f"Tool {event.tool_signature}"
    where = "" if event.host is None else f" on {event.host}"
    match event.phase:
        case ToolPhase.QUEUED:
            return f"{name} waits for a slot{where}."
        case ToolPhase.STARTED:
            waited = "" if event.queue_s is None else f" after {seconds(event.queue_s)} in its queue"
            return f"{name} started{where}{waited}."
        case ToolPhase.FINISHED:
            code = "" if event.exit_code is None else f", exit code {event.exit_code}"
            return f"{name} ended{where} after {seconds(event.run_s)}{code}."


def _hosts(hosts: ToolHostsObserved | None) -> str:
    if hosts is None:
        return "Of the hosts nothing is known."

    def known(value: float | None) -> str:
        return "unknown" if value is None else f"{value:,.10g}"

    said = (
        f"Cores {known(hosts.cores)}, tools that run {known(hosts.running)}, that wait {known(hosts.queued)}"
    )
    return f"{said}, memory available {known(hosts.memory_available_mb)} MB."
