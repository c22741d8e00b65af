"""Make, or bring up to date, the index of a gallery: what `stylize index` does."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from manifests.errors import InputError
from manifests.run import RunDirectory
from pipeline.retrieval.face_set import FaceSet
from pipeline.retrieval.folder_sets import faces_of_folder
from pipeline.retrieval.index import IndexUpdate, update_index
from pipeline.retrieval.retrieval_model import ModelPlaces, open_retrieval_model
from pipeline.retrieval.run_sets import proxies_of_run
from pipeline.training.device import training_device
from pipeline.training.run_faces import RunFaces


def make_index(
    source: str | os.PathLike[str],
    index: str | os.PathLike[str],
    places: ModelPlaces,
    *,
    splits: Sequence[str] | None = None,
    partial: bool = False,
    size: tuple[int, int] | None = None,
    device: str | None = None,
    quiet: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> IndexUpdate:
    """Add the pictures of a gallery to an index, those that it has already left as they are.

    Args:
        source: a built run, whose accepted proxies are indexed, or a folder (or Parquet copy) of faces.
        index: folder of the index, made if need be.
        places: which models describe the pictures.
        splits: of a run, these alone, each once; None takes all.
        partial: of an unfinished run, what is there.
        size: of a folder's pictures as the networks see them, width and height; None is 178x218, Celeb-A's. A run's
            have one already.
        device: as for `training_device`.
        quiet: no progress bar.
        notify: called with what is being done.

    Raises:
        InputError: the source, the models or the index are not what is said above, or do not fit together; or no
            picture can be used (single ones that cannot are left out, see `IndexUpdate.skipped`).
        RunError: a model's file or the index is damaged, or the index cannot be written.
    """
    chosen = training_device(device)
    faces = _faces(source, splits, partial, size)
    model = open_retrieval_model(places, chosen)
    notify(f"{faces.title}: {len(faces):,} picture{'' if len(faces) == 1 else 's'}; {model.title}, on {chosen}")
    return update_index(index, faces, places, model, quiet=quiet)


def _faces(
    source: str | os.PathLike[str], splits: Sequence[str] | None, partial: bool, size: tuple[int, int] | None
) -> FaceSet:
    if not RunDirectory.exists(source):
        if splits is not None or partial:
            raise InputError(f'"{source}" is not a run, so --split and --partial mean nothing; leave them out')
        return faces_of_folder(source) if size is None else faces_of_folder(source, size=size)
    if size is not None:
        raise InputError(f'the proxies of "{source}" have a size already; leave --size out')
    run = RunFaces.open(source, partial=partial)
    wanted = dict.fromkeys(splits or run.splits)
    return proxies_of_run(run, np.concatenate([run.indices(split) for split in wanted]))
