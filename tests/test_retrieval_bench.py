"""The bench of search: what it counts, that contenders agree, and what is refused; never how many seconds."""

import json
import sys
from typing import Any

import pytest
import torch

from manifests.errors import InputError
from pipeline.retrieval.retrieval_bench import retrieval_bench

SMALL: dict[str, Any] = {"queries": 6, "items": 300, "dim": 16, "attributes": 4, "k": 3, "repetitions": 2}


def test_what_is_measured():
    pytest.importorskip("faiss")
    notices: list[str] = []
    bench = retrieval_bench(**SMALL, notify=notices.append)
    assert (bench.queries, bench.items, bench.dim, bench.attributes, bench.k) == (6, 300, 16, 4, 3)
    assert len(bench.bare) == len(bench.exact) == len(bench.flat or ()) == 2
    assert bench.flat_agrees is True
    assert min(*bench.bare, *bench.exact, bench.build_seconds) > 0
    pairs = sorted(ours / bare for ours, bare in zip(bench.exact, bench.bare, strict=True))
    assert bench.ratio == pytest.approx(sum(pairs) / 2)
    text = "\n".join(bench.lines())
    assert "6 queries x 300 items x 16 dimensions + 4 bits, top 3, lambda 0.2" in text
    assert f"{bench.ratio:.2f} x bare" in text
    assert "the same results" in text
    document = json.loads(json.dumps(bench.as_dict(), allow_nan=False))
    assert document["ratio"] == bench.ratio
    assert document["faiss_flat_agrees"] is True
    assert notices[-1] == "repetition 2 of 2"


def test_faiss_is_left_out_where_it_is_not_wanted_or_not_there(monkeypatch):
    bench = retrieval_bench(**SMALL, faiss=False)
    assert (bench.flat, bench.flat_agrees, bench.flat_ratio) == (None, None, None)
    assert "not measured: not asked for" in "\n".join(bench.lines())
    monkeypatch.setitem(sys.modules, "faiss", None)
    bench = retrieval_bench(**SMALL)
    assert bench.flat is None
    assert "stylize[faiss]" in "\n".join(bench.lines())
    assert bench.as_dict()["faiss_flat_seconds"] is None


def test_without_attributes_and_with_more_asked_for_than_there_is():
    bench = retrieval_bench(2, 5, 4, 0, 9, weight=0, repetitions=1, faiss=False)
    assert bench.attributes == 0


@pytest.mark.parametrize("name", ["queries", "items", "dim", "k", "repetitions"])
def test_numbers_out_of_range(name):
    with pytest.raises(InputError, match=f"{name} must be at least 1, not 0"):
        retrieval_bench(**{**SMALL, name: 0})


def test_weights_and_devices_that_do_not_go():
    with pytest.raises(InputError, match="no attributes to weigh"):
        retrieval_bench(**{**SMALL, "attributes": 0})
    with pytest.raises(InputError, match="must be a number from 0 on, not -1"):
        retrieval_bench(**SMALL, weight=-1)
    with pytest.raises(InputError, match="attributes must be at least 0"):
        retrieval_bench(**{**SMALL, "attributes": -1})
    with pytest.raises(InputError, match="device"):
        retrieval_bench(**SMALL, device="tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda():
    bench = retrieval_bench(**SMALL, device="cuda")
    assert "faiss searches on the CPU" in "\n".join(bench.lines())
