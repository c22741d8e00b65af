"""Curation: struck proxies are made again from the next paintings, and nothing else changes."""

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.errors import InputError, RunError
from manifests.run import RunDirectory
from manifests.shard_rewrite import read_shard
from manifests.verify import verify
from pipeline import network
from pipeline import redraw as redraw_module
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.pairing import draws
from pipeline.recompute import recompute
from pipeline.redraw import redraw
from pipeline.redraw_list import read_redraw_list
from pipeline.redraw_task import redraw_shard
from stylize.settings import TransferSettings
from stylize.weights import load_weights
from tests.real_run import build as build_for_real
from tests.real_run import local_cluster, rows_of
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine, loss_of

PAINTINGS = 12
SETTINGS = TransferSettings(convention="raw", max_attempts=3, threshold=40.0)


@pytest.fixture(scope="module")
def cluster(quick):
    weights = functools.cache(load_weights)  # random ones take half a second to draw
    with pytest.MonkeyPatch.context() as patch, local_cluster() as cluster:
        patch.setattr(network, "load_weights", weights)
        yield ExecutionConfig(scheduler=cluster.scheduler_address)


@pytest.fixture(scope="module")
def place(tmp_path_factory, cluster):
    """Inputs, and a run of 24 faces in 8 shards."""
    place = tmp_path_factory.mktemp("redraw")
    faces, paintings = write_faces(place / "celeba", 24), write_paintings(place / "wikiart", PAINTINGS)
    config = BuildConfig(transfer=SETTINGS, shard_size=3)
    build(place / "OUT", faces, paintings, config, cluster, weights="random", engine=StubEngine(), quiet=True)
    return place


@pytest.fixture
def out(place, tmp_path):
    return Path(shutil.copytree(place / "OUT", tmp_path / "OUT"))


@pytest.fixture
def strike(out, tmp_path, cluster):
    """Redraw faces of the run."""

    def call(*faces, reason="cross-eyed", engine=None, **options):
        (tmp_path / "ids.txt").write_text("".join(f"{face}\n" for face in faces))
        return redraw(
            out,
            tmp_path / "ids.txt",
            reason=reason,
            **{"execution": cluster, "quiet": True, "engine": engine or StubEngine()} | options,
        )

    return call


def rows(out):
    return {row["image_id"]: row for row in rows_of(out)}


def files(out):
    """Return the content of the run's files but for the event log."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] != "events"
    }


def accepted(out, count=None):
    return [face for face, row in rows(out).items() if row["status"] == "accepted"][:count]


def painting_names(place):
    return sorted(path.relative_to(place / "wikiart").as_posix() for path in (place / "wikiart").rglob("*.png"))


def expected_attempts(place, face, start):
    """Return the paintings that a redraw of a face is to try, from the pairing and the stub's losses alone."""
    names, tried = painting_names(place), []
    for index in draws(0, face, PAINTINGS, PAINTINGS)[start : start + SETTINGS.max_attempts]:
        tried.append(names[index])
        if loss_of(face, tried[-1]) < SETTINGS.threshold:
            break
    return tried


def check_redrawn(place, before, after, face, reason="cross-eyed"):
    was, now = before[face]["attempts"], after[face]["attempts"]
    assert now[: len(was) - 1] == was[:-1]
    assert now[len(was) - 1] == {**was[-1], "error": f"struck: {reason}"}
    new = expected_attempts(place, face, len(was))
    assert [attempt["painting"] for attempt in now[len(was) :]] == new
    if loss_of(face, new[-1]) < SETTINGS.threshold:
        assert (after[face]["status"], after[face]["painting"]) == ("accepted", new[-1])
        assert after[face]["loss"] == now[-1]["loss"]
    else:
        assert (after[face]["status"], after[face]["painting"]) == ("rejected", None)
        assert after[face]["sha256"] is None
    labels = ("image_id", "source_id", "split", "identity", "Smiling", "convention", "precision")
    assert [before[face][label] for label in labels] == [after[face][label] for label in labels]


