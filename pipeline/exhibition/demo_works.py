"""What hangs in the demo's museum: invented sitters, painters and titles, in English and Italian, and where it hangs.

Everything follows from the labels of the pictures, so that a title says what is to be seen, and from the order of
their ids; nothing is drawn by chance. The names are of paints and painters' tools, so that nobody takes them for real.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.exhibition.floor_plan import ROOMS, hanging_places
from pipeline.exhibition.museum import Room, Text, Work

TITLE: Final = {"en": "Gallery of Drawn Faces", "it": "Galleria dei volti disegnati"}
CREDIT: Final = "stylize demo"
TEXT: Final = {
    "en": "A head that a program has drawn, repainted in the style of a drawn painting. Sitter, painter and title are "
    "invented: nobody here has ever lived.",
    "it": "Una testa disegnata da un programma e ridipinta nello stile di un quadro disegnato. Modello, autore e "
    "titolo sono inventati: nessuno, qui, è mai vissuto.",
}

_ROOMS: Final = {
    "I": {"en": "Room I, Waves", "it": "Sala I, Le onde"},
    "II": {"en": "Room II, Facets", "it": "Sala II, Le sfaccettature"},
    "III": {"en": "Room III, Embers", "it": "Sala III, Le braci"},
    "IV": {"en": "Room IV, The Garden", "it": "Sala IV, Il giardino"},
    "V": {"en": "Room V, Prints", "it": "Sala V, Le stampe"},
}
_PAINTERS: Final = {  # of the demo's drawn paintings, by the artist in their files' names: name and room
    "demo-printmaker": ("Ondina Risacca", "I"),
    "demo-impressionist": ("Aurelia Lume", "I"),
    "demo-cubist": ("Piero Spigoli", "II"),
    "demo-neoplasticist": ("Carla Righello", "II"),
    "demo-expressionist": ("Dora Vortice", "III"),
    "demo-stainer": ("Marta Velatura", "III"),
    "demo-decorator": ("Livia Viticci", "IV"),
    "demo-pointillist": ("Ugo Puntini", "IV"),
    "demo-engraver": ("Bruno Bulino", "V"),
    "demo-dripper": ("Gianni Gocciolo", "V"),
}
_MEN: Final = (
    *("Astolfo", "Baldassarre", "Ercole", "Fosco", "Galeazzo", "Ippolito"),
    *("Leonello", "Obizzo", "Rinaldo", "Taddeo", "Ubaldo", "Zanobi"),
)
_WOMEN: Final = (
    *("Alda", "Bradamante", "Costanza", "Diamante", "Eleonora", "Fiammetta"),
    *("Ginevra", "Isotta", "Lucrezia", "Marfisa", "Olimpia", "Violante"),
)
_FAMILIES: Final = (
    *("Pennello", "Cavalletto", "Cobalto", "Cornice", "Tavolozza", "Cinabro"),
    *("Gessetto", "Pastello", "Trementina", "Matita", "Ocra", "Vernice"),
)
_SEEN: Final = {  # what a title may say, the first that is to be seen
    "Wearing_Hat": {"en": "in a hat", "it": "con cappello"},
    "Eyeglasses": {"en": "with spectacles", "it": "con gli occhiali"},
    "Mustache": {"en": "with a moustache", "it": "con i baffi"},
    "Smiling": {"en": "smiling", "it": "che sorride"},
    "Wearing_Earrings": {"en": "with earrings", "it": "con gli orecchini"},
    "Wearing_Necktie": {"en": "in a tie", "it": "in cravatta"},
    "": {"en": "looking straight ahead", "it": "con lo sguardo fisso"},
}
_TITLES: Final = (
    {"en": "Portrait of {name} {seen}", "it": "Ritratto di {name} {seen}"},
    {"en": "{name} {seen}", "it": "{name} {seen}"},
    {"en": "Study of {name} {seen}", "it": "Studio di {name} {seen}"},
)


@dataclass(frozen=True)
class DemoPicture:
    """A picture of the demo's gallery.

    Attributes:
        id: of its face in the index.
        person: number of the sitter.
        labels: names of the attributes that it has.
        artist: of the painting that gave its style, as the run has it; None where unknown.
        file: the picture.
    """

    id: str
    person: int
    labels: Collection[str]
    artist: str | None
    file: Path


def demo_rooms() -> dict[str, Room]:
    """Return the five rooms, each with its place on the floor plan."""
    return {room.id: Room(room.id, _ROOMS[room.id], room.middle.x, room.middle.y) for room in ROOMS}


def demo_works(pictures: Sequence[DemoPicture]) -> dict[str, Work]:
    """Return a work for every picture, by id: each painter's pictures hang in one room, in the order of their ids."""
    ordered = sorted(pictures, key=lambda picture: picture.id)
    rooms = [_PAINTERS.get(picture.artist or "", ("", ROOMS[0].id))[1] for picture in ordered]
    places = {room.id: iter(hanging_places(room, max(rooms.count(room.id), 1))) for room in ROOMS}
    works = {}
    for picture, title, room in zip(ordered, _titles(ordered), rooms, strict=True):
        place = next(places[room])
        works[picture.id] = Work(
            id=picture.id,
            title=title,
            artist=_PAINTERS[picture.artist][0] if picture.artist in _PAINTERS else None,
            room=room,
            x=place.x,
            y=place.y,
            text=TEXT,
            credit=CREDIT,
            picture=picture.file,
        )
    return works


def _titles(pictures: Sequence[DemoPicture]) -> Iterator[Text]:
    names = _names(pictures)
    so_far: dict[int, int] = defaultdict(int)
    for picture in pictures:
        number = so_far[picture.person]
        so_far[picture.person] += 1
        seen = next((words for label, words in _SEEN.items() if label in picture.labels), _SEEN[""])
        more = "" if number < len(_TITLES) else f" ({number + 1})"
        yield {
            language: words.format(name=names[picture.person], seen=seen[language]) + more
            for language, words in _TITLES[number % len(_TITLES)].items()
        }


def _names(pictures: Sequence[DemoPicture]) -> dict[int, str]:
    """Return a name for every sitter, no two alike (of up to 144 men and as many women)."""
    named: dict[int, str] = {}
    men = women = 0
    for person in sorted({picture.person for picture in pictures}):
        own = [picture for picture in pictures if picture.person == person]
        if 2 * sum("Male" in picture.labels for picture in own) > len(own):
            named[person], men = _name(_MEN, men), men + 1
        else:
            named[person], women = _name(_WOMEN, women, offset=3), women + 1
    return named


def _name(given: Sequence[str], number: int, offset: int = 0) -> str:
    """Pair given and family names: the same first name comes with another family every time around."""
    around, at = divmod(number, len(given))
    return f"{given[at]} {_FAMILIES[(5 * at + around + offset) % len(_FAMILIES)]}"
