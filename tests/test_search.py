"""Search from a photograph to its look-alikes: against Eq. 9 pair by pair, Eq. 10 and 11 by hand; what is refused."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval import retrieval_model
from pipeline.retrieval import search as search_module
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, FaceSet
from pipeline.retrieval.faiss_search import FaissSearch
from pipeline.retrieval.feedback_settings import FeedbackSettings
from pipeline.retrieval.index import open_index, update_index
from pipeline.retrieval.query_photo import read_photo
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from pipeline.retrieval.search import built_for, search
from tests.labelled_run import photograph
from tests.trained_models import register_tiny, write_attributes, write_checkpoint, write_identity

EXPLICIT = FeedbackSettings(renormalise="query", measure="cosine", judged="keep", positives="latest", positions="moved")


def make_index(place, pictures, places, identities=()):
    """Index pictures [N, 20, 16, 3] under the names 000000.png, 000001.png, …"""
    (place / "pictures").mkdir(parents=True)
    names = [f"{at:06d}.png" for at in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(place / "pictures" / name)
    columns: dict[str, list[str]] = {"id": names, "source_id": [f"of {name}" for name in names], "locator": names}
    columns |= {"version": ["1"] * len(names), "identity": list(identities)}
    table = pa.table(
        {field.name: pa.array(columns.get(field.name) or pa.nulls(len(names)), field.type) for field in FACE_SET_SCHEMA}
    )
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    faces = FaceSet(
        "drawn faces", table, ImageSource("folder", str(place / "pictures")), (16, 20), lambda at: stack[np.asarray(at)]
    )
    update_index(place / "index", faces, places, open_retrieval_model(places), quiet=True)
    return place / "index"


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, an index of eight people's pictures, four of each, and another one of somebody."""
    place = tmp_path_factory.mktemp("search")
    checkpoint = write_checkpoint(place / "tiny.safetensors", seed=7)
    places = ModelPlaces(
        identity=write_identity(place / "id", weights=checkpoint),
        attributes=write_attributes(place / "at", weights=checkpoint, untrained=("Wearing_Hat",)),
    )
    people = [(at // 4, at % 4) for at in range(32)]
    make_index(place, [photograph(*of) for of in people], places, [str(identity) for identity, _ in people])
    Image.fromarray(photograph(2, 9)).resize((64, 80), Image.Resampling.NEAREST).save(place / "me.png")
    return place


@pytest.fixture(scope="module")
def by_hand(made):
    """Every item's parts of Eq. 9, float64: cosine [G], agreement [G], and what they were made of."""
    index = open_index(made / "index")
    query = open_retrieval_model(index.places).real(read_photo(made / "me.png", (16, 20))[None])
    bits = query.probabilities[0] > 0.5
    cosines = [math.fsum((query.embeddings[0].double() * item.double()).tolist()) for item in index.gallery.embeddings]
    agreement = [(bits == item).double().mean().item() for item in index.gallery.bits]
    return index, query.embeddings[0].double().numpy(), bits, np.array(cosines), np.array(agreement)


def ids(result):
    return [hit.id for hit in result.hits]


def expected_order(scores, index, allowed=None):
    names = index.gallery.table["id"].to_pylist()
    items = range(len(names)) if allowed is None else np.flatnonzero(allowed)
    return [names[item] for item in sorted(items, key=lambda item: (-np.float32(scores[item]), item))]


# --- ranking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, 0, 0.1, 0.5, 5])
def test_the_ranking_is_that_of_the_formula(made, by_hand, weight):
    index, _, bits, cosines, agreement = by_hand
    value = 0.2 if weight is None else weight
    result = search(made / "me.png", made / "index", weight=weight, k=5)
    scores = (1 + cosines) / 2 + value * agreement
    assert result.weight == value
    assert ids(result) == expected_order(scores, index)[:5]
    names = index.gallery.table["id"].to_pylist()
    for place, hit in enumerate(result.hits, 1):
        assert (hit.rank, names[hit.item]) == (place, hit.id)
        assert hit.score == pytest.approx(scores[hit.item], abs=1e-6)
        assert hit.identity_score == pytest.approx((1 + cosines[hit.item]) / 2, abs=1e-6)
        assert hit.attribute_score == agreement[hit.item]
        assert hit.identity_score + value * agreement[hit.item] == pytest.approx(hit.score, abs=1e-12)
        other = (index.gallery.bits[hit.item] != bits).nonzero()[:, 0].tolist()
        assert hit.differing == tuple(ATTRIBUTES[at] for at in other)
        assert result.agreeing(hit) == 40 - len(other)
        row = index.gallery.table.slice(hit.item, 1).to_pylist()[0]
        assert (hit.source_id, hit.identity) == (row["source_id"], row["identity"])
        np.testing.assert_array_equal(result.thumbnail(hit.item), index.thumbnail(hit.item))
    assert result.seen == tuple(name for name, yes in zip(ATTRIBUTES, bits.tolist(), strict=True) if yes)
    assert (result.items, result.searched, result.engine) == (32, 32, "exact")


def test_more_than_there_are(made, by_hand):
    result = search(made / "me.png", made / "index", k=1000)
    assert len(result.hits) == len(set(ids(result))) == 32
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert ids(search(made / "me.png", made / "index", k=1)) == ids(result)[:1]


@pytest.mark.parametrize("engine", ["flat", "ivf", "hnsw"])
def test_other_engines(made, engine):
    pytest.importorskip("faiss")
    exact, other = (search(made / "me.png", made / "index", k=6, engine=name) for name in ("exact", engine))
    assert other.engine == engine
    assert len(other.hits) == 6
    if engine == "flat":
        assert [hit.as_dict() for hit in other.hits] == [hit.as_dict() for hit in exact.hits]
    own = {hit.id: hit.score for hit in search(made / "me.png", made / "index", k=32).hits}
    for hit in other.hits:
        assert hit.score == pytest.approx(own[hit.id], abs=1e-6)


@pytest.mark.parametrize("engine", ["ivf", "hnsw"])
def test_other_engines_keep_what_they_have_built(made, tmp_path, engine, monkeypatch):
    pytest.importorskip("faiss")
    shutil.copytree(made / "index", tmp_path / "index")
    first = search(made / "me.png", tmp_path / "index", engine=engine)
    (kept,) = (tmp_path / "index").glob(f"faiss-{engine}-*")
    monkeypatch.setattr(FaissSearch, "_built", None)  # cannot be built any more
    for weight in (None, 0, 0.7):
        search(made / "me.png", tmp_path / "index", engine=engine, weight=weight)
    again = search(made / "me.png", tmp_path / "index", engine=engine)
    assert [hit.as_dict() for hit in again.hits] == [hit.as_dict() for hit in first.hits]
    assert len(open_index(tmp_path / "index")) == 32
    assert kept.exists()


@pytest.mark.parametrize(("weight", "built"), [(0, 0.2), (1, 0.2), (1.5, 10), (5, 10), (10, 10), (11, 100)])
def test_few_weights_are_built_for(weight, built):
    assert built_for(weight) == built


def test_no_score_is_beyond_its_range(made, tmp_path):
    """A picture found in itself by a bare network has the similarity 1, and rounding takes float32 beyond that."""
    places = ModelPlaces(backbone="tiny", weights=str(made / "tiny.safetensors"), attributes=str(made / "at"))
    pictures = [photograph(of, 0) for of in range(12)]
    index = make_index(tmp_path, pictures, places)
    for at, picture in enumerate(pictures):
        Image.fromarray(picture).resize((64, 80), Image.Resampling.NEAREST).save(tmp_path / "me.png")
        for weight, like in ((0.2, []), (5.0, []), (0.2, [f"{at:06d}.png"])):
            for hit in search(tmp_path / "me.png", index, weight=weight, like=like).hits:
                assert 0 <= hit.identity_score <= 1
                assert hit.attribute_score is not None
                assert hit.score == hit.identity_score + weight * hit.attribute_score


@pytest.mark.filterwarnings("error")
def test_explaining_warns_of_nothing(made):
    search(made / "me.png", made / "index", k=1, explain=1)


def test_an_index_at_home(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made))
    assert search(made / "me.png", "~/index").index == str(made / "index")


def test_the_part_of_the_photograph_that_shows_the_head(made, tmp_path):
    """A head in the corner of a larger picture is the head alone."""
    wide = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    wide[80:, :64] = np.asarray(Image.open(made / "me.png"))
    Image.fromarray(wide).save(tmp_path / "wide.png")
    alone = search(made / "me.png", made / "index")
    found = search(tmp_path / "wide.png", made / "index", head=(0, 0.5, 0.4, 1))
    assert [hit.as_dict() for hit in found.hits] == [hit.as_dict() for hit in alone.hits]
    np.testing.assert_array_equal(found.picture, alone.picture)
    assert found.picture.shape == (20, 16, 3)


# --- filters ----------------------------------------------------------------------------------------


def test_filters(made, by_hand):
    index, _, _, cosines, agreement = by_hand
    bits = index.gallery.bits.numpy()
    shares = bits.mean(axis=0)
    usable = [at for at in range(40) if ATTRIBUTES[at] != "Wearing_Hat" and 0.2 < shares[at] < 0.8]
    yes, no = usable[:2]
    allowed = bits[:, yes] & ~bits[:, no]
    if not allowed.any():
        yes, no = no, yes
        allowed = bits[:, yes] & ~bits[:, no]
    result = search(made / "me.png", made / "index", k=50, with_=[ATTRIBUTES[yes].lower()], without=[ATTRIBUTES[no]])
    scores = (1 + cosines) / 2 + 0.2 * agreement
    assert ids(result) == expected_order(scores, index, allowed)
    assert (result.searched, result.items) == (allowed.sum(), 32)
    assert f"{allowed.sum()} of 32 faces, with {ATTRIBUTES[yes].lower()}, without {ATTRIBUTES[no]}" in "\n".join(
        result.lines()
    )


def test_filters_that_are_refused(made):
    photo, index = made / "me.png", made / "index"
    with pytest.raises(InputError, match='there is no attribute "Smilin"; did you mean Smiling'):
        search(photo, index, with_=["Smilin"])
    with pytest.raises(InputError, match="has not learned Wearing_Hat"):
        search(photo, index, without=["Wearing_Hat"])
    with pytest.raises(InputError, match="both asked for and ruled out"):
        search(photo, index, with_=["Male"], without=["male"])


# --- feedback ---------------------------------------------------------------------------------------


def moved(query, items, liked, unliked, settings=EXPLICIT):
    """Cosines after Eq. 10, then 11, as they are printed; one liked and one unliked item."""
    query = settings.alpha * query + settings.beta * items[liked] - settings.gamma * items[unliked]
    query = query / np.linalg.norm(query)
    placed = []
    for item in items:
        toward = settings.eta * math.exp(-settings.c * np.linalg.norm(item - items[liked])) * (query - item)
        away = settings.eta * math.exp(-settings.c * np.linalg.norm(item - items[unliked])) * (query - item)
        placed.append(item + toward - away)
    return np.array([item @ query / np.linalg.norm(item) / np.linalg.norm(query) for item in placed])


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_feedback_is_that_of_the_equations(made, by_hand, weight):
    index, query, _, _, agreement = by_hand
    names = index.gallery.table["id"].to_pylist()
    cosines = moved(query, index.gallery.embeddings.double().numpy(), 5, 9)
    photo = made / "me.png"
    result = search(photo, made / "index", k=32, weight=weight, like=[names[5]], unlike=[names[9]], feedback=EXPLICIT)
    scores = (1 + cosines) / 2 + weight * agreement
    assert ids(result) == expected_order(scores, index)
    for hit in result.hits:
        assert hit.score == pytest.approx(scores[hit.item], abs=1e-5)
        assert hit.identity_score == pytest.approx((1 + cosines[hit.item]) / 2, abs=1e-5)
        assert hit.attribute_score == agreement[hit.item]
    assert (result.liked, result.unliked, result.feedback) == ((names[5],), (names[9],), EXPLICIT)
    before = search(photo, made / "index", k=32, weight=weight)
    assert ids(before).index(names[5]) >= ids(result).index(names[5])
    assert ids(before).index(names[9]) <= ids(result).index(names[9])
    assert f"Feedback: liked {names[5]}; unliked {names[9]}" in result.lines()


def test_feedback_of_several_and_with_a_filter(made, by_hand):
    index = by_hand[0]
    names = index.gallery.table["id"].to_pylist()
    twice = search(made / "me.png", made / "index", like=[names[1], names[4], names[1]], engine="flat")
    once = search(made / "me.png", made / "index", like=[names[4], names[1]], feedback=FeedbackSettings())
    assert ids(twice) == ids(once)
    assert twice.liked == (names[1], names[4])
    assert twice.engine == "exact"  # every item is compared, and the result says so
    assert once.feedback == FeedbackSettings()
    shares = index.gallery.bits.double().mean(dim=0).tolist()
    name = next(name for name, share in zip(ATTRIBUTES, shares, strict=True) if 0.2 < share < 0.8)
    having = index.gallery.bits[:, ATTRIBUTES.index(name)]
    some = search(made / "me.png", made / "index", k=32, like=[names[4]], with_=[name])
    whole = search(made / "me.png", made / "index", k=32, like=[names[4]])
    assert ids(some) == [hit.id for hit in whole.hits if having[hit.item]]


def test_judged_items_may_leave(made, by_hand):
    names = by_hand[0].gallery.table["id"].to_pylist()
    settings = dataclasses.replace(EXPLICIT, judged="remove")
    result = search(made / "me.png", made / "index", k=32, like=names[:2], unlike=names[2:3], feedback=settings)
    assert len(result.hits) == result.searched == 29
    assert not set(ids(result)) & set(names[:3])
    with pytest.raises(InputError, match="every face that is left was judged"):
        search(made / "me.png", made / "index", like=names, feedback=settings)


def test_ids_that_cannot_be_judged(made):
    photo, index = made / "me.png", made / "index"
    with pytest.raises(InputError, match=r'has no face "000003"; did you mean 000003\.png'):
        search(photo, index, like=["000003"])
    with pytest.raises(InputError, match=r'has no face "00000x\.png"; did you mean 0000'):
        search(photo, index, unlike=["00000x.png"])
    with pytest.raises(InputError, match=r'has no face "~"; its ids are such as "0000'):
        search(photo, index, like=["~"])
    with pytest.raises(InputError, match='has no face ""'):
        search(photo, index, like=[""])
    with pytest.raises(InputError, match=r"000003\.png is both liked and unliked"):
        search(photo, index, like=["000003.png"], unlike=["000001.png", "000003.png"])


# --- explanations -----------------------------------------------------------------------------------


def test_the_first_hits_are_explained(made):
    result = search(made / "me.png", made / "index", k=4, explain=2)
    assert [hit.explanation is not None for hit in result.hits] == [True, True, False, False]
    for hit in result.hits[:2]:
        assert hit.explanation is not None
        for side in (hit.explanation.photograph, hit.explanation.painting):
            assert side.identity.score == pytest.approx(hit.identity_score, abs=1e-5)
            assert side.total.map.shape == (3, 20, 16)
    document = json.loads(json.dumps(result.as_dict()))["hits"][0]
    assert document["explanation"]["lambda"] == 0.2
    side, explanation = document["explanation"]["photograph"], result.hits[0].explanation
    assert explanation is not None
    assert side["identity"]["score"] == explanation.photograph.identity.score
    for part, attribution in (
        ("total", explanation.photograph.total),
        ("attributes", explanation.photograph.attributes),
    ):
        assert attribution is not None
        assert "score" not in side[part]  # which is not the score of the hit: its attributes are soft
        assert side[part]["soft_score"] == attribution.score
        assert side[part]["soft_baseline_score"] == attribution.baseline_score
    total = explanation.photograph.total
    assert any(f"photograph {total.plain_gap:.4f} ({total.gap:.4f} after calibration)" in row for row in result.lines())
    assert any(line.startswith("Completeness gaps of the saliency maps") for line in result.lines())
    plain = search(made / "me.png", made / "index", k=4)
    assert ids(plain) == ids(result)
    assert plain.as_dict()["hits"][0]["explanation"] is None
    assert len(search(made / "me.png", made / "index", k=1, explain=7).hits) == 1


# --- other galleries --------------------------------------------------------------------------------


def test_equals_come_in_the_order_of_the_index(made, tmp_path):
    places = open_index(made / "index").places
    pictures = [photograph(4, 0), photograph(2, 9), photograph(4, 0), photograph(2, 9), photograph(4, 0)]
    index = make_index(tmp_path, pictures, places)
    for weight in (0, 0.2, 10):
        result = search(made / "me.png", index, weight=weight)
        order = [str(hit.item) for hit in result.hits]
        assert order in (["1", "3", "0", "2", "4"], ["0", "2", "4", "1", "3"])
        assert search(made / "me.png", index, weight=weight, k=2).hits[1].id == f"00000{order[1]}.png"
    judged = [hit.item for hit in search(made / "me.png", index, like=["000001.png"], feedback=EXPLICIT).hits]
    assert judged in ([1, 3, 0, 2, 4], [0, 2, 4, 1, 3])


def test_a_gallery_of_one(made, tmp_path):
    index = make_index(tmp_path, [photograph(4, 0)], open_index(made / "index").places)
    result = search(made / "me.png", index, explain=1)
    assert ids(result) == ["000000.png"]
    assert result.hits[0].identity is None
    assert "Searched: 1 face" in result.lines()
    assert "person" not in "\n".join(result.lines())
    assert ids(search(made / "me.png", index, unlike=["000000.png"])) == ["000000.png"]


def test_a_model_without_attributes(made, tmp_path):
    places = ModelPlaces(backbone="tiny", weights=str(made / "tiny.safetensors"))
    index = make_index(tmp_path, [photograph(4, 0), photograph(5, 0)], places)
    result = search(made / "me.png", index)
    assert result.weight == 0
    assert [hit.attribute_score for hit in result.hits] == [None, None]
    assert [hit.score for hit in result.hits] == [hit.identity_score for hit in result.hits]
    assert (result.seen, result.attributes, result.hits[0].differing) == ((), (), ())
    assert "attributes" not in result.lines()[5]
    json.dumps(result.as_dict(), allow_nan=False)
    with pytest.raises(InputError, match="there are no attributes to weigh"):
        search(made / "me.png", index, weight=0.2)
    with pytest.raises(InputError, match='there are no attributes to choose "Male" from'):
        search(made / "me.png", index, with_=["Male"])


# --- what is printed --------------------------------------------------------------------------------


def test_lines_and_json(made):
    result = search(made / "me.png", made / "index", k=3)
    lines = result.lines()
    assert lines[0] == f'Look-alikes of "{made / "me.png"}"'
    assert lines[1] == "Searched: 32 faces"
    assert lines[2] == "Gallery:  drawn faces"
    assert lines[3] == "Model:    tiny, projections trained, 40 attributes; lambda 0.2"
    assert all("Wearing_Hat" not in line for line in lines)  # what was not learned is not seen
    header, *rows = lines[6:]
    assert header.split() == ["id", "person", "score", "identity", "attributes"]
    for hit, row in zip(result.hits, rows, strict=True):
        assert row.split()[:4] == [str(hit.rank), hit.id, hit.identity, f"{hit.score:.4f}"]
        assert row.endswith(f"({result.agreeing(hit)} of 40)")
    document = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert document["gallery"]["items"] == 32
    assert [hit["id"] for hit in document["hits"]] == ids(result)
    assert [hit["rank"] for hit in document["hits"]] == [1, 2, 3]


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "the number of faces to find must be at least 1, not 0"),
        ({"explain": -1}, "the number of hits to explain must be at least 0, not -1"),
        ({"engine": "magic"}, 'no engine of search "magic"; choose from exact, flat, ivf, hnsw'),
        ({"weight": -0.1}, r"\(lambda\) must be a number from 0 .*not -0\.1"),
        ({"weight": math.nan}, r"\(lambda\) must be a number from 0 "),
        ({"device": "tpu"}, 'device "tpu" is none'),
        ({"head": (0, 0, 0.1, 0.1)}, "the head in .* is no face-sized image"),
    ],
)
def test_impossible_requests(made, options, sentence):
    with pytest.raises(InputError, match=sentence):
        search(made / "me.png", made / "index", **options)


