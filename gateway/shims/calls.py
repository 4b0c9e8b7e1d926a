"""HTTP calls to a gateway: small, blocking, one connection each.

Owns the wire: addresses, requests, answers, refusals in words. It must not know what is asked for. The
standard ``http.client`` would do, were it not that importing it takes longer than the call.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping

CONNECT_S = 2.0
"""A gateway is near; what does not answer by then is down."""
ANSWER_S = 15.0
"""Beyond the time that was asked to wait: a gateway on a busy machine."""
_PIECE_BYTES = 64 << 10
_MAX_HEAD_BYTES = 64 << 10
_DEFAULT_PORTS = {"http": 80, "https": 443}


class GatewayFault(Exception):
    """The message is for the user."""


class Unreachable(GatewayFault):
    """No answer came, or none of a gateway."""


class Refused(GatewayFault):
    def __init__(self, status: int, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class Address:
    """Of a gateway: ``http://HOST[:PORT][/PREFIX]``. Raises ValueError."""

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            raise ValueError(f"must begin with http:// or https://, not {url!r}")
        authority, slash, prefix = rest.partition("/")
        host, colon, port = authority.rpartition(":")
        if not colon or "]" in port:
            host, port = authority, str(_DEFAULT_PORTS[scheme])
        if not host or not port.isdigit():
            raise ValueError(f"must be http://HOST:PORT, not {url!r}")
        self.is_tls = scheme == "https"
        self.authority = authority
        self.host, self.port = host.strip("[]"), int(port)
        self.prefix = (slash + prefix).rstrip("/")


class Answer:
    """One that was no refusal. Its body is read once, by one of the three ways; then it is closed."""

    def __init__(
        self, connection: socket.socket, rest: bytes, status: int, headers: Mapping[str, str]
    ) -> None:
        self.connection = connection
        self.rest = rest
        """Of the body, what came with the head."""
        self.status = status
        self.headers = headers
        self.is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"

    def close(self) -> None:
        self.connection.close()

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Raises Unreachable where it breaks off."""
        try:
            raw = self._counted() if not self.is_chunked else self._unchunked()
            yield from raw
        except OSError as error:
            raise Unreachable(f"the gateway broke off its answer ({_reason(error)})") from error
        finally:
            self.close()

    def _counted(self) -> Iterator[bytes]:
        length = self.headers.get("content-length")
        left = None if length is None else int(length)
        piece = self.rest[:left]
        while True:
            if piece:
                yield piece
            left = None if left is None else left - len(piece)
            if left == 0:
                return
            piece = self.connection.recv(_PIECE_BYTES)[:left]
            if not piece and left is not None:
                raise ConnectionResetError("body cut short")
            if not piece:
                return

    def _unchunked(self) -> Iterator[bytes]:
        chunks = Chunks()
        piece = self.rest
        while True:
            yield from chunks.feed(piece)
            if chunks.is_over:
                return
            piece = self.connection.recv(_PIECE_BYTES)
            if not piece:
                raise ConnectionResetError("body cut short")


class Chunks:
    """Takes a chunked body apart as it comes (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self.is_over = False
        self._buffer = b""
        self._left = 0
        """Of the chunk that is being read, with the line end behind it."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while self._buffer and not self.is_over:
            if self._left == 0:
                if not self._begin():
                    return
                continue
            taken = self._buffer[: self._left]
            self._buffer = self._buffer[len(taken) :]
            self._left -= len(taken)
            payload = taken[: len(taken) - max(0, 2 - self._left)]
            if payload:
                yield payload

    def _begin(self) -> bool:
        """False: the line with the size is not whole yet."""
        line, separator, rest = self._buffer.partition(b"\r\n")
        if not separator:
            return False
        size = int(line.split(b";")[0], 16)
        self._buffer, self.is_over = rest, size == 0
        self._left = size + 2
        return True


class Calls:
    """``token``: None for a gateway that wants none."""

    def __init__(self, address: Address, token: str | None, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._address = address
        self._token = token

    def json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        wait_s: float = 0.0,
        key: str | None = None,
    ) -> dict[str, object]:
        """Raises Refused, Unreachable. An empty answer is an empty object."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if key is None else {"Idempotency-Key": key}
        data = self.open(method, path, content, headers=headers, wait_s=wait_s).body()
        if not data:
            return {}
        try:
            found = json.loads(data)
        except ValueError as error:
            raise Unreachable("what answers is no gateway") from error
        return found if isinstance(found, dict) else {}

    def open(
        self,
        method: str,
        path: str,
        content: bytes | Iterable[bytes] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        wait_s: float = 0.0,
    ) -> Answer:
        """The answer as soon as its head is there. ``length`` of a ``content`` that comes in pieces."""
        try:
            connection = self._connect(wait_s)
        except OSError as error:
            raise self._unreachable("does not answer", error) from error
        try:
            self._send(connection, method, path, content, dict(headers or {}), length)
            return _checked(_head(connection, has_body=method != "HEAD"))
        except OSError as error:
            connection.close()
            raise self._unreachable("broke off", error) from error
        except BaseException:
            connection.close()
            raise

    def _connect(self, wait_s: float) -> socket.socket:
        address = self._address
        connection = socket.create_connection((address.host, address.port), CONNECT_S)
        connection.settimeout(wait_s + self._answer_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.is_tls:
            import ssl

            return ssl.create_default_context().wrap_socket(connection, server_hostname=address.host)
        return connection

    def _send(
        self,
        connection: socket.socket,
        method: str,
        path: str,
        content: bytes | Iterable[bytes] | None,
        headers: dict[str, str],
        length: int | None,
    ) -> None:
        pieces = [content] if isinstance(content, bytes) else content or []
        headers["Host"] = self._address.authority
        headers["Connection"] = "close"
        if isinstance(content, bytes):
            length = len(content)
        if content is not None or method != "GET":
            headers["Content-Length"] = str(length or 0)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        lines = [
            f"{method} {self._address.prefix}{path} HTTP/1.1",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if isinstance(content, bytes):
            connection.sendall(head + content)
            return
        connection.sendall(head)
        for piece in pieces:
            connection.sendall(piece)

    def _unreachable(self, what: str, error: OSError) -> Unreachable:
        return Unreachable(f"the gateway at {self._address.authority} {what} ({_reason(error)})")


def _head(connection: socket.socket, *, has_body: bool) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_PIECE_BYTES)
        if not piece or len(data) > _MAX_HEAD_BYTES:
            raise ConnectionResetError("no answer")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise Unreachable("what answers is no gateway")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
    }
    if words[1] in ("204", "304") or not has_body:
        headers["content-length"] = "0"
    return Answer(connection, rest, int(words[1]), headers)


def _checked(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    data = answer.body()
    try:
        error = json.loads(data)["error"] if data else {"code": "", "message": f"status {answer.status}"}
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, LookupError, TypeError):
        raise Unreachable(f"what answers is no gateway (status {answer.status})") from None
    after = answer.headers.get("retry-after", "")
    raise Refused(answer.status, code, message, float(after) if after.isdigit() else 0.0)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
