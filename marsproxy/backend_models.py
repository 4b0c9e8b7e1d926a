"""Which models a backend serves, read from its ``/v1/models``; and the list of several backends as one.

Unknown is None: a server that does not say may serve any.
"""

from collections.abc import Sequence

import httpx
import msgspec

from marsproxy.backend_address import BackendAddress

MODELS_PATH = "/v1/models"
MAX_MODELS = 1024
"""Of one backend; more LoRA adapters than vLLM keeps on a GPU by far. One with more says nothing to go by."""
MAX_MODELS_BYTES = 4 << 20
"""Of one list: a card is some 500 bytes in vLLM 0.32, with its permissions."""


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


class _RawCards(msgspec.Struct):
    data: list[msgspec.Raw]


def read_models(body: bytes) -> frozenset[str] | None:
    """Names in an answer; None if it is none that we can read."""
    try:
        cards = msgspec.json.decode(body, type=_Cards).data
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return frozenset(card.id for card in cards) if len(cards) <= MAX_MODELS else None


def union(bodies: Sequence[bytes]) -> bytes:
    """One list of all models, each once, its card as the first backend gave it. Lists that cannot be read are
    left out."""
    cards: dict[str, msgspec.Raw] = {}
    for body in bodies:
        try:
            raws = msgspec.json.decode(body, type=_RawCards).data
            for raw in raws:
                cards.setdefault(msgspec.json.decode(raw, type=_Card).id, raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return msgspec.json.encode({"object": "list", "data": list(cards.values())})


async def ask_models(client: httpx.AsyncClient, address: BackendAddress) -> frozenset[str] | None:
    """
    Raises:
        httpx.HTTPError: it does not answer.
    """
    answer = await client.get(address.base + MODELS_PATH, headers=address.headers)
    return read_models(answer.content) if answer.status_code == httpx.codes.OK else None
