"""vLLM's face, asked by an ordinary HTTP client on a really running server."""

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow

RAW_JSON = {"content-type": "application/json"}


def events(body: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def metrics(http: httpx.AsyncClient) -> dict[str, float]:
    text = (await http.get("/metrics")).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "reason" not in sample.labels
    }


async def test_a_whole_answer(run_engine: Any) -> None:
    async with run_engine() as engine:
        response = await engine.chat(max_tokens=5)

    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "Qwen/Qwen3-30B-A3B"
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"]) == 20
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]
    assert answer["usage"] == {
        "prompt_tokens": 11,
        "total_tokens": 16,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_stream_has_vllms_chunks(run_engine: Any) -> None:
    async with run_engine() as engine:
        response = await engine.chat(
            max_tokens=5, stream=True, temperature=0, stream_options={"include_usage": True}
        )
        whole = (await engine.chat(max_tokens=5)).json()

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    role, *tokens, usage = events(response.text)
    assert role["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in tokens] == [None] * 4 + ["length"]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in tokens)
    assert text == whole["choices"][0]["message"]["content"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert {chunk["object"] for chunk in [role, *tokens, usage]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in [role, *tokens, usage]}) == 1


async def test_without_stream_options_there_is_no_usage(run_engine: Any) -> None:
    async with run_engine() as engine:
        response = await engine.chat(max_tokens=3, stream=True)
    assert not any("usage" in chunk for chunk in events(response.text))


async def test_continuous_usage_counts_up(run_engine: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with run_engine(speed=1.0) as engine:
        response = await engine.chat(max_tokens=4, stream=True, stream_options=options)
    _role, *tokens, _usage = events(response.text)
    assert [chunk["usage"]["completion_tokens"] for chunk in tokens] == [1, 2, 3, 4]


async def test_the_stream_interval_makes_fewer_chunks(run_engine: Any) -> None:
    async with run_engine(stream_interval=8, speed=1.0) as engine:
        response = await engine.chat(max_tokens=20, stream=True)
    _role, *tokens = events(response.text)
    assert [len(chunk["choices"][0]["delta"]["content"]) // 4 for chunk in tokens] == [1, 8, 8, 3]


async def test_several_choices_share_the_prompt_and_differ(run_engine: Any) -> None:
    async with run_engine() as engine:
        answer = (await engine.chat("hello " * 50, n=3, max_tokens=4)).json()
        stream = await engine.chat("hello " * 50, n=3, max_tokens=4, stream=True)

    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == 12
    streamed = ["", "", ""]
    for chunk in events(stream.text):
        [choice] = chunk["choices"]
        streamed[choice["index"]] += choice["delta"]["content"]
    assert streamed == texts


async def test_text_completions_take_texts_and_token_ids(run_engine: Any) -> None:
    async with run_engine() as engine:
        post = engine.http.post
        one = (await post("/v1/completions", json={"prompt": "once upon a time"})).json()
        ids = (await post("/tokenize", json={"prompt": "once upon a time"})).json()["tokens"]
        same = (await post("/v1/completions", json={"prompt": ids})).json()
        both = (await post("/v1/completions", json={"prompt": ["abc", ids], "n": 2, "max_tokens": 2})).json()
        stream = await post("/v1/completions", json={"prompt": "once upon a time", "stream": True})

    assert one["object"] == "text_completion"
    assert one["usage"]["completion_tokens"] == 16, "OpenAI's default"
    assert one["choices"][0]["text"] == same["choices"][0]["text"]
    assert len(both["choices"]) == 4
    assert both["usage"]["prompt_tokens"] == 1 + 4
    assert "".join(chunk["choices"][0]["text"] for chunk in events(stream.text)) == one["choices"][0]["text"]


async def test_an_exact_length_and_a_scripted_answer_by_field(run_engine: Any) -> None:
    answer = json.dumps({"text": "Looking.", "tool": "bash", "args": {"command": "ls"}})
    async with run_engine() as engine:
        exact = (await engine.chat(vllm_xargs={"mars_output_tokens": 33})).json()
        scripted = (await engine.chat(vllm_xargs={"mars_answer": answer, "mars_ttl_ms": 100})).json()
        raw = await engine.http.post(
            "/v1/completions", json={"prompt": "x", "max_tokens": 99, "vllm_xargs": {"mars_answer": answer}}
        )

    assert exact["usage"]["completion_tokens"] == 33
    assert exact["choices"][0]["finish_reason"] == "stop"
    [choice] = scripted["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["id"].startswith("chatcmpl-tool-")
    assert (call["type"], call["function"]) == (
        "function",
        {"name": "bash", "arguments": '{"command": "ls"}'},
    )
    assert raw.json()["choices"][0]["text"].endswith("</tool_call>")


async def test_a_script_file_answers_by_turn_and_session(run_engine: Any, tmp_path: Any) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(
        '{"match": {"session": "s-1"}, "turns": [{"text": "first"}, {"text": "second"}]}\n'
        '{"match": {"tools": true}, "turns": [{"tool": "bash", "args": {"command": "pwd"}}]}\n'
    )
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {}}}]
    history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "first"}]
    async with run_engine(script=path) as engine:

        async def say(headers: dict[str, str] | None = None, **body: Any) -> Any:
            response = await engine.http.post(
                "/v1/chat/completions", json={"messages": history[:1]} | body, headers=headers or {}
            )
            return response.json()["choices"][0]["message"]

        assert (await say({"X-Session-ID": "s-1"}))["content"] == "first"
        assert (await say(session_id="s-1", messages=history))["content"] == "second"
        assert (await say(vllm_xargs={"session_id": "s-1"}))["content"] == "first"
        assert (await say(tools=tools))["tool_calls"][0]["function"]["name"] == "bash"
        assert "tool_calls" not in await say(tools=tools, tool_choice="none")
        assert "tool_calls" not in await say()


