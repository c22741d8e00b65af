"""Evaluation against its definition in Python: Eq. 9 pair by pair, galleries of one, nobody to find, memory."""

import json
import math
import subprocess
import sys
from fractions import Fraction

import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.attribute_agreement import labels_in_common
from pipeline.retrieval.described_faces import Codes, DescribedFaces
from pipeline.retrieval.evaluation import evaluate
from pipeline.retrieval.evaluation_result import PER_QUERY_SCHEMA
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from pipeline.retrieval.recall import ranks_of_people, recall_at_k
from pipeline.retrieval.scoring import gallery_vectors, query_vectors

ATTRIBUTE_COUNT = 4
WEIGHTS = (0.25, 0.0, 8.0, 1.0)
"""With four attributes and embeddings of small whole numbers all scores are exact in float32, and ties are the rule."""


def described(people, sources, embeddings, bits, *, labels=None, prefix="q"):
    """Faces of given people (None is unknown) and photographs; labels is a list of 40 of each."""
    count = len(people)
    labels = labels or [[None] * len(ATTRIBUTES)] * count
    columns = {
        "id": [f"{prefix}{at}" for at in range(count)],
        "source_id": [str(source) for source in sources],
        "identity": [None if person is None else str(person) for person in people],
        "locator": [""] * count,
        "version": [""] * count,
        **{name: [row[at] for row in labels] for at, name in enumerate(ATTRIBUTES)},
    }
    return DescribedFaces(
        pa.table(columns, schema=FACE_SET_SCHEMA),
        torch.tensor(embeddings, dtype=torch.float32).reshape(count, -1),
        torch.tensor(bits, dtype=torch.float32).reshape(count, -1),
    )


@st.composite
def sides(draw):
    def side(most, prefix):
        count = draw(st.integers(1, most))

        def rows(values, width):
            return draw(st.lists(st.lists(values, min_size=width, max_size=width), min_size=count, max_size=count))

        people = draw(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=count, max_size=count))
        sources = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
        few = rows(st.sampled_from([None, True, False]), 3)
        labels = [[*row, *[None] * (len(ATTRIBUTES) - 3)] for row in few]
        return described(
            people,
            sources,
            rows(st.integers(-2, 2), 2),
            rows(st.sampled_from([0.25, 0.75]), ATTRIBUTE_COUNT),
            labels=labels,
            prefix=prefix,
        )

    return side(6, "q"), side(9, "g")


def by_definition(queries, gallery, weight, by):
    """One row for each query, as PER_QUERY_SCHEMA has them."""
    asked, offered = queries.table.to_pylist(), gallery.table.to_pylist()
    for at, query in enumerate(asked):
        items = []
        for index, item in enumerate(offered):
            if item["source_id"] == query["source_id"]:
                continue
            identity = (1 + Fraction(float(queries.embeddings[at] @ gallery.embeddings[index]))) / 2
            hamming = int((queries.bits[at] != gallery.bits[index]).sum())
            attributes = 1 - Fraction(hamming, ATTRIBUTE_COUNT)
            relevant = query["identity"] is not None and query["identity"] == item["identity"]
            items.append((identity + Fraction(weight) * attributes, relevant, index, identity, attributes))
        unlucky = sorted(items, key=lambda item: (-item[0], item[1]))
        places = [place for place, item in enumerate(unlucky, 1) if item[1]]
        row = {
            "lambda": weight,
            "query_id": query["id"],
            "identity": query["identity"],
            "relevant": len(places),
            "rank": places[0] if places else None,
            "average_precision": (
                float(sum(Fraction(j, place) for j, place in enumerate(places, 1)) / len(places)) if places else None
            ),
        }
        top = min(items, key=lambda item: (-item[0], item[2]), default=None)
        row["agreement"] = None
        for name, value in zip(("score", "identity_score", "attribute_score"), (0, 3, 4), strict=True):
            row[f"top_{name}"] = None if top is None else float(top[value])
        row["top_id"] = None if top is None else offered[top[2]]["id"]
        if top is not None and by == "labels":
            pairs = [(query[name], offered[top[2]][name]) for name in ATTRIBUTES]
            known = [a == b for a, b in pairs if a is not None and b is not None]
            row["agreement"] = sum(known) / len(known) if known else None
        elif top is not None:
            row["agreement"] = float(top[4])
        yield row


