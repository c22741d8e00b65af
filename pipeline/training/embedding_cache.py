"""Embeddings of a run's faces, computed once and kept as Parquet.

A file holds one row per face in run order: ``image_id`` and ``embedding``, a fixed-size list of D float32. Its footer
says what they were computed from and with; a file that says anything else, or is damaged, is made again.
"""

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
from pipeline.training.run_faces import Indices, RunFaces
from stylize.precision import convolution_precision
from stylize.prefetch import prefetch

Domain = Literal["real", "art"]
Precision = Literal["fp32", "bf16"]

DOMAINS: Final[tuple[Domain, ...]] = get_args(Domain)

EMBEDDING: Final = "embedding"
_FORMAT: Final = 1  # to be raised when the same key would give other embeddings
_KEY: Final = b"stylize.embeddings"
_ON_THE_CARD: Final = ("name", "width", "height", "channels", "mean", "std", "embedding")


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

    Of several processes that find no file each computes all embeddings; under torchrun let the first one go first.

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
        RunError: an embedding is not finite, or the cache cannot be written.
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
        batch_size: pictures at a time; it decides the speed, and nothing of the result beyond rounding.
        precision: "fp32" is IEEE float32, on CUDA too (no TF32); "bf16" computes the network under autocast.
        quiet: no progress bar (there is none either where stderr is not a terminal).

    Returns:
        float32 [len(indices), D] on the CPU, not ℓ2-normalised.

    Raises:
        InputError: a picture cannot be read.
        RunError: an embedding is not finite.
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
            done = 0
            for batch, pictures in prefetch(batches, load, depth=2):
                rows = slice(done, done + len(batch))
                embedded[rows] = embedder(pictures.to(device))
                _check_finite(faces, domain, batch, embedded[rows])
                done += len(batch)
                bar.update(len(batch))
    finally:
        embedder.train(was_training)
    return embedded


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
