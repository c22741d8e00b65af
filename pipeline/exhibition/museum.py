"""What an exhibition knows of its museum: the works that the faces were found in, their rooms, and the floor plan."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from manifests.image_files import IMAGE_SUFFIXES
from pipeline.retrieval.face_set import SOURCE_ID
from pipeline.retrieval.index import Index

LANGUAGES: Final = ("en", "it")
"""Languages that the pages speak; the first is the one where nothing else is asked for."""

Text = Mapping[str, str]
"""Language → words. A museum's texts have all its languages: see `translated`."""

PLAIN_TITLES: Final = {"en": "Find your look-alike", "it": "Trova il tuo sosia"}
_CROP: Final = re.compile(
    r"(?P<painting>.+)\.[0-9]+\.(?:png|jpe?g|webp)", re.DOTALL
)  # `pipeline.faces.crop_name.face_id`
_PAINTING: Final = re.compile(r"^(?P<artist>[^_]+)_(?P<title>.+)$")  # as WikiArt's files are named


@dataclass(frozen=True)
class Point:
    """A place on the floor plan, in fractions of its width and height, 0 to 1, from the upper left corner."""

    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """A part of a picture, in fractions of its width and height, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class FloorPlan:
    """A drawn map of the museum.

    Attributes:
        data: the encoded picture as it is served.
        media_type: "image/png", "image/jpeg" or "image/svg+xml".
        width, height: in pixels, or in the units of an SVG's viewBox; only their ratio matters.
        you: where the visitor stands, None where the file does not say.
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    you: Point | None = None


@dataclass(frozen=True)
class Room:
    """A room of the museum.

    Attributes:
        id: unique among the rooms.
        name: as visitors read it.
        x, y: its middle on the floor plan, in fractions; both None where the file does not say.
    """

    id: str
    name: Text
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Work:
    """A painting, drawing or sculpture with a face in it.

    Attributes:
        id: unique among the works; finds the faces of it, see `Museum.work_of`.
        title: as visitors read it.
        artist, year: free text, None where unknown: "about 1638" is a year.
        room: a room's id.
        x, y: where it hangs on the floor plan, in fractions; None lets it stand where its room does
            (`Museum.place_of`).
        text: a few sentences for visitors.
        credit: whose photograph it is, or whose permission it needs.
        picture: file of the whole work, None where there is none; the page shows the face's crop then.
        faces: ids of the faces in it, where the work's own id does not find them.
    """

    id: str
    title: Text
    artist: str | None = None
    year: str | None = None
    room: str | None = None
    x: float | None = None
    y: float | None = None
    text: Text | None = None
    credit: str | None = None
    picture: Path | None = None
    faces: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Museum:
    """A museum; empty but for its title where there is no file of it (`plain_museum`).

    Attributes:
        title: of the exhibition, as visitors read it.
        language: that the pages open in; one of `languages`.
        languages: that visitors choose from, in this order.
        plan: None where there is no map.
        rooms, works: by their ids, in the order of the file.
        boxes: of faces, by their ids in the index: where in its work's `picture` a face is. Of those alone for which
            that is known (`extracted_faces`).
    """

    title: Text
    language: str = LANGUAGES[0]
    languages: tuple[str, ...] = LANGUAGES
    plan: FloorPlan | None = None
    rooms: Mapping[str, Room] = field(default_factory=dict)
    works: Mapping[str, Work] = field(default_factory=dict)
    boxes: Mapping[str, Box] = field(default_factory=dict)

    def work_of(self, face_id: str, source_id: str) -> Work:
        """Return the work that a face of the index is in.

        The first of these that there is: the work whose `faces` list the face, or whose id is the face's; and then the
        same of the source (the painting that the face was cut from). Ids of files match without their ending, too, and
        crops that `stylize faces` has cut match by the picture's id: of "duke.jpg.2.png" the work is "duke.jpg" or
        "duke". A face of no work gets one of its own, made of its picture's name: of a file named as WikiArt names
        them, "artist-name_the-title.jpg", that says artist and title.

        Args:
            face_id, source_id: `id` and `source_id` of the face in the index (`face_set.FACE_SET_SCHEMA`).
        """
        for name in names_of_face(face_id, source_id):
            if name in self._works_by_name:
                return self._works_by_name[name]
        painting = painting_of(source_id)
        artist, title = said_by_file(painting)
        return Work(painting, dict.fromkeys(self.languages, title), artist)

    def unmatched(self, faces: Iterable[tuple[str, str]]) -> list[str]:
        """Return the ids of the works that none of the faces is in, for a warning: most are a typing mistake.

        Args:
            faces: face_id and source_id of each.
        """
        found = {self.work_of(*face).id for face in faces}
        return [name for name in self.works if name not in found]

    def room_of(self, work: Work) -> Room | None:
        """Return the room that a work hangs in."""
        return None if work.room is None else self.rooms.get(work.room)

    def place_of(self, work: Work) -> Point | None:
        """Return where a work hangs on the floor plan: its own place, else its room's, else None."""
        for placed in (work, self.room_of(work)):
            if placed is not None and placed.x is not None and placed.y is not None:
                return Point(placed.x, placed.y)
        return None

    @cached_property
    def _works_by_name(self) -> dict[str, Work]:
        """What is listed is said more plainly than an id, which may only look like a file's; so it comes first."""
        works = [*self.works.values()]
        found = {face: work for work in reversed(works) for face in work.faces}
        return {work.id: work for work in reversed(works)} | found


def plain_museum(index: Index) -> Museum:
    """Return the museum of an index that there is no file about: no map, and of every work what its file's name says.

    Works are in the order of the index.
    """
    museum = Museum(PLAIN_TITLES)
    works = (museum.work_of(source, source) for source in index.gallery.table[SOURCE_ID].to_pylist())
    return Museum(PLAIN_TITLES, works={work.id: work for work in works})


def translated(text: Mapping[str, str], languages: Sequence[str], language: str) -> Text:
    """Return a text in all languages: what is missing is said in `language`, or else in the first that there is.

    So a visitor reads a title in the museum's own language rather than none.
    """
    spare = text.get(language) or next(words for words in text.values() if words)
    return {name: text.get(name) or spare for name in languages}


def names_of_face(*ids: str) -> Iterator[str]:
    """Give the names under which a museum may know a face: every id, its picture's, and both without their endings."""
    for name in ids:
        yield name
        yield _without_ending(name)
    for name in ids:
        yield painting_of(name)
        yield _without_ending(painting_of(name))


def painting_of(face_id: str) -> str:
    """Return the id of the picture that `stylize faces` has cut a face from; of any other id the id itself."""
    found = _CROP.fullmatch(face_id)
    return found["painting"] if found else face_id


def _without_ending(name: str) -> str:
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name


def said_by_file(source_id: str) -> tuple[str | None, str]:
    """Return artist and title by a file's name: of "Baroque/artist-name_the-title.jpg" "Artist Name" and "The title".

    A name without an underscore between two words is a title alone.
    """
    stem = PurePosixPath(_without_ending(source_id)).name or source_id
    parts = _PAINTING.match(stem)
    artist, title = (parts["artist"], parts["title"]) if parts else (None, stem)
    named = " ".join(re.split(r"[-_\s]+", title)).strip() or source_id
    who = None if artist is None else " ".join(word.capitalize() for word in artist.split("-") if word)
    return who or None, named[0].upper() + named[1:]
