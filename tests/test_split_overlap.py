"""People in several splits: counted once each, and told of with what it means for the scores."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.split_overlap import overlap_remark, people_in_several_splits

FACES = st.lists(st.tuples(st.sampled_from(["train", "valid", "test"]), st.integers(-1, 5)), max_size=30)


@given(FACES)
def test_everybody_is_counted_once_where_they_are(faces):
    identities = np.array([identity for _, identity in faces], np.int64)
    splits = {
        name: np.array([at for at, face in enumerate(faces) if face[0] == name], np.int64)
        for name in ("train", "valid", "test")
    }
    found = people_in_several_splits(identities, splits)
    for size in (2, 3):
        for names in itertools.combinations(splits, size):
            alike = [p for p in range(6) if {split for split, identity in faces if identity == p} == set(names)]
            assert found.pop(", ".join(names), 0) == len(alike)
    assert not found


def test_what_it_means():
    assert overlap_remark({}, "recall") is None
    said = overlap_remark({"train, test": 1200, "train, valid, test": 3}, "recall")
    assert said is not None
    assert said.startswith("known people in more than one split: 1,203 (train, test: 1,200; train, valid, test: 3); ")
    assert "recall on valid and test is then partly of people that were trained on" in said
    said = overlap_remark({"train, test": 2, "valid, test": 1}, "accuracy")
    assert said is not None
    assert "accuracy on test is then" in said
    said = overlap_remark({"valid, test": 1}, "recall")
    assert said is not None
    assert "trained on" not in said
    assert "the best epoch is then chosen on people that are tested" in said
