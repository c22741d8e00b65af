"""Real worker processes and real ranks: what they deliver together, and resuming although workers read ahead."""

import itertools
import multiprocessing
import warnings
from collections import Counter

import pytest
import torch.distributed
from torch.utils.data import DataLoader

from manifests import shard
from manifests.errors import RunError
from manifests.loader import ProxyLoader, ProxyStream
from tests.small_run import write_run

FACES = 23
ALL_IDS = [f"{number:06d}.jpg" for number in range(FACES)]
PATIENCE = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """23 images in shards of 9, row groups of 4."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "ROW_GROUP_ROWS", 4)
        write_run(folder, {"train": ["accepted"] * FACES}, shard_size=9)
    return folder


def stream(run, batch_size: int | None = 4, **options):
    return ProxyStream(run, columns=["image_id"], batch_size=batch_size, shuffle=True, window=2, **options)


def ids(batches):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Length of IterableDataset")  # more samples than len says
        return [list(batch["image_id"]) for batch in batches]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_persistent_workers_resume_and_see_every_epoch(run, method):
    alone = ProxyLoader(stream(run))
    epochs = [ids(alone) for _ in range(3)]
    loader = ProxyLoader(
        stream(run), num_workers=2, persistent_workers=True, multiprocessing_context=method, timeout=PATIENCE
    )
    assert ids(loader) == epochs[0]  # in the same order as without workers
    batches = iter(loader)
    assert ids(itertools.islice(batches, 2)) == epochs[1][:2]
    state = loader.state_dict()  # workers have read on by now
    assert ids(batches) == epochs[1][2:]
    loader.load_state_dict(state)
    assert ids(loader) == epochs[1][2:]
    assert ids(loader) == epochs[2]
    alone.load_state_dict(state)
    assert ids(alone) == epochs[1][2:]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 0), (0, 2)])
def test_resumed_by_another_number_of_workers(run, before, after):
    whole = ids(ProxyLoader(stream(run)))
    for steps in (0, 1, 3, len(whole)):
        first = ProxyLoader(stream(run), num_workers=before)
        batches = iter(first)
        taken = ids(itertools.islice(batches, steps))
        state = first.state_dict()
        del batches
        second = ProxyLoader(stream(run), num_workers=after)
        second.load_state_dict(state)
        if steps == len(whole):
            assert (taken, second.epoch) == (whole, 1)
        else:
            assert taken + ids(second) == whole


def test_persistent_workers_over_stretches(run):
    """Without a batch size workers have stretches: every sample of the rank once, epochs reach them."""
    streams = [stream(run, None, rank=1, world_size=2) for _ in range(2)]
    loader = DataLoader(streams[0], 4, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        for each in streams:
            each.set_epoch(epoch)
        seen = flat(ids(loader))
        assert Counter(seen) == Counter(sample["image_id"] for sample in streams[1])
        assert len(seen) == len(streams[0]) == 11


def test_a_plain_data_loader_with_workers(run):
    plain = stream(run)
    batches = iter(DataLoader(plain, 4, num_workers=2))
    taken = ids(itertools.islice(batches, 2))
    with pytest.raises(RunError, match="read ahead of the training loop"):
        plain.state_dict()  # nobody has counted here
    resumed = stream(run)
    resumed.load_state_dict(plain.state_dict(delivered=len(flat(taken))))
    assert taken + ids(DataLoader(resumed, 4, num_workers=1)) == ids(ProxyLoader(stream(run)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_stateful_data_loader(run, workers, batch_size):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader(epoch=1):
        source = stream(run, batch_size)
        source.set_epoch(epoch)
        return source, stateful(source, 4, num_workers=workers)

    whole, following = ids(loader()[1]), ids(loader(2)[1])
    for steps in (0, 1, 3, len(whole) - 1):
        _, first = loader()
        batches = iter(first)
        taken = ids(itertools.islice(batches, steps))
        state = first.state_dict()
        del batches
        source, second = loader()
        second.load_state_dict(state)
        assert taken + ids(second) == whole
        source.set_epoch(2)
        assert ids(second) == following


def _rank(rank, run, address, results):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        loader = ProxyLoader(stream(run, remainder="pad"), num_workers=1)
        batches = iter(loader)
        seen = ids(itertools.islice(batches, 1))
        state = loader.state_dict()
        states: list[object] = [None, None]
        torch.distributed.all_gather_object(states, state)
        del batches
        again = ProxyLoader(stream(run, remainder="pad"))
        again.load_state_dict(state)
        for batch in again:  # a collective in every step: unequal counts would hang here
            count = torch.tensor(len(batch["image_id"]))
            torch.distributed.all_reduce(count)
            seen.append(list(batch["image_id"]))
        results.put((rank, seen, states[0] == states[1]))
    finally:
        torch.distributed.destroy_process_group()


def test_two_ranks_of_gloo(run, tmp_path):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    address = f"file://{tmp_path}/store"
    ranks = [fork.Process(target=_rank, args=(rank, run, address, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    try:
        parts = {rank: rest for rank, *rest in (results.get(timeout=PATIENCE) for _ in ranks)}
    finally:
        for process in ranks:
            process.join(PATIENCE)
            process.kill()
    seen = [flat(parts[rank][0]) for rank in range(2)]
    assert [parts[rank][1] for rank in range(2)] == [True, True]
    assert [len(part) for part in seen] == [12, 12]
    times = Counter(flat(seen))
    assert sorted(times) == ALL_IDS
    assert sorted(times.values()) == [1] * (FACES - 1) + [2]
