"""The command line: every command's output and exit codes, and one clear sentence for every bad input.

The engine is a stub, and workers live in this process; `test_end_to_end` has the real ones.
"""

import itertools
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from distributed import LocalCluster
from PIL import Image

import cli
from manifests.attributes import ATTRIBUTES
from pipeline import build as build_module
from pipeline import cluster, network, shard_task
from pipeline.network import NetworkReference
from stylize.weights import CONVOLUTIONS
from tests.command_line import invoke, json_of, refuse, succeed
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine

ROOT = Path(__file__).parent.parent
REAL_ENGINE = shard_task.repaint_shard
COMMANDS = (
    *("build", "status", "verify", "preview", "calibrate", "bench", "demo", "redraw"),
    *("train", "backbones", "index", "search", "evaluate", "faces", "exhibit"),
)


@pytest.fixture(scope="module")
def scheduler():
    http = "127.0.0.1:0"
    with LocalCluster(
        processes=False, protocol="tcp", n_workers=1, threads_per_worker=1, dashboard_address=http, silence_logs=100
    ) as running:
        yield running.scheduler_address


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    def reference(source, seed, convention, recorded):
        return NetworkReference(source, seed, "0" * 64, None)

    monkeypatch.setattr(build_module, "reference", reference)
    monkeypatch.setattr(shard_task, "repaint_shard", StubEngine())
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory with `faces` and `paintings` in it: messages then name paths as users type them."""
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "faces", 8)
    write_paintings(tmp_path / "paintings", 12)
    return tmp_path


def command(out="OUT", *options, faces="faces", paintings="paintings"):
    given = ("--faces", faces, "--paintings", paintings, "--weights", "random", "--convention", "raw")
    return ("build", out, *given, *options)


@pytest.fixture
def build(place, scheduler):
    def call(out="OUT", *options, **inputs):
        return command(out, "--scheduler", scheduler, *options, **inputs)

    return call


def rows_of(out):
    return [row for path in sorted((out / "manifest").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# --- usage


def test_version():
    assert metadata.version("stylize") in succeed("--version").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name):
    text = succeed(name, "--help").stdout
    assert f" {name} [OPTIONS]" in text
    assert succeed(name, "-h").stdout == text


def test_help_lists_every_command():
    text = succeed("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert set(cli.main.commands) == set(COMMANDS)


def test_help_and_version_do_not_wait_for_torch():
    code = "import sys, cli\ntry: cli.main(['build', '--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--size", "large"), ("--size", '"large"', "178x218")),
        (("--size", "178"), ('"178"', "178x218")),
        (("--size", "-1x5"), ("178x218",)),
        (("--size", "8x8"), ("8x8", "at least 16")),
        (("--convention", "gatys"), ('"gatys"', "personart, raw")),
        (("--precision", "fp8"), ('"fp8"', "auto, fp32, tf32, bf16")),
        (("--image-format", "gif"), ('"gif"', "png, jpeg, webp")),
        (("--style-layers", "conv1_1,conv9_9"), ('"conv9_9"', "conv5_1")),
        (("--style-layers", ""), ('layer ""', "conv5_1")),
        (("--content-layer", "fc6"), ('"fc6"', "conv4_2")),
        (("--evaluations", "0"), ("evaluations", "at least 1", "0")),
        (("--evaluations", "many"), ("--evaluations", "many")),
        (("--max-attempts", "0"), ("max-attempts", "at least 1")),
        (("--threshold", "-1"), ("threshold", "above 0", "-1")),
        (("--threshold", "nan"), ("threshold", "nan")),
        (("--alpha", "nan"), ("alpha", "nan")),
        (("--alpha", "inf"), ("alpha", "inf")),
        (("--alpha", "-0.1"), ("alpha", "-0.1")),
        (("--shard-size", "0"), ("shard size", "at least 1")),
        (("--limit", "0"), ("limit", "at least 1")),
        (("--split", "dev"), ("train, valid, test", "dev")),
        (("--split", "train,dev"), ("train, valid, test", "dev")),
        (("--batch-size", "0"), ("--batch-size", '"0"', "auto")),
        (("--batch-size", "all"), ("--batch-size", '"all"', "auto")),
        (("--workers", "0"), ("workers", "at least 1")),
        (("--workers", "1", "--scheduler", "tcp://127.0.0.1:1"), ("workers", "local cluster")),
        (("--scheduler", "localhost"), ('"localhost"', "malformed", "tcp://HOST:PORT")),
        (("--scheduler", "http://127.0.0.1:8786"), ("http://127.0.0.1:8786", "malformed")),
        (("--scheduler-file", "nowhere.json"), ("nowhere.json", "does not exist")),
        (("--scheduler", "tcp://a:1", "--scheduler-file", "f"), ("not both",)),
        (("--paintings-csv", "nowhere.csv"), ("nowhere.csv", "does not exist")),
        (("--no-such-option",), ("--no-such-option",)),
    ],
    ids=" ".join,
)
def test_bad_values_are_refused_and_nothing_is_made(place, options, because):
    before = snapshot(place)
    refuse(2, *command("OUT", *options), because=because)
    assert snapshot(place) == before


@pytest.mark.parametrize("left_out", ["--faces", "--paintings", "OUT"])
def test_what_must_be_given(left_out):
    words = ["build", "OUT", "--faces", "f", "--paintings", "p"]
    at = words.index(left_out)
    refuse(2, *words[:at], *words[at + (1 if left_out == "OUT" else 2) :], because=("Missing", left_out))


def test_an_infinite_threshold_is_refused(build, place):
    """It cannot stand in run.json as JSON."""
    refuse(2, *build("OUT", "--threshold", "inf"), because=("threshold",))
    assert not (place / "OUT").exists()


def test_a_dry_run_prints_the_plan_and_makes_nothing(place):
    text = succeed(*command("OUT", "--dry-run")).stdout
    assert "8 faces" in text.replace("8 of 8", "8")
    plan = json_of(*command("OUT", "--dry-run", "--shard-size", 3))
    assert (plan["faces"], plan["paintings"], plan["shards"]) == (8, 12, 4)
    assert not (place / "OUT").exists()


# --- inputs


@pytest.mark.parametrize("name", ["faces", "paintings"])
def test_a_folder_that_is_missing_or_empty_or_no_folder(place, name):
    (place / "empty").mkdir()
    (place / "notes.txt").write_text("nothing")
    for wrong, words in (("nowhere", "does not exist"), ("empty", "holds no"), ("notes.txt", "is a file")):
        refuse(2, *command(**{name: wrong}), because=(wrong, words, "; give"))
    assert not (place / "OUT").exists()


def test_without_the_identity_file_of_the_official_copy(build, place):
    (place / "faces/identity_CelebA.txt").unlink()
    refuse(2, *build("OUT", "--strict"), because=("identity_CelebA.txt", "null"))
    assert not (place / "OUT").exists()
    assert "There is no identity_CelebA.txt" in succeed(*build()).stderr
    assert {row["identity"] for row in rows_of(place / "OUT")} == {None}


def test_kaggles_copy_has_no_identity_file(build, place):
    images = place / "kaggle/img_align_celeba"
    shutil.copytree(place / "faces/img_align_celeba", images)
    names = sorted(path.name for path in images.iterdir())
    rows = [f"{name}," + ",".join(["-1", "1"] * 20) for name in names]
    (place / "kaggle/list_attr_celeba.csv").write_text("\n".join([",".join(("image_id", *ATTRIBUTES)), *rows]) + "\n")
    lines = ["image_id,partition", *(f"{name},{number % 3}" for number, name in enumerate(names))]
    (place / "kaggle/list_eval_partition.csv").write_text("\n".join(lines) + "\n")
    succeed(*build("OUT", "--strict", faces="kaggle"))
    built = rows_of(place / "OUT")
    assert {row["identity"] for row in built} == {None}
    assert {(row[ATTRIBUTES[0]], row[ATTRIBUTES[1]]) for row in built} == {(False, True)}
    assert {row["split"] for row in built} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        (lambda line: line.rsplit(" ", 1)[0], "39 attribute values instead of 40"),
        (lambda line: line.replace(" 1", " 2", 1), "'2'"),
        (lambda line: line.replace(" 1", " yes", 1), "'yes'"),
    ],
    ids=["a value short", "a number", "a word"],
)
def test_a_malformed_attribute_row_is_named_by_its_line(place, wrong, because):
    path = place / "faces/list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[5] = wrong(lines[5])
    path.write_text("\n".join(lines) + "\n")
    refuse(2, *command(), because=(f"{Path('faces') / path.name}, line 6", because, "; correct or remove"))
    assert not (place / "OUT").exists()


def test_an_image_without_a_row_is_a_notice_and_strictly_an_error(build, place):
    Image.new("RGB", (16, 20)).save(place / "faces/img_align_celeba/000099.jpg")
    refuse(2, *build("OUT", "--strict"), because=("1 image has no row", "000099.jpg"))
    result = succeed(*build())
    assert "000099.jpg" in result.stderr
    assert len(rows_of(place / "OUT")) == 8


def test_a_corrupt_face_is_a_failed_row_and_the_run_goes_on(build, place):
    (place / "faces/img_align_celeba/000003.jpg").write_bytes(b"\xff\xd8 broken")
    (place / "faces/img_align_celeba/000004.jpg").write_bytes(b"")
    result = succeed(*build())
    assert "failed 2" in result.stdout
    failed = {row["image_id"]: row["error"] for row in rows_of(place / "OUT") if row["status"] == "failed"}
    assert failed.keys() == {"000003.jpg", "000004.jpg"}
    assert "empty" in failed["000004.jpg"]
    succeed("verify", "OUT")


def test_a_corrupt_painting_is_an_attempt_of_its_own_kind(build, place):
    write_paintings(place / "paintings", 12, corrupt=5)
    result = succeed(*build("OUT", "--threshold", 60))
    assert "failed 0" in result.stdout
    attempts = [attempt for row in rows_of(place / "OUT") for attempt in row["attempts"]]
    unreadable = [attempt for attempt in attempts if attempt["stop_reason"] == "unreadable_painting"]
    assert unreadable
    assert all(attempt["error"] and attempt["loss"] is None and not attempt["evaluations"] for attempt in unreadable)
    assert f"unreadable paintings {len(unreadable)}" in result.stdout
    succeed("verify", "OUT")


def test_all_paintings_are_corrupt(build, place):
    write_paintings(place / "paintings", 12, corrupt=12)
    refuse(2, *build(), because=("paintings", "could be read", "title-0"))
    assert not (place / "OUT").exists()


def test_all_faces_are_corrupt(build, place):
    for path in (place / "faces/img_align_celeba").iterdir():
        path.write_bytes(b"broken")
    refuse(1, *build(), because=("all 8 faces failed", "OUT"))


# --- OUT


@pytest.mark.parametrize("out", ["file/OUT", "/proc/OUT", "/dev/null/OUT"])
def test_out_is_not_writable(place, out):
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    (place / "file").write_text("x")
    before = snapshot(place)
    refuse(1, *command(out), because=("cannot write to", out, "choose a folder"))
    assert snapshot(place) == before


def test_out_holds_something_else(place):
    (place / "file").write_text("x")
    before = snapshot(place)
    refuse(2, *command("file"), because=("file", "is a file", "choose an empty or new folder"))
    refuse(2, *command("faces"), because=("faces", "holds something else", "choose an empty or new folder"))
    refuse(2, *command(""), because=("empty name",))
    assert snapshot(place) == before


@pytest.mark.parametrize("inputs", ["faces", "paintings"])
def test_out_within_an_input_resumes_or_is_refused_before_it_is_made(build, place, inputs):
    """The shards in OUT must not be taken for a Parquet copy of the input when the same command runs again."""
    out = f"{inputs}/OUT"
    first = invoke(*build(out))
    if first.exit_code == 2:
        assert not (place / out).exists()
    else:
        assert first.exit_code == 0
        succeed(*build(out))


def test_changed_settings_are_refused_field_by_field(build, place):
    succeed(*build("OUT", "--shard-size", 3))
    before = snapshot(place / "OUT")
    changed = {
        ("--seed", "7"): "seed: this run has 0, you asked for 7",
        ("--evaluations", "9"): "evaluations: this run has 100, you asked for 9",
        ("--threshold", "41"): "threshold: this run has 40.0, you asked for 41.0",
        ("--size", "32x40"): "size: this run has none, you asked for 32,40",
        ("--shard-size", "4"): "shard_size: this run has 3, you asked for 4",
        ("--limit", "5"): "limit: this run has none, you asked for 5",
        ("--split", "train"): "splits: this run has none, you asked for train",
        ("--image-format", "webp"): "image_format: this run has png, you asked for webp",
    }
    next((place / "paintings").rglob("*.png")).unlink()
    options = itertools.chain.from_iterable(changed)
    for command_line in (build("OUT", *options), build("OUT", *itertools.chain.from_iterable(changed), "--dry-run")):
        result = invoke(*command_line)
        assert result.exit_code == 2
        first, *lines = result.stderr.splitlines()
        assert first.startswith("Error: ")
        assert "OUT" in first
        assert "another directory" in first
        assert {line.strip() for line in lines if not line.strip().startswith("paintings:")} == set(changed.values())
        assert any("paintings: this run has 12 images" in line and "now 11" in line for line in lines)
    assert snapshot(place / "OUT") == before


# --- where it runs


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_answers_at_the_scheduler_address(place, free_port, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port}"
    refuse(1, *command("OUT", "--scheduler", address), because=(address, "check the address"))
    assert not rows_of(place / "OUT")
    # What is there, if anything, is a run that the same command finishes, not half of one.
    assert {path.name for path in place.glob("OUT/*")} <= {"run.json", "journal"}


def test_nobody_answers_and_other_settings_are_still_free(build, place, free_port, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port}"
    refuse(1, *command("OUT", "--scheduler", address, "--seed", 1), because=(address,))
    assert not (place / "OUT").exists()
    succeed(*build("OUT", "--seed", 2))


@pytest.fixture
def _real_network(monkeypatch):
    monkeypatch.setattr(build_module, "reference", network.reference)


def vgg16(path):
    """Save the shapes of torchvision's VGG-16, whose first ten layers are VGG-19's; expanded, so that it is small."""
    shapes = [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256), (512, 256)]
    shapes += [(512, 512)] * 5
    state = {}
    for index, (outputs, inputs) in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), shapes, strict=True):
        state[f"features.{index}.weight"] = torch.zeros(1).expand(outputs, inputs, 3, 3)
        state[f"features.{index}.bias"] = torch.zeros(1).expand(outputs)
    torch.save(state, path)


def wrong_shape(path):
    state = {f"{index}.weight": torch.zeros(1).expand(o, i + 1, 3, 3) for _, index, o, i in CONVOLUTIONS}
    torch.save(state | {f"{index}.bias": torch.zeros(1).expand(o) for _, index, o, _ in CONVOLUTIONS}, path)


WRONG_WEIGHTS = {
    "vgg16.pth": (vgg16, "are not VGG-19: features.16.weight"),
    "shapes.pth": (wrong_shape, "are not VGG-19: features.0.weight (conv1_1) is [64, 4, 3, 3]"),
    "notes.pth": (lambda path: path.write_text("These are not weights.\n"), "notes.pth"),
    "notes.safetensors": (lambda path: path.write_text("These are not weights.\n"), "cannot be read"),
    "empty.pth": (lambda path: path.write_bytes(b""), "empty.pth"),
    "code.pth": (lambda path: path.write_bytes(pickle.dumps(ValueError("x"))), "code.pth"),
    "list.pth": (lambda path: torch.save([1, 2], path), "hold a list"),
    "folder": (lambda path: path.mkdir(), "do not exist"),
    "nowhere.pth": (lambda path: None, "do not exist; give imagenet, random"),
}


@pytest.mark.usefixtures("_real_network")
@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_weights_of_another_network(place, name):
    write, because = WRONG_WEIGHTS[name]
    write(place / name)
    refuse(2, *command("OUT", "--weights", name), because=(name, because))
    assert not (place / "OUT").exists()


@pytest.mark.usefixtures("_real_network")
def test_tf32_of_workers_without_a_gpu(build, place, monkeypatch):
    """A running cluster may have GPUs that this machine lacks, so its workers are the ones to say."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shard_task, "repaint_shard", REAL_ENGINE)
    sentence = refuse(
        1, *build("OUT", "--precision", "tf32"), because=("precision tf32 needs a CUDA device; use fp32",)
    )
    assert "0 of 3 shards" in sentence
    assert not rows_of(place / "OUT")


