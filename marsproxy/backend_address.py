"""Where a backend is, and how the proxy shows it who asks: for requests of its own, not those of agents.

Credentials in the URL go before the configured key, as they do for agents' requests. They are taken out of
the URL: httpx would make a header of them and aiohttp, its transport, another (0.28 and 3.14).
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from yarl import URL


@dataclass(frozen=True, slots=True)
class BackendAddress:
    base: str
    """Without credentials and without a slash at its end."""
    headers: Mapping[str, str]

    @classmethod
    def of(cls, url: str, api_key: str | None = None) -> Self:
        parts = URL(url)
        base = str(parts.with_user(None)).rstrip("/")
        if parts.user is not None:
            pair = f"{parts.user}:{parts.password or ''}".encode()
            return cls(base, {"authorization": f"Basic {b64encode(pair).decode()}"})
        return cls(base, {} if api_key is None else {"authorization": f"Bearer {api_key}"})
