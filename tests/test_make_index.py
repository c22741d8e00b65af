"""From a run or a folder to an index."""

import pytest

from manifests.errors import InputError
from pipeline.retrieval.index import open_index
from pipeline.retrieval.make_index import make_index
from pipeline.retrieval.retrieval_model import ModelPlaces
from tests.labelled_run import write_labelled_run
from tests.trained_models import register_tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    register_tiny(monkeypatch)


PLACES = ModelPlaces(backbone="tiny", weights="random")


def test_the_splits_of_a_run(tmp_path):
    run = write_labelled_run(tmp_path, {"train": [3, 2], "test": [4, 2]})
    said: list[str] = []

    def made(splits=None):
        return make_index(run, tmp_path / "index", PLACES, splits=splits, device="cpu", quiet=True, notify=said.append)

    update = made(("test", "test"))
    assert (update.added, update.total) == (6, 6)  # a split that is named twice is there once
    assert said == [f"proxies of {run}: 6 pictures; tiny, bare, no attributes, on cpu"]
    assert made().total == 11
    assert len(open_index(tmp_path / "index")) == 11


def test_what_means_nothing_for_a_source(tmp_path):
    run = write_labelled_run(tmp_path, {"train": [2]})
    with pytest.raises(InputError, match="have a size already; leave --size out"):
        make_index(run, tmp_path / "index", PLACES, size=(16, 20))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is not a run, so --split and --partial mean nothing"):
        make_index(tmp_path / "folder", tmp_path / "index", PLACES, splits=("test",))