def test_tf32_here_without_a_gpu_is_refused_before_out_is_made(place, monkeypatch):
    monkeypatch.setattr(cluster, "visible_gpus", lambda: ())
    refuse(2, *command("OUT", "--precision", "tf32", "--workers", 1), because=("tf32", "fp32"))
    assert not (place / "OUT").exists()


# --- interrupts


def test_ctrl_c_before_the_work_begins(place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "read_faces", interrupt)
    result = invoke(*command())
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Stopped before the work began; run the same command again.\n"
    assert not (place / "OUT").exists()


def test_ctrl_c_in_mid_run_says_how_to_resume(build, place, monkeypatch):
    def engine(spec, faces, draw, on_attempt):
        if spec.name.split == "valid":
            os.kill(os.getpid(), signal.SIGINT)
            yield from StubEngine(sleep=0.2)(spec, faces, draw, on_attempt)
        else:
            yield from StubEngine()(spec, faces, draw, on_attempt)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(shard_task, "repaint_shard", engine)
        result = invoke(*build("OUT", "--shard-size", 2))
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        "Stopped: 2 of 4 shards are complete; run the same command again to resume."
    )
    assert signal.getsignal(signal.SIGINT) is handler
    assert json_of("status", "OUT")["complete"] is False
    succeed(*build("OUT", "--shard-size", 2))
    succeed("verify", "OUT")