def test_no_photograph_and_no_index(made, tmp_path):
    with pytest.raises(InputError, match="there is no photograph"):
        search(tmp_path / "nobody.jpg", made / "index")
    with pytest.raises(InputError, match=r"nowhere"):
        search(made / "me.png", tmp_path / "nowhere")


def test_nothing_is_loaded_for_a_request_that_is_refused(made, monkeypatch):
    def never(*args):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(search_module, "open_retrieval_model", never)
    for options in ({"with_": ["Nose"]}, {"like": ["nobody"]}, {"weight": -1}, {"head": (0, 0, 0.1, 0.1)}):
        with pytest.raises(InputError):
            search(made / "me.png", made / "index", **options)


def test_another_model_is_refused(made, tmp_path):
    checkpoint = str(made / "tiny.safetensors")
    others = (
        ModelPlaces(identity=write_identity(tmp_path / "id", weights=checkpoint, seed=5)),
        ModelPlaces(attributes=write_attributes(tmp_path / "at", weights=checkpoint, seed=5)),
        ModelPlaces(backbone="tiny", weights=checkpoint),
        ModelPlaces(crop=(0.1, 0.1, 0.9, 0.9)),
    )
    for places in others:
        with pytest.raises(InputError, match="was made with another model"):
            search(made / "me.png", made / "index", places=places)


