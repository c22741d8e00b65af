"""Loader: samples that collate, filters, splits, and streams over ranks and workers."""

import io
import itertools
import pickle
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler

from manifests import loader, shard
from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.loader import COLUMNS, ProxyDataset, ProxyStream
from manifests.row_groups import RowGroups
from manifests.run import RunDirectory
from manifests.shard_rewrite import read_shard, replace_shard
from tests.small_run import HEIGHT, MIXED, WIDTH, picture, row, write_run

TRAIN_IDS = [f"{number:06d}.jpg" for number, status in enumerate(MIXED["train"]) if status == "accepted"]
FACES = 23
ALL_IDS = [f"{number:06d}.jpg" for number in range(FACES)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    write_run(folder, MIXED)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """23 images in shards of 9, row groups of 4."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "ROW_GROUP_ROWS", 4)
        write_run(folder, {"train": ["accepted"] * FACES}, shard_size=9)
    return folder


def ids(samples):
    return [sample["image_id"] for sample in samples]


def mean_colour(image):
    return image.float().mean(dim=(1, 2))


# --- map style ------------------------------------------------------------------------------------


def test_sample(run):
    dataset = ProxyDataset(str(run))
    assert len(dataset) == len(TRAIN_IDS)
    sample = dataset[1]
    assert tuple(sample) == COLUMNS
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].shape == (3, HEIGHT, WIDTH)
    assert np.array_equal(sample["image"].permute(1, 2, 0), np.asarray(Image.open(io.BytesIO(picture(2)))))
    assert sample["attributes"].dtype == torch.int8
    assert sample["attributes"].tolist() == [{True: 1, False: 0, None: -1}[value] for value in row(2).attributes]
    assert (sample["image_id"], sample["split"], sample["identity"]) == ("000002.jpg", "train", 1)
    assert sample["loss"] == pytest.approx(12.1)
    assert dataset[0]["identity"] == -1
    assert [dataset[index]["artist"] for index in range(4)] == ["Katsushika Hokusai"] * 3 + [""]


def test_columns_bytes_and_transform(run):
    assert ProxyDataset(run, columns=["identity"])[1] == {"identity": 1}
    assert ProxyDataset(run, columns=["image"], decode=False)[1] == {"image": picture(2)}
    assert ProxyDataset(run, columns=["Smiling", "image"], transform=mean_colour)[1]["image"].shape == (3,)
    assert ProxyDataset(run, columns=["image"], decode=False, transform=len)[1] == {"image": len(picture(2))}
    values = [ProxyDataset(run, columns=["Smiling"])[index]["Smiling"] for index in range(7)]
    assert set(values) == {-1, 0, 1}


def test_indices(run):
    dataset = ProxyDataset(run, columns=["image_id"])
    assert ids(dataset[index] for index in range(len(dataset))) == TRAIN_IDS
    assert dataset[-1]["image_id"] == TRAIN_IDS[-1]
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]
    assert ids(dataset.__getitems__([5, 0, 5, 3])) == [TRAIN_IDS[index] for index in (5, 0, 5, 3)]


def test_wrong_use(run, tmp_path):
    with pytest.raises(InputError, match=r"no split 'val'; its splits: train, valid, test"):
        ProxyDataset(run, split="val")
    for columns in (["image", "genre"], [], "image"):
        with pytest.raises(ValueError, match="are not columns of a sample"):
            ProxyDataset(run, columns=columns)
    with pytest.raises(InputError, match=r"no run\.json"):
        ProxyDataset(tmp_path / "nothing")
    with pytest.raises(ValueError, match="cached_groups"):
        ProxyDataset(run, cached_groups=0)
    with pytest.raises(InputError, match=r"no split 'val'"):
        ProxyDataset(run, split=["train", "val"])


def test_several_splits_in_the_order_of_the_run(run):
    def ids_of(split):
        dataset = ProxyDataset(run, split=split, columns=["image_id"])
        return ids(dataset[index] for index in range(len(dataset)))

    assert ids_of(["test", "train"]) == ids_of("train") + ids_of("test")
    assert len(ProxyStream(run, split=("train", "valid", "test"))) == len(TRAIN_IDS) + 3 + 1


# --- filters --------------------------------------------------------------------------------------


FILTERS: dict[str, tuple[Any, Any]] = {
    "all of a list": (
        [("loss", ">", 14.0), ("identity", "!=", 4)],
        lambda sample: sample["loss"] > 14 and sample["identity"] not in (4, -1),
    ),
    "an attribute": ([("Smiling", "==", True)], lambda sample: sample["Smiling"] == 1),
    "either list": (
        [[("image_id", "in", ["000002.jpg", "000004.jpg"])], [("loss", "<", 11)]],
        lambda sample: sample["image_id"] in ("000000.jpg", "000002.jpg", "000004.jpg"),
    ),
    "nothing": ([("loss", "<", 0)], lambda sample: False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(run, name):
    filters, meets = FILTERS[name]
    columns = ["image_id", "loss", "identity", "Smiling", "image"]
    everything = [sample for sample in ProxyStream(run, columns=columns) if meets(sample)]
    dataset = ProxyDataset(run, columns=columns, filters=filters)
    found = [dataset[index] for index in range(len(dataset))]
    assert ids(found) == ids(everything)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(found, everything, strict=True))
    assert ids(ProxyStream(run, columns=["image_id"], filters=filters)) == ids(everything)
    assert bool(found) == (name != "nothing")


@pytest.mark.parametrize(
    "filters",
    [
        [("loss", "<")],
        [("loss", "~", 3)],
        [("loss", "<", "many")],
        [("genre", "==", "x")],
        [("image", "==", 1)],
        [],
        "loss < 3",
        [3],
        ("loss", "<", 3),
    ],
)
def test_filters_that_make_no_sense(run, filters):
    with pytest.raises(ValueError, match="filters"):
        ProxyDataset(run, filters=filters)


def test_a_broken_image_is_named_under_filters_too(tmp_path):
    write_run(tmp_path, {"train": ["accepted"] * 3})
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    with pytest.raises(RunError, match=r"row 2: image cannot be decoded"):
        ProxyDataset(tmp_path, filters=[("loss", ">", 12)])[0]


# --- a shard that is replaced ---------------------------------------------------------------------


def test_a_shard_replaced_meanwhile_is_noticed(tmp_path):
    write_run(tmp_path, {"train": ["accepted"] * 6}, shard_size=3)
    dataset = ProxyDataset(tmp_path, columns=["image_id"])
    stream = ProxyStream(tmp_path, columns=["image_id"])
    assert dataset[0]["image_id"] == "000000.jpg"
    run = RunDirectory.open(tmp_path)
    committed = read_shard(run, list(run.planned())[1])
    rejected = row(4, status="rejected")
    replace_shard(run, committed, [committed.rows[0], rejected, committed.rows[2]])
    assert dataset[1]["image_id"] == "000001.jpg"
    for read in (lambda: dataset[3], lambda: list(stream)):
        with pytest.raises(RunError, match=r"data/train-00001-of-00002.parquet has been replaced .* anew"):
            read()
    assert len(list(ProxyStream(tmp_path))) == 5


def test_unfinished_run_must_be_asked_for(tmp_path):
    write_run(tmp_path, MIXED, skip={"train-00001-of-00003"})
    with pytest.raises(InputError, match=r"1 of the 3 shards .* partial=True"):
        ProxyDataset(tmp_path)
    assert len(ProxyDataset(tmp_path, partial=True)) == 3
    assert len(ProxyDataset(tmp_path, split="test")) == 1


def test_no_accepted_face(tmp_path):
    write_run(tmp_path, {"train": ["rejected"] * 3}, shard_size=2)
    assert len(ProxyDataset(tmp_path)) == 0
    for remainder in ("drop", "pad", "uneven"):
        assert list(ProxyStream(tmp_path, shuffle=True, rank=1, world_size=2, remainder=remainder)) == []


def test_broken_image_is_named(tmp_path):
    write_run(tmp_path, {"train": ["accepted"] * 3})
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    with pytest.raises(RunError, match=r"data/train-00000-of-00001.parquet, row 2: image cannot be decoded"):
        ProxyDataset(tmp_path)[2]


def test_a_batch_reads_each_row_group_once(many, monkeypatch):
    read: list[int] = []
    real = RowGroups.read

    def counted(self, group, columns):
        read.append(group)
        return real(self, group, columns)

    monkeypatch.setattr(RowGroups, "read", counted)
    dataset = ProxyDataset(many, columns=["image_id"], cached_groups=1)
    dataset.__getitems__([20, 0, 21, 1, 9, 2])
    assert len(read) == len(set(read)) == 3
    dataset[9]
    assert len(read) == 4


def test_object_store(many):
    memory = fsspec.filesystem("memory")
    memory.put(str(many), "/loader-test", recursive=True)
    try:
        assert ids(ProxyDataset("memory://loader-test", columns=["image_id"])[at] for at in range(FACES)) == ALL_IDS
        assert len(list(ProxyStream("memory://loader-test", shuffle=True))) == FACES
    finally:
        memory.rm("/loader-test", recursive=True)


def test_map_style_in_worker_processes(many):
    dataset = ProxyDataset(many)
    dataset[3]  # handles opened here must not leak into the workers
    batched = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="fork")
    batches = list(batched)
    assert list(itertools.chain.from_iterable(batch["image_id"] for batch in batches)) == ALL_IDS
    assert batches[0]["image"].shape == (5, 3, HEIGHT, WIDTH)
    assert batches[0]["attributes"].shape == (5, len(ATTRIBUTES))
    assert batches[0]["identity"].dtype == torch.int64


def test_distributed_sampler(many):
    dataset = ProxyDataset(many, columns=["image_id"])
    seen = []
    for rank in range(4):
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=4, rank=rank, drop_last=True)
        seen.append(list(itertools.chain.from_iterable(b["image_id"] for b in DataLoader(dataset, 3, sampler=sampler))))
    assert [len(part) for part in seen] == [5] * 4
    assert len(set(itertools.chain.from_iterable(seen))) == 20


def test_a_copy_reads_again(many):
    dataset = ProxyDataset(many, columns=["image_id"])
    assert dataset[9]["image_id"] == ALL_IDS[9]
    assert pickle.loads(pickle.dumps(dataset))[9]["image_id"] == ALL_IDS[9]
    assert len(pickle.dumps(dataset)) < 10_000  # neither handles nor cached pictures travel to spawned workers


# --- stream ---------------------------------------------------------------------------------------


def test_stream_in_order(many):
    stream = ProxyStream(many)
    assert len(stream) == FACES
    samples = list(stream)
    assert ids(samples) == ALL_IDS
    assert samples[0]["image"].shape == (3, HEIGHT, WIDTH)


def test_shuffle_depends_on_seed_and_epoch_alone(many):
    def order(epoch=0, **settings):
        stream = ProxyStream(many, columns=["image_id"], shuffle=True, window=2, **settings)
        stream.set_epoch(epoch)
        return ids(stream)

    first = order()
    assert sorted(first) == ALL_IDS
    assert first != ALL_IDS
    assert order() == first
    orders = [first, order(seed=1), order(epoch=1)]
    assert len({tuple(each) for each in orders}) == 3
    ranks = [order(rank=rank, world_size=3, remainder="uneven") for rank in range(3)]
    assert list(itertools.chain.from_iterable(ranks)) == first


def test_stream_refuses_nonsense(many):
    for arguments in (
        {"rank": 3, "world_size": 3},
        {"rank": -1, "world_size": 3},
        {"rank": 0, "world_size": 0},
        {"rank": 1},
        {"remainder": "keep"},
        {"seed": -1},
        {"window": 0},
        {"batch_size": 0},
    ):
        with pytest.raises(ValueError, match=r"rank|remainder|seed|batch_size"):
            ProxyStream(many, **arguments)
    with pytest.raises(ValueError, match="epoch"):
        ProxyStream(many).set_epoch(-1)


def test_rank_comes_from_torch_distributed(many, monkeypatch):
    stream = ProxyStream(many, columns=["image_id"])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert ids(stream) == ALL_IDS[11:22]
    sent = pickle.dumps(stream)
    monkeypatch.undo()
    assert ids(pickle.loads(sent)) == ALL_IDS[11:22]
    assert ids(stream) == ALL_IDS


def test_stream_holds_a_window_or_what_it_may_at_most(many, monkeypatch):
    whole = ProxyStream(many, shuffle=True, window=2)
    list(whole)
    assert len(whole._reader._cache) == len(whole._groups.rows)  # small enough to be kept for the next epoch
    for cached_bytes in (0, 10_000):
        monkeypatch.setattr(loader, "_CACHED_BYTES", cached_bytes)
        stream = ProxyStream(many, shuffle=True, window=2)
        held = []
        for _ in stream:
            cache = stream._reader._cache.values()
            held.append(len(cache))
            assert len(cache) <= 2 or sum(values["image"].nbytes for values in cache) <= cached_bytes
        assert (max(held) > 2) == (cached_bytes > 0)
