"""A real vLLM on the emulated accelerator, over HTTP: lengths, prefixes, grammars, times, the host tier."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_patch.emulator.device import DeviceReport
from backend_patch.emulator.failures import Failures
from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer
from backend_patch.emulator.tiny_model import write_tiny_model
from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

KV_TOKENS = 16_384
OPTIONS = LaunchOptions(port=0, served_model_name="tiny", kv_tokens=KV_TOKENS, host_kv_tokens=4 * KV_TOKENS)
STEP_TIME = StepTime(HardwareProfile.load(OPTIONS.hardware), ModelProfile.load(OPTIONS.model))
TIMEOUT_S = 60.0

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": PERSON, "strict": True}}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def server(model_dir: Path) -> Iterator[EmulatedServer]:
    with EmulatedServer(model_dir, OPTIONS) as running:
        yield running


@pytest.fixture
def client(server: EmulatedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S) as connected:
        yield connected


def chat(client: httpx.Client, messages: list[dict[str, Any]] | str, **members: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": said, **members})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def complete(client: httpx.Client, prompt: str | list[int], **members: Any) -> dict[str, Any]:
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": prompt, **members})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def settled(server: EmulatedServer) -> DeviceReport:
    """The report when the engine has nothing left to do."""
    before = None
    while (report := server.report()) is None or report != before:
        before = report
        time.sleep(0.1)
    return report


def prompt_of(number: int, tokens: int) -> list[int]:
    """Ids of the tiny vocabulary, different from the first one on."""
    return [300 + (number * 37 + index * 7) % 200 for index in range(tokens)]


@pytest.mark.parametrize(
    ("members", "tokens", "reason"),
    [
        ({"vllm_xargs": {"mars_output_tokens": 23}}, 23, "stop"),
        ({"vllm_xargs": {"mars_output_tokens": 1}}, 1, "stop"),
        ({"vllm_xargs": {"mars_output_tokens": 23}, "max_tokens": 9}, 9, "length"),
        ({"vllm_xargs": {"mars_output_tokens": 23}, "max_tokens": 23}, 23, "stop"),
        ({"vllm_xargs": {"mars_output_tokens": 5}, "min_tokens": 12}, 12, "stop"),
        ({"vllm_xargs": {"mars_output_tokens": 5}, "ignore_eos": True, "max_tokens": 17}, 17, "length"),
        ({"vllm_xargs": {"mars_output_text": "read the path"}}, None, "stop"),
    ],
)
def test_lengths_are_exact(
    client: httpx.Client, members: dict[str, Any], tokens: int | None, reason: str
) -> None:
    answer = chat(client, "How long?", **members)
    assert answer["choices"][0]["finish_reason"] == reason
    if tokens is not None:
        assert answer["usage"]["completion_tokens"] == tokens


def test_script_is_said_and_lengthened(client: httpx.Client) -> None:
    """Text as it is; ids as they are; both go on with filler where more is wanted."""
    text = 'Let me look.\n<tool_call>\n{"name": "look_up", "arguments": {"name": "a"}}\n</tool_call>'
    loose = {"type": "function", "function": {"name": "look_up", "parameters": PERSON}}  # not strict
    said = chat(client, "Go", vllm_xargs={"mars_output_text": text}, tools=[loose])["choices"][0]
    assert said["finish_reason"] == "tool_calls"
    assert said["message"]["content"].strip() == "Let me look."
    assert json.loads(said["message"]["tool_calls"][0]["function"]["arguments"]) == {"name": "a"}
    exact = complete(client, "Go", vllm_xargs={"mars_output_ids": [300, 301, 302]}, return_token_ids=True)
    assert exact["choices"][0]["token_ids"][:3] == [300, 301, 302]
    assert exact["usage"]["completion_tokens"] == 4
    xargs = {"mars_output_ids": [300, 301, 302], "mars_output_tokens": 30}
    longer = complete(client, "Go", vllm_xargs=xargs, return_token_ids=True, max_tokens=100)
    assert longer["choices"][0]["token_ids"][:3] == [300, 301, 302]
    assert longer["usage"]["completion_tokens"] == 30


def test_the_next_turn_finds_the_answer_in_the_cache(client: httpx.Client) -> None:
    """All but the last, partial block of prompt and answer."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Begin. " * 30}]
    for _turn in range(3):
        answer = chat(client, messages, vllm_xargs={"mars_output_tokens": 100})
        known = answer["usage"]["total_tokens"]
        messages += [answer["choices"][0]["message"], {"role": "user", "content": "Go on. " * 10}]
        again = chat(client, messages, max_tokens=1)
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == known // 16 * 16


