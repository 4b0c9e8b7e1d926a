"""REST: files and tar archives of a session's workspace."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.errors import Refusal, invalid
from gateway.host import FileChunk
from gateway.openapi import BINARY, TAR, empty_answer, json_answer, raw_answer, raw_body, refusals
from gateway.protocol import ArchiveStatus, FileStatus
from gateway.ranges import Span, Unsatisfiable, read_range
from gateway.routing import SessionId, Tenant, ThisGateway, WorkspacePath, json_response
from gateway.streaming import StreamedResponse, begun
from gateway.transfers import Workspace, pieces

_GZIP = "application/gzip"
_FILE = "/sessions/{sid}/files"
_ARCHIVE = "/sessions/{sid}/archive"
_FILE_HEADERS = {
    "Content-Length": "Bytes that follow.",
    "Accept-Ranges": "Always `bytes`.",
    "ETag": "Changes with the file.",
    "X-Mode": "Permissions, octal.",
}
_RANGE_HEADERS = {**_FILE_HEADERS, "Content-Range": "Which bytes of how many these are."}
ModeText = Annotated[
    str | None,
    Query(
        pattern="^[0-7]{3,4}$",
        description="Permissions, octal. Default: as before, else 644.",
        examples=["755"],
    ),
]
ArchivePath = Annotated[
    str,
    Query(min_length=1, max_length=4096, description="Directory inside the workspace; `.` is all of it."),
]


async def _workspace(gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Workspace:
    session = gateway.sessions.use(tenant, sid)
    return Workspace(gateway.sessions.client(session), session.name, session.id)


ThisWorkspace = Annotated[Workspace, Depends(_workspace)]


def file_routes() -> APIRouter:
    api = APIRouter(tags=["files"])
    _add_files(api)
    _add_archives(api)
    return api


def _add_files(api: APIRouter) -> None:
    add = api.add_api_route
    add(
        _FILE,
        get_file,
        methods=["GET"],
        response_class=Response,
        responses={
            200: raw_answer("The file.", BINARY, _FILE_HEADERS),
            206: raw_answer("The range that was asked for.", BINARY, _RANGE_HEADERS),
            **refusals(400, 404, 409, 416, 503),
        },
    )
    add(
        _FILE,
        head_file,
        methods=["HEAD"],
        response_class=Response,
        responses={200: empty_answer("What GET would say.", _FILE_HEADERS), **refusals(400, 404, 409, 503)},
    )
    add(
        _FILE,
        put_file,
        methods=["PUT"],
        openapi_extra=raw_body(BINARY),
        responses={
            200: json_answer("It is there, whole.", FileStatus),
            **refusals(400, 404, 408, 409, 413, 503, 507),
        },
    )
    add(
        _FILE,
        delete_file,
        methods=["DELETE"],
        status_code=204,
        responses={204: empty_answer("It is gone."), **refusals(400, 404, 409, 503)},
    )


def _add_archives(api: APIRouter) -> None:
    api.add_api_route(
        _ARCHIVE,
        get_archive,
        methods=["GET"],
        response_class=Response,
        responses={200: raw_answer("A tar of the directory.", TAR), **refusals(400, 404, 409, 503)},
    )
    api.add_api_route(
        _ARCHIVE,
        put_archive,
        methods=["PUT"],
        openapi_extra=raw_body(TAR, _GZIP),
        responses={
            200: json_answer("It is unpacked.", ArchiveStatus),
            **refusals(400, 404, 408, 409, 413, 503, 507),
        },
    )


async def get_file(request: Request, workspace: ThisWorkspace, path: WorkspacePath) -> Response:
    """A file, or one `Range` of it."""
    _check(path)
    asked = read_range(request.headers.get("range"))
    first = await workspace.read(path, 0 if asked is None or asked.first is None else asked.first)
    headers = _describe(first)
    if asked is None or request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return await _span(workspace, path, Span(0, first.size), 200, headers)
    try:
        span = asked.within(first.size)
    except Unsatisfiable:
        return _unsatisfiable(request, first.size)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{first.size}"
    return await _span(workspace, path, span, 206, headers)


async def head_file(workspace: ThisWorkspace, path: WorkspacePath) -> Response:
    _check(path)
    found = await workspace.read(path, 0, 1)
    headers = {**_describe(found), "Content-Length": str(found.size)}
    return Response(None, 200, headers, BINARY)


async def put_file(
    request: Request,
    gateway: ThisGateway,
    workspace: ThisWorkspace,
    path: WorkspacePath,
    mode: ModeText = None,
) -> Response:
    """Write a file, with the directories on the way to it. Readers see the old one or the new, never a
    part."""
    _check(path)
    body = pieces(request, gateway.limits.max_file_bytes)
    size = await workspace.write(path, body, None if mode is None else int(mode, 8))
    return json_response(FileStatus(path, size))


async def delete_file(workspace: ThisWorkspace, path: WorkspacePath) -> Response:
    """Remove a file, or a directory with all that is in it. What is not there is gone already: 204."""
    _check(path)
    await workspace.remove(path)
    return Response(status_code=204)


async def get_archive(workspace: ThisWorkspace, path: ArchivePath = ".") -> Response:
    """All of a directory, as a tar without compression."""
    _check(path)
    body = await begun(workspace.pack(path))
    return StreamedResponse(body, 200, {}, TAR)


async def put_archive(
    request: Request, gateway: ThisGateway, workspace: ThisWorkspace, path: ArchivePath = "."
) -> Response:
    """Unpack a tar, plain or gzip, into a directory, which is made. Nothing leaves the workspace."""
    _check(path)
    entries = await workspace.unpack(path, pieces(request, gateway.limits.max_archive_bytes))
    return json_response(ArchiveStatus(path, entries))


async def _span(
    workspace: Workspace, path: str, span: Span, status: int, headers: dict[str, str]
) -> Response:
    headers["Content-Length"] = str(len(span))
    body = await begun(workspace.read_span(path, span))
    return StreamedResponse(body, status, headers, BINARY)


def _unsatisfiable(request: Request, size: int) -> Response:
    refusal = Refusal(416, "range_not_satisfiable", f"Range: the file has {size} bytes", param="Range")
    return json_response(refusal.body(), 416, {"Content-Range": f"bytes */{size}"})


def _describe(found: FileChunk) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{found.size:x}-{found.mtime_s.hex()}"',
        "X-Mode": f"{found.mode & 0o7777:o}",
    }


def _check(path: str) -> None:
    if "\0" in path:
        raise invalid("path", "must not contain NUL")
