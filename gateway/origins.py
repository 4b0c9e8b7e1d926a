"""Whether a web page may be behind a request: its ``Origin`` must be our own address.

A browser lets any page post to 127.0.0.1 and open a WebSocket to it; what it does not let a page do is hide
where it came from. Owns that comparison. Programs send no ``Origin`` and are not concerned.
"""

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def is_own_origin(origin: str | None, host: str | None) -> bool:
    """``host``: the Host header. Without ``origin`` it is no page of another site."""
    if origin is None:
        return True
    try:
        page = urlsplit(origin)
        ours = urlsplit(f"{page.scheme}://{host or ''}")
        port = _DEFAULT_PORTS[page.scheme]
        return page.hostname is not None and (page.hostname, page.port or port) == (
            ours.hostname,
            ours.port or port,
        )
    except (ValueError, KeyError):
        return False
