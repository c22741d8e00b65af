"""The application: one page, its files, the collection's pictures, and the interface of `api`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from manifests.errors import InputError
from pipeline.exhibition.api import Api
from pipeline.exhibition.api_error import ApiError
from pipeline.exhibition.cookie import COOKIE
from pipeline.exhibition.exhibition import Exhibition
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.page import Messages, Page, config_document
from pipeline.exhibition.photo import Detector
from pipeline.exhibition.pictures import PictureCache
from pipeline.exhibition.rate_limit import RateLimit
from pipeline.exhibition.security import CsrfTokens, Guard, SameSite, error_response, new_visitor, visitor_of
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.exhibition.static_files import StaticFiles

HERE: Final = Path(__file__).parent
_PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"  # a drawn map runs no scripts
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
    pictures = PictureCache()
    api = Api(
        lambda: running[0],
        csrf,
        visitor_requests=RateLimit(20, 80, clock=clock),
        visitor_photos=RateLimit(0.5, 8, clock=clock),
        address_photos=RateLimit(4, 60, clock=clock),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        exhibition = Exhibition(gallery, museum, settings, detect, clock=clock)
        running.append(exhibition)
        app.state.exhibition = exhibition
        sweeper = asyncio.create_task(_sweep(exhibition))
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
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, visitor, path="/", httponly=True, samesite="strict", secure=secure)
        return response

    async def static_file(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        lasting = request.query_params.get("v") == file.digest
        return _cacheable(
            request, file.data, file.media_type, file.digest, "max-age=31536000, immutable" if lasting else "no-cache"
        )

    def item_of(request: Request) -> int:
        item: int = request.path_params["item"]
        if item >= len(gallery):
            raise HTTPException(404)
        return item

    async def picture(request: Request) -> Response:
        item = item_of(request)
        data = await _read(lambda: pictures.face(item, lambda: gallery.index.picture(item)))
        return _cacheable(request, data, "image/jpeg", f"{item}-{len(data)}", "max-age=3600")

    async def work(request: Request) -> Response:
        item = item_of(request)
        file = museum.work_of(*gallery.ids(item)).picture
        if file is None:
            return await picture(request)
        data = await _read(lambda: pictures.work(file))
        return _cacheable(request, data, "image/jpeg", f"w{item}-{len(data)}", "max-age=3600")

    async def floor_plan(request: Request) -> Response:
        plan = museum.plan
        if plan is None:
            raise HTTPException(404)
        response = _cacheable(request, plan.data, plan.media_type, str(len(plan.data)), "no-cache")
        response.headers["Content-Security-Policy"] = _PICTURE_POLICY
        return response

    routes = [
        Route("/", index, methods=["GET"]),
        Route("/static/{name:path}", static_file, methods=["GET"]),
        Route("/pictures/{item:int}.jpg", picture, methods=["GET"]),
        Route("/works/{item:int}.jpg", work, methods=["GET"]),
        Route("/map", floor_plan, methods=["GET"]),
        *api.routes(),
    ]
    guard = Middleware(Guard, same_site=SameSite(settings.allowed_hosts), requests=RateLimit(300, 1500, clock=clock))
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan, exception_handlers={HTTPException: _refused})


async def _refused(request: Request, error: Exception) -> Response:
    """Answer for the routes: what is not there, and methods that are not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(ApiError(404, "not_found", "there is nothing here"))
    return error_response(ApiError(error.status_code, "bad_request", "this cannot be asked here"))


async def _read(read: Callable[[], bytes]) -> bytes:
    try:
        return await run_in_threadpool(read)
    except InputError:
        raise HTTPException(404) from None


def _cacheable(request: Request, data: bytes, media_type: str, tag: str, caching: str) -> Response:
    headers = {"ETag": f'"{tag}"', "Cache-Control": caching}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


async def _sweep(exhibition: Exhibition) -> None:
    while True:
        await asyncio.sleep(exhibition.settings.forget_seconds / _SWEEPS)
        exhibition.visits.sweep()
