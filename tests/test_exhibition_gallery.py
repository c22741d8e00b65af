"""The gallery, the cache of its pictures, and what staff can choose."""

import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition.exhibit import check_choices
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import plain_museum
from pipeline.exhibition.pictures import PictureCache
from pipeline.exhibition.serving import address_of, bound_socket
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.retrieval.index import open_index
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from tests import test_search
from tests.exhibition_visitors import UNTRAINED, Visitor, make_app, make_index, open_gallery, visiting, write_page
from tests.labelled_run import photograph
from tests.trained_models import register_tiny


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("gallery")
    make_index(place)
    return place


def head_of(person):
    return torch.from_numpy(photograph(person, 9)).permute(2, 0, 1).contiguous()


def test_what_is_trained(made):
    gallery = open_gallery(made / "index")
    assert len(gallery) == 32
    assert len(gallery.trained) == 39
    assert UNTRAINED not in gallery.trained
    assert gallery.ids(5) == ("painter-1_work-1.png", "painter-1_work-1.png")
    assert gallery.faces["painter-1_work-1.png"] == 5


def test_an_explanation_can_be_stopped_at_every_batch(made):
    gallery = open_gallery(made / "index")
    pauses = 0

    def count():
        nonlocal pauses
        pauses += 1

    whole = gallery.explain(head_of(1), 3, weight=0.2, steps=20, pause=count)
    assert pauses >= 2 * (1 + 3)  # of both sides the ends of the path, and three batches of at most eight

    class StoppedError(Exception):
        pass

    def stop():
        nonlocal pauses
        pauses -= 1
        if not pauses:
            raise StoppedError

    with pytest.raises(StoppedError):
        gallery.explain(head_of(1), 3, weight=0.2, steps=20, pause=stop)
    assert gallery.explain(head_of(1), 3, weight=0.2, steps=20, pause=lambda: None) == whole


