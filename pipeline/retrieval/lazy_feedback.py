"""Relevance feedback that moves nothing: a few numbers per item say where Eq. 10 and 11 have taken it.

All that an item ever moves by is w (q - x), and q is made of the first query and of judged items. So with e_0 the first
query and e_1 … e_m the judged items as they were at first, every query is Σ u_k e_k and every item x_i is

    a_i x_i(0) + Σ_k b_ik e_k

and inner products of any two need only ⟨x_i(0), e_k⟩, one product with the gallery as it lies for every item judged,
and ⟨e_j, e_k⟩, which are among those. After ten rounds of one positive and one negative, 2·21 + 2 numbers per item are
kept instead of a copy of its D; the gallery itself is shared by all sessions, and is never written to.
"""

import torch
from torch import Tensor

from pipeline.retrieval.feedback_settings import FeedbackSettings

ABSENT = -1
_NOISE = 16 * torch.finfo(torch.float64).eps
_CHUNK = 1 << 24  # numbers of the gallery in float64 at a time: 128 MB


class LazyFeedback:
    """S sessions over one gallery, side by side; the same as `feedback.feedback_rounds` but for rounding.

    All scalars are float64: a squared distance is a difference of inner products, and float32 would make the distance
    between an item and itself 4·10⁻⁴ instead of 0.

    Args:
        embeddings: f_a, float [G, D], not written to and not copied.
        queries: f_r, float [S, D], on the same device.
        settings: parameters and choices; `judged` is the business of whoever ranks.
    """

    def __init__(self, embeddings: Tensor, queries: Tensor, settings: FeedbackSettings) -> None:
        sessions, items = len(queries), len(embeddings)
        self._embeddings = embeddings
        self._settings = settings
        first = queries.double()[:, None]
        self._dots = self._products(first)  # ⟨x_i(0), e_k⟩, [S, m, G]
        self._gram = first @ first.transpose(1, 2)  # ⟨e_j, e_k⟩, [S, m, m]
        self._query = first.new_ones(sessions, 1)  # u, [S, m]
        self._scale = first.new_ones(sessions, items)  # a, [S, G]
        self._offset = first.new_zeros(sessions, 1, items)  # b, [S, m, G]
        norms = torch.cat([part.double().square().sum(dim=1) for part in self._parts()])
        self._squares = norms.expand(sessions, items)  # |x_i|², [S, G]
        self._judged = torch.zeros(sessions, 0, dtype=torch.int64, device=embeddings.device)  # item of e_1 …, [S, m-1]
        self._verdicts = first.new_zeros(sessions, 0)  # 1 liked, -1 unliked, 0 does not count (any more), [S, m-1]

    def judge(self, liked: Tensor, unliked: Tensor) -> None:
        """Make one round.

        Args:
            liked, unliked: indices, int64 [S, P] and [S, N], P and N from 0 on, none of them twice in a session;
                `ABSENT` where a session has fewer. A session with none at all stays as it is.

        """
        items = torch.cat([liked, unliked], dim=1)
        signs = torch.cat([torch.ones_like(liked), -torch.ones_like(unliked)], dim=1)
        self._extend(items.clamp_min(0), torch.where(items == ABSENT, 0, signs).double())
        count = items.shape[1]
        if not count:
            return
        used = slice(-count, None) if self._settings.positives == "latest" else slice(None)
        places, verdicts = self._places(used), self._verdicts[:, used]
        takes_part = self._verdicts[:, -count:].any(dim=1, keepdim=True)
        positive, negative = _shares((verdicts > 0) & takes_part), _shares((verdicts < 0) & takes_part)
        self._move(places, positive, negative)
        if self._settings.eta:
            self._warp(places, positive, negative)
        if self._settings.renormalise == "both":
            self._shorten()

    def similarities(self) -> Tensor:
        """Return what ranks, by the measure of the settings: float64 [S, G]."""
        products = self._inner(self._query[:, None])[:, 0]
        square = self._square(self._query[:, None])
        if self._settings.measure == "dot":
            return products
        if self._settings.measure == "distance":
            return 1 - (self._squares - 2 * products + square) / 2
        lengths = (self._squares * square).clamp_min(0).sqrt()
        return torch.where(lengths > 0, products / lengths, 0.0).clamp(-1, 1)

    def _extend(self, items: Tensor, verdicts: Tensor) -> None:
        """Take items [S, n], as they were at first, into the basis."""
        dots = self._products(self._embeddings[items].double())
        with_old = self._dots.gather(2, _along(items, self._dots.shape[1]))  # [S, m, n]
        with_new = dots.gather(2, _along(items, items.shape[1]))
        self._gram = torch.cat(
            [torch.cat([self._gram, with_old], dim=2), torch.cat([with_old.transpose(1, 2), with_new], dim=2)], dim=1
        )
        self._dots = torch.cat([self._dots, dots], dim=1)
        self._offset = torch.cat([self._offset, torch.zeros_like(dots)], dim=1)
        self._query = torch.cat([self._query, torch.zeros_like(verdicts)], dim=1)
        again = ((self._judged[:, :, None] == items[:, None]) & (verdicts != 0)[:, None]).any(dim=2)
        self._verdicts = torch.cat([self._verdicts.masked_fill(again, 0), verdicts], dim=1)
        self._judged = torch.cat([self._judged, items], dim=1)

    def _places(self, used: slice) -> Tensor:
        """Return where judged items are, as coefficients of the basis: [S, n, m]."""
        judged = self._judged[:, used]
        own = torch.eye(self._gram.shape[1], dtype=self._gram.dtype, device=judged.device)[1:][used]
        if self._settings.positions == "original":
            return own.expand(len(judged), -1, -1)
        moved = self._offset.gather(2, _along(judged, self._offset.shape[1])).transpose(1, 2)
        return self._scale.gather(1, judged)[..., None] * own + moved

    def _move(self, places: Tensor, positive: Tensor, negative: Tensor) -> None:
        """Query-point movement (Eq. 10)."""
        alpha, beta, gamma = self._settings.alpha, self._settings.beta, self._settings.gamma
        change = ((beta * positive - gamma * negative)[:, None] @ places)[:, 0]
        moves = positive.any(dim=1, keepdim=True)
        if alpha:
            moves = moves | negative.any(dim=1, keepdim=True)
        query = alpha * self._query + change
        if self._settings.renormalise != "none":
            query = query * _inverse(self._square(query[:, None]).clamp_min(0).sqrt())
        self._query = torch.where(moves, query, self._query)

    def _warp(self, places: Tensor, positive: Tensor, negative: Tensor) -> None:
        """Feature-space warping (Eq. 11)."""
        lengths = self._squares[:, None] + self._square(places)[..., None]
        squares = lengths - 2 * self._inner(places)
        # Rounding leaves 10⁻¹⁶ of the distance between an item and itself, or its equal, and the root makes 10⁻⁸ of it.
        squares = squares.masked_fill(squares < _NOISE * lengths, 0)
        kernels = torch.exp(-self._settings.c * squares.sqrt())
        step = self._settings.eta * ((positive - negative)[:, None] @ kernels)[:, 0]  # w, [S, G]
        stay = 1 - step
        products = self._inner(self._query[:, None])[:, 0]
        square = self._square(self._query[:, None])
        self._squares = stay.square() * self._squares + 2 * stay * step * products + step.square() * square
        self._scale = stay * self._scale
        self._offset = stay[:, None] * self._offset + step[:, None] * self._query[..., None]

    def _shorten(self) -> None:
        """Bring all items back to unit length."""
        lengths = self._squares.clamp_min(0).sqrt()
        self._scale = self._scale * _inverse(lengths)
        self._offset = self._offset * _inverse(lengths)[:, None]
        self._squares = (lengths > 0).double()

    def _inner(self, vectors: Tensor) -> Tensor:
        """Return ⟨x_i, v⟩ of vectors of the basis' span: [S, n, m] → [S, n, G]."""
        return self._scale[:, None] * (vectors @ self._dots) + (vectors @ self._gram) @ self._offset

    def _square(self, vectors: Tensor) -> Tensor:
        """Return |v|²: [S, n, m] → [S, n]."""
        return ((vectors @ self._gram) * vectors).sum(dim=-1)

    def _products(self, vectors: Tensor) -> Tensor:
        """Return ⟨x_i(0), v⟩ in float64: [S, n, D] → [S, n, G]."""
        flat = vectors.flatten(0, 1)
        products = torch.cat([flat @ part.double().T for part in self._parts()], dim=1)
        return products.view(*vectors.shape[:2], -1)

    def _parts(self) -> list[Tensor]:
        """Return the gallery in pieces of a size that can be had in float64."""
        step = max(1, _CHUNK // max(self._embeddings.shape[1], 1))
        return [self._embeddings[start : start + step] for start in range(0, max(len(self._embeddings), 1), step)]


def _along(items: Tensor, rows: int) -> Tensor:
    return items[:, None].expand(-1, rows, -1)


def _shares(counts: Tensor) -> Tensor:
    """Return 1/n for the n true ones of every row: bool [S, n] → float64."""
    return counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)


def _inverse(lengths: Tensor) -> Tensor:
    """Return 1/length, and 1 for length 0, which cannot be brought to another."""
    return torch.where(lengths > 0, 1 / lengths, 1.0)