def test_every_proxy_redrawn_is_the_next_of_its_face(place, out, strike):
    before = rows(out)
    chosen = accepted(out)
    summary = strike(*chosen)
    after = rows(out)
    for face in chosen:
        check_redrawn(place, before, after, face)
    assert all(after[face] == before[face] for face in before.keys() - set(chosen))
    outcomes = [after[face]["status"] for face in chosen]
    assert summary.accepted == outcomes.count("accepted") > 0
    assert summary.rejected == outcomes.count("rejected") > 0  # or the inputs show too little
    assert summary.lines() == [
        f"redrawn: {len(chosen)} faces in 8 shards, accepted {summary.accepted}, rejected {summary.rejected}"
    ]
    assert json.loads(json.dumps(summary.as_dict()))["status"]["complete"]
    for split, counts in summary.status.faces.items():
        faces, kinds = sum(counts.values()), [counts[kind] for kind in ("accepted", "rejected", "failed")]
        assert f"| {split} | {faces} | " + " | ".join(map(str, kinds)) + " |" in (out / "README.md").read_text()
    assert summary.status.total("accepted") == summary.accepted
    assert verify(out).clean, verify(out).findings
    assert not (out / "journal").exists()


def test_only_the_shards_concerned_and_the_card_change(out, strike):
    before = files(out)
    face = accepted(out)[0]
    strike(face)
    after = files(out)
    shard = rows(out)[face]["data_file"] or "data/train-00000-of-00004.parquet"
    assert before.keys() == after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert (
        {shard, shard.replace("data", "manifest")}
        <= changed
        <= {
            shard,
            shard.replace("data", "manifest"),
            "README.md",
        }
    )


def test_one_by_one_or_together_is_the_same(place, out, strike, tmp_path):
    chosen = accepted(out, 3)
    for face in chosen:
        strike(face)
    one_by_one = files(out)
    shutil.rmtree(out)
    shutil.copytree(place / "OUT", out)
    strike(*reversed(chosen))
    assert files(out) == one_by_one


def test_struck_again_goes_further(place, out, strike):
    face = next(
        face
        for face in accepted(out)
        if loss_of(face, expected_attempts(place, face, len(rows(out)[face]["attempts"]))[-1]) < SETTINGS.threshold
    )
    strike(face, reason="no nose")
    once = rows(out)
    strike(face, reason="no ears")
    check_redrawn(place, once, rows(out), face, "no ears")
    errors = [attempt["error"] for attempt in rows(out)[face]["attempts"] if attempt["error"]]
    assert errors == ["struck: no nose", "struck: no ears"]
    paintings = [attempt["painting"] for attempt in rows(out)[face]["attempts"]]
    assert len(paintings) == len(set(paintings))


def one_of_each_shard(out, count=3):
    """Return accepted faces of different shards, in the order in which the shards are handed out."""
    run, present = RunDirectory.open(out), set(accepted(out))
    faces = [[row.image_id for row in read_shard(run, name).rows] for name in run.planned()]
    return [next(face for face in shard if face in present) for shard in faces if present & set(shard)][:count]


@dataclass(frozen=True)
class Failing(StubEngine):
    """Raises for all faces but the one that it is told to let through."""

    through: str = ""

    def __call__(self, spec, faces, draw, on_attempt):
        if any(face.key != self.through for face in faces):
            raise RunError("the roof has come down")
        return super().__call__(spec, faces, draw, on_attempt)


def test_an_interrupted_redraw_goes_on_and_repeats_nothing(place, out, strike):
    before = rows(out)
    chosen = one_of_each_shard(out)
    with pytest.raises(
        RunError, match=r"the roof has come down\. 1 of 3 faces are redrawn; run the same command again to go on"
    ):
        strike(*chosen, engine=Failing(through=chosen[0]))
    assert verify(out).clean
    half = rows(out)
    check_redrawn(place, before, half, chosen[0])
    assert half[chosen[1]] == before[chosen[1]]
    # A build in between, as somebody may well run, finds the run complete and does not forget the redraw.
    RunDirectory.open(out).finish()
    summary = strike(*reversed(chosen))  # the same faces for the same reason
    after = rows(out)
    assert after[chosen[0]] == half[chosen[0]]
    for face in chosen:
        check_redrawn(place, before, after, face)
    assert summary.accepted + summary.rejected == 3
    assert not (out / "journal").exists()
    assert verify(out).clean


