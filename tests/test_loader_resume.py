"""Resuming in the middle of an epoch: what is left, and nothing of what was delivered; no skipped image is read."""

import itertools
import pickle
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from manifests import sample_reader, shard
from manifests.errors import RunError
from manifests.loader import ProxyLoader, ProxyStream
from manifests.row_groups import RowGroups
from tests.small_run import write_run

FACES = 23


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """23 images in shards of 9 (one empty at the end, since nobody of the last is accepted), row groups of 4."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "ROW_GROUP_ROWS", 4)
        write_run(folder, {"train": ["accepted"] * FACES + ["rejected"] * 13}, shard_size=9)
    return folder


def stream(run, batch_size=4, **options):
    return ProxyStream(
        run, **{"columns": ["image_id"], "batch_size": batch_size, "shuffle": True, "window": 2} | options
    )


def ids(batches):
    return [list(batch["image_id"]) for batch in batches]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 9),
    world=st.integers(1, 4),
    remainder=st.sampled_from(["drop", "pad", "uneven"]),
    epoch=st.integers(0, 3),
    steps=st.integers(0, 7),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
)
def test_resumed_loader_goes_on_with_the_next_batch(run, *, size, world, remainder, epoch, steps, drop_last, shuffle):
    for rank in range(world):

        def loader(rank=rank):
            options = {"rank": rank, "world_size": world, "remainder": remainder, "shuffle": shuffle}
            return ProxyLoader(stream(run, size, **options), drop_last=drop_last)

        calm = loader()
        calm.set_epoch(epoch)
        whole = ids(calm)
        assert len(whole) == len(calm)
        following = ids(calm)
        interrupted = loader()
        interrupted.set_epoch(epoch)
        batches = iter(interrupted)
        taken = ids(itertools.islice(batches, steps))
        state = pickle.loads(pickle.dumps(interrupted.state_dict()))
        resumed = loader()
        resumed.load_state_dict(state)
        if len(taken) < len(whole):
            assert resumed.epoch == epoch
            assert taken + ids(resumed) == whole
        assert resumed.epoch == epoch + 1
        assert ids(resumed) == following


def test_every_iteration_is_the_next_epoch(run):
    loader = ProxyLoader(stream(run))
    orders = []
    for epoch in range(3):
        assert loader.epoch == epoch
        orders.append(flat(ids(loader)))
    assert [sorted(order) for order in orders] == [sorted(orders[0])] * 3
    assert len({tuple(order) for order in orders}) == 3
    next(iter(loader))  # left before its end, and counts
    assert loader.epoch == 3
    iter(loader)
    assert loader.epoch == 4
    loader.set_epoch(1)
    assert loader.epoch == 1
    assert flat(ids(loader)) == orders[1]


def test_an_older_iterator_does_not_count(run):
    loader = ProxyLoader(stream(run))
    old = iter(loader)
    next(old)
    new = iter(loader)
    next(new)
    list(old)
    assert (loader.state_dict()["epoch"], loader.state_dict()["start"]) == (1, 4)


def test_a_chain_of_states(run):
    """Saved again after it was resumed, by other numbers of ranks: still every image once."""
    calm = ProxyLoader(stream(run))
    expected = flat(ids(calm))
    seen = []
    state: dict[str, Any] | None = None
    for world, size, steps in ((1, 4, 2), (3, 1, 2), (2, 3, 1), (1, 2, 99)):
        states = []
        parts = []
        for rank in range(world):
            loader = ProxyLoader(stream(run, size, rank=rank, world_size=world))
            if state is not None:
                loader.load_state_dict(state)
            parts.append(ids(itertools.islice(iter(loader), steps)))
            states.append(loader.state_dict())
        assert all(each == states[0] for each in states)
        state = states[0]
        seen += flat(flat(step) for step in zip(*parts, strict=True))
    assert seen == expected


def test_what_is_skipped_is_not_read(run, monkeypatch):
    loader = ProxyLoader(stream(run, 1, columns=["image_id", "image"]))
    batches = iter(loader)
    for _ in range(17):
        next(batches)
    state = loader.state_dict()
    decoded, read = Mock(wraps=sample_reader.decoded), create_autospec(RowGroups.read, side_effect=RowGroups.read)
    monkeypatch.setattr(sample_reader, "decoded", decoded)
    resumed = stream(run, 1, columns=["image_id", "image"])
    monkeypatch.setattr(RowGroups, "read", read)
    again = ProxyLoader(resumed)
    again.load_state_dict(state)
    assert len(list(again)) == FACES - 17 == decoded.call_count
    assert read.call_count <= 4  # of eight: the row groups of six images


def test_a_plain_data_loader_and_the_count_of_the_training_loop(run):
    plain = stream(run)
    plain.set_epoch(2)
    whole = ids(DataLoader(plain, 4))
    assert whole == ids(ProxyLoader(_at(stream(run), 2)))
    state = stream(run)
    state.set_epoch(2)
    saved = state.state_dict(delivered=8)
    resumed = stream(run)
    resumed.load_state_dict(saved)
    assert resumed.epoch == 2
    assert ids(DataLoader(resumed, 4)) == whole[2:]
    # What was resumed is over; without workers the next iteration begins at the beginning even if nobody says so.
    assert ids(DataLoader(resumed, 4)) == whole
    assert stream(run).state_dict(delivered=FACES)["epoch"] == 1
    for delivered in (-1, 5, 24):
        with pytest.raises(ValueError, match="delivered"):
            stream(run).state_dict(delivered=delivered)
    with pytest.raises(ValueError, match="batch_size"):
        stream(run, None).state_dict(delivered=4)


def _at(stream, epoch):
    stream.set_epoch(epoch)
    return stream


@pytest.mark.parametrize("size", [None, 4])
def test_a_stream_read_directly_resumes_at_any_sample(run, size):
    options = {"rank": 1, "world_size": 2, "remainder": "uneven"}
    whole = [sample["image_id"] for sample in stream(run, size, **options)]
    for count in range(len(whole) + 1):
        first = stream(run, size, **options)
        taken = [sample["image_id"] for sample in itertools.islice(iter(first), count)]
        second = stream(run, size, **options)
        second.load_state_dict(first.state_dict())
        assert taken + [sample["image_id"] for sample in second] == whole


def test_states_that_do_not_fit(run, tmp_path):
    taken = stream(run)
    next(iter(taken))
    state = taken.state_dict()
    with pytest.raises(RunError, match="another run, split or filters"):
        stream(run, filters=[("loss", ">", 12)]).load_state_dict(state)
    for other in (stream(run, seed=1), stream(run, window=3), stream(run, shuffle=False)):
        with pytest.raises(RunError, match="make the stream with the same"):
            other.load_state_dict(state)
    for broken in ({}, {**state, "format": 2}, {"epoch": 1}):
        with pytest.raises(RunError, match="state"):
            stream(run).load_state_dict(broken)
    elsewhere = stream(run, rank=0, world_size=2)
    elsewhere.load_state_dict(state)
    with pytest.raises(RunError, match="as many ranks and workers as then"):
        iter(elsewhere)
    with pytest.raises(RunError, match="of a single process"):
        ProxyLoader(stream(run)).load_state_dict(state)


def test_a_proxy_loader_refuses_what_would_change_the_order(run):
    with pytest.raises(ValueError, match="give the ProxyStream a batch_size"):
        ProxyLoader(stream(run, None))
    for option in (
        {"batch_size": 3},
        {"shuffle": True},
        {"sampler": [1]},
        {"batch_sampler": [[1]]},
        {"in_order": False},
    ):
        with pytest.raises(ValueError, match=next(iter(option))):
            ProxyLoader(stream(run), **option)


def test_nothing_to_read(tmp_path):
    write_run(tmp_path, {"train": ["rejected"] * 3}, shard_size=2)
    loader = ProxyLoader(stream(tmp_path))
    assert len(loader) == 0
    assert [list(loader) for _ in range(2)] == [[], []]
    assert loader.epoch == 2