@settings(deadline=None, max_examples=60)
@given(sides(), st.sampled_from(["auto", "labels", "predictions"]), st.integers(1, 60))
def test_by_definition(of, agreement, chunk):
    queries, gallery = of
    if agreement == "labels":
        assume(labels_in_common(queries, gallery))
    evaluation = evaluate(queries, gallery, WEIGHTS, agreement=agreement, ks=(1, 2), chunk=chunk)
    assert evaluation.per_query.schema == PER_QUERY_SCHEMA
    by = evaluation.agreement_by
    assert by == ("labels" if agreement == "labels" else "predictions")
    found = evaluation.per_query.to_pylist()
    expected = [row for weight in WEIGHTS for row in by_definition(queries, gallery, weight, by)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-12)
    for weight, result in zip(WEIGHTS, evaluation.results, strict=True):
        rows = [row for row in expected if row["lambda"] == weight]
        answered = [row for row in rows if row["relevant"]]
        assert (result.weight, result.recall.queries) == (weight, len(answered))
        assert result.recall.queries + result.recall.without_relevant == len(queries)
        agreements = [row["agreement"] for row in rows if row["agreement"] is not None]
        assert result.agreement == (pytest.approx(sum(agreements) / len(agreements)) if agreements else None)
        if answered:
            mean = sum(row["average_precision"] for row in answered) / len(answered)
            assert result.average_precision == pytest.approx(mean)
            assert result.recall.at[2] == pytest.approx(sum(row["rank"] <= 2 for row in answered) / len(answered))
        else:
            assert math.isnan(result.average_precision)
    json.dumps(evaluation.as_dict(), allow_nan=False)


@settings(deadline=None, max_examples=25)
@given(sides())
def test_recall_is_that_of_the_trainers(of):
    queries, gallery = of
    codes = Codes.of(queries.table, gallery.table)
    for weight in WEIGHTS:
        ranks = ranks_of_people(
            query_vectors(queries.embeddings, queries.bits, weight),
            gallery_vectors(gallery.embeddings, gallery.bits),
            query_identities=codes.query_identities,
            gallery_identities=codes.gallery_identities,
            query_sources=codes.query_sources,
            gallery_sources=codes.gallery_sources,
        )
        found = evaluate(queries, gallery, [weight]).result(weight).recall
        assert found.as_dict() == recall_at_k(ranks).as_dict()


def unit(count, dim, seed):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return (rows / rows.norm(dim=1, keepdim=True)).tolist()


def random_side(count, seed, prefix="q", dim=16, people=30):
    generator = torch.Generator().manual_seed(seed)
    bits = torch.rand(count, 40, generator=generator).tolist()
    persons = torch.randint(0, people, (count,), generator=generator).tolist()
    return described(persons, range(count), unit(count, dim, seed), bits, prefix=prefix)


def test_chunks_decide_nothing():
    queries, gallery = random_side(70, 1), random_side(300, 2, "g")
    whole, pieces = (evaluate(queries, gallery, (0, 0.2, 1), chunk=chunk) for chunk in (1 << 24, 1000))
    assert whole.per_query.equals(pieces.per_query)


def test_attributes_agree_more_as_they_weigh_more():
    evaluation = evaluate(random_side(60, 1), random_side(400, 2, "g"), (0, 0.1, 0.5, 2, 10))
    agreement = [result.agreement or 0 for result in evaluation.results]
    assert agreement == sorted(agreement)
    assert agreement[-1] > agreement[0] + 0.1
    scores = evaluation.per_query["top_identity_score"].to_numpy().reshape(5, 60)
    assert (scores[0] >= scores).all()  # Without attributes nobody is nearer than the first.


def test_the_own_proxy_is_not_in_the_gallery():
    """Each photograph is its proxy's twin; with it R@1 would be 1."""
    points = unit(6, 8, 3)
    queries, gallery = (described([0, 0, 1, 1, 2, 2], range(6), points, [[]] * 6, prefix=side) for side in "qg")
    rows = evaluate(queries, gallery, [0]).per_query.to_pylist()
    assert all(row["top_id"] != row["query_id"].replace("q", "g") for row in rows)
    assert [row["relevant"] for row in rows] == [1] * 6


def test_a_gallery_of_one():
    one = described([5], ["a"], [[1.0, 0.0]], [[0.9, 0.1]], prefix="g")
    queries = described([5, 6, 5], ["b", "c", "a"], [[1.0, 0.0]] * 3, [[0.9, 0.1], [0.1, 0.1], [0.9, 0.1]])
    evaluation = evaluate(queries, one, [0.5])
    recall = evaluation.result(0.5).recall
    assert (recall.at[1], recall.queries, recall.without_relevant) == (1, 1, 2)
    rows = evaluation.per_query.to_pylist()
    assert [row["top_id"] for row in rows] == ["g0", "g0", None]  # the third finds its own proxy only
    assert [row["agreement"] for row in rows] == [1, 0.5, None]
    assert [row["top_score"] for row in rows] == [1.5, 1.25, None]
    assert evaluation.result(0.5).agreement == 0.75
    alone = evaluate(queries.take([2]), one, [0.5])
    assert alone.result(0.5).agreement is None
    json.dumps(alone.as_dict(), allow_nan=False)


def test_a_gallery_without_identities():
    """WikiArt Faces: nobody can be found, and attributes are compared all the same."""
    queries = random_side(20, 1)
    paintings = random_side(50, 2, "g")
    table = paintings.table.set_column(2, FACE_SET_SCHEMA.field("identity"), pa.nulls(50, pa.string()))
    evaluation = evaluate(queries, DescribedFaces(table, paintings.embeddings, paintings.probabilities), (0, 10))
    for result in evaluation.results:
        assert (result.recall.queries, result.recall.without_relevant) == (0, 20)
        assert math.isnan(result.average_precision)
    alone, heavy = (result.agreement for result in evaluation.results)
    assert alone is not None
    assert heavy is not None
    assert heavy > alone
    assert evaluation.as_dict()["results"][0]["mAP"] is None
    assert evaluation.per_query["rank"].null_count == 40


