"""The k items of a gallery with the largest inner products, exactly, with ties broken the same way everywhere.

The product of a query and an item is here their inner product in float64, rounded to float32. That makes it a property
of the two vectors: float32 matrix products round differently from shape to shape and from library to library, so that
two equal items need not come out equal, and a query alone could be answered otherwise than among others. Float32
products find a few more candidates than are asked for; those are computed again in float64, and sorted. Where rounding
could have hidden a better item, as many products are about as large as the k-th (duplicates, a collapsed model), more
candidates are looked at, and in the end all items.

What remains open is the rounding of float64 sums, which takes about one product in 10⁸ to the next float32.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor

from stylize.precision import convolution_precision

_CHUNK: Final = 1 << 25  # products at a time: 128 MB of float32
_GATHERED: Final = 1 << 20  # numbers of items' vectors that are copied at a time: 8 MB of float64
_BLOCK: Final = 1 << 21  # the same where all items are compared with many queries
_SPARE: Final = 4  # candidates beyond k at least
_SPARE_SHARE: Final = 0.25  # and of k: the further down, the closer lie the products
_MORE: Final = 8  # times as many candidates where they are not enough
_FEW: Final = 4  # times as many items as candidates are too few to choose candidates from
_ERROR: Final = 8 * 2.0**-24


class TopK(NamedTuple):
    """The best items of every query, best first.

    Attributes:
        products: float32 [Q, k'].
        items: indices into the gallery, int64 [Q, k'].
    """

    products: Tensor
    items: Tensor


class ExactSearch:
    """Every query is compared with every item.

    Args:
        vectors: of the gallery, float32 [G, W] on any device, all finite; not copied.
        chunk: products in memory at a time (four bytes each); the result does not depend on it.
    """

    def __init__(self, vectors: Tensor, *, chunk: int = _CHUNK) -> None:
        self.vectors = vectors
        self._candidates = Candidates(vectors, chunk)

    def __len__(self) -> int:
        return len(self.vectors)

    def top_k(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> TopK:
        """Return the k allowed items with the largest products for every query; of equal ones, those of lower index.

        Args:
            queries: float32 [Q, W], Q at least 0, on the device of the gallery, all finite.
            k: at least 1.
            allowed: bool [G]: which items are searched; None is all.

        Returns:
            [Q, k'] on the device of the gallery, k' = min(k, number of items allowed).

        Raises:
            ValueError: k is below 1, or a shape is another.
        """
        k, numbers = check_request(self.vectors, queries, k, allowed)
        if not k or not len(queries):
            return no_items(queries, k)
        count = len(self) if numbers is None else len(numbers)
        rows = self._candidates.rows(count)
        return concatenated([self._search(some, k, numbers) for some in torch.split(queries, rows)])

    def _search(self, queries: Tensor, k: int, numbers: Tensor | None) -> TopK:
        products: Tensor | None = None

        def propose(rows: Tensor, count: int) -> TopK:
            nonlocal products
            if products is None:
                products = self._candidates.products(queries, numbers)
            chosen = products if len(rows) == len(products) else products[rows]
            found = torch.topk(chosen, count, dim=1)
            return TopK(found.values, found.indices if numbers is None else numbers[found.indices])

        return self._candidates.top_k(queries, k, numbers, propose)


Propose = Callable[[Tensor, int], TopK]
"""Rows of queries, int64 [R], and a number C → products and items [R, C] as float32 arithmetic has them, no item twice.

No other item of those allowed has a larger product in that arithmetic than the last in its row, which is the smallest.
"""


class Candidates:
    """From candidates to results, for every engine of search: products proper, ties, and what candidates may lack.

    Args:
        vectors: of the gallery, float32 [G, W].
        chunk: products in memory at a time.
    """

    def __init__(self, vectors: Tensor, chunk: int = _CHUNK) -> None:
        self._vectors = vectors
        self._chunk = chunk
        self._longest: float | None = None

    def rows(self, items: int) -> int:
        """Return how many queries to take at a time, so that a chunk holds their products with so many items."""
        return max(1, self._chunk // max(items, 1))

    def products(self, queries: Tensor, numbers: Tensor | None) -> Tensor:
        """Return products as float32 arithmetic has them, of all items or of those numbered: [Q, G] or [Q, A]."""
        with convolution_precision("fp32"):
            if numbers is None:
                return queries @ self._vectors.T
            return torch.cat([queries @ part.T for part in self._blocks(numbers)], dim=1)

    def top_k(self, queries: Tensor, k: int, numbers: Tensor | None, propose: Propose) -> TopK:
        """Return the k best of the items allowed.

        Args:
            queries: [Q, W], Q at least 1.
            k: at least 1, and at most as many as are allowed.
            numbers: of the items allowed, ascending; None is all.
            propose: candidates.
        """
        return self._narrow(queries, k, candidate_count(k), numbers, propose)

    def _narrow(self, queries: Tensor, k: int, count: int, numbers: Tensor | None, propose: Propose) -> TopK:
        if not worthwhile(len(queries), count, len(self._vectors) if numbers is None else len(numbers)):
            return self.float64_top_k(queries, k, numbers)
        proposed = propose(torch.arange(len(queries), device=queries.device), count)
        found = self.rescore(queries, proposed.items, k)
        rows = (proposed.products[:, -1] + self._error(queries) >= found.products[:, -1]).nonzero()[:, 0]
        if len(rows):
            more = self._narrow(queries[rows], k, _MORE * count, numbers, lambda some, n: propose(rows[some], n))
            found.products[rows], found.items[rows] = more.products, more.items
        return found

    def _error(self, queries: Tensor) -> Tensor:
        """Return by how much products of each query in float32 arithmetic may be off, float32 [Q].

        Sums of W terms are off by at most W·2⁻²⁴·|q||v|, but roundings are as good as random, and √W takes the place of
        W (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019); eight times that is not met in practice.
        """
        if self._longest is None:
            self._longest = max(float(part.norm(dim=1).max()) for part in torch.split(self._vectors, 1 << 16))
        error: Tensor = _ERROR * math.sqrt(queries.shape[1]) * self._longest * queries.norm(dim=1)
        return error

    def rescore(self, queries: Tensor, items: Tensor, k: int) -> TopK:
        """Return the k best of every query's candidates alone.

        Args:
            queries: [Q, W].
            items: the candidates, int64 [Q, C], none twice in a row.
            k: at most C.
        """
        items = items.sort(dim=1).values
        (_, count), width = items.shape, queries.shape[1]
        step = max(1, _GATHERED // (count * width))
        products = []
        for some, wide in zip(torch.split(items, step), torch.split(queries.double(), step), strict=True):
            # index_select copies rows twice as fast as indexing with a matrix does.
            vectors = self._vectors.index_select(0, some.flatten()).double().view(len(some), count, width)
            products.append(torch.bmm(vectors, wide[:, :, None])[:, :, 0])
        return _best(torch.cat(products).float(), items, k)

    def float64_top_k(self, queries: Tensor, k: int, numbers: Tensor | None) -> TopK:
        """Return the k best of all items with every product computed in float64: the definition, and the slow way."""
        numbers = torch.arange(len(self._vectors), device=queries.device) if numbers is None else numbers
        parts = []
        for rows in torch.split(queries, self.rows(4 * len(numbers))):  # what is kept of them beside their products
            wide = rows.double()
            products = torch.cat([(wide @ part.double().T).float() for part in self._blocks(numbers)], dim=1)
            columns = _leftmost_largest(products, k)
            parts.append(_best(products.gather(1, columns), numbers[columns], k))
        return concatenated(parts)

    def _blocks(self, numbers: Tensor) -> Iterator[Tensor]:
        for some in torch.split(numbers, max(1, _BLOCK // max(1, self._vectors.shape[1]))):
            yield self._vectors.index_select(0, some)


def candidate_count(k: int) -> int:
    """Return how many candidates to look at for k items."""
    return k + max(_SPARE, math.ceil(_SPARE_SHARE * k))


def worthwhile(queries: int, candidates: int, items: int) -> bool:
    """Say whether to look at so many candidates of each query is cheaper than to look at all items in float64.

    Vectors of candidates are fetched and converted for every query, those of all items once for all queries, and then
    their products cost little each. The numbers are for less than half the cost of all items, as measured on one core
    with 2,088 columns.
    """
    return _FEW * candidates < items and queries * candidates < 2 * items + queries * items / 128


def check_request(vectors: Tensor, queries: Tensor, k: int, allowed: Tensor | None) -> tuple[int, Tensor | None]:
    """Return k' and the numbers of the items allowed, ascending, None for all; ValueError as `ExactSearch.top_k`."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if queries.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"queries must be [Q, {vectors.shape[1]}], not {list(queries.shape)}")
    if allowed is None:
        return min(k, len(vectors)), None
    if allowed.dtype != torch.bool or allowed.shape != vectors.shape[:1]:
        raise ValueError(f"allowed must be bool [{len(vectors)}], not {allowed.dtype} {list(allowed.shape)}")
    numbers = allowed.to(vectors.device).nonzero()[:, 0]
    return min(k, len(numbers)), None if len(numbers) == len(vectors) else numbers


def no_items(queries: Tensor, k: int) -> TopK:
    """Return the result of no queries, or of queries in no items (k is 0)."""
    return TopK(queries.new_zeros(len(queries), k), queries.new_zeros(len(queries), k, dtype=torch.int64))


def concatenated(parts: list[TopK]) -> TopK:
    """Return the results of one or more sets of queries as those of one."""
    products, items = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return TopK(products, items)


def _best(products: Tensor, items: Tensor, k: int) -> TopK:
    """Return the k largest of every row; of equal ones those further left, whose items are lower."""
    order = products.sort(dim=1, descending=True, stable=True)
    return TopK(order.values[:, :k].contiguous(), items.gather(1, order.indices[:, :k]))


def _leftmost_largest(products: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest of every row, ascending; of equal ones those further left: int64 [Q, k].

    torch.topk says which value is the k-th, but not which of several that equal it is taken.
    """
    last = torch.topk(products, k, dim=1).values[:, -1:]
    larger, equal = products > last, products == last
    wanted = k - larger.sum(dim=1, keepdim=True)
    taken = larger | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= wanted))
    return taken.nonzero()[:, 1].view(len(products), k)
