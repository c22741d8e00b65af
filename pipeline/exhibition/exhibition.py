"""What a visitor can do, step by step: show a photograph, choose a face, look, judge, filter, ask why, leave."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import torch

from manifests.errors import InputError
from pipeline.exhibition.api_error import ApiError, forgotten, wrong_state
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.jobs import JobQueue, Pause
from pipeline.exhibition.museum import Museum
from pipeline.exhibition.photo import Detector, PhotoError, Portrait, frame_head, read_portrait
from pipeline.exhibition.results import results_document
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.exhibition.visit import Choice, Visit, Why
from pipeline.exhibition.visits import Visits
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.retrieval_model import Description
from pipeline.retrieval.search_result import Hit

Result = TypeVar("Result")

_PHOTO_THREADS: Final = 2  # each may hold a decoded picture
_RANKING_THREADS: Final = 2
_ASKED_AT_ONCE: Final = 4  # explanations of one visitor
_KEPT: Final = 24  # of them, with two pictures each
_JUDGED_BYTES: Final = 64 << 20  # that the feedback of one visitor may keep
_QUEUED, _AT_WORK = (0.1, 0.6), 0.75  # progress while others are before us, and after that


class Exhibition:
    """The collection, the museum, and everybody who is there; belongs to the event loop that it is made on.

    Whatever takes longer than a moment is done in threads: photographs are decoded by two, described and explained by
    the queue of jobs, ranked by two.

    Args:
        gallery, museum, settings: of the exhibition.
        detect: finds faces in photographs.
        clock: seconds, never going back; of idle visits.
    """

    def __init__(
        self,
        gallery: Gallery,
        museum: Museum,
        settings: ExhibitionSettings,
        detect: Detector,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gallery, self.museum, self.settings = gallery, museum, settings
        self.jobs = JobQueue()
        self.visits = Visits(
            most=settings.max_visits,
            idle_seconds=settings.idle_seconds,
            forget_seconds=settings.forget_seconds,
            on_forget=lambda visit: self.jobs.forget(visit.token),
            clock=clock,
        )
        self._detect = detect
        self._photos = ThreadPoolExecutor(_PHOTO_THREADS, "photo")
        self._rankings = ThreadPoolExecutor(_RANKING_THREADS, "ranking")
        per_verdict = 16 * max(1, len(gallery))  # two float64 of every item
        self._most_judged = min(max(_JUDGED_BYTES // per_verdict, 10), 200)

    async def close(self) -> None:
        """Forget everybody and end the threads."""
        self.visits.close()
        await self.jobs.close()
        for threads in (self._photos, self._rankings):
            threads.shutdown(wait=True, cancel_futures=True)

    def begin(self, visitor: str) -> Visit:
        """Begin a visit."""
        return self.visits.begin(visitor, self._first_choice)

    async def show_photo(self, visit: Visit, data: bytes) -> Portrait:
        """Take a photograph, instead of any before it; with one face in it the search begins.

        Raises:
            ApiError: 422, as `PhotoError`, and the visit is empty; 410, if it was forgotten meanwhile.
        """
        async with visit.busy:
            self._check(visit)
            self.jobs.forget(visit.token)
            visit.clear(self._first_choice)
            try:
                portrait, head = await self._in(self._photos, self._look, data)
            except PhotoError as error:
                raise ApiError(422, error.code, str(error)) from None
            self._check(visit)
            if head is None:
                visit.portrait, visit.state = portrait, "choosing"
            else:
                self._search(visit, head)
            return portrait

    async def choose_face(self, visit: Visit, face: int) -> None:
        """Search for one of several faces, instead of any before it; ApiError 409 if there is none to choose."""
        async with visit.busy:
            self._check(visit)
            portrait = visit.portrait
            if portrait is None:
                raise wrong_state("there are no faces to choose from; send a photograph with several first")
            if not 0 <= face < len(portrait.faces):
                raise ApiError(422, "unknown_face", "the photograph has no such face; choose one that it has")
            head = await self._in(self._photos, frame_head, portrait, face, self.gallery.index.size)
            self._check(visit)
            self.jobs.forget(visit.token)
            visit.clear(self._first_choice)
            visit.portrait = portrait
            self._search(visit, head)

    def status(self, visit: Visit) -> dict[str, Any]:
        """Return how far a visit is."""
        ahead = self.jobs.ahead(visit.job) if visit.job is not None else 0
        error = None if visit.error is None else {"code": visit.error[0], "message": visit.error[1]}
        return {
            "state": visit.state,
            "ahead": ahead,
            "progress": self._progress(visit, ahead),
            "results": self._results(visit) if visit.state == "ready" else None,
            "error": error,
        }

    async def choose(self, visit: Visit, choice: Choice) -> dict[str, Any]:
        """Set λ and the filters; ApiError 422 (and the settings before stay) if they leave nothing or are impossible.

        Explanations made with another λ are dropped, as they are of another score.
        """
        async with visit.busy:
            self._check_ready(visit)
            self._check_choice(choice)
            await self._rank(visit, choice)
            for item in [item for item, why in visit.whys.items() if why.weight != choice.weight]:
                self._drop(visit.whys.pop(item))
            return self._results(visit)

    async def judge(self, visit: Visit, liked: Sequence[str], unliked: Sequence[str]) -> dict[str, Any]:
        """Make a round of relevance feedback (Eq. 10 and 11); without verdicts nothing happens."""
        async with visit.busy:
            self._check_ready(visit)
            items = [[self._item(face) for face in dict.fromkeys(faces)] for faces in (liked, unliked)]
            if {*items[0]} & {*items[1]}:
                raise ApiError(422, "judged_twice", "a face is liked and unliked at once; judge it one way")
            session = visit.session
            assert session is not None
            judged = visit.judged + len(items[0]) + len(items[1])
            if judged > self._most_judged:
                raise ApiError(422, "too_many_judgements", "so much was judged that it is time to start again")
            await self._in(self._rankings, session.judge, *items)
            self._check(visit)
            visit.judged = judged
            visit.verdicts |= dict.fromkeys(items[0], True) | dict.fromkeys(items[1], False)
            await self._rank(visit, visit.choice)
            return self._results(visit)

    async def restart(self, visit: Visit) -> dict[str, Any]:
        """Begin again with the same photograph: verdicts, filters and λ as at first."""
        async with visit.busy:
            self._check_ready(visit)
            query = visit.query
            assert query is not None
            session = await self._in(self._rankings, self.gallery.session, query)
            self._check(visit)
            visit.session, visit.verdicts, visit.judged = session, {}, 0
            await self._rank(visit, self._first_choice)
            for item in [item for item, why in visit.whys.items() if why.weight != visit.choice.weight]:
                self._drop(visit.whys.pop(item))
            return self._results(visit)

    def explain(self, visit: Visit, face: str) -> None:
        """Begin to explain why a face that is shown was found; nothing happens if that was asked for already."""
        self._check_ready(visit)
        item = self._item(face)
        hit = next((hit for hit in visit.hits if hit.item == item), None)
        if hit is None:
            raise ApiError(422, "unknown_face", "this face is not shown now; ask about one that is")
        if item in visit.whys and not visit.whys[item].failed:
            return
        if self.jobs.pending(visit.token, "explanation") >= _ASKED_AT_ONCE:
            raise ApiError(429, "too_many_requests", "other explanations are still being made", retry_after=2)
        head, weight, steps = visit.head, visit.choice.weight, self.settings.explanation_steps
        assert head is not None
        why = Why(None, hit, weight)

        def work(pause: Pause) -> tuple[bytes, bytes]:
            return self.gallery.explain(head, item, weight=weight, steps=steps, pause=pause)

        def done(pictures: tuple[bytes, bytes] | None, error: BaseException | None) -> None:
            why.job, why.pictures, why.failed = None, pictures, error is not None

        visit.whys.pop(item, None)  # one that failed
        visit.whys[item] = why
        while len(visit.whys) > _KEPT:
            self._drop(visit.whys.pop(next(iter(visit.whys))))
        why.job = self.jobs.submit(visit.token, "explanation", work, done)

    def explanation(self, visit: Visit, face: str) -> dict[str, Any]:
        """Return how far an explanation is."""
        why = self._why(visit, face)
        query = visit.query
        assert query is not None
        agreeing, seen = self.gallery.agreeing(query, why.hit), self.gallery.seen(query)
        state = "failed" if why.failed else "working" if why.pictures is None else "ready"
        return {
            "state": state,
            "ahead": 0 if why.job is None else self.jobs.ahead(why.job),
            "agreeing": [*agreeing],
            "shared": [name for name in agreeing if name in seen],
            "identityShare": why.hit.identity_score / why.hit.score if why.hit.score else 1.0,
        }

    def explanation_picture(self, visit: Visit, face: str, side: int) -> bytes:
        """Return photograph (0) or painting (1) of an explanation that is ready, PNG."""
        why = self._why(visit, face)
        if why.pictures is None:
            raise wrong_state("this explanation is not ready")
        return why.pictures[side]

    @property
    def _first_choice(self) -> Choice:
        return Choice(self.gallery.weight if self.settings.weight is None else self.settings.weight)

    def _look(self, data: bytes) -> tuple[Portrait, torch.Tensor | None]:
        """Return a photograph's faces, and its head if it is the only one."""
        portrait = read_portrait(data, self._detect, max_pixels=self.settings.max_pixels)
        only = len(portrait.faces) == 1
        return portrait, frame_head(portrait, 0, self.gallery.index.size) if only else None

    def _search(self, visit: Visit, head: torch.Tensor) -> None:
        """Put the search for a head into the queue."""
        choice, gallery, k = visit.choice, self.gallery, self.settings.k

        def work(pause: Pause) -> tuple[Description, FeedbackSession, list[Hit]]:
            query = gallery.describe(head)
            everything = torch.ones(len(gallery), dtype=torch.bool)
            return (
                query,
                gallery.session(query),
                gallery.rank(query, k=k, weight=choice.weight, allowed=everything),
            )

        def done(found: tuple[Description, FeedbackSession, list[Hit]] | None, error: BaseException | None) -> None:
            visit.job = None
            if found is None:
                visit.state = "failed"
                visit.error = ("search_failed", "the search failed; take another photograph, or tell the staff")
                return
            visit.query, visit.session, visit.hits = found
            visit.searched, visit.state = len(gallery), "ready"

        visit.head, visit.state = head, "searching"
        visit.job = self.jobs.submit(visit.token, "search", work, done)
        visit.ahead_at_first = self.jobs.ahead(visit.job)

    async def _rank(self, visit: Visit, choice: Choice) -> None:
        """Rank again, and take the choice over if something is left."""
        gallery, k, query, session = self.gallery, self.settings.k, visit.query, visit.session
        assert query is not None

        def work() -> tuple[list[Hit], int]:
            allowed = gallery.allowed(choice.with_, choice.without)
            hits = gallery.rank(query, k=k, weight=choice.weight, allowed=allowed, session=session)
            return hits, int(allowed.sum())

        try:
            hits, searched = await self._in(self._rankings, work)
        except InputError as error:
            raise ApiError(422, "nothing_left", "no painting has these features; choose others") from error
        self._check(visit)
        visit.choice, visit.hits, visit.searched = choice, hits, searched
        for hit in hits:
            if hit.item in visit.whys:
                visit.whys[hit.item].hit = hit  # its pictures stay what they are; its scores are of this ranking

    def _check_choice(self, choice: Choice) -> None:
        most = self.settings.weight_max
        if not (math.isfinite(choice.weight) and 0 <= choice.weight <= most):
            raise ApiError(422, "impossible_weight", f"the weight must be from 0 to {most:g}")
        if choice.weight and not self.gallery.index.attributes:
            raise ApiError(422, "impossible_weight", "this collection has no features to weigh")
        if not {*choice.with_, *choice.without} <= {*self.gallery.trained}:
            raise ApiError(422, "unknown_attribute", "there is no such feature to choose")
        if {*choice.with_} & {*choice.without}:
            raise ApiError(422, "nothing_left", "a feature is asked for and ruled out at once; choose one")

    def _results(self, visit: Visit) -> dict[str, Any]:
        return results_document(visit, self.gallery, self.museum)

    def _progress(self, visit: Visit, ahead: int) -> float:
        if visit.state == "searching":
            if visit.job is None or not ahead:
                return _AT_WORK
            first, last = _QUEUED
            return first + (last - first) * (1 - min(1.0, ahead / (visit.ahead_at_first + 1)))
        return 1.0 if visit.state in {"ready", "failed"} else 0.0

    def _item(self, face: str) -> int:
        item = self.gallery.faces.get(face)
        if item is None:
            raise ApiError(422, "unknown_face", "there is no such face in the collection")
        return item

    def _why(self, visit: Visit, face: str) -> Why:
        self._check_ready(visit)
        why = visit.whys.get(self._item(face))
        if why is None:
            raise ApiError(404, "not_found", "this explanation was not asked for")
        return why

    def _drop(self, why: Why) -> None:
        if why.job is not None:
            self.jobs.cancel(why.job)

    @staticmethod
    def _check(visit: Visit) -> None:
        if visit.over:
            raise forgotten()

    def _check_ready(self, visit: Visit) -> None:
        self._check(visit)
        if visit.state != "ready":
            raise wrong_state("nothing was found so far; send a photograph, and wait until the search is done")

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: work(*arguments))
