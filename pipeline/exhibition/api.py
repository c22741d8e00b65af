"""The interface between page and server: reads requests, checks their form, calls the `Exhibition`, answers in JSON."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.exhibition.api_error import ApiError, forgotten, wrong_state
from pipeline.exhibition.exhibition import Exhibition
from pipeline.exhibition.rate_limit import RateLimit
from pipeline.exhibition.request_body import read_body, read_json
from pipeline.exhibition.security import CSRF_HEADER, CsrfTokens, check_rate, client_of, visitor_of
from pipeline.exhibition.visit import Choice, Visit

VISIT_HEADER: Final = "x-visit"
LEAVING: Final = frozenset({("DELETE", "/api/visit"), ("POST", "/api/visit/forget")})
"""Methods and paths by which visitors leave; no limit stands in the way of those who may."""
_UPLOADS: Final = 16  # at once: each may hold a photograph
_FACES_ASKED: Final = 100  # in one request

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The routes under /api.

    Args:
        exhibition: gives the exhibition, once the server runs.
        csrf: tokens of pages.
        address_requests: how often one address may ask; here it counts for `LEAVING` alone.
        visitor_requests: how often one browser may ask.
        visitor_photos, address_photos: how often one browser, and one address, may send a photograph.
    """

    def __init__(
        self,
        exhibition: Callable[[], Exhibition],
        csrf: CsrfTokens,
        *,
        address_requests: RateLimit,
        visitor_requests: RateLimit,
        visitor_photos: RateLimit,
        address_photos: RateLimit,
    ) -> None:
        self._exhibition, self._csrf = exhibition, csrf
        self._address_requests, self._visitor_requests = address_requests, visitor_requests
        self._visitor_photos, self._address_photos = visitor_photos, address_photos
        self._uploads = asyncio.Semaphore(_UPLOADS)

    def routes(self) -> list[Route]:
        """Return all routes."""
        visit = "/api/visit"
        return [
            Route(visit, self.begin, methods=["POST"]),
            Route(visit, self.status, methods=["GET"]),
            Route(visit, self.end, methods=["DELETE"]),
            Route(f"{visit}/forget", self.forget, methods=["POST"]),
            Route(f"{visit}/photo", self.photo, methods=["PUT"]),
            Route(f"{visit}/face", self.face, methods=["POST"]),
            Route(f"{visit}/settings", self.settings, methods=["PUT"]),
            Route(f"{visit}/judgements", self.judgements, methods=["POST"]),
            Route(f"{visit}/restart", self.restart, methods=["POST"]),
            Route(f"{visit}/explanation", self.explain, methods=["POST"]),
            Route(f"{visit}/explanation", self.explanation, methods=["GET"]),
            Route(f"{visit}/explanation/photo.png", self.explained_photo, methods=["GET"]),
            Route(f"{visit}/explanation/painting.png", self.explained_painting, methods=["GET"]),
        ]

    async def begin(self, request: Request) -> Response:
        """Begin a visit, with the visitor's consent."""
        visitor = self._visitor(request)
        document = await self._json(request)
        if document.get("consent") is not True:
            raise ApiError(422, "consent", "a visit needs the visitor's consent")
        return JSONResponse({"visit": self._exhibition().begin(visitor).token}, 201)

    async def status(self, request: Request) -> Response:
        """Say how far a visit is."""
        return JSONResponse(self._exhibition().status(self._visit(request)))

    async def end(self, request: Request) -> Response:
        """Forget a visit; never too often, so that a photograph is not kept for a limit's sake."""
        visitor = self._leaving(request, request.headers.get(CSRF_HEADER, ""))
        self._exhibition().visits.forget(self._exhibition().visits.find(_token(request), visitor))
        return Response(status_code=204)

    async def forget(self, request: Request) -> Response:
        """Forget a visit, for a page that is being left; as beacons have no headers, its tokens may be in the body.

        Whether there was such a visit is not said.
        """
        if VISIT_HEADER in request.headers:
            visitor, token = self._leaving(request, request.headers.get(CSRF_HEADER, "")), request.headers[VISIT_HEADER]
        else:
            document = await self._farewell(request)
            visitor = self._leaving(request, str(document.get("csrf")))
            token = str(document.get("visit"))
        with contextlib.suppress(ApiError):
            self._exhibition().visits.forget(self._exhibition().visits.find(token, visitor))
        return Response(status_code=204)

    async def photo(self, request: Request) -> Response:
        """Take a photograph, and say where its faces are."""
        visit = self._visit(request)
        if not request.headers.get("content-type", "").lower().startswith("image/"):
            raise ApiError(415, "unsupported_type", "send a photograph, such as image/jpeg")
        for limit, key in ((self._address_photos, client_of(request.scope)), (self._visitor_photos, visit.visitor)):
            check_rate(limit, key)
        if visit.uploading:
            raise wrong_state("another photograph of this visit is on its way")
        visit.uploading = True
        settings = self._exhibition().settings
        try:
            async with self._upload():
                data = await read_body(request, limit=settings.max_upload_bytes, seconds=settings.body_seconds)
                portrait = await self._exhibition().show_photo(visit, data)
        finally:
            visit.uploading = False
        places = [{"x": face.x, "y": face.y, "w": face.w, "h": face.h} for face in portrait.faces]
        chosen = 0 if len(places) == 1 else None
        return JSONResponse(
            {"faces": places, "width": portrait.width, "height": portrait.height, "chosen": chosen}, 202
        )

    async def face(self, request: Request) -> Response:
        """Choose one of several faces."""
        visit = self._visit(request)
        face = (await self._json(request)).get("face")
        if not isinstance(face, int) or isinstance(face, bool):
            raise ApiError(400, "bad_request", 'send {"face": NUMBER}')
        await self._exhibition().choose_face(visit, face)
        return JSONResponse({"chosen": face}, 202)

    async def settings(self, request: Request) -> Response:
        """Set λ and the filters; what is not sent stays as it is."""
        visit = self._visit(request)
        document = await self._json(request)
        before = visit.choice
        weight = document.get("weight", before.weight)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ApiError(400, "bad_request", "the weight must be a number")
        with_ = _names(document, "with", before.with_)
        without = _names(document, "without", before.without)
        return JSONResponse(await self._exhibition().choose(visit, Choice(_float(weight), with_, without)))

    async def judgements(self, request: Request) -> Response:
        """Make a round of feedback."""
        visit = self._visit(request)
        document = await self._json(request)
        liked, unliked = _names(document, "like"), _names(document, "unlike")
        return JSONResponse(await self._exhibition().judge(visit, liked, unliked))

    async def restart(self, request: Request) -> Response:
        """Begin again with the same photograph."""
        return JSONResponse(await self._exhibition().restart(self._visit(request)))

    async def explain(self, request: Request) -> Response:
        """Begin an explanation."""
        visit = self._visit(request)
        face = (await self._json(request)).get("face")
        if not isinstance(face, str):
            raise ApiError(400, "bad_request", 'send {"face": ID}')
        self._exhibition().explain(visit, face)
        return JSONResponse(self._exhibition().explanation(visit, face), 202)

    async def explanation(self, request: Request) -> Response:
        """Say how far an explanation is."""
        return JSONResponse(self._exhibition().explanation(self._visit(request), _asked_face(request)))

    async def explained_photo(self, request: Request) -> Response:
        """Return the visitor's photograph with its regions coloured."""
        return self._explained(request, 0)

    async def explained_painting(self, request: Request) -> Response:
        """Return the painting with its regions coloured."""
        return self._explained(request, 1)

    def _explained(self, request: Request, side: int) -> Response:
        visit = self._visit(request)
        data = self._exhibition().explanation_picture(visit, _asked_face(request), side)
        return Response(data, media_type="image/png")

    def _visitor(self, request: Request) -> str:
        """Return who asks; ApiError 403 for a request of no page of ours, 429 for too many of them."""
        visitor = self._csrf.check(visitor_of(request), request.headers.get(CSRF_HEADER, ""))
        check_rate(self._visitor_requests, visitor)
        return visitor

    def _visit(self, request: Request) -> Visit:
        """Return the visit that is asked for; reading it needs no page's token, but the browser's cookie."""
        if request.method in {"GET", "HEAD"}:
            visitor = visitor_of(request)
            if visitor is None:
                raise forgotten()
            check_rate(self._visitor_requests, visitor)
        else:
            visitor = self._visitor(request)
        return self._exhibition().visits.find(_token(request), visitor)

    def _leaving(self, request: Request, csrf: str) -> str:
        """Return who leaves, uncounted; ApiError 403, or 429, for a request of no page of ours."""
        try:
            return self._csrf.check(visitor_of(request), csrf)
        except ApiError:
            check_rate(self._address_requests, client_of(request.scope))
            raise

    async def _farewell(self, request: Request) -> dict[str, Any]:
        """Return what a page says that is being left; only what cannot be one is counted."""
        try:
            return await self._json(request, any_type=True)
        except ApiError:
            check_rate(self._address_requests, client_of(request.scope))
            raise

    async def _json(self, request: Request, *, any_type: bool = False) -> dict[str, Any]:
        return await read_json(request, seconds=self._exhibition().settings.body_seconds, any_type=any_type)

    @contextlib.asynccontextmanager
    async def _upload(self) -> AsyncIterator[None]:
        """Wait until there is room for another photograph; ApiError 503 if that takes too long."""
        try:
            async with asyncio.timeout(self._exhibition().settings.body_seconds):
                await self._uploads.acquire()
        except TimeoutError:
            raise ApiError(503, "busy", "too many photographs are on their way", retry_after=5) from None
        try:
            yield
        finally:
            self._uploads.release()


def _token(request: Request) -> str:
    token = request.headers.get(VISIT_HEADER)
    if token is None:
        raise ApiError(400, "bad_request", "the request does not say of which visit it is (X-Visit)")
    return token


def _float(number: int | float) -> float:
    """Return a number of JSON's, which may be larger than any float: infinity then."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _asked_face(request: Request) -> str:
    face = request.query_params.get("face")
    if face is None:
        raise ApiError(400, "bad_request", "say of which face (?face=ID)")
    return face


def _names(document: dict[str, Any], name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    names = document.get(name, [*default])
    if not isinstance(names, list) or len(names) > _FACES_ASKED or not all(isinstance(one, str) for one in names):
        raise ApiError(400, "bad_request", f'"{name}" must be a list of at most {_FACES_ASKED} names')
    return tuple(dict.fromkeys(names))
