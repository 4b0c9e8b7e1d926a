"""The live driver against a small real server: what it sends, what it records, what counts as failed."""

import asyncio
import itertools
import time

import pytest

from loadgen.agent import Agent, Stage
from loadgen.client import ChatClient, open_http_client
from loadgen.history import RequestOptions
from loadgen.lag import LagMeter
from loadgen.records import SessionRecord, TurnRecord
from loadgen.text import TextSource
from loadgen.tools import SleepTools, ToolContext, ToolError, ToolOutcome, Tools
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.upstream import FakeModel

pytestmark = pytest.mark.slow

TOOL = ToolCall("bash", 0.01)


def session(name: str = "s1", turns: int = 3, tenant: str | None = None) -> Session:
    gaps = itertools.chain([TOOL] * (turns - 1), [None])
    return Session(
        id=name, turns=[Turn(50, 4, gap) for gap in gaps], system_tokens=30, system_id="sys", tenant=tenant
    )


async def play(
    model: FakeModel,
    session: Session,
    *,
    tools: Tools | None = None,
    stream: bool = True,
    header: str | None = None,
    cancel_after_s: float | None = None,
    **overheads: int,
) -> tuple[SessionRecord, list[TurnRecord]]:
    turns: list[TurnRecord] = []
    start = time.perf_counter()

    def clock() -> float:
        return time.perf_counter() - start

    async with open_http_client("secret", read_timeout_s=20) as http:
        url = f"{model.url}/v1/chat/completions"
        stage = Stage(
            client=ChatClient(http, url, clock=clock, seed=0),
            tools=tools or SleepTools(),
            text=TextSource(0),
            options=RequestOptions("fake-model", stream=stream),
            lag=LagMeter(),
            clock=clock,
            on_turn=turns.append,
            session_header=header,
            **overheads,
        )
        agent = Agent(stage, session, arrival_s=0.0)
        try:
            async with asyncio.timeout(cancel_after_s):
                await agent.play()
        except TimeoutError:
            assert cancel_after_s is not None
    return agent.record, turns


@pytest.mark.parametrize("stream", [True, False])
async def test_a_session_is_played_to_its_end(model: FakeModel, stream: bool) -> None:
    record, turns = await play(model, session(), stream=stream)
    assert record.is_completed
    assert (record.turns_completed, record.turns_planned, record.error) == (3, 3, None)
    assert [turn.turn for turn in turns] == [1, 2, 3]
    assert [turn.is_continuation for turn in turns] == [False, True, True]
    assert [turn.tool for turn in turns] == ["bash", "bash", None]
    assert all(turn.output_tokens == 4 and turn.cached_tokens == 7 for turn in turns)
    assert record.output_tokens == 12
    assert record.prompt_tokens == sum(turn.prompt_tokens or 0 for turn in turns)
    for turn in turns:
        assert turn.first_token_s is not None
        assert turn.last_token_s is not None
        assert turn.due_s <= turn.sent_s <= turn.first_token_s <= turn.last_token_s
        assert (turn.status, turn.retries, turn.error) == (200, 0, None)
    for before, after in itertools.pairwise(turns):
        assert before.tool_start_s is not None
        assert before.tool_end_s is not None
        assert before.tool_end_s - before.tool_start_s >= TOOL.duration_s * 0.9
        assert after.due_s == before.tool_end_s
    assert record.end_s == turns[-1].last_token_s


async def test_histories_only_grow_and_hold_the_real_answers(model: FakeModel) -> None:
    await play(model, session())
    first, second, third = [chat["messages"] for chat in model.chats]
    assert [message["role"] for message in third] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert second[:2] == first
    assert third[:4] == second
    assert second[2]["content"] == "w1-0 w1-1 w1-2 w1-3 "
    assert [chat["max_tokens"] for chat in model.chats] == [4, 4, 4]


async def test_a_tool_call_is_answered_under_its_id(model: FakeModel) -> None:
    model.calls_tool = True
    tools = RecordedTools()
    await play(model, session(turns=2), tools=tools)
    assert model.chats[1]["messages"][-1]["role"] == "tool"
    assert model.chats[1]["messages"][-1]["tool_call_id"] == "call-1"
    assert [context.tool_call_id for context in tools.contexts] == ["call-1"]


async def test_a_pause_of_the_user_is_waited_for_and_ends_in_a_user_message(model: FakeModel) -> None:
    paused = Session(id="p", turns=[Turn(20, 2, think_s=0.05), Turn(20, 2)])
    record, turns = await play(model, paused)
    assert record.is_completed
    assert turns[0].tool is None
    assert turns[0].last_token_s is not None
    assert turns[1].due_s == pytest.approx(turns[0].last_token_s + 0.05)
    assert turns[1].sent_s >= turns[1].due_s - 0.005


async def test_no_session_id_is_sent_unless_asked_for(model: FakeModel) -> None:
    await play(model, session(turns=1))
    await play(model, session(turns=1), header="X-Session-ID")
    without, with_id = model.chat_headers
    assert not [name for name in without if "session" in name or "thread" in name]
    assert with_id["x-session-id"] == "s1"
    assert without["authorization"] == "Bearer secret"
    assert without["x-stainless-retry-count"] == "0"


async def test_tenants_have_keys_of_their_own(model: FakeModel) -> None:
    await play(model, session(turns=1, tenant="red"))
    assert model.chat_headers[0]["authorization"] == "Bearer sk-red"


