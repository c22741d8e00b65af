"""The routes of what everybody may see: the collection's pictures and the museum's map."""

import hashlib
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from manifests.errors import InputError
from pipeline.exhibition.cacheable import cacheable
from pipeline.exhibition.failure_log import LOG
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.pictures import Jpeg, PictureCache

_DIGITS: Final = 9  # of an item's number; Starlette's own numbers fail where they have thousands
_MAP_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"  # a drawn map runs no scripts


class PictureRoutes:
    """Faces, whole works and the map.

    A picture that cannot be read any more is told to staff once, and answered with 404; the page then shows the face in
    place of the whole work, without the mark, which is measured in the whole.

    Args:
        gallery: whose faces are shown.
        museum: whose works and map are.
    """

    def __init__(self, gallery: Gallery, museum: Museum) -> None:
        self._gallery, self._museum = gallery, museum
        self._pictures = PictureCache()
        self._told: set[str] = set()
        self._plan_digest = "" if museum.plan is None else hashlib.sha256(museum.plan.data).hexdigest()

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            Route("/pictures/{item}.jpg", self.picture, methods=["GET"]),
            Route("/works/{item}.jpg", self.work, methods=["GET"]),
            Route("/map", self.floor_plan, methods=["GET"]),
        ]

    async def picture(self, request: Request) -> Response:
        """Return the face of an item."""
        item, index = self._item(request), self._gallery.index
        return await self._answer(request, lambda: self._pictures.face(item, lambda: index.picture(item)))

    async def work(self, request: Request) -> Response:
        """Return the whole work of an item; its face where the museum has no picture of the whole."""
        file = self._museum.work_of(*self._gallery.ids(self._item(request))).picture
        if file is None:
            return await self.picture(request)
        return await self._answer(request, lambda: self._pictures.work(file))

    async def floor_plan(self, request: Request) -> Response:
        """Return the map."""
        plan = self._museum.plan
        if plan is None:
            raise HTTPException(404)
        response = cacheable(request, plan.data, plan.media_type, self._plan_digest)
        response.headers["Content-Security-Policy"] = _MAP_POLICY
        return response

    def _item(self, request: Request) -> int:
        name: str = request.path_params["item"]
        number = name.isascii() and name.isdecimal() and len(name) <= _DIGITS
        if not number or int(name) >= len(self._gallery):
            raise HTTPException(404)
        return int(name)

    async def _answer(self, request: Request, read: Callable[[], Jpeg]) -> Response:
        try:
            found = await run_in_threadpool(read)
        except InputError as error:  # of the collection, and nothing of a visitor
            if str(error) not in self._told:
                self._told.add(str(error))
                LOG.error("%s", error)
            raise HTTPException(404) from None
        return cacheable(request, found.data, "image/jpeg", found.digest)
