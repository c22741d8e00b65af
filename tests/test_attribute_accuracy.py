"""Accuracy of attributes: against counting by hand and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.training.attribute_accuracy import attribute_accuracy, majority_class

LABELS = hnp.arrays(np.int8, st.tuples(st.integers(0, 8), st.integers(1, 4)), elements=st.integers(-1, 1))


def test_worked_example():
    #                 rare, even, unknown here, unknown in training, one class only
    labels = np.array([[1, 1, -1, 1, 0], [0, 0, -1, 0, 0], [0, 1, -1, 0, 0], [0, -1, -1, 0, 0]], np.int8)
    predicted = np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]], bool)
    scored = attribute_accuracy(predicted, labels, np.array([0, 1, 0, -1, 0], np.int8))
    nan = math.nan
    assert scored.known.tolist() == [4, 3, 0, 4, 4]
    np.testing.assert_allclose(scored.positive, [0.25, 2 / 3, nan, 0.25, 0])
    np.testing.assert_allclose(scored.accuracy, [0.75, 2 / 3, nan, nan, 0.75])
    np.testing.assert_allclose(scored.majority, [0.75, 2 / 3, nan, nan, 1.0])
    np.testing.assert_allclose(scored.balanced, [(1 + 2 / 3) / 2, (0.5 + 1) / 2, nan, nan, nan])
    assert scored.mean_accuracy == pytest.approx((0.75 + 2 / 3 + 0.75) / 3)
    assert scored.mean_majority == pytest.approx((0.75 + 2 / 3 + 1) / 3)
    assert scored.mean_balanced == pytest.approx((5 / 6 + 0.75) / 2)
    assert scored.gain == pytest.approx(-0.25 / 3)
    assert (scored.better, scored.measured) == (0, 3)


def test_majority_class():
    labels = np.array([[1, 0, 1, -1], [1, 0, 0, -1], [0, -1, -1, -1]], np.int8)
    assert majority_class(labels).tolist() == [1, 0, 0, -1]  # a tie is "no"
    assert majority_class(labels[:0]).tolist() == [-1] * 4


def test_majority_is_that_of_training():
    """Where the classes are the other way round than in training, the constant answer is the wrong one."""
    scored = attribute_accuracy(np.ones((4, 1), bool), np.ones((4, 1), np.int8), np.array([0], np.int8))
    assert (scored.mean_majority, scored.mean_accuracy, scored.gain) == (0, 1, 1)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_against_brute_force(labels, random):
    n, m = labels.shape
    predicted = np.array([[random.random() < 0.5 for _ in range(m)] for _ in range(n)], bool).reshape(n, m)
    majority = np.array([random.choice((-1, 0, 1)) for _ in range(m)], np.int8)
    scored = attribute_accuracy(predicted, labels, majority)
    for column in range(m):
        pairs = [(bool(predicted[row, column]), int(labels[row, column])) for row in range(n)]
        known = [(guess, truth) for guess, truth in pairs if truth >= 0]
        right = [guess == bool(truth) for guess, truth in known]
        assert scored.known[column] == len(known)
        if majority[column] < 0 or not known:
            assert math.isnan(scored.accuracy[column])
            assert math.isnan(scored.majority[column])
            continue
        assert scored.accuracy[column] == pytest.approx(sum(right) / len(right))
        constant = sum(truth == majority[column] for _, truth in known) / len(known)
        assert scored.majority[column] == pytest.approx(constant)
        of = {truth: [guess == bool(truth) for guess, t in known if t == truth] for truth in (0, 1)}
        if of[0] and of[1]:
            balanced = (sum(of[0]) / len(of[0]) + sum(of[1]) / len(of[1])) / 2
            assert scored.balanced[column] == pytest.approx(balanced)
        else:
            assert math.isnan(scored.balanced[column])


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_constant_answers_gain_nothing(labels):
    majority = majority_class(labels)
    scored = attribute_accuracy(np.tile(majority == 1, (len(labels), 1)), labels, majority)
    np.testing.assert_array_equal(scored.accuracy, scored.majority)
    assert scored.better == 0
    defined = scored.balanced[np.isfinite(scored.balanced)]
    assert (defined == 0.5).all()
    if scored.measured:
        assert (scored.accuracy[np.isfinite(scored.accuracy)] >= 0.5).all()
        assert scored.gain == 0


def test_standard_error_is_that_of_simulation():
    """Over many draws of persons, the gain scatters as the standard error of one draw says."""
    rng = np.random.default_rng(0)
    majority = np.zeros(3, np.int8)
    gains, errors = [], []
    for _ in range(400):
        persons = np.repeat(np.arange(30), 4)
        labels = (rng.random((30, 3)) < 0.4).astype(np.int8)[persons]  # four images of a person have its labels
        predicted = (rng.random((30, 3)) < 0.5)[persons]  # and its predictions
        scored = attribute_accuracy(predicted, labels, majority, persons)
        gains.append(scored.gain)
        errors.append(scored.gain_error)
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.1)
    alone = attribute_accuracy(predicted, labels, majority).gain_error
    assert alone == pytest.approx(errors[-1] / 2, rel=0.05)  # four copies taken for four persons


def test_no_standard_error_from_one_person():
    labels, predicted = np.ones((3, 2), np.int8), np.ones((3, 2), bool)
    scored = attribute_accuracy(predicted, labels, majority_class(labels), np.zeros(3, np.int64))
    assert math.isnan(scored.gain_error)
    nothing = attribute_accuracy(predicted, labels, np.full(2, -1, np.int8))
    assert math.isnan(nothing.mean_accuracy)
    assert math.isnan(nothing.gain_error)
    assert nothing.measured == 0
