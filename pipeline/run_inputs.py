"""The catalogues that a run was made from, opened again later, perhaps elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from manifests.errors import InputError
from manifests.faces import FaceCatalogue, read_faces
from manifests.paintings import PaintingCatalogue, read_paintings
from manifests.redaction import redact
from manifests.remote_path import exists
from manifests.run import RunDirectory


@dataclass(frozen=True)
class Inputs:
    """The catalogues that a run was made from."""

    faces: FaceCatalogue
    paintings: PaintingCatalogue


def open_faces(run: RunDirectory, faces: str | os.PathLike[str] | None = None) -> FaceCatalogue:
    """Open the faces of a run where run.json says they were, or where the caller says they are now.

    Raises:
        InputError: they are not there, or have changed since the run was made.
    """
    place = _place(run, "faces", faces)
    catalogue = read_faces(place)
    _check(run, "faces", place, catalogue.digest)
    return catalogue


def open_inputs(
    run: RunDirectory,
    faces: str | os.PathLike[str] | None,
    paintings: str | os.PathLike[str] | None,
    paintings_csv: str | os.PathLike[str] | None = None,
) -> Inputs:
    """Open faces and paintings of a run as `open_faces` does.

    Raises:
        InputError: they are not there, or have changed since the run was made.
    """
    places = _place(run, "faces", faces), _place(run, "paintings", paintings)  # both, before reading either
    csv = paintings_csv or _recorded(run).get("paintings_csv")
    if csv is not None and not exists(csv):
        raise InputError(f'the CSV of the paintings is not at "{_shown(csv)}"; say where it is with --paintings-csv')
    inputs = Inputs(open_faces(run, places[0]), read_paintings(places[1], csv=csv))
    _check(run, "paintings", places[1], inputs.paintings.digest)
    return inputs


def _recorded(run: RunDirectory) -> Mapping[str, str]:
    recorded: Mapping[str, str] = run.content.get("paths", {})
    return recorded


def _place(run: RunDirectory, name: str, given: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    place = given or _recorded(run).get(name)
    if place is None or not exists(place):
        where = None if place is None else _shown(place)
        raise InputError(f"the {name} of this run are not at {where}; say where they are with --{name}")
    return place


def _shown(place: str | os.PathLike[str]) -> str:
    return redact(os.fspath(place))


def _check(run: RunDirectory, name: str, place: str | os.PathLike[str], digest: str) -> None:
    if digest != run.content["inputs"][name]["digest"]:
        raise InputError(f'the {name} at "{_shown(place)}" are not those that the run was made from')
