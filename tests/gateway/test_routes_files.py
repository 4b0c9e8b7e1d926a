"""Files and archives over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.host import HostFault
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault
from gateway.limits import Limits
from tests.gateway.rest_rig import Rest, on_a_socket, open_rest, until

pytestmark = pytest.mark.slow

FILES, ARCHIVE = "/v1/sessions/s/files", "/v1/sessions/s/archive"
BIG = bytes(range(256)) * (3 * MAX_PAYLOAD_BYTES // 256) + b"the end"


def error_of(response: Any) -> tuple[int, str, str | None]:
    body = response.json()["error"]
    return response.status_code, body["code"], body["param"]


async def put(rest: Rest, path: str, content: bytes, **params: str) -> None:
    response = await rest.http.put(FILES, params={"path": path, **params}, content=content)
    assert response.json() == {"path": path, "size_bytes": len(content)}


@pytest.mark.parametrize("content", [b"", b"x", b"y" * MAX_PAYLOAD_BYTES, BIG])
async def test_there_and_back(content: bytes) -> None:
    async with open_rest() as rest:
        await put(rest, "a/ü.bin", content, mode="755")
        assert (rest.host.modes["a/ü.bin"], rest.host.uploads) == (0o755, {})
        assert rest.host.largest_piece <= MAX_PAYLOAD_BYTES
        back = await rest.http.get(FILES, params={"path": "a/ü.bin"})
        assert (back.status_code, back.content, back.headers["X-Mode"]) == (200, content, "640")
        head = await rest.http.head(FILES, params={"path": "a/ü.bin"})
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == back.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        (f"bytes=5-{len(BIG) - 3}", 206, 5, len(BIG) - 2),
        ("bytes=-7", 206, len(BIG) - 7, len(BIG)),
        (f"bytes={len(BIG) - 1}-", 206, len(BIG) - 1, len(BIG)),
        ("bytes=0-1,3-4", 200, 0, len(BIG)),
        ("nonsense", 200, 0, len(BIG)),
    ],
)
async def test_ranges(asked: str, status: int, start: int, stop: int) -> None:
    async with open_rest() as rest:
        await put(rest, "big", BIG)
        part = await rest.http.get(FILES, params={"path": "big"}, headers={"Range": asked})
        assert (part.status_code, part.content == BIG[start:stop]) == (status, True)
        if status == 206:
            assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BIG)}"


async def test_range_behind_the_end() -> None:
    async with open_rest() as rest:
        await put(rest, "f", b"abc")
        response = await rest.http.get(FILES, params={"path": "f"}, headers={"Range": "bytes=3-"})
        assert error_of(response) == (416, "range_not_satisfiable", "Range")
        assert response.headers["Content-Range"] == "bytes */3"


async def test_a_range_of_another_file_than_before_is_the_whole() -> None:
    async with open_rest() as rest:
        await put(rest, "f", b"abcdef")
        tag = (await rest.http.head(FILES, params={"path": "f"})).headers["ETag"]
        asked = {"Range": "bytes=2-", "If-Range": tag}
        assert (await rest.http.get(FILES, params={"path": "f"}, headers=asked)).content == b"cdef"
        await put(rest, "f", b"ABCDEFG")
        whole = await rest.http.get(FILES, params={"path": "f"}, headers=asked)
        assert (whole.status_code, whole.content) == (200, b"ABCDEFG")


async def test_removing_twice() -> None:
    async with open_rest() as rest:
        await put(rest, "f", b"abc")
        for _ in range(2):
            assert (await rest.http.delete(FILES, params={"path": "f"})).status_code == 204
        assert error_of(await rest.http.get(FILES, params={"path": "f"})) == (404, "file_not_found", "path")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.OUTSIDE, 403, "outside_workspace"),
        (Fault.FORBIDDEN, 403, "forbidden"),
        (Fault.NO_SPACE, 507, "no_space"),
        (Fault.TOO_LARGE, 413, "too_large"),
        (Fault.BAD_REQUEST, 400, "invalid_value"),
        (Fault.UNKNOWN_SESSION, 404, "session_not_found"),
        (Fault.INTERNAL, 503, "host_failed"),
    ],
)
async def test_what_hosts_refuse(fault: str, status: int, code: str) -> None:
    async with open_rest() as rest:
        rest.host.fails = HostFault(fault, "because")
        for method, url in [
            ("GET", FILES),
            ("PUT", FILES),
            ("DELETE", FILES),
            ("GET", ARCHIVE),
            ("PUT", ARCHIVE),
        ]:
            response = await rest.http.request(method, url, params={"path": "f"})
            assert error_of(response)[:2] == (status, code)


async def test_a_host_that_is_gone() -> None:
    async with open_rest() as rest:
        rest.host.lose()
        response = await rest.http.get(FILES, params={"path": "f"})
        assert error_of(response)[:2] == (503, "host_lost")
        assert int(response.headers["Retry-After"]) >= 1
        rest.host.come_back()


@pytest.mark.parametrize("query", ["", "?path=", "?path=a%00b", "?path=" + "x" * 5000])
async def test_wrong_paths(query: str) -> None:
    async with open_rest() as rest:
        for url in (FILES, ARCHIVE):
            if url == ARCHIVE and not query:
                continue
            assert error_of(await rest.http.put(url + query, content=b"x")) == (400, "invalid_value", "path")
        assert rest.host.uploads == rest.host.archives == {}


async def test_too_large_is_refused_before_and_while_it_comes() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 40

    async with open_rest(limits=Limits(max_file_bytes=100, max_archive_bytes=100)) as rest:
        for url in (FILES, ARCHIVE):
            for content in (b"x" * 101, body()):
                response = await rest.http.put(url, params={"path": "f"}, content=content)
                assert error_of(response) == (413, "too_large", "body")
        assert (rest.host.files["s"], rest.host.archives, rest.host.open_archives) == ({}, {}, {})


async def test_archives_both_ways() -> None:
    async with open_rest() as rest:
        response = await rest.http.put(ARCHIVE, params={"path": "src"}, content=BIG)
        assert response.json() == {"path": "src", "entries": 7}
        back = await rest.http.get(ARCHIVE, params={"path": "src"})
        assert (back.headers["content-type"], back.content == BIG) == ("application/x-tar", True)
        assert rest.host.open_archives == {}
        assert error_of(await rest.http.get(ARCHIVE)) == (404, "file_not_found", "path")


async def test_a_reader_that_leaves_closes_the_archive() -> None:
    async with open_rest() as rest, on_a_socket(rest.app) as address:
        rest.host.archives["."] = b"z" * (200 * MAX_PAYLOAD_BYTES)
        async with (
            httpx.AsyncClient(base_url=f"http://{address}") as http,
            http.stream("GET", ARCHIVE) as response,
        ):
            await anext(response.aiter_raw())
        await until(lambda: not rest.host.open_archives)
        assert rest.host.calls.count("read_archive") < 200


async def test_a_writer_that_leaves_leaves_nothing() -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError

    async with open_rest() as rest, on_a_socket(rest.app) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            for url in (FILES, ARCHIVE):
                with pytest.raises(ConnectionError):
                    await http.put(url, params={"path": "f"}, content=half())
        await until(lambda: "close_archive" in rest.host.calls)
        assert (dict(rest.host.files), rest.host.archives, rest.host.open_archives) == ({}, {}, {})


async def test_a_file_that_shrinks_breaks_the_answer_instead_of_padding_it() -> None:
    async with open_rest() as rest, on_a_socket(rest.app) as address:
        name = next(iter(rest.host.sessions))
        rest.host.files[name]["f"] = b"x" * (64 * MAX_PAYLOAD_BYTES)
        async with (
            httpx.AsyncClient(base_url=f"http://{address}") as http,
            http.stream("GET", FILES, params={"path": "f"}) as response,
        ):
            pieces = response.aiter_raw()
            await anext(pieces)
            rest.host.files[name]["f"] = b""
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in pieces:
                    pass
