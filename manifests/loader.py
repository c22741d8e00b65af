"""PyTorch data sets over the accepted proxies of a run, in a local folder or behind any fsspec URL. Two lines:

    stream = ProxyStream("OUT", split="train", columns=["image", "identity"], batch_size=64, shuffle=True)
    loader = ProxyLoader(stream, num_workers=4)

    for epoch in range(loader.epoch, 10):  # every epoch has an order of its own
        for batch in loader:
            ...
            torch.save(loader.state_dict(), "data.pt")  # batches you have got, not those that workers have read ahead
    loader.load_state_dict(torch.load("data.pt"))  # goes on with the next batch; other num_workers, other ranks, too

`ProxyDataset` is the map-style one, for random access and samplers of your own. docs/loading.md has examples for
several ranks, resuming, filters, and what to do about rejected faces.

A sample is a dict of the asked columns, in a form that ``torch.utils.data.default_collate`` stacks:

    image        uint8 tensor [3, H, W], RGB, 0–255; with ``decode=False`` the encoded bytes
    attributes   int8 tensor [40] in the order of ``manifests.attributes.ATTRIBUTES``: 1 yes, 0 no, -1 unknown
    identity     int; -1 where the input has none
    loss         float, in loss units
    image_id, source_id, split, painting, artist, style    str; "" where unknown

A single attribute may be asked by its name (``columns=["image", "Smiling"]``): an int 1, 0 or -1. Pictures of unequal
size (a plain folder of faces built without ``--size``) do not stack: pass a ``transform`` that resizes.

A loader knows its samples from when it was made. If a shard is replaced later (``stylize redraw``), opening it raises a
RunError that says so: make the loader anew. Files that a process has open go on as they were.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from manifests.errors import RunError
from manifests.partition import (
    EpochOrder,
    Remainder,
    position_after,
    rank_batches,
    rank_stretch,
    worker_stretch,
)
from manifests.row_groups import Filters, RowGroups
from manifests.sample_reader import ATTRIBUTE_VECTOR, COLUMNS, UNKNOWN, Sample, SampleReader, Transform

__all__ = ["ATTRIBUTE_VECTOR", "COLUMNS", "UNKNOWN", "ProxyDataset", "ProxyLoader", "ProxyStream", "Sample"]

_STATE_FORMAT: Final = 1
_CACHED_BYTES: Final = (
    64 << 20
)  # about a window of full-size Celeb-A; a run that is smaller is read once, not every epoch
# Places of the tensor that a stream shares with its workers.
_EPOCH, _START, _READ_BY_WORKERS = range(3)


class ProxyDataset(Dataset[Sample]):
    """Map-style data set: ``ProxyDataset("OUT", split="train", columns=["image", "identity"])[0]``.

    Order is that of the run (splits in their order, then by image_id). ``split`` is a name or several. ``filters`` keep
    the rows that meet conditions on any column but the image, as in pandas and pyarrow: ``[("loss", "<", 30),
    ("Smiling", "==", True)]``; nulls meet none. ``transform`` is called with the decoded tensor, or with the bytes
    where ``decode`` is False. Works with ``DistributedSampler`` and with worker processes, spawned or forked.

    A row group (100 images at most) is the unit of reading; each process caches ``cached_groups`` of them (encoded),
    and a batch reads each group it needs once. Shuffling with a ``RandomSampler`` nevertheless reads up to one group
    per image: for large sets use ``ProxyStream``, for small ones a cache that holds them.

    Raises InputError for a folder without a run, an unknown split, and an unfinished run unless ``partial``; ValueError
    for an unknown column and for filters that make no sense; RunError, when it is read, for an image that cannot be
    decoded and for a shard that has been replaced.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        split: str | Sequence[str] = "train",
        columns: Sequence[str] | None = None,
        decode: bool = True,
        transform: Transform | None = None,
        filters: Filters | None = None,
        cached_groups: int = 4,
        partial: bool = False,
    ) -> None:
        if cached_groups < 1:
            raise ValueError(f"cached_groups must be at least 1, not {cached_groups}")
        self._groups = RowGroups(url, split, partial=partial, filters=filters)
        self._reader = SampleReader(
            self._groups, columns, decode, transform, tensor=torch.from_numpy, cached_groups=cached_groups
        )
        self._ends = np.array(list(itertools.accumulate(self._groups.rows)), np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; negative indices count from the end; IndexError."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return a batch of samples in the order asked for, reading each row group once; the DataLoader calls this."""
        places = [self._place(int(index)) for index in indices]
        samples: dict[int, Sample] = {}
        for position in sorted(range(len(places)), key=places.__getitem__):
            samples[position] = self._reader.sample(*places[position])
        return [samples[position] for position in range(len(places))]

    def _place(self, index: int) -> tuple[int, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        group = int(np.searchsorted(self._ends, position, side="right"))
        return group, position - (int(self._ends[group - 1]) if group else 0)


class ProxyStream(IterableDataset[Sample]):
    """Iterable data set: every sample once an epoch, over any number of ranks and DataLoader workers.

    **Order.** ``shuffle`` gives every (seed, epoch) an order of its own: row groups of all shards are permuted, cut
    into windows of ``window`` groups, and the images of each window permuted (800 images by default, held encoded in
    memory by each process, or 64 MB of them if that is more). Call ``set_epoch`` before each epoch, as for a
    ``DistributedSampler``; it reaches persistent workers too. (`ProxyLoader` does that by itself.) The order never
    depends on the number of ranks or workers; who reads what of it does, in one of two ways:

    - With ``batch_size``, *the same as the DataLoader's*, ranks and workers take turns, batch by batch. What a
      DataLoader delivers does not depend on ``num_workers`` at all, step k of all ranks together is the same set of
      samples for any number of ranks of the same total batch, and every state is one position in the order. In return
      each process reads (not decodes) all row groups, which on a disk costs little beside decoding.
    - Without, every rank and worker reads a consecutive stretch, hence each row group once in all: for object stores.
      A DataLoader then delivers its workers' batches by turns, so that their order depends on ``num_workers``, and
      each worker has a last incomplete batch of its own.

    **Counts.** ``remainder`` says what becomes of r = images mod ``world_size``. ``"drop"``, the default since
    collectives in every step hang where counts differ and no image should weigh double: equal counts, every image once
    at most, the last r of the epoch's order left out (others each epoch if shuffled). ``"pad"``: equal counts, every
    image once at least, the first world_size - r of the order once more. ``"uneven"``: every image exactly once, r
    ranks have one more (for evaluation). ``len`` is the number of images of this rank in a whole epoch.

    ``rank`` and ``world_size`` default to those of ``torch.distributed`` where that is initialised when iteration
    begins, else to one rank.

    Further arguments and errors as for ``ProxyDataset``; ValueError also for an impossible rank or ``remainder``.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        split: str | Sequence[str] = "train",
        columns: Sequence[str] | None = None,
        decode: bool = True,
        transform: Transform | None = None,
        filters: Filters | None = None,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        window: int = 8,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "drop",
        partial: bool = False,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size go together: give both or neither")
        if seed < 0 or window < 1:
            raise ValueError(f"seed must be at least 0 and window at least 1, not {seed} and {window}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._groups = RowGroups(url, split, partial=partial, filters=filters)
        self._window = window if shuffle else 1
        self._reader = SampleReader(
            *(self._groups, columns, decode, transform),
            tensor=torch.from_numpy,
            cached_groups=self._window,
            cached_bytes=_CACHED_BYTES,
        )
        self._seed = seed if shuffle else None
        self._total = sum(self._groups.rows)
        self.batch_size: Final = batch_size
        self._rank = None if rank is None or world_size is None else (rank, world_size)
        self._remainder: Remainder = remainder
        # In shared memory, so that workers which outlive an epoch see the next one's number.
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._resume: tuple[int, int, int, list[int] | None] | None = None
        self._pass: tuple[int, int, list[int]] | None = None
        self._yielded = 0
        self._choices = 0
        self._count(0)  # refuses a rank or remainder that cannot be

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration, from its beginning; ``epoch`` counts from 0."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}")
        self._choose(epoch, 0)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return int(self._shared[_EPOCH])

    def __len__(self) -> int:
        return self._count(0)

    def state_dict(self, delivered: int | None = None) -> dict[str, Any]:
        """Return where the iteration is, for `load_state_dict`: a small dict of plain values, the same on all ranks.

        ``delivered`` is how many images of this iteration the training loop of this rank has got. A DataLoader's
        workers read ahead, so with those only the loop can know (`ProxyLoader` counts for it); ``batch_size`` must have
        been given, and the number be one of whole batches. Such a state fits any number of ranks and workers and any
        batch size. It costs nothing to go on from: what is skipped is not read.

        Without ``delivered``: images that this process has taken from its iterator. That is right without workers, and
        inside a worker, where torchdata's ``StatefulDataLoader`` asks. Such a state fits the same number of ranks and
        workers alone.

        Raises ValueError for a number that cannot be, and RunError where worker processes have read from this stream
        and ``delivered`` is not given.
        """
        if delivered is None:
            if get_worker_info() is None and self._pass is None and bool(self._shared[_READ_BY_WORKERS]):
                raise RunError(
                    "worker processes read ahead of the training loop; pass state_dict(delivered=...), "
                    "or use a ProxyLoader, which counts"
                )
            epoch, start, part = self._pass or self._beginning()
            return self._state(epoch, start, self._yielded, part)
        # Where this process iterates itself, the shared start is already that of the next iteration.
        epoch, start = self._pass[:2] if self._pass else (self.epoch, self._start)
        return self._state_after(epoch, start, delivered)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next iteration has what is left of that epoch, then its order ends.

        Call ``set_epoch`` before the iteration after that, as always. Raises RunError for a state of other data, of
        another seed or kind of shuffling, or one that is no state of a stream.
        """
        try:
            epoch, start, skip, part = (state[name] for name in ("epoch", "start", "skip", "part"))
            wanted = {name: state[name] for name in ("format", "data", "order")}
        except (KeyError, TypeError, IndexError) as error:
            raise RunError(f"this is no state of a ProxyStream: {error} is missing") from error
        if wanted["format"] != _STATE_FORMAT:
            raise RunError(f"the state has format {wanted['format']!r}, and this version reads {_STATE_FORMAT}")
        if wanted["data"] != self._groups.digest:
            raise RunError(
                f"the state was saved over other samples than those of {self._groups.url}: another run, split or "
                "filters, or shards that were redrawn since; begin the epoch anew"
            )
        if wanted["order"] != self._order():
            raise RunError(
                f"the state was saved with [seed, window] {wanted['order']} and the stream has {self._order()}; "
                "make the stream with the same (without shuffling the seed is None)"
            )
        if get_worker_info() is None:
            self._choose(epoch, start)
        # In a worker this is about the worker's own part: the shared position is the main process's to choose.
        self._resume = (epoch, start, skip, part) if part is not None or get_worker_info() is not None else None
        self._pass, self._yielded = None, skip

    def __iter__(self) -> Iterator[Sample]:
        epoch, start, part = self._beginning()
        skip = 0
        if self._resume is not None:
            epoch, start, skip, saved = self._resume
            if saved is not None and saved != part:
                raise RunError(
                    f"the state was saved by [rank, ranks, worker, workers, batch size] {saved} and this is {part}; "
                    "use as many ranks and workers as then, or a ProxyLoader, which may be resumed with others"
                )
        self._pass, self._yielded, self._resume = (epoch, start, part), skip, None
        if get_worker_info() is None:
            self._shared[_START] = 0  # what was resumed is under way; the next iteration begins at the beginning
        else:
            self._shared[_READ_BY_WORKERS] = 1
        return self._samples(epoch, start, part, skip)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group to ask, so it is told here, in its parent.
        return self.__dict__ | {"_rank": self._ranks(), "_pass": None}

    def _samples(self, epoch: int, start: int, part: list[int], skip: int) -> Iterator[Sample]:
        order = EpochOrder(self._groups.rows, seed=self._seed, epoch=epoch, window=self._window)
        for positions in self._pieces(start, part):
            left = positions[skip:]
            skip -= len(positions) - len(left)
            for group, row in order.rows(left):
                sample = self._reader.sample(group, row)
                self._yielded += 1
                yield sample

    def _pieces(self, start: int, part: list[int]) -> Iterator[range]:
        """Yield the consecutive positions that one worker of one rank reads."""
        rank, world_size, worker, workers, batch_size = part
        if batch_size:
            batches = rank_batches(self._total, rank, world_size, self._remainder, batch_size=batch_size, start=start)
            return itertools.islice(batches, worker, None, workers)
        stretch = rank_stretch(self._total, rank, world_size, self._remainder)
        return iter([worker_stretch(stretch, worker, workers)])

    def _beginning(self) -> tuple[int, int, list[int]]:
        """Return epoch, start and part ([rank, ranks, worker, workers, batch size or 0]) of the next iteration here."""
        info = get_worker_info()
        worker = (0, 1) if info is None else (info.id, info.num_workers)
        return self.epoch, self._start, [*self._ranks(), *worker, self.batch_size or 0]

    @property
    def _start(self) -> int:
        return int(self._shared[_START])

    def _choose(self, epoch: int, start: int) -> None:
        self._shared[_EPOCH], self._shared[_START] = epoch, start
        self._resume, self._pass, self._yielded = None, None, 0
        self._choices += 1

    def _count(self, start: int) -> int:
        """Return how many images this rank gets from position ``start`` on."""
        return len(rank_stretch(self._total - start, *self._ranks(), self._remainder))

    def _state_after(self, epoch: int, start: int, delivered: int) -> dict[str, Any]:
        if self.batch_size is None:
            raise ValueError("give the stream the DataLoader's batch_size, so that what was delivered has one position")
        count = self._count(start)
        if not 0 <= delivered <= count:
            raise ValueError(f"delivered is {delivered}, but this iteration has {count} images")
        if delivered == count:
            return self._state(epoch + 1, 0, 0, None)
        position = position_after(self._total, start, delivered, self._ranks()[1], self.batch_size)
        return self._state(epoch, position, 0, None)

    def _state(self, epoch: int, start: int, skip: int, part: list[int] | None) -> dict[str, Any]:
        state = {"format": _STATE_FORMAT, "data": self._groups.digest, "order": self._order()}
        return state | {"epoch": epoch, "start": start, "skip": skip, "part": part}

    def _order(self) -> list[int | None]:
        return [self._seed, self._window]

    def _ranks(self) -> tuple[int, int]:
        if self._rank is not None:
            return self._rank
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1


class ProxyLoader(DataLoader[Sample]):
    """A DataLoader over a `ProxyStream` that can be resumed in the middle of an epoch, and counts epochs by itself.

    ``ProxyLoader(ProxyStream("OUT", batch_size=64, shuffle=True), num_workers=4, pin_memory=True)``. Options are those
    of ``torch.utils.data.DataLoader``; the batch size is the stream's.

    Every iteration reads the next epoch: a pass that was left before its end counts as one. ``set_epoch`` chooses
    another. ``epoch`` is the one under way, or the next where none is, so ``for epoch in range(loader.epoch, EPOCHS)``
    goes on rightly after `load_state_dict`.

    `state_dict` counts the batches that the training loop has been handed, whatever workers have read ahead. The state
    is the same on all ranks if they have made the same number of steps, and fits other numbers of workers and ranks and
    another batch size, too: what is left of the epoch is dealt out anew. ``len`` is the number of batches of a whole
    epoch.

    Raises ValueError for a stream without ``batch_size`` and for options that would change the order.
    """

    def __init__(self, stream: ProxyStream, **options: Any) -> None:
        if stream.batch_size is None:
            raise ValueError("give the ProxyStream a batch_size: the loader takes it from there")
        for name in ("batch_size", "shuffle", "sampler", "batch_sampler"):
            if name in options:
                raise ValueError(
                    f"{name} is not an option of ProxyLoader; the ProxyStream says what comes in which order"
                )
        if not options.get("in_order", True):
            raise ValueError("in_order=False does not go with ProxyLoader: its place in the order would not be known")
        super().__init__(stream, batch_size=stream.batch_size, **options)
        self._stream = stream
        self._pass: _Pass | None = None

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or the next where none is."""
        return int(self.state_dict()["epoch"])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the training loop is, a small dict of plain values: after the last batch that it was handed.

        After the last batch of an epoch that is the beginning of the next.
        """
        stream, current = self._stream, self._current()
        if current is None:
            return stream._state(stream.epoch, stream._start, 0, None)
        if current.batches >= current.length:
            return stream._state(current.epoch + 1, 0, 0, None)
        return stream._state_after(current.epoch, current.start, current.batches * (stream.batch_size or 0))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the batch after the one at which `state_dict` was taken; RunError as for the stream."""
        if state.get("part") is not None:
            raise RunError(
                "the state is that of a single process of a ProxyStream; a ProxyLoader goes on from its own "
                "state_dict(), or from ProxyStream.state_dict(delivered=...)"
            )
        self._stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator instead of torch's own class
        current = self._current()
        if current is not None:
            self._stream.set_epoch(current.epoch + 1)
        stream = self._stream
        count, batch_size = stream._count(stream._start), stream.batch_size or 1
        length = count // batch_size if self.drop_last else -(-count // batch_size)
        self._pass = _Pass(stream.epoch, stream._start, length, stream._choices)
        return self._counted(super().__iter__(), self._pass)

    @staticmethod
    def _counted(batches: Iterator[Any], current: "_Pass") -> Iterator[Any]:
        for batch in batches:
            current.batches += 1
            yield batch

    def _current(self) -> "_Pass | None":
        """Return the last pass, unless an epoch or a state has been chosen since."""
        return self._pass if self._pass is not None and self._pass.choices == self._stream._choices else None


@dataclass
class _Pass:
    """One iteration of a `ProxyLoader`: where it began, how many batches it has in all and has handed out.

    ``choices`` counts how often an epoch or a state was chosen before it.
    """

    epoch: int
    start: int
    length: int
    choices: int
    batches: int = 0
