"""Transcripts of requests and answers, played against a ``SessionIndex``: names in, verdicts out."""

from dataclasses import dataclass, field
from typing import Any

from marsproxy.core.evidence import AnswerEvidence, Level, Resolution, Schema, TurnEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from tests.marsproxy.core.agent_fleet import digest


@dataclass
class Asked:
    """A request in flight, and how it was resolved."""

    book: "Playbook"
    turn_id: str
    resolution: Resolution

    def answered(self, message: str, *call_ids: str, response_id: str | None = None) -> Resolution:
        answer = AnswerEvidence(digest(message), call_ids, response_id)
        self.book.index.answered(self.turn_id, answer, self.book.tick())
        return self.resolution

    def abandoned(self) -> Resolution:
        self.book.index.abandoned(self.turn_id, self.book.tick())
        return self.resolution


@dataclass
class Playbook:
    """Messages are written as one word each; every step takes a second."""

    index: SessionIndex = field(default_factory=lambda: SessionIndex(IdentityLimits(), b"salt"))
    now: float = 0.0
    sent: int = 0

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def ask(self, messages: str, **more: Any) -> Asked:
        """``messages``: words, each a message. Tools unless ``has_tools=False``; ``body`` tells equal
        messages with other parameters apart; ``id`` comes as a header."""
        body = more.pop("body", "")
        explicit_id = more.pop("id", None)
        fields: dict[str, Any] = {
            "schema": Schema.CHAT,
            "tenant": "t",
            "message_digests": tuple(digest(word) for word in messages.split()),
            "has_tools": True,
            "explicit_id": explicit_id,
            "explicit_level": Level.HEADER if explicit_id is not None else None,
        } | more
        fields["body_digest"] = digest(messages, fields["has_tools"], body)
        self.sent += 1
        turn_id = f"turn {self.sent}"
        resolution = self.index.resolve(turn_id, TurnEvidence(**fields), self.tick())
        return Asked(self, turn_id, resolution)
