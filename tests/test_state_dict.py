"""Reading checkpoints: the same tensors out of every container, nothing run, one sentence for everything else."""

import base64
import collections
import contextlib
import functools
import io
import os
import pickle
import sys
import tarfile
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from manifests.errors import InputError
from pipeline.backbones.state_dict import read_state_dict

# Not written by this project: Python 2.7.18 and NumPy 1.16.6, cPickle.dumps({"conv1.weight": float32 [1, 2, 3],
# "bn1.bias": float64 [2, 2] in Fortran order}, protocol), as VGGFace2's .pkl files are; compressed to fit here.
PYTHON2 = {
    0: (
        "eNp9kMFugzAQRO/zI+YSa03SlEpV4MqFQ7lWqsAQgtQQyyxJ+ftuQhShqkHyHNYzXs1zUDmDXJWd0WVb9AouhO2Goxu1PflaH4dv"
        "bgvvixFfvranrmc/WIZbI5hy6KrJdxsEKYFlmwJ/uBcZjSiEHL6HKx5dDbdFkKt9pCAPJCTpV0mupcm7QpZl6crgJtlXpnSt+PlD"
        "9L/2FD83KUoWTJF96rWJcJR9rgT7bPSlbpsDyw9FaIS++YP7dsc1V1xB4WaC3MwgDS1R0iJlRLv5xQM5ieeZ2VBQfOuvfwHPTYdD"
    ),
    2: (
        "eNprYKotZNQI5UjKM9RLykwsLmRKzivNLajUS84vStXLLc0pyUwsKkqs5IovSk3OzysuKSpNLuEqZIao4spLgcgWsngztIYyJrUH"
        "FbJqeDN6M3kztUGVpJRUFqRyFbKFMqVZeDN4MwKVsGt4M4cy2vj5+Xn9BwIw4c1QktQRqsAABh/sITSHA4RmOAChMh1KkkJ5gO4o"
        "M9QrT81Mzygp5MhgzkBYzgmyHGQ9c3sGyEYTqI1cOGzsDJWAmNxgBySAtjoAcQMQL7AvSSrVAwDHslZA"
    ),
}


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "conv.bias": torch.randn(4, generator=generator),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(5, generator=generator).half(),
    }


