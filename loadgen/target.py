"""What a run must know of its target before it starts: the model's name and the size of its tokens."""

from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from loadgen.errors import LoadgenError
from loadgen.history import TOOLS
from loadgen.text import DEFAULT_CHARS_PER_TOKEN

PROBE_TIMEOUT_S = 30.0
CALL = {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}


class Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    data: list[Model]


class TokenCount(msgspec.Struct):
    count: int


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    """Without ``/v1``."""
    model: str
    max_model_len: int | None
    chars_per_token: float
    is_calibrated: bool
    """Measured with the target's ``/tokenize``; else the usual four."""
    overhead_tokens: int
    """What the chat template and the declared tools add to a first prompt; 0 where it cannot be measured."""
    turn_overhead_tokens: int = 0
    """What the template adds to each later one, around the answer before and the new message."""
    tool_overhead_tokens: int = 0
    """What it adds to that where the new message is a tool's result."""


def base_url(url: str) -> str:
    """The server's root, whichever of the two usual forms the user gave."""
    if not url.startswith(("http://", "https://")):
        raise LoadgenError(
            f"target {url!r} is no URL; allowed: http://HOST:PORT or https://..., with or without /v1"
        )
    return url.rstrip("/").removesuffix("/v1")


async def probe(http: httpx.AsyncClient, url: str, model: str | None, sample: str) -> Target:
    found = await choose_model(http, url, model)
    plain = await count_tokens(http, url, {"model": found.id, "prompt": sample, "add_special_tokens": False})
    user, assistant = ({"role": role, "content": sample} for role in ("user", "assistant"))
    result = {"role": "tool", "tool_call_id": CALL["id"], "content": sample}
    calling = {"role": "assistant", "content": sample, "tool_calls": [CALL]}
    chat, longer, answered, asked = [
        await count_tokens(http, url, {"model": found.id, "messages": messages, "tools": TOOLS})
        for messages in ([user], [user, assistant, user], [user, calling, result], [user, calling, user])
    ]
    return Target(
        url=url,
        model=found.id,
        max_model_len=found.max_model_len,
        chars_per_token=len(sample) / plain if plain else DEFAULT_CHARS_PER_TOKEN,
        is_calibrated=plain is not None,
        overhead_tokens=max(0, chat - plain) if chat and plain else 0,
        turn_overhead_tokens=max(0, longer - chat - 2 * plain) if longer and chat and plain else 0,
        tool_overhead_tokens=max(0, answered - asked) if answered and asked else 0,
    )


async def choose_model(http: httpx.AsyncClient, url: str, wanted: str | None) -> Model:
    try:
        response = await http.get(f"{url}/v1/models", timeout=PROBE_TIMEOUT_S)
        response.raise_for_status()
        models = msgspec.json.decode(response.content, type=ModelList).data
    except httpx.HTTPStatusError as exc:
        if wanted:
            return Model(wanted)
        raise LoadgenError(
            f"{url}/v1/models answers HTTP {exc.response.status_code}; name one with --model"
        ) from exc
    except (httpx.HTTPError, OSError, TimeoutError) as exc:
        raise LoadgenError(f"target {url} does not answer ({type(exc).__name__}); is the server up?") from exc
    except msgspec.MsgspecError as exc:
        raise LoadgenError(f"{url}/v1/models is no OpenAI model list; is this the right URL?") from exc
    by_id = {model.id: model for model in models}
    if wanted:
        return by_id.get(wanted, Model(wanted))
    if not models:
        raise LoadgenError(f"{url}/v1/models lists no model; name one with --model")
    return models[0]


async def count_tokens(http: httpx.AsyncClient, url: str, request: dict[str, Any]) -> int | None:
    """By vLLM's ``/tokenize``; None from a target that has none, or not for such a request."""
    body = msgspec.json.encode(request)
    try:
        response = await http.post(f"{url}/tokenize", content=body, timeout=PROBE_TIMEOUT_S)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=TokenCount).count or None
    except (httpx.HTTPError, OSError, TimeoutError, msgspec.MsgspecError):
        return None
