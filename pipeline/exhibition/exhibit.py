"""Open the exhibition: what `stylize exhibit` does."""

import ipaddress
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import torch
from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition.extracted_faces import with_extracted_faces
from pipeline.exhibition.gallery import Gallery
from pipeline.exhibition.museum import LANGUAGES, Museum, plain_museum
from pipeline.exhibition.museum_file import read_museum
from pipeline.exhibition.photo import Detector, centre_face
from pipeline.exhibition.serving import address_of, bound_socket, is_unspecified, require_server, server
from pipeline.exhibition.settings import ExhibitionSettings
from pipeline.faces.open_detector import open_detector
from pipeline.retrieval import scoring
from pipeline.retrieval.face_set import ID, SOURCE_ID
from pipeline.retrieval.index import Index, open_index
from pipeline.retrieval.retrieval_model import ModelPlaces
from pipeline.retrieval.search import open_model_of
from pipeline.training.device import training_device

if TYPE_CHECKING:
    from starlette.applications import Starlette

CENTRE: Final = "centre"
"""Instead of a detector: the face is where the page's guide asks for it, in the middle."""


def exhibit(
    index: str | os.PathLike[str] | None,
    museum: str | os.PathLike[str] | Museum | None = None,
    *,
    demo_folder: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8077,
    language: str | None = None,
    weight: float | None = None,
    k: int = 12,
    idle_seconds: float = 90.0,
    places: ModelPlaces | None = None,
    device: str | None = None,
    detector: str = "auto",
    detector_weights: str | os.PathLike[str] | None = None,
    allowed_hosts: Sequence[str] = (),
    notify: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Serve the exhibition until it is interrupted.

    What costs nothing to check (address, settings, detector) is checked first: making the demo takes minutes.

    Args:
        index: folder of the index; None is the demo's museum, made if it is not there, with a museum and a model of its
            own.
        museum: its TOML file, or a museum; None knows of the works what the index says.
        demo_folder: of the demo, as for `demo_museum`.
        host, port: where to serve. Browsers give a camera to pages of this machine and to https alone, so an address
            that others can reach needs a proxy that speaks https in front of it.
        language: that pages open in; None is the museum's.
        weight, k, idle_seconds: as of `ExhibitionSettings`.
        places: where the model is now, as for `search`.
        device: of the networks, as for `training_device`.
        detector: "auto", "centerface" or "s3fd", as for `open_detector`; or "centre", which takes the middle of the
            photograph for the face, without looking.
        detector_weights: its checkpoint, as for `open_detector`.
        allowed_hosts: further names by which browsers call the server.
        notify: called with what is being done.

    Raises:
        InputError: the extra is not installed; index, model, museum, detector or a number is not what is said above;
            the address is taken.
        RunError: a file is damaged, or the demo could not be made.
    """
    settings = ExhibitionSettings(
        language=language,
        weight=weight,
        k=k,
        idle_seconds=idle_seconds,
        allowed_hosts=(*allowed_hosts, *([] if is_unspecified(host) else [host])),
        demo=index is None,
    )
    require_server()
    _check_language(settings, LANGUAGES)
    with bound_socket(host, port) as bound:
        chosen = training_device(device)
        detect = _detector(detector, detector_weights, chosen)
        if index is None:
            from pipeline.exhibition.demo_museum import demo_museum  # noqa: PLC0415 - the training, too

            made = demo_museum(demo_folder, device=device, notify=notify)
            index, museum, places = made.index, made.museum, made.places
        opened = open_index(index)
        shown = _museum(museum, opened)
        gallery = Gallery(opened, open_model_of(opened, places, chosen))
        check_choices(opened, shown, settings)
        app = _app(gallery, shown, settings, detect)
        _prepare(gallery)
        for line in _warnings(host, settings, shown, gallery):
            notify(line)
        notify(f"{len(gallery):,} faces; {gallery.model.title}, on {chosen}")
        notify(f"the exhibition is open at {address_of(bound, host)} (Ctrl-C closes it)")
        server(app).run(sockets=[bound])


def check_choices(index: Index, museum: Museum, settings: ExhibitionSettings) -> None:
    """Refuse settings that the index or the museum cannot serve; InputError."""
    if settings.weight is not None:
        scoring.check_weight(settings.weight, len(index.attributes))
    _check_language(settings, museum.languages)


def _check_language(settings: ExhibitionSettings, languages: Sequence[str]) -> None:
    if settings.language is not None and settings.language not in languages:
        raise InputError(
            f'the pages do not speak the language "{settings.language}"; choose from {", ".join(languages)}'
        )


def _museum(museum: str | os.PathLike[str] | Museum | None, index: Index) -> Museum:
    if isinstance(museum, Museum):
        return museum
    return with_extracted_faces(plain_museum(index) if museum is None else read_museum(museum), index)


def _app(gallery: Gallery, museum: Museum, settings: ExhibitionSettings, detect: Detector) -> "Starlette":
    from pipeline.exhibition.app import create_app  # noqa: PLC0415
    from pipeline.exhibition.messages import read_messages  # noqa: PLC0415

    return create_app(gallery, museum, settings, detect=detect, messages=read_messages())


def _detector(name: str, weights: str | os.PathLike[str] | None, device: torch.device) -> Detector:
    return centre_face if name == CENTRE else open_detector(name, weights, device=device).detect


def _prepare(gallery: Gallery) -> None:
    """Do once what the first visitor would wait for, and what would write caches or warn during a visit."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.WARNING)  # below that it tells of Exif, whatever others have asked for
    # What `convolution_precision` sets and puts back, so that two threads do not put back what the other needs.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # Photographs, searches and explanations share the cores; each is to have some, and not all of them.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    width, height = gallery.index.size
    grey = torch.full((3, height, width), 128, dtype=torch.uint8)
    gallery.describe(grey)
    gallery.explain(grey, 0, weight=gallery.weight, steps=1, pause=lambda: None)


def _warnings(host: str, settings: ExhibitionSettings, museum: Museum, gallery: Gallery) -> list[str]:
    lines = []
    if not _loopback(host):
        lines.append(
            f"{host} can be reached by others; browsers give them no camera without https, and the server does not "
            "stand up to a network that you do not trust: put a proxy in front"
        )
    if is_unspecified(host) and not settings.allowed_hosts:
        lines.append(
            "browsers of other computers are refused until you say by which name or address they call this one: "
            "--allowed-host NAME"
        )
    table = gallery.index.gallery.table
    lost = museum.unmatched(zip(table[ID].to_pylist(), table[SOURCE_ID].to_pylist(), strict=True))
    if lost:
        lines.append(f"of {len(lost):,} works of the museum the index has no face, such as {lost[0]}")
    return lines


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
