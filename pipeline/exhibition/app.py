"""The application: one page, its files, the collection's pictures, and the interface of `api`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.exhibition.api import LEAVING, Api
from pipeline.exhibition.api_error import ApiError
from pipeline.exhibition.cacheable import cacheable
from pipeline.exhibition.cookie import COOKIE
from pipeline.exhibition.exhibition import Exhibition
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.page import Messages, Page, config_document
from pipeline.exhibition.photo import Detector
from pipeline.exhibition.picture_routes import PictureRoutes
from pipeline.exhibition.rate_limit import RateLimit
from pipeline.exhibition.security import CsrfTokens, Guard, SameSite, error_response, is_https, new_visitor, visitor_of
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.exhibition.static_files import StaticFiles

HERE: Final = Path(__file__).parent
_SWEEPS: Final = 4  # in the time after which a visit is forgotten


def create_app(
    gallery: Gallery,
    museum: Museum,
    settings: ExhibitionSettings,
    *,
    detect: Detector,
    messages: Messages,
    templates: Path = HERE / "templates",
    static: Path = HERE / "static",
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """Return the application; it serves between its startup and its shutdown.

    Args:
        gallery: what is searched.
        museum: what is known of its works.
        settings: of the exhibition.
        detect: finds the faces in a photograph.
        messages: words of the page, of every language of the museum.
        templates, static: folders of the page and its files.
        clock: seconds, never going back; of idle visits and rate limits.
    """
    running: list[Exhibition] = []
    files = StaticFiles(static)
    page = Page(templates, files)
    csrf = CsrfTokens()
    requests, own_requests = RateLimit(300, 1500, clock=clock), RateLimit(20, 80, clock=clock)
    photos, own_photos = RateLimit(4, 60, clock=clock), RateLimit(0.5, 8, clock=clock)
    api = Api(
        lambda: running[0],
        csrf,
        address_requests=requests,
        visitor_requests=own_requests,
        visitor_photos=own_photos,
        address_photos=photos,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        exhibition = Exhibition(gallery, museum, settings, detect, clock=clock)
        running.append(exhibition)
        app.state.exhibition = exhibition
        sweeper = asyncio.create_task(_sweep(exhibition, (requests, own_requests, photos, own_photos)))
        try:
            yield
        finally:
            sweeper.cancel()
            running.clear()
            await exhibition.close()

    async def index(request: Request) -> Response:
        visitor = visitor_of(request) or new_visitor()
        config = config_document(gallery, museum, settings, messages, request.query_params.get("lang"))
        response = HTMLResponse(page.render(config, csrf.of(visitor)))
        response.set_cookie(COOKIE, visitor, path="/", httponly=True, samesite="strict", secure=is_https(request))
        return response

    async def static_file(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        lasting = request.query_params.get("v") == file.digest
        return cacheable(
            request, file.data, file.media_type, file.digest, "max-age=31536000, immutable" if lasting else "no-cache"
        )

    routes = [
        Route("/", index, methods=["GET"]),
        Route("/static/{name:path}", static_file, methods=["GET"]),
        *PictureRoutes(gallery, museum).routes(),
        *api.routes(),
    ]
    guard = Middleware(Guard, same_site=SameSite(settings.allowed_hosts), requests=requests, uncounted=LEAVING)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan, exception_handlers={HTTPException: _refused})


async def _refused(request: Request, error: Exception) -> Response:
    """Answer for the routes: what is not there, and methods that are not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(ApiError(404, "not_found", "there is nothing here"))
    return error_response(ApiError(error.status_code, "bad_request", "this cannot be asked here"))


async def _sweep(exhibition: Exhibition, limits: Sequence[RateLimit]) -> None:
    while True:
        await asyncio.sleep(exhibition.settings.forget_seconds / _SWEEPS)
        exhibition.visits.sweep()
        for limit in limits:
            limit.sweep()