async def test_stop_strings(run_engine: Any) -> None:
    answer = json.dumps({"text": "one two END three"})
    async with run_engine() as engine:
        response = await engine.chat(stop=["END"], vllm_xargs={"mars_answer": answer})
    [choice] = response.json()["choices"]
    assert choice["message"]["content"] == "one two "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


async def test_the_same_seed_says_the_same_on_another_engine(run_engine: Any) -> None:
    said = []
    for seed in (0, 0, 1):
        async with run_engine(seed=seed) as engine:
            said.append((await engine.chat()).json()["choices"][0]["message"]["content"])
    assert said[0] == said[1] != said[2]


async def test_models_version_and_health(run_engine: Any) -> None:
    async with run_engine(max_model_len=4096, served_model_name="mine") as engine:
        [card] = (await engine.http.get("/v1/models")).json()["data"]
        assert (card["id"], card["max_model_len"], card["owned_by"]) == ("mine", 4096, "vllm")
        assert "version" in (await engine.http.get("/version")).json()
        for path in ("/health", "/ping"):
            assert (await engine.http.get(path)).status_code == 200
        assert (await engine.http.post("/ping")).status_code == 200
        assert (await engine.http.head("/health")).status_code == 200
        assert (await engine.chat(model="mine", max_tokens=1)).status_code == 200


async def test_tokenize_and_detokenize_agree_with_usage(run_engine: Any) -> None:
    messages = [{"role": "user", "content": "héllo wörld"}]
    async with run_engine() as engine:
        counted = (await engine.http.post("/tokenize", json={"messages": messages})).json()
        used = (await engine.chat("héllo wörld", max_tokens=1)).json()["usage"]
        text = await engine.http.post("/detokenize", json={"tokens": counted["tokens"]})
        strings = await engine.http.post("/tokenize", json={"prompt": "abcdef", "return_token_strs": True})

    assert counted["count"] == len(counted["tokens"]) == used["prompt_tokens"]
    assert text.json() == {"prompt": "<|user|>\nhéllo wörld<|end|>\n<|assistant|>\n"}
    assert strings.json()["token_strs"] == ["abcd", "ef"]