def test_a_redraw_that_dies_before_its_end_only_tidies_up(out, strike, monkeypatch):
    chosen = one_of_each_shard(out)
    card = (out / "README.md").read_bytes()

    def fails(run):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(redraw_module, "_write_card", fails)
        with pytest.raises(OSError, match="No space left"):
            strike(*chosen)
    half = rows(out)

    def untouched(*args, **kwargs):
        raise AssertionError("nothing is left to do")

    with monkeypatch.context() as patch:
        patch.setattr(redraw_module, "execute", untouched)
        summary = strike(*chosen)
    assert rows(out) == half
    assert summary.shards == 3
    assert ((out / "README.md").read_bytes() == card) == (summary.rejected == 0)
    assert not (out / "journal").exists()


def test_another_redraw_gives_an_interrupted_one_up(place, out, strike):
    first, second, third = one_of_each_shard(out)
    with pytest.raises(RunError, match="roof"):
        strike(first, second, engine=Failing(through=first))
    half = rows(out)
    told: list[str] = []
    strike(third, notify=told.append)
    assert told == [
        "an earlier redraw of 2 faces was interrupted and is given up: what it has redrawn stays, "
        "and what it has not keeps its old proxy"
    ]
    after = rows(out)
    assert (after[first], after[second]) == (half[first], half[second])
    check_redrawn(place, half, after, third)


SCRIPT = """
import sys
from pipeline.config import ExecutionConfig
from pipeline.redraw import redraw
from tests.real_run import local_cluster
from tests.stub_engine import StubEngine

with local_cluster() as cluster:
    execution = ExecutionConfig(scheduler=cluster.scheduler_address)
    redraw(*sys.argv[1:], reason="cross-eyed", execution=execution, engine=StubEngine(sleep=0.5))
"""


def test_a_machine_that_loses_power(place, out, strike, tmp_path):
    before = rows(out)
    chosen = one_of_each_shard(out, 4)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "ids.txt").write_text("\n".join(chosen))
    client = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", out, tmp_path / "ids.txt"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stderr is not None
    assert "1 of 4 shards" in next(client.stderr)  # its first shard is done
    client.kill()  # and with it scheduler and worker
    client.communicate()
    half = rows(out)
    done = [face for face in chosen if half[face] != before[face]]
    assert 1 <= len(done) < 4
    strike(*chosen)
    after = rows(out)
    for face in chosen:
        check_redrawn(place, before, after, face)
    assert all(after[face] == half[face] for face in done)
    assert verify(out).clean


def test_the_task_executed_twice_does_its_work_once(place, out, strike, monkeypatch):
    real = redraw_shard

    def twice(spec, *args):
        first = real(spec, *args)
        assert not real(spec, *args).executed
        return first

    twice.__module__ = "__main__"  # so that it travels whole
    monkeypatch.setattr(redraw_module, "redraw_shard", twice)
    before = rows(out)
    face = accepted(out)[0]
    strike(face)
    check_redrawn(place, before, rows(out), face)


def test_a_face_that_cannot_be_read_keeps_its_proxy(place, out, strike):
    first, second, _ = one_of_each_shard(out)
    before = rows(out)
    photo = place / "celeba" / "img_align_celeba" / first
    image = photo.read_bytes()
    photo.write_bytes(bytes(len(image)))
    try:
        with pytest.raises(RunError, match=r"1 of 2 faces could not be repainted and keeps its old proxy, most .*Mend"):
            strike(first, second)
    finally:
        photo.write_bytes(image)
    half = rows(out)
    assert half[first] == before[first]
    check_redrawn(place, before, half, second)
    assert verify(out).clean
    strike(first, second)
    check_redrawn(place, before, rows(out), first)
    assert rows(out)[second] == half[second]