def test_ctrl_c_elsewhere(place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.sample_pairs.read_faces", interrupt)
    result = invoke("calibrate", "--faces", "faces", "--paintings", "paintings")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "Stopped.")


# --- what a run says of itself


def test_a_finished_run(build, place):
    text = succeed(*build("OUT", "--shard-size", 3)).stdout
    assert "complete, 4 of 4 shards, 8 of 8 faces" in text
    assert succeed("status", "OUT").stdout == text
    assert "clean: 4 shards, 8 faces" in succeed("verify", "OUT").stdout
    result = succeed("preview", "OUT", "-o", "sheet.png", "-n", 4)
    assert "4 faces: sheet.png" in result.stdout
    with Image.open("sheet.png") as sheet:
        sheet.load()


def test_json_of_every_command_that_has_it(build, place):
    built = json_of(*build("OUT", "--shard-size", 3))
    assert built == json_of("status", "OUT")
    assert built["complete"] is True
    assert sum(built["totals"].values()) == 8
    assert (built["shards_planned"], built["shards_committed"]) == (4, 4)
    verified = json_of("verify", "OUT")
    assert verified == {
        "clean": True,
        "counts": {"shards": 4, "faces": 8, "images": built["totals"]["accepted"]},
        "findings": [],
    }
    shown = json_of("preview", "OUT", "-o", "sheet.png", "-n", 3)
    assert shown["sheet"] == "sheet.png"
    assert len(shown["image_ids"]) == 3
    assert {row["image_id"] for row in rows_of(place / "OUT")} >= set(shown["image_ids"])
    assert json_of(*build("OUT", "--shard-size", 3, "--dry-run"))["shards_committed"] == 4


