"""A watched policy whose clock is in the test's hands: events in, stories and views out."""

from collections.abc import Sequence
from dataclasses import replace

from marsproxy.core.commands import Command
from marsproxy.core.events import BackendObserved, Ending, Event, TurnArrived, TurnEnded, TurnFirstToken
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.tenant_limits import LimitedPolicy
from marsproxy.live.feed import Feed
from marsproxy.live.watch import Watch
from marsproxy.live.words import sentence

READING = BackendObserved("gpu", kv_tokens_total=40_000, kv_used_ratio=0.25, running=1, waiting=0)
EPOCH_S = 1_700_000_000.0


class Playback:
    def __init__(self, *backends: str) -> None:
        self.policy = LimitedPolicy(Policy(PolicySettings(AdmissionSettings()), backends or ("gpu",)))
        self.watch = Watch()
        self.now = 100.0
        self.feed = Feed(
            self.watch,
            lambda: self.policy,
            stale_s=5.0,
            now=lambda: self.now,
            wall_clock=lambda: EPOCH_S + self.now,
        )

    def tell(self, event: Event, after_s: float = 0.0) -> Sequence[Command]:
        self.now += after_s
        commands = self.policy.handle(event, self.now)
        self.watch.note(self.policy, event, commands, self.now)
        return commands

    def reading(self, **known: float | None) -> None:
        self.tell(replace(READING, **known))  # type: ignore[arg-type]

    def arrives(
        self,
        session: str,
        turn: int = 1,
        *,
        prompt_tokens: int = 1_000,
        kind: TurnKind | None = None,
        tenant: str = "",
    ) -> str:
        turn_id = f"{session}.{turn}"
        guessed = TurnKind.FIRST if turn == 1 else TurnKind.CONTINUATION
        self.tell(TurnArrived(turn_id, session, kind or guessed, tenant, "f", prompt_tokens, turn))
        return turn_id

    def answered(
        self, turn_id: str, *, prompt_tokens: int = 1_000, tool: str | None = "bash", after_s: float = 1.0
    ) -> None:
        self.tell(TurnFirstToken(turn_id), after_s / 2)
        ended = TurnEnded(
            turn_id,
            Ending.FINISHED,
            prompt_tokens=prompt_tokens,
            cached_tokens=0,
            completion_tokens=50,
            tool_calls=0 if tool is None else 1,
            tool_signature=tool,
            command_digests=() if tool is None else ("0" * 64,),
        )
        self.tell(ended, after_s / 2)

    def words(self, session: str) -> list[str]:
        log = self.watch.stories.get(session)
        assert log is not None
        return [sentence(entry) for entry in log.entries]

    def state(self, session: str) -> str:
        log = self.watch.stories.get(session)
        assert log is not None
        return log.state.value

    async def passes(self, seconds: float) -> None:
        """In place of a sleep."""
        self.now += seconds

    async def stands(self, seconds: float) -> None:
        """The same, with a clock that stands still."""
