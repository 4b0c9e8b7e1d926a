"""Event logs of an engine whose parameters are known: the engine's model on its virtual clock."""

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from loadgen.engine.virtual import VirtualEngine
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.log_format import Entry
from marsproxy.core.settings import PolicySettings
from marsproxy.eventlog import EventLog, new_header

BLOCK = 16
GAP_S = 2.0
MODEL = "qwen3-30b-a3b"


@dataclass
class Recording:
    """Sessions of growing contexts, one after the other, or ``overlapping`` at random."""

    hardware: HardwareProfile
    sessions: int = 12
    turns: int = 8
    overlapping: bool = False
    noise: float = 0.0
    """Standard deviation of the relative error of each measured phase."""
    request_overhead_s: float = 0.0
    has_usage: bool = True
    is_streaming: bool = True
    seed: int = 1

    def write(self, directory: Path) -> None:
        log = EventLog(directory, 1 << 30, 9, new_header("mars", PolicySettings(), ["gpu"]))
        for now, entry in sorted(self.entries(), key=lambda timed: timed[0]):
            log.record(now, entry)
        log.close()

    def entries(self) -> list[tuple[float, Entry]]:
        limits = SchedulerLimits(kv_blocks=400_000 // BLOCK)
        step_time = StepTime(self.hardware, ModelProfile.load(MODEL))
        engine = VirtualEngine(Scheduler(limits), step_time.seconds)
        rng = random.Random(self.seed)
        found: list[tuple[float, Entry]] = [(0.0, BackendObserved("gpu", kv_tokens_total=400_000))]
        following: dict[EngineRequest, EngineRequest] = {}
        arrivals: list[tuple[float, EngineRequest]] = []
        for number in range(self.sessions):
            requests = self._session(number, rng)
            arrivals.append((number * (1.0 if self.overlapping else 1000.0), requests[0]))
            following |= dict(pairwise(requests))

        def on_finish(request: EngineRequest, now: float) -> list[tuple[float, EngineRequest]]:
            found.extend(self._turn(request, now, rng))
            return [(now + GAP_S, following[request])] if request in following else []

        engine.run(arrivals, on_finish)
        return found

    def _session(self, number: int, rng: random.Random) -> list[EngineRequest]:
        requests: list[EngineRequest] = []
        tokens = rng.choice([400, 4_000, 20_000])
        hashes = [hash((number, index)) for index in range(100_000 // BLOCK)]
        for turn in range(self.turns):
            output = rng.randrange(20, 400)
            requests.append(EngineRequest(f"{number}-{turn}", tokens, output, hashes))
            tokens += output + rng.choice([30, 600, 5_000])
        return requests

    def _turn(self, request: EngineRequest, end_s: float, rng: random.Random) -> list[tuple[float, Entry]]:
        """What the proxy would have written; phases are stretched by the noise, the arrival stays."""
        session, turn = request.request_id.split("-")
        assert request.first_token_s is not None
        begin_s = request.arrival_s
        prefill_s = (request.first_token_s - begin_s) * rng.gauss(1, self.noise) + self.request_overhead_s
        decode_s = (end_s - request.first_token_s) * rng.gauss(1, self.noise)
        name = request.request_id
        arrival = TurnArrived(
            name,
            f"s{session}",
            TurnKind.FIRST if turn == "0" else TurnKind.CONTINUATION,
            "",
            "",
            request.prompt_tokens * 5 // 4,
            is_streaming=self.is_streaming,
        )
        used = (request.prompt_tokens, request.cached_tokens, request.output_tokens)
        ended = TurnEnded(
            name,
            Ending.FINISHED,
            *(used if self.has_usage else (None, None, None)),
            tool_calls=1,
            tool_signature="bash",
        )
        tool = ToolObserved(f"e{name}", ToolPhase.FINISHED, "g", run_s=rng.uniform(1, 2), tool_signature="ls")
        return [
            (begin_s, arrival),
            (begin_s, ForwardTurn(name, "gpu", 0, "new")),
            (begin_s + prefill_s, TurnFirstToken(name)),
            (begin_s + prefill_s + decode_s, ended),
            (begin_s + prefill_s + decode_s + 1.0, tool),
        ]
