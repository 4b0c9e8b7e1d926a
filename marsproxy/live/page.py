"""The files of the live page, read once from the package, and the headers that they go out with.

No file of anybody else's is loaded and none can be: the policy allows the proxy's own scripts and styles and
nothing that is written into the page.
"""

from importlib.resources import files

from fastapi import FastAPI, Response

from marsproxy import errors
from marsproxy.errors import Refuse

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def read_files() -> dict[str, tuple[str, bytes]]:
    """Type and content by name."""
    found = {}
    for file in files("marsproxy.live").joinpath("web").iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            found[file.name] = kind, file.read_bytes()
    return found


def add_page_routes(api: FastAPI) -> None:
    served = read_files()

    def answer(name: str) -> Response:
        if name not in served:
            raise Refuse(errors.not_found("path"))
        kind, content = served[name]
        return Response(content, headers={**HEADERS, "content-type": kind})

    @api.get("/mars/", include_in_schema=False)
    async def page() -> Response:
        return answer("index.html")

    @api.get("/mars/what-if", include_in_schema=False)
    async def what_if_page() -> Response:
        return answer("what-if.html")

    @api.get("/mars/web/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return answer(name)
