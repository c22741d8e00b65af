"""Tensors by name out of a checkpoint of any format in circulation, without running what strangers wrote.

The format is told from the content, never from the file's name:

    safetensors                 header of JSON
    PyTorch, zip and legacy     ``torch.load(weights_only=True)``
    pickle of NumPy arrays      `pipeline.backbones.restricted_unpickler` (VGGFace2's `.pkl`)
"""

import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import safetensors.torch
import torch
from torch import Tensor

from manifests.errors import InputError
from pipeline.backbones.restricted_unpickler import PickledArray, RefusedGlobal, RefusedPickle, read_arrays

WRAPPERS: Final = (
    *("state_dict", "net_state_dict", "model_state_dict"),
    *("model", "net", "network", "backbone", "weights", "weight"),
)
"""Keys under which training programs put the state dict, beside optimisers, counters and the like."""

_LEGACY_MAGIC: Final = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which every legacy file of PyTorch begins
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]|\}q|\([dl][pq]|c[\w.]+\n[\w.]+\n[pq(]")  # protocols 2 to 5, then 1 and 0
_REMEDY: Final = "save model.state_dict() alone, or convert the file to .safetensors where you trust it"

# What training programs store beside the weights: settings, callbacks, a best score. Such a name stands for `_Aside`
# while the file is read; the library itself is neither needed nor imported.
_ASIDE_PACKAGES: Final = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.")
_ASIDE_NAMES: Final = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"numpy{core}.multiarray.{name}" for core in (".core", "._core") for name in ("scalar", "_reconstruct")),
        "argparse.Namespace",
        "numpy.dtype",
        "numpy.ndarray",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "torch.torch_version.TorchVersion",
        "typing.Any",
    }
)


