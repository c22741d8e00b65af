"""Evaluation of a test set from end to end, over a tiny run and tiny models, against figures computed here."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.commit import publish
from manifests.errors import InputError, RunError
from pipeline.retrieval import evaluation_files
from pipeline.retrieval.evaluate_set import EvaluateConfig, evaluate_set
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from pipeline.retrieval.searched_models import searched_models
from pipeline.training.run_faces import RunFaces
from tests.labelled_run import write_labelled_run
from tests.tiny_embedder import CARD
from tests.trained_models import register_tiny, write_attributes, write_checkpoint, write_identity

COUNTS = {"train": [2, 2], "valid": [2], "test": [3, 2, 4, 1]}
IMAGES = {"recall.png", "lambda.png", "figure-7.png"}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    write_labelled_run(folder, COUNTS)
    write_identity(folder / "id")
    write_identity(folder / "other", seed=5)
    write_identity(folder / "finetuned", finetuned=True)
    write_attributes(folder / "heads")
    write_attributes(folder / "heads2", seed=3, untrained=["Bald"])
    wikiart = folder / "wikiart"
    wikiart.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 34, 3), np.uint8)
        Image.fromarray(pixels).save(wikiart / f"{number}.png")
    return folder


def config(place, **options):
    given = {"test_set": str(place / "run"), "models": (str(place / "id"),), "device": "cpu", **options}
    return EvaluateConfig(**given)


def run(place, **options):
    return evaluate_set(config(place, **options), quiet=True)


def with_heads(place, **options):
    return run(place, attributes=(str(place / "heads"),), **options)


def described(place, attributes="heads"):
    """Both sides of the test split by the model itself, without any of the modules under test."""
    model = open_retrieval_model(ModelPlaces(identity=str(place / "id"), attributes=str(place / attributes)))
    faces = RunFaces.open(place / "run")
    test = faces.indices("test")
    with torch.no_grad():
        return faces, test, model.real(faces.photographs(test)), model.art(faces.proxies(test))


def brute(place, weight):
    """R@1 and agreement of the first item, query by query from Eq. 6, 8 and 9."""
    faces, test, queries, gallery = described(place)
    hits, agreements = [], []
    for q in range(len(test)):
        items = [g for g in range(len(test)) if g != q]
        bits = [(queries.probabilities[q] > 0.5) == (gallery.probabilities[g] > 0.5) for g in range(len(test))]
        scores = {
            g: (1 + float(queries.embeddings[q] @ gallery.embeddings[g])) / 2 + weight * float(bits[g].float().mean())
            for g in items
        }
        first = max(items, key=lambda g: scores[g])
        people = faces.identities[test]
        if any(people[g] == people[q] for g in items):
            hits.append(people[first] == people[q])
        agreements.append((faces.attributes[test[q]] == faces.attributes[test[first]]).mean())
    return 100 * np.mean(hits), 100 * np.mean(agreements), len(hits)


def ours(result, title):
    (table,) = [table for table in result.tables if table.title.startswith(title)]
    return table, {row.name: row.values for row in table.rows if row.origin == "ours"}


def test_everything(place, tmp_path):
    out = tmp_path / "results"
    result = with_heads(place, out=str(out), rounds=3)
    written = {"table-1.md", "table-2.md", "table-3.md", "table-5.md", "figure-7.md", *IMAGES}
    assert set(result.files) == {*written, "per-query.parquet", "report.html", "results.json"}
    assert sorted(os.listdir(out)) == sorted(result.files)
    assert result.files[-1] == "results.json"
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    for name in IMAGES:
        Image.open(out / name).verify()
    rows = pq.read_table(out / "per-query.parquet")
    assert rows.num_rows == 7 * 10
    assert set(rows["model"].to_pylist()) == {"tiny, projections trained"}
    page = (out / "report.html").read_text()
    assert "Table 3" in page
    assert "LightCNN-9L" in page
    assert any("in " + str(out) in line for line in result.lines())
    assert all("mean nothing" in note for note in result.notes)
    assert len(result.notes) == 1


def test_recall_and_agreement_are_those_of_the_equations(place):
    result = with_heads(place, table=3)
    table, rows = ours(result, "Table 3")
    for at, weight in enumerate((0.0, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0)):
        recall, agreement, answerable = brute(place, weight)
        assert rows["tiny, Acc. by labels"][2 * at : 2 * at + 2] == pytest.approx((recall, agreement), abs=1e-4)
        assert rows["tiny"][2 * at] == pytest.approx(recall, abs=1e-4)
    assert answerable == 9  # one person has one photograph
    assert any("1 queries have nothing relevant" in note for note in table.notes)
    assert result.files == ()
    assert [line for line in result.lines() if "SE-ResNet" in line]


def test_table_1_has_the_bare_network_before_what_was_trained_on_it(place, tmp_path):
    folders = tuple(str(place / name) for name in ("id", "other", "finetuned"))
    result = run(place, models=folders, table=1, out=str(tmp_path), attributes=(str(place / "heads"),))
    table, rows = ours(result, "Table 1")
    assert [(name, values[1]) for name, values in rows.items()] == [
        ("tiny", "all"),  # the bare network's row has the same name
        ("tiny (id)", "projections"),
        ("tiny (other)", "projections"),
    ]
    assert [row.values[1] for row in table.rows][:4] == ["nothing", "projections", "projections", "all"]
    assert rows["tiny (id)"][2] == pytest.approx(brute(place, 0.0)[0], abs=1e-4)
    assert rows["tiny (id)"] != rows["tiny (other)"]
    assert sorted(os.listdir(tmp_path)) == ["table-1-per-query.parquet", "table-1.json", "table-1.md"]
    assert len(set(pq.read_table(tmp_path / "table-1-per-query.parquet")["model"].to_pylist())) == 4


def test_a_checkpoint_that_has_gone_costs_the_bare_row_alone(place, tmp_path):
    checkpoint = tmp_path / "tiny.safetensors"
    write_checkpoint(checkpoint, 3)
    write_identity(tmp_path / "id", weights=str(checkpoint), finetuned=True)
    models = (str(tmp_path / "id"),)
    assert [row.values[1] for row in run(place, models=models, table=1).tables[0].rows][:2] == ["nothing", "all"]
    checkpoint.unlink()
    _, rows = ours(run(place, models=models, table=1), "Table 1")
    assert [values[1] for values in rows.values()] == ["all"]


def test_table_2(place):
    heads = (str(place / "heads"), str(place / "heads2"))
    table, rows = ours(run(place, models=(), attributes=heads, table=2), "Table 2")
    assert list(rows) == ["tiny (heads)", "tiny (heads2)", "always the commoner answer"]
    faces, test, *_ = described(place)
    model = open_retrieval_model(ModelPlaces(backbone=CARD.name, weights="random", attributes=str(place / "heads2")))
    kept = [at for at, name in enumerate(ATTRIBUTES) if name != "Bald"]
    truth = faces.attributes[test] == 1
    commoner = faces.attributes[faces.indices("train")].mean(axis=0) > 0.5
    with torch.no_grad():
        answers = [model.real(faces.photographs(test)), model.art(faces.proxies(test))]
    right = [100 * ((answer.probabilities.numpy() > 0.5) == truth)[:, kept].mean() for answer in answers]
    assert rows["tiny (heads2)"][1:3] == pytest.approx(right, abs=1e-4)
    assert rows["tiny (heads2)"][0] == "Joint"
    constant = 100 * (commoner == truth).mean()  # of the first heads, all of whose attributes were trained
    assert rows["always the commoner answer"][1:3] == pytest.approx((constant, constant))
    assert any("39 to 40 of 40" in note for note in table.notes)


def test_table_4_searches_a_set_without_people(place, tmp_path):
    wikiart = {"test_set": str(place / "wikiart"), "queries": str(place / "run"), "layout": "wikiart-faces"}
    table, rows = ours(with_heads(place, table=4, **wikiart), "Table 4")
    (values,) = rows.values()
    assert len(values) == 7
    assert values[-1] >= values[0]  # as predicted, which is all there is to compare
    assert "Attributes are compared by predictions." in table.notes
    everything = with_heads(place, out=str(tmp_path), **wikiart)
    assert [table.title.partition(".")[0] for table in everything.tables] == ["Table 4"]
    assert "report.html" in everything.files
    with pytest.raises(InputError, match="no photographs to search with; name a run"):
        with_heads(place, table=4, test_set=str(place / "wikiart"), layout="wikiart-faces")
    with pytest.raises(InputError, match="nobody known"):
        with_heads(place, table=5, **wikiart)
    with pytest.raises(InputError, match="nothing to find"):
        run(place, **wikiart)
    with pytest.raises(InputError, match="no attribute labels"):
        run(place, models=(), attributes=(str(place / "heads"),), table=2, **wikiart)


def test_table_5_and_figure_7_have_the_same_curve(place, tmp_path):
    table, rows = ours(with_heads(place, table=5, rounds=5), "Table 5")
    figure = with_heads(place, figure=7, rounds=5, out=str(tmp_path))
    _, curve = ours(figure, "Figure 7")
    (both,) = [values for name, values in rows.items() if name.startswith("QPM + FSW")]
    (values,) = curve.values()
    assert both[5:] == pytest.approx((values[0], values[1], values[5]))
    assert len(rows) == 3
    assert sorted(os.listdir(tmp_path)) == ["figure-7.json", "figure-7.md", "figure-7.png"]
    assert any("3 queries, λ = 0.2" in note for note in table.notes)  # one each of the people with several pictures
    assert with_heads(place, figure=7, rounds=5).as_dict() == {**figure.as_dict(), "files": [], **_out(figure, None)}


def _out(result, place):
    return {"config": {**result.as_dict()["config"], "out": place}}


def test_lambda_of_feedback(place):
    heads = {"attributes": (str(place / "heads"),)}
    assert config(place, **heads).feedback_weight == 0.2
    assert config(place, **heads, lambdas=(0.0, 1.0)).feedback_weight == 0.2  # these are to search with
    assert config(place, **heads, figure=7, lambdas=(1.0,)).feedback_weight == 1.0
    assert config(place).feedback_weight == 0.0


def test_without_attributes(place):
    result = run(place, rounds=2)
    assert [table.title.partition(".")[0] for table in result.tables] == ["Table 1", "Table 5", "Figure 7"]
    (evaluation,) = result.evaluations.values()
    assert [found.weight for found in evaluation.results] == [0.0]
    assert run(place, rounds=0).curves == {}


def test_a_bare_network(place):
    result = run(place, models=(), backbone="tiny", weights="random", rounds=0)
    assert list(result.models) == ["tiny, bare"]
    assert "random weights" in result.notes[-1]


def test_several_models_share_a_report_that_says_so(place, tmp_path):
    models = (str(place / "id"), str(place / "finetuned"))
    result = with_heads(place, models=models, out=str(tmp_path), rounds=1, lambdas=(0.0, 0.2))
    assert list(result.evaluations) == ["tiny, projections trained", "tiny, all trained"] == list(result.curves)
    assert "of the first model" in (tmp_path / "report.html").read_text()
    assert len(ours(result, "Table 2")[0].rows) == 2 + 9  # the heads are the same, whichever model searches


def test_equal_folder_names_are_told_apart(place, tmp_path):
    for name in ("a", "b"):
        write_identity(tmp_path / name / "id", seed=ord(name))
    models = tuple(str(tmp_path / name / "id") for name in ("a", "b"))
    assert list(run(place, models=models, rounds=0).models) == [
        f"tiny ({folder}), projections trained" for folder in models
    ]


def test_bare_networks_of_equal_names_are_told_apart(place, tmp_path):
    """Otherwise the second one's results replace the first one's."""
    for name in ("a", "b"):
        write_identity(tmp_path / name, seed=ord(name))
    for at, name in enumerate(("a", "b")):
        model = tmp_path / name / "model.json"
        document = json.loads(model.read_text())
        document["crop"] = [0.1 * at, 0.0, 1.0, 1.0]
        model.write_text(json.dumps(document))
    models = searched_models(config(place, models=tuple(str(tmp_path / name) for name in ("a", "b")), table=1))
    titles = [model.title for model in models]
    kinds = ("bare", "projections trained")
    assert titles == [f"tiny ({name}), {kind}" for name in ("a", "b") for kind in kinds]


def test_feedback_as_chosen(place):
    usual = run(place, table=5, rounds=3)
    chosen = run(place, table=5, rounds=3, feedback=("judged=remove", "eta=0.25"))
    (before,), (after,) = usual.curves.values(), chosen.curves.values()
    assert {curve.settings.judged for curve in after.values()} == {"remove"}
    assert {curve.settings.eta for curve in after.values()} == {0.25}
    assert (after["QPM"].settings.beta, after["FSW"].settings.alpha) == (1, 1)  # what else tells the rows apart stays
    np.testing.assert_array_equal(after["FSW"].average_precision[:, 0], before["FSW"].average_precision[:, 0])
    assert not np.array_equal(after["FSW"].mean, before["FSW"].mean, equal_nan=True)
    (table,) = chosen.tables
    assert [row.values[3] for row in table.rows if row.origin == "ours"] == [0.25] * 3
    assert any("Choices other than by default: judged=remove, draws=unseen" in note for note in table.notes)
    assert not any("Choices" in note for note in usual.tables[0].notes)
    assert {
        curve.draws
        for curve in run(place, figure=7, rounds=1, feedback=("draws=unseen",))
        .curves["tiny, projections trained"]
        .values()
    } == {"unseen"}


def test_attributes_without_a_label_in_training_are_named(place):
    table = run(place, attributes=(str(place / "heads2"),), table=3, lambdas=(0.0, 0.2)).tables[0]
    assert any(note.startswith("Bald had no label when the heads were trained, and counts") for note in table.notes)
    assert not any("no label" in note for note in with_heads(place, table=3, lambdas=(0.2,)).tables[0].notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"table": 6}, "no table 6"),
        ({"figure": 5}, "no figure 5"),
        ({"table": 1, "figure": 7}, "one of them"),
        ({"models": ()}, "either trained identity models"),
        ({"backbone": "tiny"}, "either trained identity models"),
        ({"table": 3}, "Table 3 weighs attributes"),
        ({"table": 4}, "Table 4 weighs attributes"),
        ({"table": 2, "models": ()}, "Table 2 is of attribute heads"),
        ({"table": 2, "attributes": ("a",)}, "give --attributes alone"),
        ({"attributes": ("a", "b")}, "2 sets of heads"),
        ({"art_attributes": "a"}, "heads for art alone"),
        ({"lambdas": (0.1,)}, "no attributes to weigh"),
        ({"lambdas": (-0.1,), "attributes": ("a",)}, "from 0 on"),
        ({"lambdas": (float("nan"),), "attributes": ("a",)}, "from 0 on"),
        ({"lambdas": ()}, "at least one weight"),
        ({"lambdas": (0.0,), "table": 1}, "not weighted by lambda"),
        ({"lambdas": (0.0, 0.1), "figure": 7, "attributes": ("a",)}, "one lambda, and 2"),
        ({"rounds": -1}, "rounds must be at least 0"),
        ({"rounds": 0, "table": 5}, "0 rounds"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"agreement": "guess"}, "agreement is one of"),
        ({"agreement": "predictions"}, "no predictions of attributes"),
        ({"agreement": "predictions", "attributes": ("a",), "table": 1}, "Table 1 is of faces alone"),
        ({"models": ("a", "b", "./a/")}, "identity model ./a/ is given twice"),
        ({"models": (), "table": 2, "attributes": ("a", "a")}, "set of heads a is given twice"),
        ({"feedback": ("judged",)}, "give NAME=VALUE"),
        ({"feedback": ("judge=remove",)}, 'no choice "judge"; it has alpha, .*, draws'),
        ({"feedback": ("judged=removed",)}, 'judged of relevance feedback must be one of keep, remove, not "removed"'),
        ({"feedback": ("draws=seen",)}, 'draws of relevance feedback must be one of independent, unseen, not "seen"'),
        ({"feedback": ("eta=half",)}, 'eta of relevance feedback must be a number, not "half"'),
        ({"feedback": ("eta=2",)}, "eta of relevance feedback must be at most 1"),
        ({"feedback": ("eta=0.2",), "table": 2, "models": (), "attributes": ("a",)}, "Table 2 is made without"),
        ({"feedback": ("eta=0.2",), "rounds": 0}, "nothing to choose"),
        ({"device": "tpu"}, 'device "tpu"'),
        ({"seed": -1}, "seed must lie"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(options, sentence):
    with pytest.raises(InputError, match=sentence):
        config(Path("nowhere"), **options)


def test_places_that_are_wrong(place, tmp_path):
    with pytest.raises(InputError, match=r"has no model\.json"):
        run(place, models=(str(tmp_path),))
    with pytest.raises(InputError, match="there is no run and no local folder"):
        run(place, test_set=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="has no accepted proxy in split"):
        run(place, split="trial")
    with pytest.raises(InputError, match="photographs of its own"):
        run(place, queries=str(place / "run"))
    with pytest.raises(InputError, match="lies inside"):
        run(place, out=str(place / "run" / "results"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        run(place, out=str(tmp_path / "file"))
    with pytest.raises(InputError, match="is a file"):
        run(place, out=str(tmp_path / "file" / "results"))
    assert not (place / "run" / "results").exists()


def test_a_run_of_one_person_each_is_reported_and_not_refused(tmp_path, place):
    write_labelled_run(tmp_path, {"train": [1], "test": [1, 1]})
    result = with_heads(place, test_set=str(tmp_path / "run"), out=str(tmp_path / "results"), rounds=1)
    _, rows = ours(result, "Table 1")
    assert rows["tiny"][2:] == (None, None, None, None)
    json.loads((tmp_path / "results" / "results.json").read_text())


def test_a_run_without_people_has_no_recall(tmp_path, place):
    write_labelled_run(tmp_path, {"train": [1], "test": [2, 1]}, identities=False)
    result = with_heads(place, test_set=str(tmp_path / "run"))
    assert [table.title.partition(".")[0] for table in result.tables] == ["Table 2", "Table 4"]
    with pytest.raises(InputError, match="nobody known"):
        with_heads(place, test_set=str(tmp_path / "run"), table=3)


def test_majority_of_a_run_without_training_split_is_its_own_and_said(tmp_path, place):
    write_labelled_run(tmp_path, {"test": [2, 2]})
    result = run(place, test_set=str(tmp_path / "run"), models=(), attributes=(str(place / "heads"),), table=2)
    _, rows = ours(result, "Table 2")
    assert rows["always the commoner answer"][1] >= 50
    assert any("no training split" in note for note in result.notes)


def full(*args, **options):
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_at_the_report(place, tmp_path, monkeypatch):
    """An earlier results.json would speak of tables that are no longer those beside it."""
    (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr(evaluation_files, "write_report", full)
    with pytest.raises(RunError, match=r"report\.html.*No space left"):
        run(place, out=str(tmp_path), rounds=1)
    assert "table-1.md" in os.listdir(tmp_path)
    assert "results.json" not in os.listdir(tmp_path)


def test_a_disk_that_is_full_earlier(place, tmp_path, monkeypatch):
    def some(fs, path, data, **options):
        return full() if path.endswith(".parquet") else publish(fs, path, data, **options)

    monkeypatch.setattr("pipeline.retrieval.result_folder.publish", some)
    with pytest.raises(RunError, match="No space left"):
        run(place, out=str(tmp_path), table=1)
    assert os.listdir(tmp_path) == ["table-1.md"]


def test_again_and_other_tables_into_the_same_folder(place, tmp_path):
    first = run(place, out=str(tmp_path), table=1)
    listed = sorted(os.listdir(tmp_path))
    assert listed == sorted(first.files)
    assert run(place, out=str(tmp_path), table=1).as_dict() == first.as_dict()
    assert sorted(os.listdir(tmp_path)) == listed
    other = run(place, out=str(tmp_path), table=5, rounds=1)
    assert sorted(os.listdir(tmp_path)) == sorted([*listed, *other.files])


def test_the_config_says_itself_as_json(place):
    given = config(place, crop=(0.0, 0.1, 1.0, 0.9), lambdas=(0.0,))
    document = json.loads(json.dumps(given.as_dict()))
    assert document["models"] == [str(place / "id")]
    assert set(document) == {field.name for field in dataclasses.fields(EvaluateConfig)}