def test_the_same_request_says_the_same_in_any_company(client: httpx.Client) -> None:
    """Alone, streamed, and one of many that do not fit, so that some are preempted."""
    prompts = [prompt_of(number, 1500) for number in range(100, 116)]
    alone = [complete(client, prompt, max_tokens=40, ignore_eos=True) for prompt in prompts[:2]]
    crowd = complete(client, prompts, max_tokens=40, ignore_eos=True)
    texts = [choice["text"] for choice in sorted(crowd["choices"], key=lambda each: each["index"])]
    assert texts[:2] == [each["choices"][0]["text"] for each in alone]
    assert len(set(texts)) == len(prompts)


def test_schema_is_followed(client: httpx.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    for wanted in (1, 40, 120):
        answer = chat(client, "Who?", response_format=form, vllm_xargs={"mars_output_tokens": wanted})
        assert answer["choices"][0]["finish_reason"] == "stop"
        found = json.loads(answer["choices"][0]["message"]["content"])
        assert set(found) == {"name", "age", "tags"}
        assert isinstance(found["age"], int)
        assert set(found["tags"]) <= {"red", "green"}


def test_script_that_fits_the_grammar_is_said(client: httpx.Client) -> None:
    text = '{"name": "Ada", "age": 36, "tags": ["red"]}'
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = chat(client, "Who?", response_format=form, vllm_xargs={"mars_output_text": text})
    assert json.loads(answer["choices"][0]["message"]["content"]) == json.loads(text)


@pytest.mark.parametrize("pattern", [r"[a-z]+@[a-z]+\.com", r"\d{3}-\d{4}", r"(yes|no)", r"(ab)*c"])
def test_pattern_is_followed(client: httpx.Client, pattern: str) -> None:
    answer = chat(
        client, "Say it", structured_outputs={"regex": pattern}, vllm_xargs={"mars_output_tokens": 4}
    )
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert re.fullmatch(pattern, answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
def test_required_tool_is_called(client: httpx.Client, choice: str | dict[str, Any]) -> None:
    answer = chat(client, "Who?", tools=[TOOL], tool_choice=choice, vllm_xargs={"mars_output_tokens": 40})
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "look_up"
    assert set(json.loads(call["function"]["arguments"])) == {"name", "age", "tags"}


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"vllm_xargs": {"mars_output_tokens": "many"}}, "mars_output_tokens"),
        ({"vllm_xargs": {"mars_output_tokens": 0}}, "mars_output_tokens"),
        ({"vllm_xargs": {"mars_output_ids": ["a"]}}, "mars_output_ids"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    client: httpx.Client, members: dict[str, Any], named: str
) -> None:
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "Go"} | members)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_sampling_parameters_do_no_harm(client: httpx.Client) -> None:
    """They change nothing, but are answered in their form."""
    members = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "presence_penalty": 1.0, "logit_bias": {"300": 5}}
    answer = chat(client, "Say", n=2, logprobs=True, top_logprobs=2, max_tokens=6, **members)
    assert len(answer["choices"]) == 2
    for choice in answer["choices"]:
        assert len(choice["logprobs"]["content"]) == 6
        assert all(len(each["top_logprobs"]) == 2 for each in choice["logprobs"]["content"])
    text = complete(client, "Say", max_tokens=30, ignore_eos=True)["choices"][0]["text"]
    stop = text.split()[4]
    stopped = complete(client, "Say", max_tokens=30, stop=[stop])["choices"][0]
    assert (stopped["finish_reason"], stop in stopped["text"]) == ("stop", False)