async def test_what_the_proxy_says_is_recorded(model: FakeModel) -> None:
    model.extra_headers = {
        "x-mars-session": "m-1", "x-mars-turn": "1", "x-mars-decision": "forward", "x-mars-held-ms": "1250",
    }  # fmt: skip
    tools = RecordedTools()
    _, turns = await play(model, session(turns=2), tools=tools)
    assert (turns[0].mars_session, turns[0].decision, turns[0].held_s) == ("m-1", "forward", 1.25)
    assert tools.contexts[0].mars_session == "m-1"
    assert (turns[0].tool_queue_s, turns[0].tool_run_s) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("headers", "comment", "held_s"),
    [
        ({"x-mars-decision": "held", "x-mars-held-ms": "0"}, b": held\n\n", None),
        ({"x-mars-decision": "held", "x-mars-held-ms": "0"}, b": held_ms=12500\n\n", 12.5),
        ({"x-mars-decision": "forward", "x-mars-held-ms": "0"}, b"", 0.0),
        ({"x-mars-held-ms": "soon"}, b"", None),
    ],
)
async def test_a_hold_whose_length_was_not_known_in_time_is_not_zero(
    model: FakeModel, headers: dict[str, str], comment: bytes, held_s: float | None
) -> None:
    model.extra_headers, model.comment = headers, comment
    _, turns = await play(model, session(turns=1))
    assert turns[0].held_s == held_s


async def test_without_a_proxy_its_facts_are_unknown(model: FakeModel) -> None:
    _, turns = await play(model, session(turns=1))
    assert (turns[0].mars_session, turns[0].decision, turns[0].held_s) == (None, None, None)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_refusals_are_tried_again_twice(model: FakeModel, status: int) -> None:
    model.refusals = [status, status]
    record, turns = await play(model, session(turns=1))
    assert record.is_completed
    assert (turns[0].retries, turns[0].status) == (2, 200)
    assert [headers["x-stainless-retry-count"] for headers in model.chat_headers] == ["0", "1", "2"]


async def test_a_third_refusal_fails_the_session(model: FakeModel) -> None:
    model.refusals = [503, 503, 503, 503]
    record, turns = await play(model, session())
    assert not record.is_completed
    assert (record.error, record.end_s, record.turns_completed) == ("HTTP 503", None, 0)
    assert [(turn.error, turn.retries, turn.status) for turn in turns] == [("HTTP 503", 2, 503)]


async def test_a_client_error_is_not_tried_again(model: FakeModel) -> None:
    model.refusals = [400]
    record, turns = await play(model, session())
    assert (record.error, turns[0].retries) == ("HTTP 400", 0)
    assert len(model.chat_headers) == 1


@pytest.mark.parametrize("breaks", ["cut", "error", "garbage"])
async def test_an_answer_that_breaks_is_a_failure_and_not_a_completion(model: FakeModel, breaks: str) -> None:
    model.breaks = breaks
    record, turns = await play(model, session())
    assert not record.is_completed
    assert record.error is not None
    assert record.error.startswith("answer: ")
    assert (turns[0].retries, turns[0].status) == (0, 200)
    assert turns[0].first_token_s is not None


async def test_a_server_that_is_gone_is_tried_three_times(model: FakeModel) -> None:
    model.url = "http://127.0.0.1:1"
    record, turns = await play(model, session())
    assert record.error is not None
    assert record.error.startswith("connection: ")
    assert (turns[0].retries, turns[0].status) == (2, None)


async def test_a_tool_that_fails_fails_the_session(model: FakeModel) -> None:
    record, turns = await play(model, session(), tools=RecordedTools(error="tool lost"))
    assert (record.error, record.turns_completed) == ("tool lost", 1)
    assert [turn.error for turn in turns] == ["tool lost"]


@pytest.mark.parametrize("ending", ["done", "tool error", "model error"])
async def test_tool_sessions_are_closed_whatever_happens(model: FakeModel, ending: str) -> None:
    tools = RecordedTools(error="x" if ending == "tool error" else None)
    model.refusals = [400] if ending == "model error" else []
    await play(model, session(), tools=tools)
    assert (tools.opened, tools.closed) == (["s1"], ["s1"])


async def test_a_cancelled_session_is_unfinished_and_closed(model: FakeModel) -> None:
    model.breaks = "hang"
    tools = RecordedTools()
    record, turns = await play(model, session(), tools=tools, cancel_after_s=0.3)
    assert (record.error, record.end_s, record.is_completed) == (None, None, False)
    assert [(turn.error, turn.last_token_s) for turn in turns] == [(None, None)]
    assert tools.closed == ["s1"]


class RecordedTools:
    """Instant tools that remember who ran them."""

    def __init__(self, error: str | None = None) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.contexts: list[ToolContext] = []
        self._error = error

    async def open(self, session: str) -> None:
        self.opened.append(session)

    async def run(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        self.contexts.append(context)
        if self._error:
            raise ToolError(self._error)
        return ToolOutcome(queue_s=0.25, run_s=0.75)

    async def close(self, session: str) -> None:
        self.closed.append(session)


@pytest.mark.parametrize(
    ("system_tokens", "lengths"), [(100, [60, 50, 40]), (30, [1, 39, 40]), (0, [10, 40])]
)
async def test_texts_make_room_for_what_the_template_adds(
    model: FakeModel, system_tokens: int, lengths: list[int]
) -> None:
    """First in the system prompt, where templates put the tools; the rest is left to the next text."""
    planned = Session("s", [Turn(50, 4), Turn(50, 4)], system_tokens=system_tokens)
    await play(model, planned, overhead_tokens=40, turn_overhead_tokens=10)
    sent = [each["content"] for each in model.chats[1]["messages"] if each["role"] != "assistant"]
    texts = TextSource(0)
    assert [len(text) / texts.chars_per_token for text in sent] == lengths
