"""A live view whose proxy has the real dispatcher and policy, and sessions that the test plays.

No request is sent: actors say to the dispatcher what a relay would, and backends and tool hosts tell what the
stage lets them. So there are as many sessions as wanted, and none of their bytes.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from marsproxy.app import answer_in_our_shape
from marsproxy.config import Config
from marsproxy.core.events import BYTES_PER_TOKEN, BackendObserved, Ending, ToolHostsObserved
from marsproxy.core.evidence import AnswerEvidence, Schema
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_state import SharedState
from marsproxy.dispatcher import Dispatcher, Turn
from marsproxy.hints import Hints
from marsproxy.journal import MemoryJournal
from marsproxy.live.routes import add_live_routes
from marsproxy.live.watch import Watch
from marsproxy.metrics import Metrics
from marsproxy.server import Timer
from marsproxy.tenants.door import Door
from marsproxy.wire.answers import AnswerRead, ToolCall
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import read_request

FORMS = NormalForms(seed=1)
TOOLS = ("bash", "pytest", "edit_file", "grep")
READ_EACH_S = 0.2


@dataclass
class Stage:
    backends: tuple[str, ...] = ("gpu-0", "gpu-1")
    pool_tokens: int = 160_000
    watch: Watch = field(default_factory=Watch)
    url: str = ""
    is_leaving: bool = False
    reads: bool = True
    """Backends and hosts tell how they are."""

    def __post_init__(self) -> None:
        settings = PolicySettings()
        self._timer = Timer(lambda: self.dispatcher.journal.now())
        self.dispatcher = Dispatcher(
            SharedState(Policy(settings, self.backends), SessionIndex(IdentityLimits(), salt=b"salt")),
            MemoryJournal,
            Metrics(CollectorRegistry()),
            None,
            Hints(),
            set_timer=self._timer.set,
            watch=self.watch,
        )
        self.app = FastAPI()
        answer_in_our_shape(self.app)
        add_live_routes(
            self.app, Config(), self.dispatcher, self.watch, Door(), is_leaving=lambda: self.is_leaving
        )

    def close(self) -> None:
        self.is_leaving = True
        self._timer.cancel()

    def read(self) -> None:
        """One reading of everything: what runs is in use, what rests in a gap is leased."""
        for name, state in self.dispatcher.policy.backends.items():
            running = [session for session in state.counted.values() if session.main_turns]
            used = sum(session.context_tokens for session in running)
            resting = sum(session.context_tokens for session in state.counted.values()) - used
            reading = BackendObserved(
                name,
                kv_tokens_total=self.pool_tokens,
                kv_used_ratio=min(1.0, used / self.pool_tokens),
                running=len(running),
                waiting=0,
                takes_hints=True,
                kv_leased_tokens=min(resting, max(0, self.pool_tokens - used)),
            )
            self.dispatcher.tell(reading)
        in_tools = [
            session for session in self.dispatcher.policy.sessions if session.phase.value == "tool_gap"
        ]
        for number in range(2):
            running_tools = len(in_tools) // 2
            self.dispatcher.tell(
                ToolHostsObserved(
                    cores=max(32.0, 2.0 * running_tools),
                    running=running_tools,
                    queued=0 if number else None,
                    memory_available_mb=None if number == 0 else 90_000,
                    memory_total_mb=128_000,
                    host=f"tools-{number}",
                )
            )

    def arrive(self, name: str, number: int, prompt_tokens: int) -> Turn:
        """A turn whose history is that of the one before, and a little more."""
        messages = [{"role": "user", "content": f"{name} {step}"} for step in range(number)]
        body = {"session_id": name, "messages": messages, "tools": [{"type": "function"}]}
        content = json.dumps(body).encode()
        request = read_request(Schema.CHAT, [], content, tenant="", url_session=None, normal_forms=FORMS)
        assert request is not None
        return self.dispatcher.arrive(replace(request, prompt_bytes=BYTES_PER_TOKEN * prompt_tokens))

    def answer(self, turn: Turn, *, prompt_tokens: int, tool: str | None) -> None:
        calls = () if tool is None else (ToolCall(None, tool),)
        self.dispatcher.end(
            turn,
            Ending.FINISHED,
            AnswerRead(
                AnswerEvidence(None),
                prompt_tokens=prompt_tokens,
                cached_tokens=prompt_tokens // 2,
                completion_tokens=120,
                tool_calls=calls,
            ),
        )

    async def act(
        self, name: str, chance: random.Random, *, turns: int, answer_s: float, gap_s: float
    ) -> None:
        """One agent, from its first turn to its last."""
        tokens = chance.randrange(4_000, 12_000)
        for number in range(1, turns + 1):
            turn = self.arrive(name, number, tokens)
            await turn.verdict
            await asyncio.sleep(answer_s * chance.uniform(0.1, 0.3))
            self.dispatcher.first_token(turn)
            await asyncio.sleep(answer_s * chance.uniform(0.4, 1.6))
            tokens += chance.randrange(300, 2_000)
            is_last = number == turns
            self.answer(turn, prompt_tokens=tokens, tool=None if is_last else chance.choice(TOOLS))
            await asyncio.sleep(gap_s * chance.expovariate(1.0))


@asynccontextmanager
async def staged(stage: Stage) -> AsyncIterator[Stage]:
    """Serves it on a free port, in this loop."""
    config = uvicorn.Config(stage.app, port=0, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        stage.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        reading = tasks.create_task(_read(stage))
        try:
            yield stage
        finally:
            stage.close()
            reading.cancel()
            server.should_exit = True
            await serving


async def _read(stage: Stage) -> None:
    while True:
        if stage.reads:
            stage.read()
        await asyncio.sleep(READ_EACH_S)
