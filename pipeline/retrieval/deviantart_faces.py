"""DeviantArt Faces (Cornia et al., Sec. 4): one portrait and five photographs of each of 1,215 people."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import pyarrow as pa

from manifests.disagreement import disagreement
from manifests.errors import InputError
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from pipeline.retrieval.face_files import FaceFile, QueriesAndGallery, faces_of_files, unwrapped

_ART: Final = frozenset(
    {"art", "arts", "artistic", "artwork", "deviant", "deviantart", "drawing", "painting", "portrait", "portraits"}
)
_REAL: Final = frozenset({"google", "photo", "photograph", "photographs", "photos", "real"})
_FILLERS: Final = frozenset({"by", "face", "faces", "image", "images", "of"})
_WORDS: Final = re.compile(r"[^\W\d_]+")
_NUMBER: Final = re.compile(r"[\s_\-.]*\(?\d+\)?$")


class _Picture(NamedTuple):
    locator: str
    version: str
    person: str
    art: bool


def found(folder: Path) -> bool:
    """Whether most people have a portrait and photographs."""
    pictures, _, _ = _read(_root(folder))
    drawn, taken = _people(pictures)
    return 2 * len(drawn & taken) > len(drawn | taken)


def deviantart_faces(folder: Path, size: tuple[int, int]) -> QueriesAndGallery:
    """Return photographs as queries and portraits as gallery, both all of them (the paper's protocol, Sec. 4).

    The paper announces the set, but neither a copy nor a description of its files could be found, so this layout is a
    guess that covers what it says. Two forms are read:

    - a folder for each person, in it (or in sub-folders) the portrait, whose name says so ("portrait", "art",
      "painting", "drawing", "deviantart", with or without a number and the person's name), and photographs of any
      other name;
    - a folder of portraits and a folder of photographs, named with such words ("portraits", "art"; "photos", "real"),
      in which a person is a sub-folder or a file: "jane_doe.jpg" among the portraits, "jane_doe_3.jpg" among the
      photographs.

    Photographs of people without a portrait could find nobody and are left out, as the notes say. Portraits without a
    photograph stay, and so does a second portrait of a person. Pictures are taken whole and cut to the size evenly: the
    paper cut faces out with a detector, and what it published is taken to be those. If faces are framed otherwise than
    in Celeb-A, the model's crop (`ModelPlaces.crop`) says where they are.

    Args:
        folder: of the unpacked set.
        size: width and height in pixels.

    Raises:
        InputError: nobody has both a portrait and a photograph.
    """
    root = _root(folder)
    pictures, stray, problems = _read(root)
    drawn, taken = _people(pictures)
    portraits = [picture for picture in pictures if picture.art]
    photographs = [picture for picture in pictures if not picture.art and picture.person in drawn]
    if not photographs:
        raise InputError(
            f'nobody in "{folder}" has both a portrait (PERSON/portrait.jpg) and a photograph (PERSON/1.jpg); sort the '
            "pictures by person, or into a folder of portraits and one of photographs"
        )
    undrawn = sorted(taken - drawn)
    again = sorted(person for person, count in Counter(picture.person for picture in portraits).items() if count > 1)
    notes = (
        _note(stray, "picture belongs to nobody and is left out", "pictures belong to nobody and are left out"),
        _note(undrawn, "person has no portrait and is left out", "people have no portrait and are left out"),
        _note(again, "person has more than one portrait", "people have more than one portrait"),
    )
    source = ImageSource("folder", os.path.abspath(root))

    return QueriesAndGallery(
        faces_of_files("DeviantArt Faces, photographs", "deviantart-faces", source, _files(photographs), size),
        faces_of_files("DeviantArt Faces, portraits", "deviantart-faces", source, _files(portraits), size),
        (*problems, *(note for note in notes if note)),
    )


def _read(root: Path) -> tuple[list[_Picture], list[str], tuple[str, ...]]:
    """Return the pictures that are somebody's, those that are nobody's, and problems of the listing."""
    listing = list_image_files(root, recursive=True)
    versions = {row["locator"]: str(row["size"]) for row in listing.table.to_pylist()}
    stray = [locator for locator in versions if "/" not in locator]
    for locator in stray:
        del versions[locator]
    kinds = {top: _domain(_words(top)) for top in {locator.partition("/")[0] for locator in versions}}
    sorted_by_kind = len(kinds) == 2 and set(kinds.values()) == {True, False}
    read = _of_two_folders(versions, kinds) if sorted_by_kind else _of_folders_of_people(versions)
    return read, stray, listing.problems


def _root(folder: Path) -> Path:
    """Return the folder, or what it wraps if more people are in that."""
    candidates = (folder, unwrapped(folder))
    return max(candidates, key=lambda place: len(set.intersection(*_people(_read(place)[0]))))


def _people(pictures: list[_Picture]) -> tuple[set[str], set[str]]:
    """Return who is drawn and who is photographed."""
    return {picture.person for picture in pictures if picture.art}, {
        picture.person for picture in pictures if not picture.art
    }


def _of_folders_of_people(versions: Mapping[str, str]) -> list[_Picture]:
    pictures = []
    for locator, version in versions.items():
        path = PurePosixPath(locator)
        person, *rest = path.with_suffix("").parts
        pictures.append(_Picture(locator, version, _key(person), _is_art(rest, _words(person))))
    return pictures


def _is_art(parts: list[str], person: frozenset[str]) -> bool:
    """Whether a sub-folder or else the file's name says that a picture of somebody is a portrait."""
    *folders, stem = map(_words, parts)
    # Somebody may be called Art: only what is left without the person's name counts, unless that is all there is.
    told = (_domain(words) for words in (*folders, stem, stem - person))
    return next((kind for kind in told if kind is not None), False)


def _of_two_folders(versions: Mapping[str, str], kinds: Mapping[str, bool | None]) -> list[_Picture]:
    named = {locator: PurePosixPath(locator).with_suffix("").parts for locator in versions}
    drawn = {_key(parts[1]) for parts in named.values() if kinds[parts[0]]}
    pictures = []
    for locator, (kind, person, *_) in named.items():
        whole, bare = _key(person), _key(_NUMBER.sub("", person))
        who = bare if whole not in drawn and bare in drawn else whole
        pictures.append(_Picture(locator, versions[locator], who, kinds[kind] is True))
    return pictures


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(name.lower()))


def _domain(words: frozenset[str]) -> bool | None:
    """Whether words say that something is art (True) or a photograph (False); None where they say anything else."""
    kinds = words - _FILLERS
    if kinds and kinds <= _ART:
        return True
    return False if kinds and kinds <= _REAL else None


def _key(person: str) -> str:
    return re.sub(r"[\s_]+", " ", person).strip().casefold()


def _files(pictures: list[_Picture]) -> list[FaceFile]:
    return [FaceFile(picture.locator, picture.version, picture.person) for picture in pictures]


def _note(names: list[str], one: str, many: str) -> str:
    return disagreement(pa.array(names), one, many) if names else ""
