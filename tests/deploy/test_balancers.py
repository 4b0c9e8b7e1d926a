"""The example configurations of nginx and HAProxy, run as they are but for names and ports: an answer comes
through TLS piece by piece, and what belongs to operators does not."""

import asyncio
import contextlib
import re
import ssl
import subprocess
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.test_manifests import DEPLOY, tool
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import LAST_CHUNK, SSE_HEAD, Exchange, chunk

HANG_S = 30.0


def certificate(folder: Path) -> None:
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ("-keyout", folder / "tls-key", "-out", folder / "tls-cert")
    names = ("-addext", "subjectAltName=DNS:localhost")
    subprocess.run([tool("openssl"), *made.split(), *files, *names], check=True, capture_output=True)
    (folder / "tls.pem").write_text((folder / "tls-cert").read_text() + (folder / "tls-key").read_text())


def localised(name: str, folder: Path, port: int, upstream: int) -> Path:
    """Both proxies are the one at ``upstream``."""
    text = (DEPLOY / "proxy" / name).read_text()
    text = re.sub(r"\bproxy-[12]:8080", f"127.0.0.1:{upstream}", text).replace("8443", f"{port}")
    text = text.replace(" /tmp/", f" {folder}/").replace("/run/secrets/", f"{folder}/")
    file = folder / name
    file.write_text(text)
    return file


def commands(name: str, file: Path) -> tuple[list[str | Path], list[str | Path]]:
    """To check the file, and to serve by it."""
    if name == "nginx.conf":
        base: list[str | Path] = [tool("nginx"), "-c", file, "-p", file.parent]
        return [*base, "-t"], [*base, "-g", "daemon off;"]
    haproxy = tool("haproxy")
    return [haproxy, "-c", "-f", file], [haproxy, "-db", "-f", file]


@asynccontextmanager
async def serving(name: str, folder: Path, upstream: int) -> AsyncIterator[httpx.AsyncClient]:
    await asyncio.to_thread(certificate, folder)
    port = await free_port()
    file = localised(name, folder, port, upstream)
    check, serve = commands(name, file)
    checked = await asyncio.create_subprocess_exec(*check, stdout=PIPE, stderr=STDOUT)
    said, _ = await checked.communicate()
    assert checked.returncode == 0, said.decode()
    process = await asyncio.create_subprocess_exec(*serve, stdout=PIPE, stderr=STDOUT)
    trusted = ssl.create_default_context(cafile=folder / "tls-cert")
    try:
        async with httpx.AsyncClient(
            base_url=f"https://localhost:{port}", verify=trusted, trust_env=False, timeout=HANG_S
        ) as client:
            await until_it_answers(client)
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def free_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def until_it_answers(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                if (await client.get("/v1/models")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg"])
async def test_pieces_come_as_they_are_sent(name: str, tmp_path: Path) -> None:
    """The backend sends the second only when the client has the first: with a buffer in between, never."""
    go_on = asyncio.Event()

    async def in_two_pieces(exchange: Exchange) -> None:
        if b"POST" not in exchange.head:
            await faulty.sends(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")(exchange)
            return
        await exchange.send(SSE_HEAD, chunk(b"data: one\n\n"))
        await go_on.wait()
        await exchange.send(chunk(b"data: two\n\n"), LAST_CHUNK)

    async with faulty.faulty_backend(in_two_pieces) as backend:
        upstream = httpx.URL(backend.url).port
        assert upstream is not None
        async with serving(name, tmp_path, upstream) as client:
            body = {"stream": True, "text": "x" * 200_000}
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"data: one\n\n"
                go_on.set()
                assert b"".join([piece async for piece in pieces]) == b"data: two\n\n"
            for path in ("/metrics", "/readyz", "/mars/v1/sessions"):
                assert (await client.get(path)).status_code == 404, path
            assert b"GET /mars/v1/sessions" not in b"".join(backend.requests)
