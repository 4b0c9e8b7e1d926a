"""The tables that find a session by what a request carries; one set for each tenant.

Owns the tables, and every change of a frontier's state, so that both stay in step. It must not decide
which session a request belongs to.
"""

from collections import OrderedDict
from collections.abc import Iterator, KeysView
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from marsproxy.core.evidence import AnswerEvidence, Digest
from marsproxy.core.frontiers import Frontier, Session, State
from marsproxy.core.history import ChainEnd, PrefixKey

_MAX_ANSWERS = 4
"""Answers kept of one request that was sent again; the client holds on to one of the latest."""

_MAX_CALL_IDS = 32
"""Of one turn. More parallel tool calls than this have not been seen; one echoed id is enough."""

K = TypeVar("K")
_K = TypeVar("_K", contravariant=True)


class _Table(Protocol[_K]):
    def add(self, key: _K, frontier: Frontier) -> None: ...
    def drop(self, key: _K, frontier: Frontier) -> None: ...


class Owners(Generic[K]):
    """Frontiers by a piece of evidence that mostly one session has."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[K, Frontier | dict[Frontier, None]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[K]:
        return iter(self._owners)

    def add(self, key: K, frontier: Frontier) -> None:
        owner = self._owners.setdefault(key, frontier)
        if isinstance(owner, dict):
            owner[frontier] = None
        elif owner is not frontier:
            self._owners[key] = {owner: None, frontier: None}

    def drop(self, key: K, frontier: Frontier) -> None:
        owner = self._owners.get(key)
        if isinstance(owner, dict):
            owner.pop(frontier, None)
            if len(owner) == 1:
                self._owners[key] = next(iter(owner))
        elif owner is frontier:
            del self._owners[key]

    def keys(self) -> KeysView[K]:
        """For asking about many keys without a call for each."""
        return self._owners.keys()

    def few(self, key: K, most: int) -> tuple[Frontier, ...]:
        """All of them, or none if they are more than ``most``: then the evidence is a common phrase."""
        owner = self._owners.get(key)
        if isinstance(owner, dict):
            return tuple(owner) if len(owner) <= most else ()
        return () if owner is None else (owner,)

    def sole(self, key: K) -> Frontier | None:
        """The latest frontier with ``key`` if all are one session's; else it tells nothing."""
        owner = self._owners.get(key)
        if not isinstance(owner, dict):
            return owner
        latest = next(reversed(owner))
        # Few steps: either another session's turns up at once, or all are one session's few.
        return latest if all(f.session is latest.session for f in owner) else None


_ByState = dict[State, OrderedDict[Frontier, None]]


class Prefixes:
    """Frontiers by prefix key. Thousands may share one (a benchmark's first prompt), so a shared key
    keeps them apart by state, each in the order in which they came to it: finding one is one step."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[PrefixKey, Frontier | _ByState] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[PrefixKey]:
        return iter(self._owners)

    def keys(self) -> KeysView[PrefixKey]:
        """For asking about many keys without a call for each."""
        return self._owners.keys()

    def add(self, key: PrefixKey, frontier: Frontier) -> None:
        owner = self._owners.setdefault(key, frontier)
        if owner is frontier:
            return
        if isinstance(owner, Frontier):
            shared: _ByState = {}
            shared.setdefault(owner.state, OrderedDict())[owner] = None
            self._owners[key] = owner = shared
        owner.setdefault(frontier.state, OrderedDict())[frontier] = None

    def drop(self, key: PrefixKey, frontier: Frontier) -> None:
        owner = self._owners.get(key)
        if owner is frontier:
            del self._owners[key]
        elif isinstance(owner, dict):
            owner.get(frontier.state, OrderedDict()).pop(frontier, None)
            left = list(islice(chain.from_iterable(owner.values()), 2))
            if len(left) == 1:
                self._owners[key] = left[0]

    def first(self, key: PrefixKey, state: State) -> Frontier | None:
        """The one that has been in ``state`` the longest."""
        owner = self._owners.get(key)
        if isinstance(owner, dict):
            return next(iter(owner.get(state, ())), None)
        return owner if owner is not None and owner.state is state else None

    def some(self, key: PrefixKey, most: int) -> list[Frontier]:
        """At most ``most`` of them, in any state."""
        owner = self._owners.get(key)
        if isinstance(owner, dict):
            return list(islice(chain.from_iterable(owner.values()), most))
        return [] if owner is None else [owner]


class Tenant:
    """All evidence of one tenant. Nothing is ever looked up across two of these."""

    __slots__ = ("answers", "call_ids", "name", "named", "replies", "requests", "responses", "sessions")

    def __init__(self, name: str) -> None:
        self.name = name
        self.sessions = 0
        self.named: dict[str, list[Session]] = {}
        """By explicit id: the main line first, then lines that ran beside it."""
        self.requests = Prefixes()
        self.replies = Prefixes()
        """Keys of requests together with their answers."""
        self.answers: Owners[Digest] = Owners()
        self.call_ids: Owners[str] = Owners()
        self.responses: Owners[str] = Owners()

    def add(self, frontier: Frontier) -> None:
        frontier.session.frontiers.append(frontier)
        self.requests.add(frontier.request_key, frontier)

    def drop(self, frontier: Frontier) -> None:
        frontier.session.frontiers.remove(frontier)
        frontier.superseded = ()  # else one keeps the one before it alive, and so on back to the first
        self.requests.drop(frontier.request_key, frontier)
        for key in frontier.answer_keys:
            self.replies.drop(key, frontier)
        for answer in frontier.answers:
            self.answers.drop(answer, frontier)
        for call_id in frontier.call_ids:
            self.call_ids.drop(call_id, frontier)
        for response_id in frontier.response_ids:
            self.responses.drop(response_id, frontier)

    def move(self, frontier: Frontier, state: State) -> None:
        """Change its state, and let it queue up behind the others of that state that share its keys."""
        self.requests.drop(frontier.request_key, frontier)
        for key in frontier.answer_keys:
            self.replies.drop(key, frontier)
        frontier.state = state
        self.requests.add(frontier.request_key, frontier)
        for key in frontier.answer_keys:
            self.replies.add(key, frontier)

    def record_answer(self, frontier: Frontier, end: ChainEnd, answer: AnswerEvidence) -> None:
        frontier.is_answered = True
        if answer.digest is not None:
            key = end.key_with(answer.digest)
            frontier.answer_keys = _remember(self.replies, frontier, frontier.answer_keys, key, _MAX_ANSWERS)
            digest = answer.digest
            frontier.answers = _remember(self.answers, frontier, frontier.answers, digest, _MAX_ANSWERS)
        for call_id in answer.call_ids:
            frontier.call_ids = _remember(self.call_ids, frontier, frontier.call_ids, call_id, _MAX_CALL_IDS)
        if answer.response_id is not None:
            frontier.response_ids = _remember(
                self.responses, frontier, frontier.response_ids, answer.response_id, _MAX_ANSWERS
            )


def _remember(table: _Table[K], frontier: Frontier, kept: tuple[K, ...], key: K, most: int) -> tuple[K, ...]:
    """File ``frontier`` under ``key``; past ``most`` keys the oldest is forgotten."""
    if key in kept:
        return kept
    table.add(key, frontier)
    if len(kept) == most:
        table.drop(kept[0], frontier)
        kept = kept[1:]
    return (*kept, key)
