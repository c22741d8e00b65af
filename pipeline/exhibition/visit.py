"""One visit: a page that somebody has opened, what they have shown and said, and what was found for them."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from pipeline.exhibition.jobs import Job
from pipeline.exhibition.photo import Portrait
from pipeline.retrieval.feedback_session import FeedbackSession
from pipeline.retrieval.retrieval_model import Description
from pipeline.retrieval.search_result import Hit

State = Literal["empty", "choosing", "searching", "ready", "failed"]


@dataclass(frozen=True)
class Choice:
    """What a visitor has set.

    Attributes:
        weight: λ.
        with_, without: attributes asked for and ruled out.
    """

    weight: float
    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(eq=False)
class Why:
    """An explanation that was asked for.

    Attributes:
        job: that makes it.
        hit: that it is of, as it was ranked last.
        weight: λ that it was asked for with.
        pictures: photograph and painting with their regions coloured, PNG; None while it is made.
        failed: it could not be made.
    """

    job: Job | None
    hit: Hit
    weight: float
    pictures: tuple[bytes, bytes] | None = None
    failed: bool = False


@dataclass(eq=False)
class Visit:
    """Everything that the server knows of a visitor, in memory alone; belongs to the event loop.

    Attributes:
        token: that the page shows with every request.
        visitor: the browser's cookie; nobody else's requests reach this visit.
        seen: when it was last heard of, by the clock of `Visits`.
        state: what the visitor sees.
        portrait: the photograph with several faces, kept until the visit ends, so that another can be chosen.
        head: the chosen one as networks see it, uint8 [3, H, W].
        job: the search for it.
        ahead_at_first: how many were before it when it was asked for.
        query, session: its description, and the feedback on it.
        choice: of the settings.
        verdicts: item → liked; the latest of each.
        judged: how many verdicts there were.
        hits, searched: what is shown, and among how many it was found.
        whys: explanations by item.
        error: code and sentence of a failed search.
        busy: one request at a time changes a visit.
        uploading: a photograph is on its way.
        over: it is forgotten.
    """

    token: str
    visitor: str
    seen: float
    choice: Choice
    state: State = "empty"
    portrait: Portrait | None = None
    head: Tensor | None = None
    job: Job | None = None
    ahead_at_first: int = 0
    query: Description | None = None
    session: FeedbackSession | None = None
    verdicts: dict[int, bool] = field(default_factory=dict)
    judged: int = 0
    hits: list[Hit] = field(default_factory=list)
    searched: int = 0
    whys: dict[int, Why] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    uploading: bool = False
    over: bool = False

    def clear(self, choice: Choice) -> None:
        """Forget the photograph and all that came of it."""
        self.state = "empty"
        self.portrait = self.head = self.job = self.query = self.session = self.error = None
        self.choice = choice
        self.verdicts, self.judged, self.hits, self.searched, self.whys = {}, 0, [], 0, {}

    def end(self) -> None:
        """Forget everything."""
        self.over = True
        self.clear(self.choice)
