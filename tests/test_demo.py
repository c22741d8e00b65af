"""`stylize demo`: the main job on drawn inputs, once as it is but smaller, and what it refuses."""

import json

import pytest
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.demo import demo
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from tests.command_line import invoke, refuse, succeed
from tests.real_run import local_cluster, quick_network, rows_of


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demo with its own numbers, except for smaller pictures and fewer evaluations."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch, local_cluster() as cluster:
        quick_network(patch)
        patch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        patch.setattr(demo, "draw_celeba", lambda folder, **rest: draw_celeba(folder, size=(32, 32), **rest))
        patch.setattr(demo, "draw_wikiart", lambda folder, **rest: draw_wikiart(folder, size=(64, 64), **rest))
        patch.setattr(demo, "EVALUATIONS", 2)
        patch.setattr(demo, "THRESHOLD", 1e5)  # two evaluations do not get below the real one
        patch.setattr(demo, "ATTRIBUTE_EPOCHS", 1)
        patch.chdir(place)
        first = succeed("demo")
        before = {path: path.stat().st_mtime_ns for path in place.rglob("dataset/**/*.parquet")}
        second = succeed("demo", "stylize-demo")
        assert {path: path.stat().st_mtime_ns for path in place.rglob("dataset/**/*.parquet")} == before
    return place / "stylize-demo", first, second


def test_it_builds_a_whole_data_set(shown):
    place, first, _ = shown
    rows = rows_of(place / "dataset")
    assert len(rows) >= 24
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    assert {row["status"] for row in rows} <= {"accepted", "rejected"}
    assert all(row["identity"] is not None for row in rows)
    assert all(row[name] is not None for row in rows for name in ATTRIBUTES)
    assert "complete" in first.stdout
    assert "clean: " in first.stdout
    succeed("verify", place / "dataset")
    assert json.loads((place / "dataset/run.json").read_text())["weights"]["source"] == "random"


def test_it_says_that_random_weights_are_for_smoke_runs(shown):
    assert "random weights: a smoke run" in shown[1].output
    assert "--weights imagenet" in shown[1].output


def test_it_prints_where_the_contact_sheet_and_the_report_are(shown):
    place, first, second = shown
    for result in (first, second):
        assert result.stdout.splitlines()[-2:] == [
            "contact sheet: stylize-demo/contact-sheet.png",
            "report: stylize-demo/report.html",
        ]
    with Image.open(place / "contact-sheet.png") as sheet:
        sheet.load()
        assert min(sheet.size) > 200


def test_it_ends_with_a_report_of_the_test_split(shown):
    place, _, _ = shown
    page = (place / "report.html").read_text(encoding="utf-8")
    recorded = json.loads((place / "evaluation/results.json").read_text())
    (evaluation,) = recorded["evaluations"].values()
    assert evaluation["queries"]["count"] == evaluation["gallery"]["count"] == 12
    assert [result["lambda"] for result in evaluation["results"]] == [0, 0.1, 0.2, 0.5, 1, 5, 10]
    at = {result["lambda"]: result for result in evaluation["results"]}[0.2]
    assert f"{100 * at['R@1']:.1f}<small>%</small>" in page
    assert "rounds of simulated feedback" in page
    assert page.count("data:image/jpeg;base64,") > 50
    assert page.count("<svg") == 3
    assert "means nothing" in page or "mean nothing" in page  # an untrained network's figures


def test_it_goes_on_into_training_and_prints_recall_before_and_after(shown):
    place, first, _ = shown
    table = [line.split() for line in first.stdout.splitlines() if line.startswith("test ")]
    assert [row[1] for row in table] == ["before", "after"]
    recorded = json.loads((place / "identity/results.json").read_text())
    for when, row in zip(("before", "after"), table, strict=True):
        assert float(row[3]) == pytest.approx(100 * recorded[when]["test"]["R@1"], abs=0.05)


def test_a_second_run_resumes(shown):
    _, first, second = shown
    assert second.exit_code == 0
    assert "shards)" not in second.stderr
    assert second.stdout == first.stdout


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    refuse(2, "demo", tmp_path, because=(str(tmp_path), "thesis.tex", "choose an empty or new folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", [demo.FACES_FOLDER, demo.PAINTINGS_FOLDER])
def test_somebody_elses_folder_of_the_same_name_is_not_written_into(tmp_path, monkeypatch, name):
    """`stylize demo .` beside one's real Celeb-A must not mix cartoons into it or replace its annotations."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "list_attr_celeba.txt").write_text("mine")
    monkeypatch.setattr(demo, "IDENTITIES", 3)
    monkeypatch.setattr(demo, "IMAGES_PER_IDENTITY", 1)
    monkeypatch.setattr(demo, "PAINTINGS", 1)

    def build(*_, **__):
        raise InputError("far enough")

    monkeypatch.setattr(demo, "build", build)
    assert invoke("demo", tmp_path).exit_code == 2
    assert (tmp_path / name / "list_attr_celeba.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / name).iterdir()] == ["list_attr_celeba.txt"]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("file", "file/demo"):
        result = invoke("demo", tmp_path / out)
        assert result.exit_code in {1, 2}
        assert str(tmp_path / out) in result.stderr.splitlines()[-1]
        assert "choose another folder" in result.stderr or "choose an empty or new folder" in result.stderr


def test_a_bad_number_of_workers_makes_nothing(tmp_path):
    refuse(2, "demo", tmp_path / "OUT", "--workers", 0, because=("workers", "at least 1"))
    assert not (tmp_path / "OUT").exists()
