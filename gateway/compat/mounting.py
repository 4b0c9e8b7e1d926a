"""All doors, as the application takes them in.

Owns their paths' order. It must not know what goes on behind one.
"""

from fastapi import APIRouter

from gateway.compat.swerex_routes import swerex_routes
from gateway.compat.swerex_shells import Runtimes


def compat_routes() -> APIRouter:
    api = APIRouter()
    api.include_router(swerex_routes(Runtimes()))
    return api