def test_what_is_refused_changes_nothing(place, out, strike, tmp_path):
    strike(*accepted(out))
    before = files(out)
    face = accepted(out)[0]
    rejected = [face for face, row in rows(out).items() if row["status"] == "rejected"]
    for faces, sentence in (
        ([face, "nobody.jpg", "none.jpg"], r"2 are not in the run: nobody.jpg, none.jpg"),
        ([face, rejected[0]], f"1 is without a proxy in the run: {rejected[0]}"),
    ):
        with pytest.raises(InputError, match=sentence):
            strike(*faces)
    with pytest.raises(InputError, match="not those of this run"):
        strike(face, weights=str(weights_file(tmp_path)))
    (tmp_path / "fewer").mkdir()
    write_paintings(tmp_path / "fewer", PAINTINGS - 1)
    with pytest.raises(InputError, match=r"paintings at .*fewer.* are not those"):
        strike(face, paintings=tmp_path / "fewer")
    with pytest.raises(InputError, match=r"faces of this run are not at .*gone.*--faces"):
        strike(face, faces=tmp_path / "gone")
    with pytest.raises(InputError, match="no reason"):
        strike(face, reason=None)
    assert files(out) == before
    (out / "manifest" / "valid-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="not complete: 1 of 8 shards are missing; build it first"):
        strike(face)
    shutil.rmtree(out)
    with pytest.raises(InputError, match=r"has no run\.json"):
        strike(face)


def weights_file(folder):
    from safetensors.torch import save_file  # noqa: PLC0415

    weights = load_weights("random", seed=1)
    save_file(dict(weights.tensors), folder / "other.safetensors")
    return folder / "other.safetensors"


def test_the_end_of_the_catalogue(place, out, strike):
    """Redrawn over and over, a face is tried with every painting once, and then there is no next one."""
    before = rows(out)
    left = accepted(out, 6)
    while left:
        strike(*left)
        after = rows(out)
        left = [face for face in left if after[face]["status"] == "accepted"]
        last = [face for face in left if len(after[face]["attempts"]) == PAINTINGS]
        left = [face for face in left if face not in last]
        if last:
            with pytest.raises(InputError, match=f"tried with all {PAINTINGS} paintings already: {last[0]}"):
                strike(*last)
    after = rows(out)
    names = painting_names(place)
    for face, row in after.items():
        tried = [attempt["painting"] for attempt in row["attempts"]]
        assert tried == [names[index] for index in draws(0, face, PAINTINGS, PAINTINGS)][: len(tried)]
        assert (row["status"] == "failed") == (before[face]["status"] == "failed")
    assert max(len(row["attempts"]) for row in after.values()) == PAINTINGS
    assert verify(out).clean


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("a.jpg\nb.jpg\n", {"a.jpg": "poor", "b.jpg": "poor"}),
        ("\ufeff# looked at on Monday\r\n\r\n  a b.jpg  \r\nc\tno nose \r\n", {"a b.jpg": "poor", "c": "no nose"}),
        ("a\na\nb\tpoor\nb", {"a": "poor", "b": "poor"}),
        ("a\ttoo\tmany tabs", {"a": "too\tmany tabs"}),
    ],
)
def test_lists_as_people_write_them(tmp_path, text, reasons):
    (tmp_path / "ids").write_bytes(text.encode())
    assert read_redraw_list(tmp_path / "ids", "poor") == reasons


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "names no face"),
        (b"# nothing\n\n", "names no face"),
        (b"a\n\tno id\n", "line 2 .* has no image_id"),
        (b"a\tx\na\ty\n", "line 2 .* second reason for a"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_lists_that_are_none(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_redraw_list(tmp_path / "ids", "poor")


def test_with_the_real_engine_losses_can_be_recomputed(tmp_path, cluster):
    from tests.real_run import draw_inputs  # noqa: PLC0415

    draw_inputs(tmp_path, identities=3)
    out = build_for_real(tmp_path, "OUT", "--scheduler", cluster.scheduler, "--shard-size", 2, "--limit", 4)
    before = rows(out)
    chosen = accepted(out, 2)
    (tmp_path / "ids.txt").write_text("\n".join(chosen))
    redraw(out, tmp_path / "ids.txt", reason="poor", execution=cluster, quiet=True)
    after = rows(out)
    seen = {face: len(before[face]["attempts"]) for face in chosen}
    for face in chosen:
        tried = [attempt["painting"] for attempt in after[face]["attempts"]]
        assert len(tried) == len(set(tried)) > seen[face]
    assert verify(out).clean
    assert recompute(out).findings == ()