def test_a_half_finished_run(build, place):
    succeed(*build("OUT", "--shard-size", 2))
    (place / "OUT/manifest/train-00001-of-00002.parquet").unlink()
    text = succeed("status", "OUT").stdout
    assert "not complete, 3 of 4 shards, 6 of 8 faces" in text
    assert json_of("status", "OUT")["complete"] is False
    result = invoke("verify", "OUT")
    assert result.exit_code == 1
    assert "manifest/train-00001-of-00002.parquet is missing; run the build again" in result.stdout
    assert json_of("verify", "OUT", code=1)["clean"] is False
    assert len(json_of("preview", "OUT", "-n", 99)["image_ids"]) <= 6
    succeed(*build("OUT", "--shard-size", 2))
    succeed("verify", "OUT")


@pytest.mark.parametrize("name", ["status", "verify", "preview"])
def test_no_run(place, name):
    refuse(2, name, "nowhere", because=("nowhere", "run.json", "check the path"))
    refuse(2, name, "faces", because=("faces", "run.json"))
    refuse(2, name, "faces/list_attr_celeba.txt", because=("list_attr_celeba.txt",))
    assert not (place / "sheet.png").exists()


def test_a_flipped_byte_is_found_with_file_and_row(build, place):
    succeed(*build())
    path = place / "OUT/data/train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    accepted = [row for row in rows_of(place / "OUT") if row["data_file"] == "data/train-00000-of-00001.parquet"]
    image = pq.read_table(path)["image"][accepted[1]["data_row"]].as_py()["bytes"]
    content[content.index(image) + len(image) - 10] ^= 1
    path.write_bytes(content)
    result = invoke("verify", "OUT")
    assert result.exit_code == 1
    assert "data/train-00000-of-00001.parquet, row" in result.stdout
    assert "SHA-256" in result.stdout
    document = json_of("verify", "OUT", code=1)
    assert document["findings"]
    succeed("status", "OUT")


