"""Request bodies of vLLM's OpenAI routes, as far as the engine acts on them; other fields are ignored."""

import re
from typing import Any, TypeVar

import msgspec

from loadgen.engine.errors import ApiError, invalid, malformed
from loadgen.engine.prompt import Message

MAX_CHOICES = 16_384
"""Bound on ``n``: vLLM 0.32, ``VLLM_MAX_N_SEQUENCES``."""

MAX_STOP_STRINGS = 64

B = TypeVar("B", bound=msgspec.Struct)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerateBody(msgspec.Struct):
    """What chat and text completions have in common."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = None
    session_id: str | None = None
    request_id: str | None = None
    cache_salt: str | None = None
    vllm_xargs: dict[str, Any] | None = None

    @property
    def choices(self) -> int:
        count = 1 if self.n is None else self.n
        if not 1 <= count <= MAX_CHOICES:
            raise invalid(f"n must be at least 1 and at most {MAX_CHOICES}, got {count}.", "n")
        return count

    @property
    def stop_strings(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOP_STRINGS or "" in stops:
            raise invalid(f"stop must be at most {MAX_STOP_STRINGS} non-empty strings.", "stop")
        return stops

    @property
    def extra_args(self) -> dict[str, Any]:
        args = self.vllm_xargs or {}
        for key, value in args.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float | list):
                raise malformed("vllm_xargs takes strings, numbers and lists", f"body.vllm_xargs.{key}")
        return args


class ChatBody(GenerateBody, kw_only=True):
    messages: list[Message]
    tools: list[msgspec.Raw] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_completion_tokens: int | None = None

    @property
    def declared_tools(self) -> list[msgspec.Raw]:
        return [] if self.tool_choice == "none" else self.tools or []


class CompletionBody(GenerateBody, kw_only=True):
    prompt: str | list[Any]
    """A text, a list of texts, token ids, or a list of lists of token ids."""


class TokenizeBody(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[msgspec.Raw] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


def parse(body: bytes, content_type: str, shape: type[B]) -> B:
    """Decode a body, or raise vLLM's 400 for a wrong content type, broken JSON or a wrong shape."""
    if content_type.split(";", 1)[0].strip().lower() != "application/json":
        raise malformed("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        return msgspec.json.decode(body, type=shape, strict=False)
    except msgspec.ValidationError as exc:
        raise _wrong_shape(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise malformed(f"JSON decode error: {exc}", "body") from exc


def _wrong_shape(message: str) -> ApiError:
    """msgspec says ``what - at `$.path` ``; the path becomes vLLM's ``param``."""
    found = re.search(r"`\$([^`]*)`$", message)
    missing = re.search(r"required field `(\w+)`", message)
    path = re.sub(r"\[(\w+|\.{3})\]", r".\1", found[1]) if found else ""
    param = f"body{path}" + (f".{missing[1]}" if missing else "")
    return malformed(message, param)
