"""Operations and their JSON."""

import json

import pytest

from backend_patch.protocol import (
    MAX_BATCH,
    Capabilities,
    KvAnswer,
    KvRequest,
    KvStatus,
    RankHeadroom,
    SessionsQuery,
    SessionState,
)
from backend_patch.rpc import answer


class Engine:
    """Answers anything, and counts what was published."""

    published = 0

    def apply(self, batch: list[KvRequest]) -> list[KvAnswer]:
        return [KvAnswer(KvStatus.ACCEPTED, each.session, each.op) for each in batch]

    def states(self, query: SessionsQuery) -> list[SessionState]:
        return [SessionState(query.session or "all", "", 1, 16, 0)]

    def headroom(self, after: int) -> RankHeadroom:
        return RankHeadroom(0, after, 0.0, 16, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def publish(self) -> None:
        self.published += 1


def ask(op: str, body: str = "") -> object:
    return json.loads(answer(Engine(), lambda: Capabilities("1", "2"), op, body))


def test_operations() -> None:
    """A name and a text for a text."""
    assert ask("kv", '[{"op":"evict","session":"a"}]') == [
        {"status": "accepted", "session": "a", "op": "evict"}
    ]
    assert ask("sessions", '{"session":"a"}') == [
        {"session": "a", "branch": "", "turns": 1, "tokens": 16, "live": 0}
    ]
    headroom = ask("headroom", '{"after":7}')
    assert isinstance(headroom, dict)
    assert headroom["step"] == 7
    capabilities = ask("capabilities")
    assert isinstance(capabilities, dict)
    assert capabilities["vllm_version"] == "2"


@pytest.mark.parametrize(
    ("op", "body", "words"),
    [
        ("reset", "", "operation 'reset' is not known; allowed: kv, sessions, headroom, capabilities"),
        ("kv", '[{"op":"steal"}]', "Invalid enum value 'steal'"),
        ("kv", "[", "truncated"),
        ("kv", json.dumps([{"op": "evict"}] * (MAX_BATCH + 1)), "at most 1024"),
    ],
)
def test_what_is_not_understood(op: str, body: str, words: str) -> None:
    """The caller gets a sentence; the engine is not touched."""
    with pytest.raises(ValueError, match=words):
        ask(op, body)
