"""The k items of a gallery with the largest inner products, by faiss: for galleries of millions.

faiss (Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", 2019) only proposes candidates. Their
products are computed, and ties broken, as `exact_search` does it, so that "flat" returns what `ExactSearch` returns.
"ivf" and "hnsw" may miss items, and what they find is ordered in the same way.

Vectors are [f; b] of Eq. 9, b of ±1, and λ is in the queries. For a λ near 0.2 the attributes are a small part of a
query, but with n = 40 they would be 40 of the 41 of an item's squared length, and inverted lists or a graph of such
items are made of attributes alone. So "ivf" and "hnsw" are built of [f; √(λ₀/n) b] and asked with [f; √(n/λ₀) λ/n b],
which leaves every product as it is; λ₀ is the λ that the index suits best, and it serves others.
"""

import math
import os
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.exact_search import (
    Candidates,
    TopK,
    candidate_count,
    check_request,
    concatenated,
    no_items,
    worthwhile,
)
from pipeline.retrieval.faiss_file import faiss_path, keep_faiss, read_faiss

FaissKind = Literal["flat", "ivf", "hnsw"]

KINDS: Final[tuple[FaissKind, ...]] = get_args(FaissKind)

_ITEMS_PER_LIST: Final = 39  # of which k-means wants at least so many to learn a list from
_NEIGHBOURS: Final = 32
_EF_CONSTRUCTION: Final = 200
_ROWS: Final = 1024  # queries at a time


