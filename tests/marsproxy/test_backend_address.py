"""A URL with credentials becomes one without, and a header."""

import httpx
import pytest
from httpx_aiohttp import AiohttpTransport

from marsproxy.backend_address import BackendAddress
from tests.integration.patched_backend import patched_backend


@pytest.mark.parametrize(
    ("url", "key", "base", "header"),
    [
        ("http://gpu:8000", None, "http://gpu:8000", None),
        ("http://gpu:8000/", "k", "http://gpu:8000", "Bearer k"),
        ("https://gpu/below/", None, "https://gpu/below", None),
        ("http://user:pass@gpu:8000", "k", "http://gpu:8000", "Basic dXNlcjpwYXNz"),
        ("http://user@gpu", None, "http://gpu", "Basic dXNlcjo="),
    ],
)
def test_addresses(url: str, key: str | None, base: str, header: str | None) -> None:
    """Credentials of the URL go before the key."""
    address = BackendAddress.of(url, key)
    assert (address.base, address.headers.get("authorization")) == (base, header)


async def test_credentials_arrive_once() -> None:
    """Through the two libraries that would each make a header of them."""
    async with patched_backend() as backend, httpx.AsyncClient(transport=AiohttpTransport()) as client:
        address = BackendAddress.of(backend.url.replace("//", "//user:pass@"))
        await client.get(f"{address.base}/v1/mars/headroom", headers=address.headers)
    assert backend.keys == {"Basic dXNlcjpwYXNz"}
