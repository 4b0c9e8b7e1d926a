"""Pages of other sites."""

import pytest

from gateway.origins import is_own_origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:8090"),
        (None, None),
        ("http://127.0.0.1:8090", "127.0.0.1:8090"),
        ("http://LOCALHOST:8090", "localhost:8090"),
        ("http://[::1]:8090", "[::1]:8090"),
        ("https://gateway.example", "gateway.example"),
        ("https://gateway.example", "gateway.example:443"),
    ],
)
def test_own(origin: str | None, host: str | None) -> None:
    assert is_own_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:8090"),
        ("http://127.0.0.1:8091", "127.0.0.1:8090"),
        ("http://127.0.0.1", "127.0.0.1:8090"),
        ("http://127.0.0.1:8090.evil.example", "127.0.0.1:8090"),
        ("null", "127.0.0.1:8090"),
        ("", "127.0.0.1:8090"),
        ("file://", "127.0.0.1:8090"),
        ("http://127.0.0.1:8090", None),
        ("http://[::1", "[::1]"),
        ("http://a:b", "a"),
    ],
)
def test_of_another(origin: str, host: str | None) -> None:
    assert not is_own_origin(origin, host)
