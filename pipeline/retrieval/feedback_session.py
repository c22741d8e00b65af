"""One visitor's relevance feedback on a gallery: judge items, get the similarities that rank it now."""

from collections.abc import Sequence

import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.feedback_settings import FeedbackSettings
from pipeline.retrieval.lazy_feedback import LazyFeedback


class FeedbackSession:
    """Feedback in rounds on one query (Cornia et al., TOMM 2022, Eq. 10 and 11), in the lazy form.

    The gallery is shared: several sessions may run on one, each keeping a few numbers per item (see `lazy_feedback`).
    Only the embeddings move. Attributes are the user's to ask for directly (Sec. 3.4), so a ranking by Eq. 9 takes
    (1 + similarities)/2 + λ s_a with s_a as it was.

    Args:
        embeddings: f_a, float [G, D], unit rows; neither copied nor written to.
        query: f_r, float [D].
        settings: parameters and choices; the defaults are the published parameters.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(self, embeddings: Tensor, query: Tensor, settings: FeedbackSettings | None = None) -> None:
        if embeddings.dim() != 2 or query.shape != embeddings.shape[1:]:
            raise ValueError(f"a query of {tuple(query.shape)} in a gallery of {tuple(embeddings.shape)}")
        self.settings = settings or FeedbackSettings()
        self.rounds = 0
        self._feedback = LazyFeedback(embeddings, query[None], self.settings)
        self._remaining = torch.ones(len(embeddings), dtype=torch.bool, device=embeddings.device)

    def judge(self, liked: Sequence[int], unliked: Sequence[int]) -> None:
        """Make one round of feedback; without anything judged nothing happens.

        Args:
            liked, unliked: indices of items, any number of each; one that is there twice counts once.

        Raises:
            InputError: an item is both liked and unliked.
            IndexError: there is no such item.
        """
        both = sorted(set(liked) & set(unliked))
        if both:
            raise InputError(f"item {both[0]} is both liked and unliked; judge it one way")
        count = len(self._remaining)
        for item in (*liked, *unliked):
            if not 0 <= item < count:
                raise IndexError(f"item {item} of a gallery of {count}")
        if not liked and not unliked:
            return
        device = self._remaining.device
        rows = [torch.tensor([sorted(set(items))], dtype=torch.int64, device=device) for items in (liked, unliked)]
        self._feedback.judge(*rows)
        self.rounds += 1
        if self.settings.judged == "remove":
            self._remaining[torch.cat(rows, dim=1)[0]] = False

    def similarities(self) -> Tensor:
        """Return s_i of every item as it is now: float64 [G], larger is more similar.

        -1 to 1 for cosine; for "dot" and "distance" (1 - d²/2) the same before any feedback, and after it whatever the
        moved vectors come to. Items that were judged have theirs, too, whether they stay in the ranking or not.
        """
        return self._feedback.similarities()[0]

    @property
    def remaining(self) -> Tensor:
        """Which items are in the ranking: bool [G]; False only for judged ones, with ``judged="remove"``."""
        return self._remaining.clone()
