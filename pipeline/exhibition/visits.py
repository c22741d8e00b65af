"""The visits that are on: found by their tokens, forgotten when nobody has been heard of for a while."""

import secrets
import time
from collections.abc import Callable

from pipeline.exhibition.api_error import ApiError, forgotten
from pipeline.exhibition.visit import Choice, Visit

_TOKEN_BYTES = 32
_MOST_EACH = 4  # tabs of one browser


class Visits:
    """All visits of one server; belongs to the event loop.

    Args:
        most: at once.
        most_each: of one browser; of more, the one unheard of for longest goes, so that nobody takes all the room with
            one cookie. Addresses are not counted: behind a proxy everybody has the same one.
        idle_seconds: after which a visit makes room for another where there are too many.
        forget_seconds: after which it is forgotten in any case.
        on_forget: called with a visit before it is forgotten.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        *,
        most: int,
        most_each: int = _MOST_EACH,
        idle_seconds: float,
        forget_seconds: float,
        on_forget: Callable[[Visit], None] = lambda visit: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._most_each = most, most_each
        self._idle_seconds, self._forget_seconds = idle_seconds, forget_seconds
        self._on_forget, self._clock = on_forget, clock
        self._visits: dict[str, Visit] = {}

    def __len__(self) -> int:
        return len(self._visits)

    def begin(self, visitor: str, choice: Choice) -> Visit:
        """Begin a visit; ApiError 503 if there are too many and nobody is idle."""
        self.sweep()
        own = [visit for visit in self._visits.values() if visit.visitor == visitor]
        if len(own) >= self._most_each:
            self.forget(min(own, key=lambda visit: visit.seen))
        if len(self._visits) >= self._most:
            oldest = min(self._visits.values(), key=lambda visit: visit.seen)
            idle = self._clock() - oldest.seen
            if idle < self._idle_seconds:
                wait = self._idle_seconds - idle
                raise ApiError(503, "busy", "there are too many visitors at the moment", retry_after=wait)
            self.forget(oldest)
        visit = Visit(secrets.token_urlsafe(_TOKEN_BYTES), visitor, self._clock(), choice)
        self._visits[visit.token] = visit
        return visit

    def find(self, token: str, visitor: str) -> Visit:
        """Return somebody's visit, which thereby was heard of; ApiError 410 if it is none, or somebody else's."""
        self.sweep()
        visit = self._visits.get(token)
        if visit is None or not secrets.compare_digest(visit.visitor.encode(), visitor.encode()):
            raise forgotten()
        visit.seen = self._clock()
        return visit

    def forget(self, visit: Visit) -> None:
        """Forget a visit at once."""
        if self._visits.pop(visit.token, None) is not None:
            self._on_forget(visit)
            visit.end()

    def sweep(self) -> None:
        """Forget those that have not been heard of for too long."""
        limit = self._clock() - self._forget_seconds
        for visit in [visit for visit in self._visits.values() if visit.seen < limit]:
            self.forget(visit)

    def close(self) -> None:
        """Forget all."""
        for visit in [*self._visits.values()]:
            self.forget(visit)