def test_of_equals_the_first_in_the_gallery():
    point = [[0.6, 0.8]]
    gallery = described([1, 1, 2], ["x", "y", "z"], point * 3, [[]] * 3, prefix="g")
    evaluation = evaluate(described([2], ["q"], point, [[]]), gallery, [0])
    assert evaluation.per_query["top_id"].to_pylist() == ["g0"]
    assert evaluation.per_query["rank"].to_pylist() == [3]


def test_a_model_without_attributes():
    queries, gallery = (described([1, 2], ids, unit(2, 4, 5), [[]] * 2, prefix=ids[0]) for ids in ("ab", "cd"))
    evaluation = evaluate(queries, gallery, [0], query_title="Q", gallery_title="G", model_title="M")
    assert (evaluation.agreement_by, evaluation.results[0].agreement) == (None, None)
    assert evaluation.per_query["top_attribute_score"].null_count == 2
    assert (evaluation.queries, evaluation.gallery, evaluation.model) == ("Q", "G", "M")
    assert (evaluation.query_count, evaluation.gallery_count) == (2, 2)
    with pytest.raises(InputError, match="no attributes to weigh"):
        evaluate(queries, gallery, [0, 0.2])


def test_a_weight_given_twice_is_one():
    queries, gallery = random_side(3, 1), random_side(4, 2, "g")
    evaluation = evaluate(queries, gallery, (1, 0, 1.0))
    assert [result.weight for result in evaluation.results] == [1, 0]
    assert evaluation.per_query.num_rows == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [-0.1]}, "must be a number from 0 on, not -0.1"),
        ({"weights": [math.nan]}, "must be a number"),
        ({"weights": []}, "at least one weight"),
        ({"ks": (1, 0)}, "not of the first 0"),
        ({"gallery": []}, "gallery is empty"),
        ({"queries": []}, "no queries"),
        ({"agreement": "labels"}, "no attribute labels in common"),
    ],
)
def test_bad_input(change, message):
    faces = random_side(3, 1)
    taken = {side: faces.take(change.get(side, [0, 1, 2])) for side in ("queries", "gallery")}
    rest = {name: value for name, value in change.items() if name not in taken}
    with pytest.raises(InputError, match=message):
        evaluate(**({"weights": [0.2]} | taken | rest))


def test_descriptions_that_do_not_belong_together():
    with pytest.raises(ValueError, match="embeddings of queries and gallery are of 16 and 8 numbers"):
        evaluate(random_side(3, 1), random_side(3, 2, dim=8), [0])
    broken = random_side(3, 1)
    broken.embeddings[1, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        evaluate(random_side(3, 2), broken, [0])


_MEMORY = """
import resource, torch
from tests.test_evaluation import evaluate, random_side
torch.set_num_threads(1)
def peak(count):
    evaluate(queries.take(range(count)), gallery, (0, 0.2), chunk=1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
queries, gallery = (random_side(8000, seed, side, dim=4, people=1000) for seed, side in enumerate("qg"))
first = peak(800)
print(peak(8000) - first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in the kernel's units")
def test_memory_does_not_grow_with_the_queries():
    """The table of 8,000 x 8,000 similarities would be 256 MB, a tenth of it 26 MB; the queries themselves are 7 MB."""
    ran = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 120


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    queries, gallery = random_side(70, 1), random_side(300, 2, "g")
    here, there = (evaluate(queries, gallery, (0, 0.2), device=device) for device in ("cpu", "cuda"))
    for one, other in zip(here.results, there.results, strict=True):
        assert one.recall == other.recall
        assert (one.average_precision, one.agreement) == pytest.approx((other.average_precision, other.agreement))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2])
def test_equal_items_are_ties_for_a_query_alone_too(count, seed):
    """A product of one row with a matrix rounds otherwise from column to column: up or down, depending on the seed."""
    generator = torch.Generator().manual_seed(seed)
    items = 1001
    unit = torch.nn.functional.normalize(torch.randn(3, 128, generator=generator), dim=1)
    queries = described([1] * count, [-1] * count, unit[:count].tolist(), [[]] * count)
    people = [2] * (items - 1) + [1]
    gallery = described(people, range(items), unit[2].repeat(items, 1).tolist(), [[]] * items, prefix="g")
    rows = evaluate(queries, gallery, (0.0,)).per_query.to_pylist()
    assert [(row["rank"], row["top_id"]) for row in rows] == [(items, "g0")] * count
    codes = Codes.of(queries.table, gallery.table)
    ranks = ranks_of_people(
        queries.embeddings,
        gallery.embeddings,
        query_identities=codes.query_identities,
        gallery_identities=codes.gallery_identities,
        query_sources=codes.query_sources,
        gallery_sources=codes.gallery_sources,
    )
    assert ranks.tolist() == [items] * count