def test_a_model_that_was_moved(made, tmp_path):
    """The index remembers where the model was; whoever moved it says where it is."""
    for name in ("index", "id", "at"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "tiny.safetensors", tmp_path / "tiny.safetensors")
    document = json.loads((tmp_path / "index" / "index.json").read_text())
    before = search(made / "me.png", tmp_path / "index")

    def point(**paths):
        document["model"].update(paths)
        (tmp_path / "index" / "index.json").write_text(json.dumps(document))

    point(identity="/gone/id")
    with pytest.raises(InputError, match=r'the identity model .* is not at "/gone/id" any more; .* with --identity'):
        search(made / "me.png", tmp_path / "index")
    moved_model = ModelPlaces(identity=str(tmp_path / "id"))
    assert ids(search(made / "me.png", tmp_path / "index", places=moved_model)) == ids(before)
    point(attributes="/gone/at")
    with pytest.raises(InputError, match=r'the attributes model .* is not at "/gone/at" .* with --attributes'):
        search(made / "me.png", tmp_path / "index", places=moved_model)
    moved_model = dataclasses.replace(
        moved_model, attributes=str(tmp_path / "at"), weights=str(tmp_path / "tiny.safetensors")
    )
    assert ids(search(made / "me.png", tmp_path / "index", places=moved_model)) == ids(before)


def test_an_embedding_that_is_no_number(made, monkeypatch):
    real = retrieval_model.open_retrieval_model

    def broken(places, device):
        model = real(places, device)
        with torch.no_grad():
            model.identity.projections.real.weight[0, 0] = torch.nan
        return model

    monkeypatch.setattr(search_module, "open_retrieval_model", broken)
    monkeypatch.setattr(type(open_index(made / "index")), "check_model", lambda self, model: None)
    with pytest.raises(RunError, match=r'the embedding of ".*me\.png" is not finite'):
        search(made / "me.png", made / "index")
