"""Loaders of other libraries, and ours, over the same pictures of a run, for `pipeline.loader_bench`.

Each gives batches of uint8 pictures [B, 3, H, W] and one number per picture (the loss), in the way that its own
documentation recommends; all of them decode with Pillow.
"""

import importlib
import inspect
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from fsspec.implementations.local import LocalFileSystem
from torch.utils.data import DataLoader

from manifests import schema
from manifests.errors import InputError
from manifests.loader import ProxyDataset, ProxyLoader, ProxyStream
from manifests.run import RunDirectory

OURS: Final = ("stylize", "stylize map-style")
THEIRS: Final = ("datasets map-style", "datasets streaming", "webdataset")

SHUFFLE_BUFFER: Final = 1000
"""Images in the shuffle buffers of datasets (its default) and webdataset (the value of its examples)."""

_TAR_IMAGES: Final = 100  # as many as a row group of ours, so that two workers have tars to share in small runs, too
_COLUMNS: Final = [schema.IMAGE, schema.LOSS]

Pictures = torch.Tensor
Epoch = Callable[[], Iterator[Pictures]]
"""One pass over all pictures, in batches; called again, the next."""


@dataclass(frozen=True)
class Mode:
    """How pictures are asked for; the same of all contenders."""

    shuffled: bool
    workers: int
    batch_size: int
    seed: int

    @property
    def name(self) -> str:
        """Return it in words."""
        return f"{'shuffled' if self.shuffled else 'in order'}, {self.workers} workers"

    @property
    def options(self) -> dict[str, Any]:
        """Return the DataLoader's options: workers stay from epoch to epoch."""
        return {"num_workers": self.workers, "persistent_workers": self.workers > 0}


@dataclass(frozen=True)
class Pool:
    """The pictures: where they lie for whom.

    Attributes:
        run: of ours.
        splits: of it; all that have a picture.
        images: their number.
        size: width and height of every one.
        data_files: paths of its Parquet files that have rows.
        tars: paths of webdataset's files, written from the same bytes.
        cache: folder for datasets' own copy.
    """

    run: RunDirectory
    splits: tuple[str, ...]
    images: int
    size: tuple[int, int]
    data_files: tuple[str, ...]
    tars: tuple[str, ...]
    cache: Path


def gather(out: str | os.PathLike[str], folder: Path) -> Pool:
    """Look at a run, and write webdataset's files into ``folder``.

    Raises InputError for a run that is not on this machine's disk, not finished, or without pictures of one size.
    """
    run = RunDirectory.open(out)
    if not isinstance(run.fs, LocalFileSystem):
        raise InputError(
            f"{run.url} is not a local folder; copy the run to a disk, so that storage is not what is timed"
        )
    planned = run.planned()
    if not planned.keys() <= run.committed():
        raise InputError(f"{run.url} is not finished; finish the build, or take another run")
    splits = tuple(dict.fromkeys(name.split for name in planned))
    pictures = ProxyDataset(run.url, split=splits, columns=_COLUMNS, decode=False)
    if not len(pictures):
        raise InputError(f"{run.url} has no accepted proxy to load")
    whole = ProxyDataset(run.url, split=splits, columns=_COLUMNS)
    sizes = {(sample["image"].shape[2], sample["image"].shape[1]) for sample in _each(whole)}
    if len(sizes) > 1:
        raise InputError(
            f"{run.url} has pictures of several sizes, which do not make batches; take a run built with --size"
        )
    files = [run.path(name.data_file) for name in planned]
    with_rows = []
    for name, path in zip(planned, files, strict=True):
        with run.parquet(name.data_file) as parquet:
            if parquet.metadata.num_rows:
                with_rows.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    tars = tuple(_write_tars(_each(pictures), folder))
    return Pool(run, splits, len(pictures), sizes.pop(), tuple(with_rows), tars, folder / "datasets")


def contender(name: str, pool: Pool, mode: Mode) -> Epoch:
    """Return the epochs of a library; InputError where it is not installed."""
    return _CONTENDERS[name](pool, mode)


