"""From a parsed request to its choices in the engine: prompt, limits, answer, hashes.

Refuses what vLLM refuses. Knows neither HTTP nor time; the caller submits and awaits the generation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backend_patch.script import Asked, Script, ScriptedAnswer, ScriptError, ScriptFile, parse_answer
from loadgen.engine import answers
from loadgen.engine.answers import Answer, Wanted
from loadgen.engine.api import ChatBody, CompletionBody, GenerateBody, TokenizeBody
from loadgen.engine.config import EngineConfig, ResolvedModel
from loadgen.engine.errors import context_too_long, invalid, malformed, prompt_too_long, unknown_model
from loadgen.engine.generation import Choice, Generation
from loadgen.engine.prompt import render_chat
from loadgen.engine.realtime import RealTimeEngine
from loadgen.engine.requests import EngineRequest
from loadgen.engine.tokens import bytes_of, encode, prefix_hashes, token_count

COMPLETION_MAX_TOKENS = 16
"""Default of /v1/completions, as in OpenAI's API."""

MAX_PROMPTS = 1024


class Frontend:
    def __init__(
        self,
        config: EngineConfig,
        model: ResolvedModel,
        engine: RealTimeEngine,
        script: Script | ScriptFile,
    ) -> None:
        self._config = config
        self._engine = engine
        self._script = script
        self.model = model

    def check_model(self, name: str | None) -> None:
        if name and name not in (self.model.served_name, self._config.model):
            raise unknown_model(name)

    def chat(self, body: ChatBody, headers: Mapping[str, str]) -> Generation:
        self.check_model(body.model)
        if not body.messages:
            raise malformed("messages must have at least one message", "body.messages")
        prompt = render_chat(body.messages, body.declared_tools)
        limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        session = body.session_id or headers.get("x-session-id") or _text(body.extra_args, "session_id")
        asked = Asked(session, body.messages, bool(body.declared_tools))
        return self._generation(body, headers, [prompt], limit, asked)

    def completion(self, body: CompletionBody, headers: Mapping[str, str]) -> Generation:
        self.check_model(body.model)
        limit = COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        return self._generation(body, headers, _prompts(body.prompt), limit, asked=None)

    def prompt_of(self, body: TokenizeBody) -> bytes:
        self.check_model(body.model)
        if body.messages is not None:
            return render_chat(body.messages, body.tools or (), generation_prompt=body.add_generation_prompt)
        if body.prompt is None:
            raise malformed("prompt or messages is required", "body.prompt")
        return encode(body.prompt)

    def _generation(
        self,
        body: GenerateBody,
        headers: Mapping[str, str],
        prompts: Sequence[bytes],
        max_tokens: int | None,
        asked: Asked | None,
    ) -> Generation:
        priority = _priority(body, headers)
        script = self._scripted(body, asked)
        choices: list[Choice] = []
        for prompt in prompts:
            wanted = self._wanted(body, token_count(prompt), max_tokens)
            for index in range(body.choices):
                answer = self._answer(prompt, index, wanted, script, raw=asked is None)
                request = self._request(prompt, answer, priority, body.cache_salt)
                choices.append(Choice(len(choices), answer, request))
        interval = self._config.stream_interval if body.stream else None
        return Generation(self._engine, choices, interval=interval, prompts=len(prompts))

    def _wanted(self, body: GenerateBody, prompt_tokens: int, max_tokens: int | None) -> Wanted:
        model_len = self.model.max_model_len
        room = model_len - prompt_tokens
        if room < 1:
            raise prompt_too_long(model_len, prompt_tokens)
        if max_tokens is not None and max_tokens < 1:
            raise invalid(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens")
        if max_tokens is not None and max_tokens > room and not self._config.clamp_max_tokens:
            raise context_too_long(model_len, prompt_tokens, max_tokens)
        limit = room if max_tokens is None else min(room, max_tokens)
        least = body.min_tokens or 0
        if not 0 <= least <= limit:
            raise invalid(f"min_tokens must be between 0 and max_tokens={limit}, got {least}.", "min_tokens")
        return Wanted(limit, least, _exact_tokens(body), bool(body.ignore_eos), body.stop_strings)

    def _scripted(self, body: GenerateBody, asked: Asked | None) -> ScriptedAnswer | None:
        written = body.extra_args.get("mars_answer")
        if written is not None:
            try:
                return parse_answer(str(written))
            except ScriptError as exc:
                raise malformed(str(exc), "body.vllm_xargs.mars_answer") from exc
        return self._script.answer(asked) if asked is not None else None

    def _answer(
        self, prompt: bytes, index: int, wanted: Wanted, script: ScriptedAnswer | None, *, raw: bool
    ) -> Answer:
        seed = answers.answer_seed(prompt, self._config.seed, index)
        if script is None:
            return answers.generated(wanted, seed)
        answer = answers.scripted(script, wanted, seed)
        return answers.as_text(answer) if raw else answer

    def _request(self, prompt: bytes, answer: Answer, priority: int, cache_salt: str | None) -> EngineRequest:
        hashes = prefix_hashes(prompt + answer.body, self.model.limits.block_tokens, cache_salt)
        reason = "length" if answer.finish_reason == "length" else "stop"
        return EngineRequest(
            "", token_count(prompt), answer.tokens, hashes, priority=priority, finish_reason=reason
        )


def _prompts(prompt: str | list[Any]) -> list[bytes]:
    """A text, texts, token ids or lists of token ids, each to the bytes of whole tokens."""
    match prompt:
        case str():
            prompts = [encode(prompt)]
        case [int(), *_]:
            prompts = [_from_ids(prompt)]
        case list() if len(prompt) <= MAX_PROMPTS:
            prompts = [encode(each) if isinstance(each, str) else _from_ids(each) for each in prompt]
        case _:
            raise invalid(f"prompt must have at most {MAX_PROMPTS} entries.", "prompt")
    if not prompts or not all(prompts):
        raise invalid("prompt must not be empty.", "prompt")
    return prompts


def _from_ids(ids: Any) -> bytes:
    try:
        return bytes_of(ids)
    except (ValueError, TypeError) as exc:
        raise malformed(f"prompt: {exc}", "body.prompt") from exc


def _priority(body: GenerateBody, headers: Mapping[str, str]) -> int:
    """The header wins; one that is no number is ignored, as in vLLM."""
    try:
        return int(headers["x-vllm-priority"])
    except (KeyError, ValueError):
        return body.priority or 0


def _exact_tokens(body: GenerateBody) -> int | None:
    value = body.extra_args.get("mars_output_tokens")
    if value is None:
        return None
    if not isinstance(value, int) or value < 1:
        raise malformed(
            "mars_output_tokens must be an integer of at least 1", "body.vllm_xargs.mars_output_tokens"
        )
    return value


def _text(args: Mapping[str, Any], key: str) -> str | None:
    value = args.get(key)
    return value if isinstance(value, str) and value else None
