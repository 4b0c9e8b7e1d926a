"""One agent: plays a session turn by turn against a live server and records what it saw.

The loop of every agent: send the whole history, take the answer into it, run the tool, add its output.
Sends no session id unless asked to, as most frameworks do not. A session whose turn fails is over and
has failed; what was measured before stays in its records.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from loadgen.client import ChatClient, Exchange, TurnError, seconds
from loadgen.history import History, RequestOptions
from loadgen.lag import LagMeter
from loadgen.records import SessionRecord, TurnRecord
from loadgen.text import TextSource
from loadgen.tools import ToolContext, ToolError, Tools
from loadgen.workload import Session, Turn


@dataclass(frozen=True, slots=True)
class Stage:
    """What all agents of a run share."""

    client: ChatClient
    tools: Tools
    text: TextSource
    options: RequestOptions
    lag: LagMeter
    clock: Callable[[], float]
    """Seconds since the start of the run."""
    on_turn: Callable[[TurnRecord], None]
    session_header: str | None = None
    """Send the session's id under this name."""
    overhead_tokens: int = 0
    """What a first prompt has beside its texts, so that they are shorter by that."""
    turn_overhead_tokens: int = 0
    """The same of each later turn."""
    tool_overhead_tokens: int = 0
    """What a tool's result has beyond that, where the answer before called a tool."""


class Agent:
    def __init__(self, stage: Stage, session: Session, arrival_s: float) -> None:
        self.record = SessionRecord(
            session=session.id,
            arrival_s=arrival_s,
            turns_planned=len(session.turns),
            tenant=session.tenant,
        )
        self._stage = stage
        self._session = session
        self._history = History(stage.options)
        self._headers = headers_of(stage, session)
        self._due_s = arrival_s
        self._overhead_tokens = stage.overhead_tokens
        """For which texts have not made room yet."""

    async def play(self) -> SessionRecord:
        """Plays the session to its end, or sets the record's ``error``; cancelled, it is left unfinished."""
        needs_tools = any(turn.tool for turn in self._session.turns)
        try:
            if needs_tools:
                await self._stage.tools.open(self._session.id)
            self._begin()
            for number, turn in enumerate(self._session.turns, start=1):
                await self._play_turn(number, turn)
            self.record.end_s = self._due_s
        except (TurnError, ToolError) as exc:
            self.record.error = str(exc)
        finally:
            if needs_tools:
                await self._stage.tools.close(self._session.id)
        return self.record

    def _begin(self) -> None:
        session = self._session
        if session.system_tokens:
            name = session.system_id or session.id
            # Templates put the tools into the system message, so sessions that share it share them too.
            content = self._stage.text.system_prompt(name, self._without_overhead(session.system_tokens))
            self._history.append({"role": "system", "content": content})

    async def _play_turn(self, number: int, turn: Turn) -> None:
        before = self._session.turns[number - 2] if number > 1 else None
        is_from_user = before is None or before.tool is None
        self._overhead_tokens += self._added_by_template(number, is_from_user)
        tokens = self._without_overhead(turn.new_tokens)
        text = self._stage.text.message(self._session.id, number, tokens)
        self._history.add_input(text, is_from_user=is_from_user)
        record = TurnRecord(
            session=self._session.id,
            turn=number,
            is_continuation=number > 1,
            due_s=self._due_s,
            sent_s=self._stage.clock(),
        )
        try:
            exchange = await self._ask(record, turn)
            await self._gap(record, turn, exchange)
        except (TurnError, ToolError) as exc:
            record.error = str(exc)
            raise
        finally:
            self._stage.on_turn(record)

    async def _ask(self, record: TurnRecord, turn: Turn) -> Exchange:
        exchange = Exchange(sent_s=record.sent_s)
        body = self._history.body(turn, label=f"{record.session}/{record.turn}")
        try:
            answer = await self._stage.client.complete(
                body, stream=self._stage.options.stream, headers=self._headers, exchange=exchange
            )
        except asyncio.CancelledError:
            # Neither answered nor failed: a last token would make it look whole.
            exchange.last_token_s = None
            raise
        finally:
            note(record, exchange)
            record.loop_lag_s = self._stage.lag.largest_since(record.sent_s, self._stage.clock())
        self._history.add_answer(answer)
        self._count(record)
        self._due_s = record.last_token_s if record.last_token_s is not None else self._stage.clock()
        return exchange

    async def _gap(self, record: TurnRecord, turn: Turn, exchange: Exchange) -> None:
        if turn.tool is not None:
            record.tool, record.tool_start_s = turn.tool.name, self._stage.clock()
            calls = exchange.answer.tools if exchange.answer else []
            context = ToolContext(
                session=record.session,
                turn=record.turn,
                mars_session=record.mars_session,
                tool_call_id=calls[0].id or None if calls else None,
            )
            outcome = await self._stage.tools.run(turn.tool, context)
            record.tool_queue_s, record.tool_run_s = outcome.queue_s, outcome.run_s
            record.tool_end_s = self._due_s = self._stage.clock()
        if turn.think_s:
            self._due_s += turn.think_s
            await asyncio.sleep(turn.think_s)

    def _added_by_template(self, number: int, is_from_user: bool) -> int:
        """Around the texts of a turn; a first one's is counted from the start."""
        is_result = self._history.is_calling and not is_from_user
        later = self._stage.turn_overhead_tokens if number > 1 else 0
        return later + (self._stage.tool_overhead_tokens if is_result else 0)

    def _without_overhead(self, tokens: int) -> int:
        """How long a text is to be, so that the prompt has the workload's tokens; what it is too short for
        is left to the next."""
        left = max(1, tokens - self._overhead_tokens)
        self._overhead_tokens -= tokens - left
        return left

    def _count(self, record: TurnRecord) -> None:
        self.record.turns_completed += 1
        self.record.prompt_tokens += record.prompt_tokens or 0
        self.record.cached_tokens += record.cached_tokens or 0
        self.record.output_tokens += record.output_tokens or 0


def headers_of(stage: Stage, session: Session) -> dict[str, str]:
    headers = {stage.session_header: session.id} if stage.session_header else {}
    if session.tenant:
        # Tenants are told apart by their key; a key given for the run is the client's and is replaced.
        headers["authorization"] = f"Bearer sk-{session.tenant}"
    return headers


def note(record: TurnRecord, exchange: Exchange) -> None:
    record.status, record.retries = exchange.status, exchange.retries
    record.first_token_s, record.last_token_s = exchange.first_token_s, exchange.last_token_s
    record.mars_session = exchange.headers.get("x-mars-session")
    record.decision = exchange.headers.get("x-mars-decision")
    record.held_s = held_s(exchange)
    usage = exchange.answer.usage if exchange.answer else None
    if usage is not None:
        record.prompt_tokens, record.output_tokens = usage.prompt_tokens, usage.completion_tokens
        details = usage.prompt_tokens_details
        record.cached_tokens = details.cached_tokens if details else None


def held_s(exchange: Exchange) -> float | None:
    """A stream that opened while its turn was held says the time later, in a comment; its header cannot."""
    if exchange.answer is not None and exchange.answer.held_ms is not None:
        return exchange.answer.held_ms / 1000
    held_ms = seconds(exchange.headers.get("x-mars-held-ms"))
    if held_ms is None or (held_ms == 0 and exchange.headers.get("x-mars-decision") == "held"):
        return None
    return held_ms / 1000
