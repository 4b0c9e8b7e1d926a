"""Event logs as the proxy writes them: seeded traffic through a real dispatcher, on a clock of its own."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from marsproxy.core.events import BackendObserved, Ending
from marsproxy.core.evidence import AnswerEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.shared_state import SharedState
from marsproxy.dispatcher import Dispatcher, Refused, Turn
from marsproxy.eventlog import EventLog, new_header
from marsproxy.hints import Hints
from marsproxy.journal import MemoryJournal
from marsproxy.metrics import Metrics
from marsproxy.wire.answers import AnswerRead
from tests.marsproxy.test_dispatcher import request_of

BACKEND = "gpu"
POOL_TOKENS = 60_000
SETTINGS = PolicySettings(AdmissionSettings(peak_prior_tokens=20_000, peak_prior_pool_share=1.0))


@dataclass
class Traffic:
    """Sessions of a few turns each; answers take half a second."""

    directory: Path
    settings: PolicySettings = SETTINGS
    policy: str = "mars"
    max_file_bytes: int = 1 << 20
    max_files: int = 99
    now: float = 100.0
    timer: tuple[float, Callable[[], None]] | None = None

    def record(self, sessions: int = 12, turns: int = 4, seed: int = 1) -> None:
        asyncio.run(self._record(sessions, turns, random.Random(seed)))

    async def _record(self, sessions: int, turns: int, rng: random.Random) -> None:
        log = EventLog(
            self.directory,
            self.max_file_bytes,
            self.max_files,
            new_header(self.policy, self.settings, [BACKEND]),
        )
        policy_kind(self.policy).make(self.settings, (BACKEND,))
        dispatcher = Dispatcher(
            SharedState(
                policy_kind(self.policy).make(self.settings, (BACKEND,)),
                SessionIndex(IdentityLimits(), salt=b"salt"),
            ),
            lambda replica: MemoryJournal(replica, clock=lambda: self.now),
            Metrics(CollectorRegistry()),
            log,
            Hints(),
            set_timer=self._set_timer,
        )
        left = dict.fromkeys(range(sessions), turns)
        open_turns: dict[int, Turn] = {}
        while left or open_turns:
            self._pass_time(0.25)
            dispatcher.tell(BackendObserved(BACKEND, kv_tokens_total=POOL_TOKENS))
            for name, turn in list(open_turns.items()):
                if self._is_answered(turn, dispatcher, rng):
                    del open_turns[name]
            for name in [each for each in left if each not in open_turns and rng.random() < 0.3]:
                open_turns[name] = dispatcher.arrive(request_of(f"s{name}", text="x" * rng.randrange(4000)))
                left[name] -= 1
                if not left[name]:
                    del left[name]
        log.close()

    def _is_answered(self, turn: Turn, dispatcher: Dispatcher, rng: random.Random) -> bool:
        if not turn.verdict.done():
            return False
        if isinstance(turn.verdict.exception(), Refused):
            dispatcher.end(turn, Ending.FAILED, None)
            return True
        if turn.ttft_s is None:
            dispatcher.first_token(turn)
            return False
        prompt_tokens = rng.randrange(1000, 15_000)
        answer = AnswerRead(
            AnswerEvidence(None), prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=50
        )
        dispatcher.end(turn, Ending.FINISHED, answer)
        return True

    def _set_timer(self, at_s: float, callback: Callable[[], None]) -> None:
        self.timer = (at_s, callback)

    def _pass_time(self, seconds: float) -> None:
        self.now += seconds
        while self.timer is not None and self.timer[0] <= self.now:
            (_, callback), self.timer = self.timer, None
            callback()