class _Aside:
    """In place of an object that is not a weight: takes whatever a pickle gives it, and holds and does nothing."""

    def __new__(cls, *_: object) -> "_Aside":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, under the names that it gives them.

    A state dict wrapped as ``{"state_dict": …}`` (and the other `WRAPPERS`, nested, too) is unwrapped; what is not a
    tensor is left out. Of what is pickled beside the weights, only what is known of common training programs
    (Lightning's callbacks, OmegaConf's settings, NumPy's numbers) is passed over, without being made; anything else
    that is not plain data makes the whole file be refused.

    Returns:
        Dense tensors on the CPU, of the types of the file, without gradients.

    Raises:
        InputError: the file is missing, empty, damaged, of an unknown format, could run code when read, or is not a
            state dict.
    """
    file = Path(os.path.expanduser(path))
    # os.path's functions raise for no path whatever, unlike Path's.
    if not os.path.isfile(file):
        state = "are a folder" if os.path.isdir(file) else "are not a file" if os.path.exists(file) else "do not exist"
        raise InputError(f'weights "{file}" {state}; give the path of a checkpoint')
    try:
        with file.open("rb") as opened:
            return _tensors(file, _unwrapped(file, _read(file, opened)))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f'weights "{file}" cannot be read ({error.strerror or error}); is the file whole?') from error
    except RefusedGlobal as error:
        raise InputError(
            f'weights "{file}" are refused: the pickle in it names {shown(error.name)}, which is no part of a plain '
            f"state dict and could run code, so nothing of it was run; {_REMEDY}"
        ) from error
    except RefusedPickle as error:
        raise InputError(
            f'weights "{file}" cannot be read safely ({_first_line(error)}): they are damaged, or more than a plain '
            f"state dict; {_REMEDY}"
        ) from error
    except Exception as error:  # readers of damaged files raise IndexError, AttributeError, KeyError, MemoryError, …
        raise InputError(f'weights "{file}" cannot be read ({_first_line(error)}); is the file whole?') from error


def _read(file: Path, opened: IO[bytes]) -> object:
    """Read the file with the reader of its format."""
    head = opened.read(512)
    opened.seek(0)
    if not head:
        raise InputError(f'weights "{file}" are empty; copy or download the file again')
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size:
        return safetensors.torch.load_file(file)
    if head.startswith(b"PK\x03\x04") or _LEGACY_MAGIC in head[:32]:
        return _read_torch(file, opened)
    if _PICKLE.match(head):
        return read_arrays(opened)
    raise InputError(f'weights "{file}" are {_description(head)}')


def _description(head: bytes) -> str:
    """Say what a file is that no reader knows, and what to do."""
    start = head.lstrip()[:40].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a checkpoint; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")) or head[257:262] == b"ustar":
        return "a compressed file or an archive; unpack it and give the checkpoint in it"
    return (
        "in no known format: neither a PyTorch checkpoint, nor .safetensors, nor a pickle of NumPy arrays; "
        "convert the file or give another"
    )


def _read_torch(file: Path, opened: IO[bytes]) -> object:
    """Read what torch.save wrote, with stand-ins for what training programs are known to store beside the weights."""
    stand_ins: dict[str, Callable[..., object]] = {}
    while True:
        opened.seek(0)
        try:
            allowed = [(stand_in, name) for name, stand_in in stand_ins.items()]
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
                warnings.simplefilter("ignore")  # of pickle protocols, and of TorchScript before it is refused
                return torch.load(opened, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = _refused_global(str(error))
            stand_in = None if name is None or name in stand_ins else _stand_in(name)
            if name is None:
                raise RefusedPickle(_reason(str(error))) from error
            if stand_in is None:
                raise RefusedGlobal(name) from error
            stand_ins[name] = stand_in  # read once more: files have a handful of these, if any
        except RuntimeError as error:
            if "TorchScript" in str(error):
                raise InputError(
                    f'weights "{file}" are a TorchScript archive, which is a program; '
                    "save the state_dict() of the module that torch.jit.load gives"
                ) from error
            raise


def _refused_global(message: str) -> str | None:
    """Find the name in torch.load's message; None if it refused the file for something else."""
    found = re.search(r"GLOBAL (\S+) ", message)
    if found is None:
        return None
    return found[1] if "." in found[1] else f"builtins.{found[1]}"


def _reason(message: str) -> str:
    """Cut torch.load's reason out of its advice to read the file unsafely."""
    found = re.search(r"WeightsUnpickler error:\s*(\S.*)", message)
    return found[1].strip() if found else "it is not a plain state dict"


def _stand_in(name: str) -> Callable[..., object] | None:
    if name == "collections.defaultdict":
        return _plain_dict
    if name.startswith(_ASIDE_PACKAGES) and name.endswith(".AttributeDict"):
        return dict  # torch.load fills nothing but dicts
    return _Aside if name.startswith(_ASIDE_PACKAGES) or name in _ASIDE_NAMES else None


def _plain_dict(*_: object) -> dict[Any, Any]:
    return {}


def _unwrapped(file: Path, content: object) -> Mapping[Any, object]:
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return content
        content = inner
    raise InputError(f'weights "{file}" hold a {type(content).__name__}, not a state dict; {_REMEDY}')


def _tensors(file: Path, content: Mapping[Any, object]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, PickledArray):
            value = torch.from_numpy(value.values)  # noqa: PLW2901  # shares the memory
        if not isinstance(name, str) or not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise InputError(
                f'weights "{file}" hold {shown(name)} in a form that is not plain numbers '
                f"({value.dtype}, {value.layout}, {value.device}); convert it to a dense tensor of floats"
            )
        tensors[name] = value.detach()
    if not tensors:
        keys = ", ".join([shown(str(key)) for key in content][:5]) or "nothing"
        raise InputError(f'weights "{file}" hold no tensors where a state dict has them, but {keys}; {_REMEDY}')
    return tensors


def shown(text: str) -> str:
    """Make a stranger's text fit for a message: one line, no control characters, at most 120 characters."""
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return plain if len(plain) <= 120 else plain[:119] + "…"


def _first_line(error: Exception) -> str:
    return shown(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
