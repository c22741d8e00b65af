"""Embeddings of a run's faces, computed once and kept as Parquet.

A file holds one row per face in run order: ``image_id`` and ``embedding``, a fixed-size list of D float32. Its footer
says what they were computed from and with; a file that says anything else, or is damaged, is made again.
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor
from tqdm import tqdm

from manifests import schema
from manifests.commit import publish
from manifests.errors import RunError
from pipeline.backbones.embedder import FaceEmbedder
from pipeline.training import ranks
from pipeline.training.run_faces import Indices, RunFaces
from stylize.precision import convolution_precision
from stylize.prefetch import prefetch

Domain = Literal["real", "art"]
Precision = Literal["fp32", "bf16"]

DOMAINS: Final[tuple[Domain, ...]] = get_args(Domain)

EMBEDDING: Final = "embedding"
_FORMAT: Final = 1  # to be raised when the same key would give other embeddings
_KEY: Final = b"stylize.embeddings"
_NO_MEMORY: Final = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
_ON_THE_CARD: Final = ("name", "width", "height", "channels", "mean", "std", "embedding")


def embeddings_of_all_ranks(
    faces: RunFaces,
    embedder: FaceEmbedder,
    cache_dir: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    quiet: bool = False,
) -> dict[Domain, Tensor]:
    """Return the `embeddings` of both domains; under torchrun the first process computes and the others read its files.

    Call it in all processes together.

    Args:
        faces, embedder, cache_dir, precision, quiet: as for `embeddings`.

    Returns:
        domain → float32 [N, D] on the CPU.

    Raises:
        InputError, RunError: as for `embeddings`, in every process.
    """
    found: dict[Domain, Tensor] = {}

    def load(domain: Domain) -> None:
        found[domain] = embeddings(faces, domain, embedder, cache_dir, precision=precision, quiet=quiet)

    for domain in DOMAINS:
        ranks.on_first_rank(functools.partial(load, domain))
        if domain not in found:
            load(domain)
    return found


def embeddings(
    faces: RunFaces,
    domain: Domain,
    embedder: FaceEmbedder,
    cache_dir: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    precision: Precision = "fp32",
    quiet: bool = False,
) -> Tensor:
    """Return the embeddings φ of all photographs ("real") or all proxies ("art") of a run, from the cache if it can.

    Of several processes that find no file each computes all embeddings; see `embeddings_of_all_ranks`.

    Args:
        faces: of the run.
        domain: which picture of each face.
        embedder: with the weights that its digest names.
        cache_dir: folder of the Parquet files, made if need be; several embedders and runs may share it.
        batch_size, precision, quiet: as for `compute_embeddings`.

    Returns:
        float32 [N, D] on the CPU, not ℓ2-normalised, in the order of ``faces``.

    Raises:
        InputError: a picture cannot be read.
        RunError: as for `compute_embeddings`, or the cache cannot be written.
    """
    key = _key(faces, domain, embedder, precision)
    path = Path(cache_dir) / f"{domain}-{hashlib.sha256(key).hexdigest()[:16]}.parquet"
    ids = faces.table[schema.IMAGE_ID].to_pylist()
    cached = _read(path, key, ids, embedder.card.embedding)
    if cached is not None:
        return cached
    computed = compute_embeddings(
        faces, domain, embedder, np.arange(len(faces)), batch_size=batch_size, precision=precision, quiet=quiet
    )
    _write(path, key, ids, computed)
    return computed


def compute_embeddings(
    faces: RunFaces,
    domain: Domain,
    embedder: FaceEmbedder,
    indices: Sequence[int] | Indices,
    *,
    batch_size: int = 64,
    precision: Precision = "fp32",
    quiet: bool = False,
) -> Tensor:
    """Compute the embeddings φ of some faces' photographs ("real") or proxies ("art"), without gradients.

    The network runs in evaluation mode on the device of its parameters.

    Args:
        faces: of the run.
        domain: which picture of each face.
        embedder: the network.
        indices: of the faces.
        batch_size: pictures at a time; it decides the speed, and nothing of the result beyond rounding. It is halved
            as often as memory is too short for it.
        precision: "fp32" is IEEE float32, on CUDA too (no TF32); "bf16" computes the network under autocast.
        quiet: no progress bar (there is none either where stderr is not a terminal).

    Returns:
        float32 [len(indices), D] on the CPU, not ℓ2-normalised.

    Raises:
        InputError: a picture cannot be read.
        RunError: an embedding is not finite, or memory is too short for a single picture.
    """
    wanted = np.asarray(indices, np.int64)
    batches = [wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)]
    load = faces.photographs if domain == "real" else faces.proxies
    device = next(embedder.parameters()).device
    embedded = torch.empty(len(wanted), embedder.card.embedding)
    was_training = embedder.training
    embedder.eval()
    try:
        with (
            torch.no_grad(),
            convolution_precision("fp32"),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            tqdm(total=len(wanted), desc=f"embedding {domain}", unit="face", disable=quiet or None) as bar,
        ):
            done, most = 0, batch_size
            for _, pictures in prefetch(batches, load, depth=2):
                rest = pictures
                while len(rest):
                    part = _embedded(embedder, rest[:most], device)
                    if part is None:
                        most = _fewer(embedder, min(most, len(rest)), device)
                        continue
                    rows = slice(done, done + len(part))
                    embedded[rows] = part
                    _check_finite(faces, domain, wanted[rows], embedded[rows])
                    rest = rest[len(part) :]
                    done += len(part)
                    bar.update(len(part))
    finally:
        embedder.train(was_training)
    return embedded


def _embedded(embedder: FaceEmbedder, pictures: Tensor, device: torch.device) -> Tensor | None:
    """Embed pictures and bring the result to the CPU; None where memory is too short."""
    try:
        return embedder(pictures.to(device)).cpu()  # type: ignore[no-any-return]
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and for the CPU there is no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and not any(told in str(error) for told in _NO_MEMORY):
            raise
    return None


def _fewer(embedder: FaceEmbedder, pictures: int, device: torch.device) -> int:
    """Halve the number of pictures that memory was too short for; RunError for a single one."""
    if pictures == 1:
        raise RunError(
            f"there is not enough memory on {device} for {embedder.card.name} to embed a single picture; stop what "
            "else uses it" + (", or give the device cpu" if device.type != "cpu" else "")
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()  # blocks of the larger batch's sizes
    return pictures // 2


def _check_finite(faces: RunFaces, domain: Domain, batch: Indices, embedded: Tensor) -> None:
    broken = ~embedded.isfinite().all(dim=1)
    if broken.any():
        first = faces.table[schema.IMAGE_ID][int(batch[int(broken.nonzero()[0])])].as_py()
        picture = "photograph" if domain == "real" else "proxy"
        raise RunError(
            f"the embedding of the {picture} of {first} is not finite; are these the weights of the network?"
        )


def _key(faces: RunFaces, domain: Domain, embedder: FaceEmbedder, precision: Precision) -> bytes:
    """Everything that decides the embeddings, as JSON."""
    key = {
        "format": _FORMAT,
        "faces": faces.fingerprint,
        "domain": domain,
        "network": embedder.digest,
        "card": {name: getattr(embedder.card, name) for name in _ON_THE_CARD},
        "crop": embedder.face_input.crop,
        "precision": precision,
    }
    return json.dumps(key, sort_keys=True).encode()


def _read(path: Path, key: bytes, ids: list[str], width: int) -> Tensor | None:
    """Read a file that holds what the key asks for, undamaged; None for any other, or none."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if (table.schema.metadata or {}).get(_KEY) != key or table[schema.IMAGE_ID].to_pylist() != ids:
            return None
        values = table[EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    except (OSError, pa.ArrowException, KeyError):
        return None
    if values.dtype != np.float32 or values.size != len(ids) * width:
        return None
    return torch.from_numpy(values.reshape(len(ids), width).copy())


def _write(path: Path, key: bytes, ids: list[str], embedded: Tensor) -> None:
    values = pa.array(embedded.numpy().reshape(-1), pa.float32())
    columns = {schema.IMAGE_ID: pa.array(ids), EMBEDDING: pa.FixedSizeListArray.from_arrays(values, embedded.shape[1])}
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns).replace_schema_metadata({_KEY: key}),
        sink,
        compression="none",  # mantissas do not compress
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    folder = str(path.parent)
    try:
        publish(LocalFileSystem(), str(path), sink.getvalue().to_pybytes(), journal=folder)
    except OSError as error:
        raise RunError(f'the embeddings cannot be written to "{folder}": {error.strerror or error}') from error