def save_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(protocol: int, content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PICKLES: dict[str, Callable[[object, Path], None]] = {
    f"pickle{protocol}": functools.partial(save_pickle, protocol) for protocol in PROTOCOLS
}
TORCH: dict[str, Callable[[object, Path], None]] = {"zip": save_zip, "legacy": save_legacy}


def as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def assert_same(read: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert type(read[name]) is Tensor
        assert not read[name].requires_grad
        assert read[name].dtype == tensor.dtype, name
        assert torch.equal(read[name], tensor.detach()), name


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f'weights "{path}" ')
    assert len(message) < len(str(path)) + 500
    assert "weights_only=False" not in message  # torch's own advice is to run the file
    return message


# What is read


@pytest.mark.parametrize("save", TORCH.values(), ids=TORCH)
@pytest.mark.parametrize("key", ["state_dict", "net_state_dict", "model_state_dict", "model", None])
def test_wrapped_state_dicts_of_torch_are_unwrapped(tmp_path, save, key):
    content = collections.OrderedDict(state())
    save(content if key is None else {"epoch": 3, "optimizer": {"lr": 0.1}, key: content}, tmp_path / "weights")
    assert_same(read_state_dict(tmp_path / "weights"), state())


def test_wrappers_may_be_nested_and_other_values_are_left_out(tmp_path):
    inner = state() | {"comment": "text", "epoch": 4, 5: torch.ones(1)}
    torch.save({"model": {"state_dict": inner, "optimizer": {}}, "best": 0.9}, tmp_path / "weights.pth")
    assert_same(read_state_dict(tmp_path / "weights.pth"), state())


def test_parameters_and_views_become_plain_tensors(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    content = {"a": torch.nn.Parameter(base), "b": base.T[1:], "c": torch.zeros(1).expand(2, 2)}
    torch.save(content, tmp_path / "weights.pth")
    assert_same(read_state_dict(tmp_path / "weights.pth"), content)


def test_safetensors(tmp_path):
    content = state() | {"b": torch.ones(3, dtype=torch.bfloat16)}
    safetensors.torch.save_file(content, tmp_path / "weights.safetensors", {"format": "pt"})
    read = read_state_dict(tmp_path / "weights.safetensors")
    assert_same({name: read[name] for name in content}, content)


@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.safetensors", "a.pth.tar", "a.ckpt", "a"])
def test_the_content_tells_the_format_whatever_the_name(tmp_path, name):
    path = tmp_path / name
    for save in (*TORCH.values(), safetensors.torch.save_file):
        save(state(), path)
        read = read_state_dict(path)
        assert_same({name: read[name] for name in state()}, state())
        path.unlink()  # safetensors keeps the file it read mapped
    save_pickle(2, as_arrays(state()), path)
    assert_same(read_state_dict(path), state())


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state(), tmp_path / "weights.pth")
    assert_same(read_state_dict("~/weights.pth"), state())


@pytest.mark.parametrize("protocol", PYTHON2)
def test_arrays_that_python_2_pickled(tmp_path, protocol):
    (tmp_path / "resnet50.pkl").write_bytes(zlib.decompress(base64.b64decode(PYTHON2[protocol])))
    read = read_state_dict(tmp_path / "resnet50.pkl")
    assert sorted(read) == ["bn1.bias", "conv1.weight"]
    assert torch.equal(read["conv1.weight"], torch.arange(6.0).view(1, 2, 3) / 4)
    assert torch.equal(read["bn1.bias"], torch.tensor([[1.0, -2.0], [3.0, 200.0]], dtype=torch.float64))


@given(
    array=hnp.arrays(
        st.sampled_from(["<f2", "<f4", ">f4", "<f8", ">f8", "i1", "<i4", ">i8", "u1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    transposed=st.booleans(),
    protocol=st.sampled_from(PROTOCOLS),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numpy_arrays_come_back_as_they_were(tmp_path, array, transposed, protocol):
    array = array.T if transposed else array
    save_pickle(protocol, collections.OrderedDict(w=array, note="of no interest"), tmp_path / "weights.pkl")
    (name, tensor), *others = read_state_dict(tmp_path / "weights.pkl").items()
    assert (name, others) == ("w", [])
    assert np.array_equal(tensor.numpy(), array, equal_nan=array.dtype.kind == "f")
    assert tensor.numpy().dtype == array.dtype.newbyteorder("=")
    tensor.zero_()  # memory of its own, which may be written to


def test_one_array_under_two_names_and_wrapped_arrays(tmp_path):
    array = np.ones((2, 3), np.float32)
    save_pickle(4, {"state_dict": {"a": array, "b": array}, "epoch": 1}, tmp_path / "weights.pkl")
    assert_same(read_state_dict(tmp_path / "weights.pkl"), {"a": torch.ones(2, 3), "b": torch.ones(2, 3)})


# What training programs put beside the weights


@pytest.fixture
def lightning() -> Iterator[types.SimpleNamespace]:
    """Classes by the names of Lightning's and OmegaConf's, which exist only while a checkpoint is written."""
    made: dict[str, type] = {}
    modules = {}
    for name, base in (
        ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", object),
        ("pytorch_lightning.utilities.parsing.AttributeDict", dict),
        ("omegaconf.listconfig.ListConfig", object),
    ):
        module_name, _, class_name = name.rpartition(".")
        made[class_name] = type(class_name, (base,), {"__module__": module_name})
        modules[module_name] = types.ModuleType(module_name)
        setattr(modules[module_name], class_name, made[class_name])
        while "." in module_name:
            module_name = module_name.rpartition(".")[0]
            modules.setdefault(module_name, types.ModuleType(module_name))
    assert not any(name in sys.modules for name in modules)
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(**made, forget=lambda: [sys.modules.pop(name, None) for name in modules])
    finally:
        for name in modules:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("save", TORCH.values(), ids=TORCH)
def test_a_lightning_checkpoint_is_read_without_lightning(tmp_path, lightning, save):
    settings_object = lightning.ListConfig()
    settings_object.content = [1, {"type": dict}]
    content = {
        "epoch": 24,
        "pytorch-lightning_version": "1.4.4",
        "state_dict": collections.OrderedDict({f"model.{name}": tensor for name, tensor in state().items()}),
        "callbacks": {lightning.ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "dirpath": Path("/tmp/x")}},
        "optimizer_states": [{"state": collections.defaultdict(dict, {0: {"step": 1}})}],
        "lr_schedulers": [{"milestones": collections.Counter([12, 20]), "last_epoch": 25}],
        "hyper_parameters": lightning.AttributeDict(lr=0.1, arch="ir_50"),
        "config": settings_object,
        "score": np.float64(0.25),
        "version": torch.__version__,
    }
    save(content, tmp_path / "adaface.ckpt")
    lightning.forget()
    before = set(sys.modules)
    read = read_state_dict(tmp_path / "adaface.ckpt")
    assert_same(read, {f"model.{name}": tensor for name, tensor in state().items()})
    assert not [name for name in set(sys.modules) - before if name.startswith(("pytorch_lightning", "omegaconf"))]
    with pytest.raises(pickle.UnpicklingError):  # the allowance ends with the reading
        torch.load(tmp_path / "adaface.ckpt", weights_only=True)


# What is refused, and not run


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


class Alters:
    """Pickled as a call, then the given state set on its result."""

    def __init__(self, state: object, function: Callable[..., Any], *arguments: object) -> None:
        self.parts = function, arguments, state

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...], object]:
        return self.parts


@pytest.mark.parametrize("save", (TORCH | PICKLES).values(), ids=TORCH | PICKLES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_malicious_pickles_are_refused_by_name_and_not_run(tmp_path, save, wrapped):
    trap = tmp_path / "trap"
    order = f"open({str(trap)!r}, 'w')"
    for attack, culprit in (
        (Calls(os.system, f"touch {trap}"), "system"),
        (Calls(os.mkdir, str(trap)), "mkdir"),
        (Calls(eval, order), "eval"),
        (Calls(exec, order), "exec"),
        (Calls(getattr, Calls(__import__, "os"), "mkdir"), ("getattr", "__import__")),
        (Calls(functools.partial, os.mkdir, str(trap)), ("functools.partial", "mkdir")),
        (Calls(np.load, str(trap), None, True), "numpy"),
        (Calls(np.memmap, str(trap), np.dtype("u1"), "w+", 0, (4,)), "numpy"),
        (Calls(torch.load, str(trap)), "torch.serialization.load"),
        (Calls(collections.namedtuple, "a", "b"), "namedtuple"),
        (Calls(io.open, str(trap), "w"), "open"),
    ):
        content = {"state_dict": {}, "callbacks": [attack]} if wrapped else attack
        save(content, tmp_path / "weights.pth")
        message = refusal(tmp_path / "weights.pth")
        assert any(name in message for name in ([culprit] if isinstance(culprit, str) else culprit)), message
        assert "names" in message
        assert not trap.exists()


def test_a_malicious_pickle_among_the_tensors(tmp_path):
    trap = tmp_path / "trap"
    save_pickle(2, as_arrays(state()) | {"x": Calls(os.mkdir, str(trap))}, tmp_path / "weights.pkl")
    assert "posix.mkdir" in refusal(tmp_path / "weights.pkl")
    torch.save(state() | {"x": Calls(os.mkdir, str(trap))}, tmp_path / "weights.pth")
    assert "posix.mkdir" in refusal(tmp_path / "weights.pth")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects_and_of_records_are_refused(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    objects = np.empty(2, object)
    objects[:] = [1, "x"]
    save_pickle(protocol, {"w": np.ones(3), "x": objects}, path)
    assert "O8" in refusal(path)
    for array in (
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.array(["text"]),
        np.array([b"text"]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, complex),
        np.zeros(2, np.longdouble),
    ):
        save_pickle(protocol, {"w": array}, path)
        assert "not numeric" in refusal(path)
    objects[0] = Calls(os.mkdir, str(tmp_path / "trap"))
    save_pickle(protocol, {"w": objects}, path)
    refusal(path)
    assert not (tmp_path / "trap").exists()


def array_pickle(
    shape: bytes = b"K\x02\x85", code: bytes = b"U\x02f4", content: bytes = b"U\x08" + b"\0" * 8, order: bytes = b"<"
) -> bytes:
    """Write the opcodes of {"w": array}, as NumPy has them written unless told otherwise."""
    dtype = (
        b"cnumpy\ndtype\n"
        + code
        + b"K\x00K\x01\x87R(K\x03U\x01"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return b"\x80\x02}q\x00(U\x01w" + array + b"(K\x01" + shape + dtype + b"\x89" + content + b"tbu."


def test_arrays_that_numpy_would_not_write_are_refused(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(array_pickle())
    assert_same(read_state_dict(path), {"w": torch.zeros(2)})
    trillion = b"J\x00\x00\x00\x7f\x85"
    for damaged in (
        array_pickle(shape=b"K\x03\x85"),
        array_pickle(shape=trillion),
        array_pickle(shape=b"J\xff\xff\xff\xff\x85"),
        array_pickle(shape=b"U\x012\x85"),
        array_pickle(shape=b"K\x02"),
        array_pickle(code=b"U\x03f16"),
        array_pickle(code=b"U\x02O8"),
        array_pickle(code=b"}"),
        array_pickle(content=b"]"),
        array_pickle(content=b"N"),
        array_pickle(content=b"U\x07" + b"\0" * 7),
        array_pickle(order=b"?"),
        b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.",  # empty
        b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87Rs.",
        b"\x80\x02}q\x00U\x01wcnumpy\nndarray\nK\x02\x85\x85Rs.",
        b"\x80\x02}q\x00U\x01wccollections\nOrderedDict\nK\x02\x85Rs.",
    ):
        path.write_bytes(damaged)
        refusal(path)


@pytest.mark.parametrize("name", ["numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict"])
def test_a_pickle_cannot_alter_what_names_stand_for(tmp_path, name):
    """A function's or class's attributes would outlive the file, and change how the next one is read."""
    module, _, function = name.rpartition(".")
    path = tmp_path / "weights.pkl"
    for states in (b"}U\x04makeNs", b"N}U\x05_makeNs\x86", b"N}U\x09__class__Ns\x86"):
        path.write_bytes(b"\x80\x02c" + f"{module}\n{function}\n".encode() + states + b"b.")
        assert "alters" in refusal(path)
    path.write_bytes(array_pickle())
    assert_same(read_state_dict(path), {"w": torch.zeros(2)})


@pytest.mark.parametrize("save", TORCH.values(), ids=TORCH)
def test_numpy_pickled_by_torch_save_is_passed_over_without_being_made(tmp_path, save):
    trap = tmp_path / "trap"
    path = tmp_path / "weights.pth"
    objects = np.empty(1, object)
    objects[0] = 1
    save(state() | {"aside": objects, "score": np.float32(1)}, path)
    assert_same(read_state_dict(path), state())
    objects[0] = Calls(os.mkdir, str(trap))
    save(state() | {"aside": objects}, path)
    assert "posix.mkdir" in refusal(path)
    save(state() | {"aside": Alters({"x": Calls(os.mkdir, str(trap))}, np.dtype, "f4")}, path)
    assert "posix.mkdir" in refusal(path)
    assert not trap.exists()


def test_a_whole_pickled_module_is_refused_with_the_remedy(tmp_path):
    for save in (TORCH | PICKLES).values():
        save({"model": torch.nn.Linear(2, 2)}, tmp_path / "module.pth")
        assert "save model.state_dict()" in refusal(tmp_path / "module.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "scripted.pt"))
    assert "a TorchScript archive, which is a program" in refusal(tmp_path / "scripted.pt")


def test_names_in_a_file_cannot_write_on_the_terminal(tmp_path):
    torch.save({"\x1b[2J\nweights are fine": 1}, tmp_path / "weights.pth")
    refusal(tmp_path / "weights.pth")
    (tmp_path / "weights.pkl").write_bytes(b"\x80\x02c\x1b[2Jos\nsystem\n.")
    assert "system" in refusal(tmp_path / "weights.pkl")
    save_pickle(2, {"x" * 10_000: 1}, tmp_path / "weights.pkl")
    refusal(tmp_path / "weights.pkl")


# What is no state dict


CONTENTS: tuple[object, ...] = ([1, 2], {}, {"a": "text"}, {"state_dict": {}}, 7, "text", None)


@pytest.mark.parametrize("save", (TORCH | PICKLES).values(), ids=TORCH | PICKLES)
def test_other_contents_are_refused(tmp_path, save):
    for content in CONTENTS:
        save(content, tmp_path / "weights.pth")
        refusal(tmp_path / "weights.pth")


def test_the_refusal_says_what_the_file_holds(tmp_path):
    torch.save([state()], tmp_path / "weights.pth")
    assert "list" in refusal(tmp_path / "weights.pth")
    torch.save({"encoder": state(), "decoder": state()}, tmp_path / "weights.pth")
    assert "encoder, decoder" in refusal(tmp_path / "weights.pth")
    torch.save(torch.zeros(3), tmp_path / "weights.pth")
    assert "Tensor" in refusal(tmp_path / "weights.pth")


def test_a_state_dict_that_holds_itself(tmp_path):
    content: dict[str, object] = {}
    content["state_dict"] = content
    save_pickle(2, content, tmp_path / "weights.pkl")
    refusal(tmp_path / "weights.pkl")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.empty(2, device="meta"),
    ],
    ids=["sparse", "complex", "meta"],
)
def test_tensors_that_are_not_plain_numbers_are_refused(tmp_path, tensor):
    torch.save(state() | {"odd": tensor}, tmp_path / "weights.pth")
    assert "odd" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.pkl"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"these are not weights\n", "no known format"),
        (b"(these are not weights\n", "no known format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no known format"),
        (bytes(range(256)) * 40, "no known format"),
        (b"\xff" * 64, "no known format"),
        (b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (zlib.compress(b"x", wbits=31), "unpack"),
        (b"\x80\x02", "whole"),
        (b"\x80\x05", "whole"),
        (b"PK\x03\x04", "whole"),
        (b"PK\x03\x04" + bytes(400), "whole"),
        (b"\x10\0\0\0\0\0\0\0{nonsense        ", "whole"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "whole"),
    ],
)
def test_files_that_are_no_weights_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_a_zip_and_a_tar_of_other_things(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    refusal(tmp_path / "arrays.npz")
    torch.save(state(), tmp_path / "inner.pth")
    with tarfile.open(tmp_path / "weights.tar", "w") as archive:
        archive.add(tmp_path / "inner.pth", "inner.pth")
    assert "unpack" in refusal(tmp_path / "weights.tar")


def test_missing_paths_folders_and_pipes_are_refused(tmp_path):
    assert "do not exist" in refusal(tmp_path / "nowhere.pth")
    assert "are a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # would be waited for until the end of time
    assert "are not a file" in refusal(tmp_path / "pipe")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "nowhere.pth")
    assert "do not exist" in refusal(tmp_path / "dangling.pth")
    refusal("x" * 5000)
    with pytest.raises(InputError):
        read_state_dict("~nobody-of-this-name/weights.pth")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    torch.save(state(), tmp_path / "weights.pth")
    (tmp_path / "weights.pth").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "weights.pth")


def containers(folder: Path) -> dict[str, bytes]:
    content = {}
    for name, save in (TORCH | PICKLES).items():
        save(state() if name in TORCH else as_arrays(state()), folder / "whole")
        content[name] = (folder / "whole").read_bytes()
    safetensors.torch.save_file(state(), folder / "safe")
    return content | {"safetensors": (folder / "safe").read_bytes()}


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "weights"
    for name, content in containers(tmp_path).items():
        for part in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
            path.write_bytes(content[: int(part * len(content))])
            refusal(path)
        path.write_bytes(content[:-1])
        if name == "legacy":  # the last byte of the last tensor
            assert "whole" in refusal(path)


@given(
    place=st.floats(0, 1, exclude_max=True),
    patch=st.binary(min_size=1, max_size=6),
    kind=st.sampled_from(["zip", "legacy", "safetensors", "pickle0", "pickle2", "pickle4", "pickle5"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # CPython's, of a cut BYTEARRAY8
def test_damaged_files_raise_nothing_but_the_refusal(tmp_path, place, patch, kind):
    if not (tmp_path / kind).exists():
        for name, content in containers(tmp_path).items():
            (tmp_path / name).write_bytes(content)
    data = bytearray((tmp_path / kind).read_bytes())
    start = int(place * len(data))
    data[start : start + len(patch)] = patch
    path = tmp_path / "damaged"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert all(isinstance(tensor, Tensor) for tensor in read_state_dict(path).values())
    path.unlink()