async def test_metrics_have_vllms_names_and_true_values(run_engine: Any) -> None:
    async with run_engine(kv_tokens=6400) as engine:
        await engine.chat("x" * 640, max_tokens=8)
        await engine.chat("x" * 640, max_tokens=8)
        idle = await metrics(engine.http)
        text = (await engine.http.get("/metrics")).text

    assert idle["vllm:num_requests_running"] == idle["vllm:num_requests_waiting"] == 0
    assert idle["vllm:kv_cache_usage_perc"] == 0
    assert idle["vllm:num_preemptions_total"] == 0
    assert idle["vllm:generation_tokens_total"] == 16
    prompt_tokens = idle["vllm:prompt_tokens_total"]
    assert prompt_tokens == idle["vllm:prefix_cache_queries_total"] == 2 * (160 + 3 + 2 + 4)
    assert idle["vllm:prompt_tokens_cached_total"] == idle["vllm:prefix_cache_hits_total"] == 160
    assert idle["vllm:time_to_first_token_seconds_count"] == 2
    assert idle["vllm:request_generation_tokens_sum"] == 16
    [config] = [line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")]
    assert 'block_size="16"' in config
    assert 'num_gpu_blocks="400"' in config
    assert 'vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-30B-A3B"} 0.0' in text
    assert 'finished_reason="length",model_name="Qwen/Qwen3-30B-A3B"} 2.0' in text


async def test_gauges_while_requests_run_and_wait(run_engine: Any) -> None:
    async with run_engine(max_num_seqs=1, speed=1.0) as engine, asyncio.TaskGroup() as group:
        asks = [group.create_task(engine.chat(max_tokens=4000, ignore_eos=True)) for _ in range(3)]
        await engine.until(lambda: len(engine.server.engine.scheduler.waiting) == 2)
        await engine.until(lambda: engine.pool.used_blocks > 0)
        busy = await metrics(engine.http)
        for ask in asks:
            ask.cancel()

    assert (busy["vllm:num_requests_running"], busy["vllm:num_requests_waiting"]) == (1, 2)
    assert 0 < busy["vllm:kv_cache_usage_perc"] < 1


async def test_the_priority_header_wins_over_the_field(run_engine: Any) -> None:
    async with (
        run_engine(scheduling_policy="priority", max_num_seqs=1, speed=1.0) as engine,
        asyncio.TaskGroup() as group,
    ):
        scheduler = engine.server.engine.scheduler

        async def ask(header: str | None, field: int) -> None:
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4000, "ignore_eos": True}
            headers = {} if header is None else {"X-Vllm-Priority": header}
            await engine.http.post("/v1/chat/completions", json=body | {"priority": field}, headers=headers)

        first = group.create_task(ask(None, -10))
        await engine.until(lambda: len(scheduler.running) == 1)
        asks = [group.create_task(ask(*case)) for case in [("7", 1), (None, 3), ("oops", 2)]]
        await engine.until(lambda: len(scheduler.waiting) == 3)
        assert [request.priority for request in scheduler.waiting] == [2, 3, 7]
        for task in [first, *asks]:
            task.cancel()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_blocks_at_once(run_engine: Any, stream: bool) -> None:
    async with run_engine(speed=1.0) as engine, asyncio.TaskGroup() as group:
        ask = group.create_task(
            engine.chat("x" * 40_000, max_tokens=30_000, ignore_eos=True, stream=stream, n=2)
        )
        await engine.until(lambda: engine.pool.used_blocks > 100)
        ask.cancel()
        await engine.until(lambda: engine.pool.used_blocks == 0)

        assert not engine.server.engine.scheduler.has_work
        assert engine.server.engine.scheduler.totals.aborted == 2


async def test_a_client_that_leaves_the_queue_leaves_no_trace(run_engine: Any) -> None:
    async with run_engine(speed=1.0, max_num_seqs=1) as engine, asyncio.TaskGroup() as group:
        asks = [group.create_task(engine.chat(max_tokens=20_000, ignore_eos=True)) for _ in range(2)]
        await engine.until(lambda: len(engine.server.engine.scheduler.waiting) == 1)
        asks[1].cancel()
        await engine.until(lambda: not engine.server.engine.scheduler.waiting)
        assert len(engine.server.engine.scheduler.running) == 1
        asks[0].cancel()


async def test_an_engine_that_stops_says_so(run_engine: Any) -> None:
    async with run_engine(speed=1.0) as engine, asyncio.TaskGroup() as group:
        asks = [
            group.create_task(engine.chat(max_tokens=20_000, ignore_eos=True, stream=stream))
            for stream in (True, False)
        ]
        await engine.until(lambda: len(engine.server.engine.scheduler.running) == 2)
        engine.server.engine.stop()
        stream, whole = [await ask for ask in asks]
        late = await engine.chat()

    assert events(stream.text)[-1]["error"]["code"] == whole.status_code == late.status_code == 503
    assert whole.json()["error"]["message"] == "The engine is shutting down."


async def test_reset_empties_the_cache_unless_it_is_in_use(run_engine: Any) -> None:
    async with run_engine(speed=1.0) as engine, asyncio.TaskGroup() as group:
        long = "x" * 6400
        await engine.chat(long, max_tokens=1)
        assert (await engine.http.post("/reset_prefix_cache")).status_code == 200
        again = (await engine.chat(long, max_tokens=1)).json()
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        ask = group.create_task(engine.chat(max_tokens=20_000, ignore_eos=True))
        await engine.until(lambda: engine.pool.used_blocks > 0)
        assert (await engine.http.post("/reset_prefix_cache")).status_code == 409
        ask.cancel()


