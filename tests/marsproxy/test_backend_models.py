"""Lists of models: read, put together, asked for."""

import json

import httpx
import pytest

from marsproxy.backend_address import BackendAddress
from marsproxy.backend_models import MAX_MODELS, ask_models, read_models, union


def listing(*names: str, **members: object) -> bytes:
    cards = [{"id": name, "object": "model", **members} for name in names]
    return json.dumps({"object": "list", "data": cards}).encode()


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (listing("a", "b"), frozenset("ab")),
        (listing(), frozenset()),
        (b"", None),
        (b"[]", None),
        (b"\xff", None),
        (b'{"data": [{"name": "a"}]}', None),
        (listing(*(f"lora-{n}" for n in range(MAX_MODELS + 1))), None),
    ],
)
def test_names_in_a_list(body: bytes, models: frozenset[str] | None) -> None:
    """What cannot be read says nothing; it does not say that there are none."""
    assert read_models(body) == models


def test_all_lists_as_one() -> None:
    """Each model once, its card untouched and from the first that has it."""
    both = json.loads(union([listing("a", "b", root="x"), b"not a list", listing("b", "c", root="y")]))
    assert [(card["id"], card["root"]) for card in both["data"]] == [("a", "x"), ("b", "x"), ("c", "y")]
    assert both["object"] == "list"


@pytest.mark.parametrize(("status", "models"), [(200, frozenset("a")), (401, None), (404, None)])
async def test_a_server_is_asked(status: int, models: frozenset[str] | None) -> None:
    """With the key that it wants."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, content=listing("a"))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert await ask_models(client, BackendAddress.of("http://gpu:8000/base", "key")) == models
    assert (str(seen[0].url), seen[0].headers["authorization"]) == (
        "http://gpu:8000/base/v1/models",
        "Bearer key",
    )