def damage_footer(path):
    path.write_bytes(path.read_bytes()[:-40])


def damage_images(path):
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\x89GNP"))


@pytest.mark.parametrize("name", ["preview", "verify --recompute"])
@pytest.mark.parametrize(
    "damaged",
    [("manifest", damage_footer), ("data", damage_footer), ("data", damage_images), ("data", Path.unlink)],
    ids=["manifest footer", "data footer", "pixels", "data missing"],
)
def test_a_damaged_run_has_a_sentence_for_its_reader(build, place, monkeypatch, damaged, name):
    folder, damage = damaged
    succeed(*build())
    damage(place / "OUT" / folder / "train-00000-of-00001.parquet")
    monkeypatch.setattr("pipeline.recompute._load", lambda run, source: None)
    result = invoke(*name.split(), *(("-n", 99) if name == "preview" else ()), "OUT")
    assert result.exit_code == (1 if "verify" in name else result.exit_code) != 0
    assert f"{folder}/train-00000-of-00001.parquet" in result.output
    assert "[Errno" not in result.output
    if name == "preview":
        assert "verify" in result.stderr


@pytest.mark.parametrize("folder", ["manifest", "data"])
@pytest.mark.parametrize("damage", [damage_footer, Path.unlink], ids=["torn", "missing"])
def test_what_verify_advises_mends_the_run(build, place, folder, damage):
    succeed(*build())
    path = place / "OUT" / folder / "train-00000-of-00001.parquet"
    damage(path)
    findings = " ".join(json_of("verify", "OUT", code=1)["findings"])
    assert "run the build again" in findings
    for sentence in findings.split("; "):
        if sentence.startswith("delete it"):
            path.unlink()
        elif sentence.startswith("delete manifest/"):
            (place / "OUT" / sentence.split()[1]).unlink()
    succeed(*build())
    succeed("verify", "OUT")