class FaissSearch:
    """As `ExactSearch`, with faiss on the CPU. faiss keeps a copy of the vectors.

    Args:
        vectors: of the gallery, float32 [G, W] on the CPU, all finite.
        kind: "flat" compares with every item; "ivf" with those of the nearest inverted lists, of about 4·√G (of fewer,
            if lists would have fewer than 39 items); "hnsw" walks a graph of 32 neighbours to each item.
        bits: how many columns at the end are attributes, n.
        weight: λ₀, above 0: the λ that "ivf" and "hnsw" are built for.
        probes: lists of "ivf" that a query looks into; by default an eighth of them, at least 8.
        ef: candidates that a query of "hnsw" keeps while it walks.
        folder: local, where what "ivf" and "hnsw" are built of is kept and looked for (`faiss_file`); None builds anew.

    Raises:
        InputError: faiss is not installed, or the kind is unknown.
        ValueError: the vectors are not on the CPU, or a number is out of range.
    """

    def __init__(
        self,
        vectors: Tensor,
        kind: FaissKind = "flat",
        *,
        bits: int = 0,
        weight: float = 0.2,
        probes: int | None = None,
        ef: int = 128,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise InputError(f'"{kind}" is no kind of faiss index; give {", ".join(KINDS[:-1])} or {KINDS[-1]}')
        if vectors.device.type != "cpu":
            raise ValueError(f"faiss searches on the CPU here, and the vectors are on {vectors.device}")
        if (
            not 0 <= bits <= vectors.shape[1]
            or not 0 < weight < math.inf
            or (probes is not None and probes < 1)
            or ef < 1
        ):
            raise ValueError(f"bits {bits}, weight {weight}, probes {probes} or ef {ef} is out of range")
        self.vectors = vectors
        self.kind = kind
        self._faiss = _imported()
        self._candidates = Candidates(vectors)
        self._scale: npt.NDArray[np.float32] | None = None
        if bits and kind != "flat":
            self._scale = np.ones(vectors.shape[1], np.float32)
            self._scale[-bits:] = math.sqrt(weight / bits)
        self._ef = ef
        lists = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors) // _ITEMS_PER_LIST))
        self._lists = lists
        self._probes = min(lists, probes or max(8, lists // 8))
        self._index: Any = self._made(folder) if len(vectors) else None  # k-means wants a point at least

    def __len__(self) -> int:
        return len(self.vectors)

    def top_k(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> TopK:
        """Return the k allowed items with the largest products that the index finds; see `ExactSearch.top_k`.

        There are k' results in every row: a query for which "ivf" or "hnsw" finds fewer, as with a filter that few
        items pass, is compared with all of these. A filter that passes a share of the items has "ivf" look into as many
        more lists, and "hnsw" keep as many more candidates.
        """
        k, numbers = check_request(self.vectors, queries, k, allowed)
        if not k or not len(queries):
            return no_items(queries, k)
        most = len(self) if numbers is None else len(numbers)
        if not worthwhile(len(queries), candidate_count(k), most):
            return self._candidates.float64_top_k(queries, k, numbers)
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        selector = None if numbers is None or allowed is None else _Selector(self._faiss, allowed)
        return concatenated([self._search(rows, k, numbers, selector) for rows in torch.split(queries, _ROWS)])

    def _search(self, queries: Tensor, k: int, numbers: Tensor | None, selector: "_Selector | None") -> TopK:
        asked = np.ascontiguousarray(queries.numpy() if self._scale is None else queries.numpy() / self._scale)

        def propose(rows: Tensor, count: int) -> TopK:
            parameters = self._parameters(selector, count)
            return TopK(*map(torch.from_numpy, self._index.search(asked[rows.numpy()], count, params=parameters)))

        if self.kind == "flat":
            return self._candidates.top_k(queries, k, numbers, propose)
        items = propose(torch.arange(len(queries)), candidate_count(k)).items
        found = self._candidates.rescore(queries, items.clamp_min(0), k)
        lacking = (items < 0).any(dim=1).nonzero()[:, 0]
        if len(lacking):
            whole = self._candidates.float64_top_k(queries[lacking], k, numbers)
            found.products[lacking], found.items[lacking] = whole.products, whole.items
        return found

    def _made(self, folder: str | os.PathLike[str] | None) -> Any:
        """Read the index from the folder, or build it and keep it there."""
        items = self.vectors.numpy()
        scaled = np.ascontiguousarray(items if self._scale is None else items * self._scale)
        if folder is None or self.kind == "flat":
            return self._built(scaled)
        how = {"lists": self._lists} if self.kind == "ivf" else {"neighbours": _NEIGHBOURS, "ef": _EF_CONSTRUCTION}
        path = faiss_path(folder, self.kind, scaled, how)
        kept = read_faiss(self._faiss, path)
        if kept is not None and (kept.ntotal, kept.d) == scaled.shape:
            return kept
        index = self._built(scaled)
        keep_faiss(self._faiss, index, path)
        return index

    def _built(self, scaled: npt.NDArray[np.float32]) -> Any:
        faiss, width = self._faiss, self.vectors.shape[1]
        faiss.omp_set_num_threads(torch.get_num_threads())
        if self.kind == "flat":
            index = faiss.IndexFlatIP(width)
        elif self.kind == "ivf":
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, self._lists, faiss.METRIC_INNER_PRODUCT)
        else:
            index = faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _EF_CONSTRUCTION
        index.train(scaled)
        index.add(scaled)
        return index

    def _parameters(self, selector: "_Selector | None", count: int) -> Any:
        chosen = {} if selector is None else {"sel": selector.selector}
        if self.kind == "flat":
            return self._faiss.SearchParameters(**chosen)
        # Lists and neighbourhoods have the fewer items to find, the fewer pass the filter; so more of them are visited.
        times = 1.0 if selector is None else 1 / selector.share
        if self.kind == "ivf":
            return self._faiss.SearchParametersIVF(nprobe=min(self._lists, math.ceil(self._probes * times)), **chosen)
        ef = min(len(self), math.ceil(max(self._ef, count) * times))
        return self._faiss.SearchParametersHNSW(efSearch=ef, **chosen)


class _Selector:
    """Items allowed, at least one, as faiss has it; keeps alive what faiss only points at."""

    def __init__(self, faiss: Any, allowed: Tensor) -> None:
        self.bitmap: npt.NDArray[np.uint8] = np.packbits(allowed.cpu().numpy(), bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self.bitmap)
        self.share = float(allowed.float().mean())


def _imported() -> Any:
    try:
        import faiss  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise InputError(
            f'faiss cannot be imported ({error}); install it with: pip install "stylize[faiss]", or search exactly'
        ) from error
    return faiss