def test_pool_is_of_the_size_asked_for(server: EmulatedServer, client: httpx.Client) -> None:
    """And one block of vLLM's own; scheduling is asynchronous."""
    complete(client, "Say", max_tokens=1)
    report = settled(server)
    assert report.num_gpu_blocks == KV_TOKENS // 16 + 1
    assert report.async_scheduling


def test_steps_take_what_the_model_says(server: EmulatedServer, client: httpx.Client) -> None:
    """Prefill and each decode, and the answer is no sooner there than that."""
    prompt, outputs = prompt_of(1, 2000), 50
    before, began_s = settled(server), time.monotonic()
    complete(client, prompt, max_tokens=outputs, ignore_eos=True)
    elapsed_s = time.monotonic() - began_s
    after = settled(server)
    busy_s = after.busy_s - before.busy_s
    decodes = (STEP_TIME.decode_seconds(1, 2000 + number) for number in range(outputs - 1))
    assert busy_s == pytest.approx(STEP_TIME.seconds([(0, 2000)]) + sum(decodes), rel=1e-6)
    assert elapsed_s > 0.99 * busy_s
    assert after.tokens - before.tokens == 2000 + outputs - 1


def test_host_tier_is_between_warm_and_cold(server: EmulatedServer, client: httpx.Client) -> None:
    """By what is computed and loaded: demoted blocks come over the link instead of being recomputed."""
    prompt = prompt_of(2, 6001)
    spent = {}
    for kind in ("cold", "warm", "demoted"):
        if kind == "demoted":
            for number in range(10, 14):  # more than the pool holds
                complete(client, prompt_of(number, 6000), max_tokens=1)
        before = settled(server)
        complete(client, prompt, max_tokens=1)
        after = settled(server)
        loaded = after.loaded_tokens - before.loaded_tokens
        spent[kind] = (after.busy_s - before.busy_s + STEP_TIME.host_copy_seconds(loaded), loaded)
    assert spent["warm"][0] < spent["demoted"][0] < spent["cold"][0] / 2
    assert spent["warm"][1] == spent["cold"][1] == 0
    assert spent["demoted"][1] > 5900


def test_slow_steps_come_as_often_as_told(server: EmulatedServer, client: httpx.Client) -> None:
    steps, slow_s = 20, 0.05
    usual_s = sum(STEP_TIME.decode_seconds(1, 50 + number) for number in range(steps))
    server.fail(Failures(slow_step_every=2, slow_step_s=slow_s))
    try:
        before = settled(server)
        complete(client, prompt_of(3, 50), max_tokens=steps, ignore_eos=True)
        after = settled(server)
    finally:
        server.fail(Failures())
    assert after.steps - before.steps == steps
    assert after.busy_s - before.busy_s == pytest.approx(usual_s + steps / 2 * slow_s, rel=0.05)


def test_frozen_device_answers_nobody_until_it_thaws(server: EmulatedServer, client: httpx.Client) -> None:
    server.fail(Failures(freeze_after_steps=0))
    try:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={"model": "tiny", "prompt": "Go"}, timeout=1.0)
    finally:
        server.fail(Failures())
    assert complete(client, "Go", max_tokens=3)["usage"]["completion_tokens"] == 3


def test_crash_ends_answers_and_process(model_dir: Path) -> None:
    """As a fault of a real device does: an error for who waits, and the server exits."""
    with EmulatedServer(model_dir, replace(OPTIONS, failures=Failures(crash_after_steps=10))) as server:
        assert server.process is not None
        answer = httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "tiny", "prompt": "Go", "max_tokens": 5000, "ignore_eos": True},
            timeout=TIMEOUT_S,
        )
        assert answer.status_code == 500
        assert server.process.wait(TIMEOUT_S) is not None
        assert "emulated device fault" in server.log_path.read_text(errors="replace")