def test_descriptions_and_explanations_at_once(made):
    """Threads share the model; what each gets does not depend on the others."""
    gallery = open_gallery(made / "index")
    alone = [gallery.describe(head_of(person)) for person in range(8)]
    why = gallery.explain(head_of(0), 0, weight=0.2, steps=8, pause=lambda: None)
    wrong: list[object] = []

    def describe():
        for person in range(8):
            for one, other in zip(gallery.describe(head_of(person)), alone[person], strict=True):
                if not torch.equal(one, other):
                    wrong.append(person)

    def explain():
        if gallery.explain(head_of(0), 0, weight=0.2, steps=8, pause=lambda: None) != why:
            wrong.append("why")

    threads = [threading.Thread(target=work) for work in (describe, describe, explain, explain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_gallery_without_attributes(made, tmp_path):
    places = ModelPlaces(backbone="tiny", weights=str(made / "tiny.safetensors"))
    index = open_index(test_search.make_index(tmp_path, [photograph(at, 0) for at in range(5)], places))
    gallery = Gallery(index, open_retrieval_model(places))
    assert gallery.weight == 0
    with pytest.raises(InputError, match="no attributes to weigh"):
        check_choices(index, plain_museum(index), ExhibitionSettings(weight=0.2))
    with visiting(make_app(gallery, write_page(tmp_path))) as client:
        visitor = Visitor(client)
        results = visitor.arrive()
        assert visitor.config["attributes"] == []
        assert visitor.config["weight"] == results["weight"] == 0
        assert [item["attributesAgree"] for item in results["items"]] == [None] * 5
        assert visitor.explained(results["items"][0]["face"])["identityShare"] == 1
        refused = visitor.ask("PUT", "/settings", json={"weight": 0.1})
        assert refused.json()["error"]["code"] == "impossible_weight"
        assert visitor.ask("PUT", "/settings", json={"weight": 0}).status_code == 200


# --- pictures ---------------------------------------------------------------------------------------


def test_pictures_are_kept_within_a_limit():
    cache, read = PictureCache(limit=4000), []
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)  # about 3 kB as JPEG

    def of(item):
        def draw():
            read.append(item)
            return noise

        return cache.face(item, draw)

    assert of(1) == of(1) == of(1)
    assert read == [1]
    of(2)
    of(1)  # the first had to go
    assert read == [1, 2, 1]


def test_one_picture_is_decoded_at_a_time_and_each_once():
    """A whole work may take more than a gigabyte while it is decoded."""
    cache, read = PictureCache(), []
    at_work, most = 0, 0
    lock, start = threading.Lock(), threading.Barrier(8)

    def draw(item):
        nonlocal at_work, most
        with lock:
            read.append(item)
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.02)
        with lock:
            at_work -= 1
        return np.zeros((40, 40, 3), np.uint8)

    def ask(item):
        start.wait(30)
        cache.face(item, lambda: draw(item))

    threads = [threading.Thread(target=ask, args=(at % 4,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(read) == [0, 1, 2, 3]


def test_large_pictures_are_reduced(tmp_path):
    large = np.zeros((300, 5000, 3), np.uint8)
    cache = PictureCache()
    assert Image.open(io.BytesIO(cache.face(1, lambda: large).data)).size == (1200, 72)
    Image.fromarray(large).save(tmp_path / "work.png")
    assert Image.open(io.BytesIO(cache.work(tmp_path / "work.png").data)).size == (2000, 120)
    with pytest.raises(InputError, match=r'"[^"]*gone\.png" of a work cannot be read'):
        cache.work(tmp_path / "gone.png")


# --- choices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weight": 1.5}, "must be from 0 to 1, not 1.5"),
        ({"weight": float("nan")}, "must be from 0 to 1, not nan"),
        ({"k": 0}, "from 1 to 100, not 0"),
        ({"idle_seconds": 5}, "10 to 3600 seconds, not 5"),
        ({"max_visits": 0}, "max_visits of an exhibition must be above 0"),
        ({"weight_max": float("inf")}, "must be a number above 0"),
        ({"allowed_hosts": ("booth.example", "http://booth.example")}, '"http://booth.example" is neither a name nor'),
        ({"allowed_hosts": ("*.example",)}, "neither a name nor an address"),
        ({"allowed_hosts": ("...",)}, "neither a name nor an address"),
    ],
)
def test_impossible_settings(options, sentence):
    with pytest.raises(InputError, match=sentence):
        ExhibitionSettings(**options)


def test_a_language_that_the_pages_do_not_speak(made):
    index = open_index(made / "index")
    with pytest.raises(InputError, match='do not speak the language "tlh"; choose from en, it'):
        check_choices(index, plain_museum(index), ExhibitionSettings(language="tlh"))
    check_choices(index, plain_museum(index), ExhibitionSettings(language="it", weight=0.3))


def test_addresses_that_cannot_be_served():
    with bound_socket("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be served .*--host and --port"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(InputError, match="cannot be served"):
        bound_socket("192.0.2.1", 0)  # of nobody (RFC 5737)
    for host in ("...", "a" * 70):
        with pytest.raises(InputError, match=r"cannot be served .it is no name and no address"):
            bound_socket(host, 0)
    for port in (-1, 65_536):
        with pytest.raises(InputError, match=f"from 0 to 65535, not {port}"):
            bound_socket("127.0.0.1", port)


def test_a_visit_is_never_forgotten_before_its_photograph_may_have_come():
    assert ExhibitionSettings().forget_seconds == 180
    assert ExhibitionSettings(idle_seconds=10).forget_seconds == 45
    assert ExhibitionSettings(idle_seconds=10, body_seconds=100).forget_seconds == 115


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("booth.example", "booth.example")],
)
def test_the_address_that_is_told_is_one_that_is_answered(host, address):
    with bound_socket("127.0.0.1", 0) as bound:
        assert address_of(bound, host) == f"http://{address}:{bound.getsockname()[1]}/"


def test_an_index_of_somebody_whom_nobody_knows():
    with pytest.raises(InputError, match="~nosuchuser/index"):
        open_index("~nosuchuser/index")