def library(name: str) -> Any:
    """Import a library that the comparison needs and stylize does not; InputError."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"the comparison needs {name}, which is not installed: uv pip install {name}, "
            "or measure without (others=False)"
        ) from error


def _stream(pool: Pool, mode: Mode) -> Epoch:
    stream = ProxyStream(
        pool.run.url,
        split=pool.splits,
        columns=_COLUMNS,
        batch_size=mode.batch_size,
        shuffle=mode.shuffled,
        seed=mode.seed,
    )
    loader = ProxyLoader(stream, **mode.options)
    return lambda: _pictures(loader)


def _map_style(pool: Pool, mode: Mode) -> Epoch:
    dataset = ProxyDataset(pool.run.url, split=pool.splits, columns=_COLUMNS, cached_groups=1 + len(pool.data_files))
    loader = DataLoader(dataset, mode.batch_size, shuffle=mode.shuffled, **mode.options)
    return lambda: _pictures(loader)


def _datasets_map(pool: Pool, mode: Mode) -> Epoch:
    dataset = library("datasets").Dataset.from_parquet(list(pool.data_files), cache_dir=str(pool.cache))
    ready = dataset.select_columns(_COLUMNS).with_format("torch")
    loader: DataLoader[Any] = DataLoader(ready, mode.batch_size, shuffle=mode.shuffled, **mode.options)
    return lambda: _pictures(loader)


def _datasets_streaming(pool: Pool, mode: Mode) -> Epoch:
    stream = library("datasets").load_dataset(
        "parquet", data_files=list(pool.data_files), split="train", streaming=True, columns=_COLUMNS
    )
    if mode.shuffled:
        # Its default reads ten files at once in threads, and datasets 5.2 then sleeps five seconds at the end of every
        # epoch: nothing in an epoch of hours, and most of one of a thousand pictures. One file at a time does not.
        known = inspect.signature(stream.shuffle).parameters
        one_file = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in known else {}
        stream = stream.shuffle(seed=mode.seed, buffer_size=SHUFFLE_BUFFER, **one_file)
    loader: DataLoader[Any] = DataLoader(stream.with_format("torch"), mode.batch_size, **mode.options)
    return lambda: _pictures(loader)


def _webdataset(pool: Pool, mode: Mode) -> Epoch:
    wds = library("webdataset")
    stream = wds.WebDataset(
        list(pool.tars), shardshuffle=len(pool.tars) if mode.shuffled else False, seed=mode.seed, empty_check=False
    )
    if mode.shuffled:
        stream = stream.shuffle(SHUFFLE_BUFFER)
    stream = stream.decode("torchrgb8").to_tuple("jpg;png", "loss").map_tuple(None, float).batched(mode.batch_size)
    loader = wds.WebLoader(stream, batch_size=None, **mode.options)
    return lambda: (pictures for pictures, _ in loader)


_CONTENDERS: Final[dict[str, Callable[[Pool, Mode], Epoch]]] = {
    OURS[0]: _stream,
    OURS[1]: _map_style,
    THEIRS[0]: _datasets_map,
    THEIRS[1]: _datasets_streaming,
    THEIRS[2]: _webdataset,
}


def _pictures(loader: Iterable[Any]) -> Iterator[Pictures]:
    for batch in loader:
        yield batch[schema.IMAGE]


def _each(dataset: ProxyDataset) -> Iterator[dict[str, Any]]:
    return (dataset[index] for index in range(len(dataset)))


def _write_tars(samples: Iterable[dict[str, Any]], folder: Path) -> Iterator[str]:
    """Write the tar files as webdataset has them: files of a sample follow each other, with one stem."""
    tar: tarfile.TarFile | None = None
    for number, sample in enumerate(samples):
        if number % _TAR_IMAGES == 0:
            if tar is not None:
                tar.close()
            path = folder / f"pictures-{number // _TAR_IMAGES:05d}.tar"
            tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed when the next one begins
            yield str(path)
        assert tar is not None
        # Its decoder goes by the suffix, and then leaves it to Pillow what kind the picture is.
        suffix = "jpg" if sample["image"].startswith(b"\xff\xd8") else "png"
        for content, name in ((sample["image"], suffix), (repr(sample["loss"]).encode(), "loss")):
            entry = tarfile.TarInfo(f"{number:08d}.{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    if tar is not None:
        tar.close()