def test_a_damaged_run_file(build, place):
    succeed(*build())
    (place / "OUT/run.json").write_text("{")
    for name in ("status", "preview"):
        refuse(2, name, "OUT", because=("run.json", "not readable JSON"))
    assert "run.json" in json_of("verify", "OUT", code=1)["findings"][0]
    refuse(2, *build(), because=("run.json", "restore the file, or build into a new folder"))


def test_a_run_in_which_every_face_was_rejected(build, place, monkeypatch):
    succeed(*build("OUT", "--threshold", 1e-6))
    assert json_of("status", "OUT")["totals"] == {"accepted": 0, "rejected": 8, "failed": 0}
    succeed("verify", "OUT")
    sentence = refuse(2, "preview", "OUT", because=("no accepted proxy",))
    assert "let the build commit" not in sentence  # it has
    monkeypatch.setattr("pipeline.recompute._load", lambda run, source: None)
    document = json_of("verify", "OUT", "--recompute")
    assert document["recomputed"]["proxies"] == 0


@pytest.mark.parametrize("sheet", ["nowhere/sheet.png", "faces"])
def test_a_sheet_that_cannot_be_written(build, place, sheet):
    succeed(*build())
    refuse(1, "preview", "OUT", "-o", sheet, because=(sheet, "cannot be written"))


def test_negative_seeds(build, place):
    succeed(*build("OUT", "--seed", -1))
    result = invoke("preview", "OUT", "--seed", -1)
    assert result.exit_code == 2
    assert "seed" in result.stderr


def test_inputs_that_moved_or_changed_since(build, place):
    succeed(*build())
    (place / "paintings").rename(place / "moved")
    refuse(2, "preview", "OUT", because=("paintings", "--paintings"))
    succeed("preview", "OUT", "--paintings", "moved")
    refuse(
        2, "preview", "OUT", "--paintings", "faces/img_align_celeba", because=("faces/img_align_celeba", "not those")
    )


def test_a_painting_csv_that_moved_with_the_paintings(build, place):
    csv = place / "paintings/labels.csv"
    files = sorted(path.relative_to(place / "paintings").as_posix() for path in (place / "paintings").rglob("*.png"))
    csv.write_text("file,artist\n" + "".join(f"{file},somebody\n" for file in files))
    succeed(*build("OUT", "--paintings-csv", csv))
    succeed("preview", "OUT")
    (place / "paintings").rename(place / "moved")
    sentence = refuse(2, "preview", "OUT", "--paintings", "moved", because=("labels.csv", "--paintings-csv"))
    assert "Traceback" not in sentence
    succeed("preview", "OUT", "--paintings", "moved", "--paintings-csv", "moved/labels.csv")


def test_status_needs_no_torch(build, place):
    succeed(*build())
    code = (
        "import sys, cli\ntry: cli.main(['status', sys.argv[1]])\nexcept SystemExit: pass\n"
        "print({'torch', 'distributed'} & set(sys.modules) or 'neither')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, place / "OUT"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "neither"
