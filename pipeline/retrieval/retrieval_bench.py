"""What search costs beside the bare arithmetic that it cannot do without: one matrix product and torch.topk."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.retrieval.exact_search import ExactSearch, TopK
from pipeline.retrieval.faiss_search import FaissSearch
from pipeline.retrieval.scoring import WEIGHT, check_weight, gallery_vectors, query_vectors
from pipeline.training.device import training_device
from stylize.precision import convolution_precision


@dataclass(frozen=True)
class RetrievalBench:
    """What was measured; seconds for all queries together, one value for every repetition.

    Attributes:
        device, threads, torch: of the machine; threads are PyTorch's on the CPU.
        queries, items, dim, attributes, k, weight: of the task.
        bare: float32 product of two matrices as wide as ours, and torch.topk.
        exact: from embeddings, bits and λ of the queries to products and items, by `ExactSearch`.
        flat: the same by `FaissSearch` "flat"; None where it was not measured, which `flat_note` explains.
        build_seconds: for gallery vectors from embeddings and bits, once per gallery.
        flat_agrees: whether "flat" returned the same products and items; None where it was not measured.
    """

    device: str
    threads: int
    torch: str
    queries: int
    items: int
    dim: int
    attributes: int
    k: int
    weight: float
    bare: tuple[float, ...]
    exact: tuple[float, ...]
    flat: tuple[float, ...] | None
    flat_agrees: bool | None
    flat_note: str
    build_seconds: float

    @property
    def ratio(self) -> float:
        """Return how many times longer exact search takes than the bare product: the median of pairs of repetitions."""
        return statistics.median(ours / bare for ours, bare in zip(self.exact, self.bare, strict=True))

    @property
    def flat_ratio(self) -> float | None:
        """Return the same for faiss."""
        if self.flat is None:
            return None
        return statistics.median(ours / bare for ours, bare in zip(self.flat, self.bare, strict=True))

    def lines(self) -> list[str]:
        """Return what to print."""
        width = self.dim + self.attributes
        lines = [
            f"{self.queries:,} queries x {self.items:,} items x {self.dim:,} dimensions + {self.attributes} bits, "
            f"top {self.k}, lambda {self.weight:g}; {self.device}, {self.threads} threads, torch {self.torch}",
            f"bare product of {width:,} columns + topk   {_median(self.bare)}",
            f"exact search                          {_median(self.exact)}   {self.ratio:.2f} x bare",
        ]
        if self.flat is None or self.flat_ratio is None:
            lines.append(f"faiss flat                            not measured: {self.flat_note}")
        else:
            agrees = "the same results" if self.flat_agrees else "OTHER RESULTS"
            lines.append(
                f"faiss flat                            {_median(self.flat)}   {self.flat_ratio:.2f} x bare, {agrees}"
            )
        return [*lines, f"gallery vectors, once                 {self.build_seconds * 1e3:8.1f} ms"]

    def as_dict(self) -> dict[str, Any]:
        """Return everything measured and the ratios, as JSON can hold it."""
        return {
            "device": self.device,
            "threads": self.threads,
            "torch": self.torch,
            "queries": self.queries,
            "items": self.items,
            "dim": self.dim,
            "attributes": self.attributes,
            "k": self.k,
            "lambda": self.weight,
            "bare_seconds": list(self.bare),
            "exact_seconds": list(self.exact),
            "ratio": self.ratio,
            "faiss_flat_seconds": None if self.flat is None else list(self.flat),
            "faiss_flat_ratio": self.flat_ratio,
            "faiss_flat_agrees": self.flat_agrees,
            "faiss_flat_note": self.flat_note or None,
            "build_seconds": self.build_seconds,
        }


def retrieval_bench(
    queries: int = 1000,
    items: int = 20_000,
    dim: int = 2048,
    attributes: int = 40,
    k: int = 10,
    *,
    weight: float = WEIGHT,
    repetitions: int = 7,
    faiss: bool = True,
    device: str | None = "cpu",
    seed: int = 0,
    notify: Callable[[str], None] = lambda sentence: None,
) -> RetrievalBench:
    """Measure exact search beside the bare product, by turns in one process, on random unit vectors and random bits.

    Args:
        queries, items, dim, k: at least 1.
        attributes: n; at least 1 if there is a weight.
        weight: λ.
        repetitions: of every contender, after one that is not counted.
        faiss: measure "flat", too, if it is installed and the device is the CPU.
        device: as for `training_device`.
        seed: of vectors and bits.
        notify: called with what is being done.

    Raises:
        InputError: a number is out of range, or the device is not there.
    """
    for name, value in (("queries", queries), ("items", items), ("dim", dim), ("k", k), ("repetitions", repetitions)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    if attributes < 0:
        raise InputError(f"attributes must be at least 0, not {attributes}")
    check_weight(weight, attributes)
    place = training_device(device)
    notify(f"{queries:,} queries and {items:,} items of {dim:,} + {attributes} columns")
    generator = torch.Generator().manual_seed(seed)
    f_q, f_g = (_unit(count, dim, generator).to(place) for count in (queries, items))
    b_q, b_g = ((torch.rand(n, attributes, generator=generator) < 0.5).to(place) for n in (queries, items))

    start = _now(place)
    gallery = gallery_vectors(f_g, b_g)
    build_seconds = _now(place) - start
    plain_queries, plain_items = (_unit(n, dim + attributes, generator).to(place) for n in (queries, items))
    exact = ExactSearch(gallery)
    contenders: dict[str, Callable[[], TopK]] = {
        "bare": lambda: _bare(plain_queries, plain_items, k),
        "exact": lambda: exact.top_k(query_vectors(f_q, b_q, weight), k),
    }
    note = _add_flat(contenders, gallery, lambda: query_vectors(f_q, b_q, weight), k) if faiss else "not asked for"
    found = {name: search() for name, search in contenders.items()}  # and warm
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repetitions):
        for name, search in contenders.items():
            start = _now(place)
            search()
            seconds[name].append(_now(place) - start)
        notify(f"repetition {turn + 1} of {repetitions}")
    flat = seconds.get("flat")
    return RetrievalBench(
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine() + " CPU",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        queries=queries,
        items=items,
        dim=dim,
        attributes=attributes,
        k=k,
        weight=weight,
        bare=tuple(seconds["bare"]),
        exact=tuple(seconds["exact"]),
        flat=None if flat is None else tuple(flat),
        flat_agrees=None if flat is None else all(map(torch.equal, found["flat"], found["exact"])),
        flat_note=note,
        build_seconds=build_seconds,
    )


def _add_flat(contenders: dict[str, Callable[[], TopK]], gallery: Tensor, queries: Callable[[], Tensor], k: int) -> str:
    """Add faiss to the contenders; return why not, where not."""
    if gallery.device.type != "cpu":
        return "faiss searches on the CPU"
    try:
        flat = FaissSearch(gallery)
    except InputError as error:
        return str(error)
    contenders["flat"] = lambda: flat.top_k(queries(), k)
    return ""


def _bare(queries: Tensor, items: Tensor, k: int) -> TopK:
    with convolution_precision("fp32"):
        found = torch.topk(queries @ items.T, min(k, len(items)), dim=1)
    return TopK(found.values, found.indices)


def _unit(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _median(seconds: tuple[float, ...]) -> str:
    return f"{statistics.median(seconds) * 1e3:8.1f} ms"