REFUSALS: list[tuple[bytes, int, str, str, str]] = [
    (b"{", 400, "Bad Request", "body", "JSON decode error"),
    (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400, "Bad Request", "body", "validation"),
    (b"[" * 100_000, 400, "Bad Request", "body", "validation error"),
    (b"{}", 400, "Bad Request", "body.messages", "missing required field `messages`"),
    (b'{"messages": "x"}', 400, "Bad Request", "body.messages", "Expected `array`"),
    (b'{"messages": null}', 400, "Bad Request", "body.messages", "Expected `array`"),
    (b'{"messages": []}', 400, "Bad Request", "body.messages", "at least one message"),
    (b'{"messages": [{"role": 1}]}', 400, "Bad Request", "body.messages.0.role", "Expected `str`"),
    (b'{"messages": [{"role": "user"}], "max_tokens": 0}', 400, "BadRequestError", "max_tokens", "got 0"),
    (b'{"messages": [{"role": "user"}], "n": 0}', 400, "BadRequestError", "n", "at least 1"),
    (b'{"messages": [{"role": "user"}], "stop": ""}', 400, "BadRequestError", "stop", "non-empty"),
    (
        b'{"messages": [{"role": "user"}], "min_tokens": 9, "max_tokens": 8}',
        400,
        "BadRequestError",
        "min_tokens",
        "max_tokens=8, got 9",
    ),
    (
        b'{"model": "gpt", "messages": [{"role": "user"}]}',
        404,
        "NotFoundError",
        "model",
        "The model `gpt` does not exist.",
    ),
    (
        b'{"messages": [{"role": "user"}], "vllm_xargs": {"mars_answer": "{"}}',
        400,
        "Bad Request",
        "body.vllm_xargs.mars_answer",
        "mars_answer",
    ),
    (
        b'{"messages": [{"role": "user"}], "vllm_xargs": {"mars_output_tokens": "many"}}',
        400,
        "Bad Request",
        "body.vllm_xargs.mars_output_tokens",
        "integer of at least 1",
    ),
    (
        b'{"messages": [{"role": "user"}], "vllm_xargs": {"a": {}}}',
        400,
        "Bad Request",
        "body.vllm_xargs.a",
        "strings, numbers and lists",
    ),
]


async def test_refusals_have_vllms_shape(run_engine: Any) -> None:
    async with run_engine() as engine:
        for body, status, error_type, param, words in REFUSALS:
            response = await engine.http.post("/v1/chat/completions", content=body, headers=RAW_JSON)
            error = response.json()["error"]
            assert response.status_code == error["code"] == status, body[:80]
            assert (error["type"], error["param"]) == (error_type, param), body[:80]
            assert words in error["message"], body[:80]
        assert (await engine.chat(max_tokens=1)).status_code == 200, "the engine lives"


async def test_a_context_too_long_is_told_in_vllms_words(run_engine: Any) -> None:
    async with run_engine(max_model_len=1000) as engine:
        both = await engine.chat("x" * 3600, max_tokens=500)
        prompt = await engine.chat("x" * 4000)
        room = await engine.chat("x" * 3600, ignore_eos=True)
    async with run_engine(max_model_len=1000, clamp_max_tokens=True) as engine:
        clamped = await engine.chat("x" * 3600, max_tokens=500, ignore_eos=True)

    assert both.status_code == prompt.status_code == 400
    assert both.json()["error"]["message"] == (
        "This model's maximum context length is 1000 tokens. However, you requested 500 output tokens and "
        "your prompt contains at least 909 input tokens, for a total of at least 1409 tokens. Please reduce "
        "the length of the input prompt or the number of requested output tokens."
    )
    assert both.json()["error"]["param"] == "input_tokens"
    assert "your prompt contains 1009 input tokens" in prompt.json()["error"]["message"]
    assert room.json()["usage"]["total_tokens"] == clamped.json()["usage"]["total_tokens"] == 1000


async def test_wrong_content_type_route_and_method(run_engine: Any) -> None:
    async with run_engine() as engine:
        plain = await engine.http.post("/v1/chat/completions", content=b"{}")
        lost = await engine.http.get("/v1/nothing")
        method = await engine.http.get("/v1/chat/completions")
        ids = await engine.http.post("/detokenize", json={"tokens": [-1]})
        empty = await engine.http.post("/v1/completions", json={"prompt": []})
        neither = await engine.http.post("/tokenize", json={})

    assert plain.json()["error"]["message"].endswith("Only 'application/json' is allowed")
    statuses = [response.status_code for response in (plain, lost, method, ids, empty, neither)]
    assert statuses == [400, 404, 405, 400, 400, 400]
    assert lost.json() == {"error": {"message": "Not Found", "type": "Not Found", "param": None, "code": 404}}


async def test_a_cache_salt_shares_nothing(run_engine: Any) -> None:
    async with run_engine() as engine:
        usages = [
            (await engine.chat("x" * 6400, max_tokens=1, cache_salt=salt)).json()["usage"]
            for salt in ("a", "b", "a")
        ]
    assert [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages] == [0, 0, 1600]


async def test_idle_connections_are_closed(run_engine: Any) -> None:
    async with run_engine(keep_alive_s=1) as engine:
        host, port = engine.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 200"), "read returns at the server's close"
        writer.close()
        await writer.wait_closed()


async def test_usage_json_is_what_vllm_writes(run_engine: Any) -> None:
    async with run_engine() as engine:
        response = await engine.chat(max_tokens=1)
    usage = msgspec.json.decode(response.content)["usage"]
    assert list(usage) == ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"]
