"""The artistic proxies of a built run as a test set: photographs search in proxies (Cornia et al., Sec. 4 and 6.1)."""

import os

from manifests.run import RunDirectory
from pipeline.retrieval.face_files import QueriesAndGallery
from pipeline.retrieval.run_sets import photographs_of_run, proxies_of_run
from pipeline.training.run_faces import RunFaces


def celeba_proxies(
    run: str | os.PathLike[str], split: str, *, faces: str | os.PathLike[str] | None = None
) -> QueriesAndGallery:
    """Return a split's photographs as queries and its proxies as gallery, both in run order.

    The photographs are those that have an accepted proxy. The paper queries with all of the split; it threw no
    photograph away, because it drew paintings until one was accepted (Sec. 5).

    Args:
        run: a folder or fsspec URL.
        split: "train", "valid" or "test".
        faces: where its photographs are now, if not where run.json says. They are opened when the first is loaded.

    Raises:
        InputError: no finished run there, or no accepted proxy in the split.
    """
    opened = RunFaces.open(run, faces=faces)
    indices = opened.indices(split)
    planned = RunDirectory.open(run).content["shards"][split]["faces"]
    missing = planned - len(set(opened.sources[indices].tolist()))
    notes = (
        (
            f"{missing:,} of the {planned:,} photographs of {split} have no accepted proxy and are neither searched "
            "for nor found",
        )
        if missing > 0
        else ()
    )
    return QueriesAndGallery(photographs_of_run(opened, indices), proxies_of_run(opened, indices), notes)
