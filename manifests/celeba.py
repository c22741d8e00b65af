"""Faces of a Celeb-A copy: the images joined with their attributes, identities and evaluation partition."""

import pyarrow as pa
import pyarrow.compute as pc

from manifests.celeba_annotations import Annotation, read_attributes, read_identities, read_partition
from manifests.celeba_layout import CelebALayout
from manifests.disagreement import disagreement, without_duplicates
from manifests.errors import InputError
from manifests.face_rows import FaceRows
from manifests.image_files import list_image_files
from manifests.image_source import ImageSource
from manifests.remote_path import Place
from manifests.zip_images import list_zip_images


def read_celeba(layout: CelebALayout) -> FaceRows:
    """Read a Celeb-A copy; ``image_id`` is the file name ("000001.jpg").

    Our choices where the inputs disagree: an image without a row of attributes is left out; so is one without a row in
    the partition file, because calling it "train" could leak a test identity; one that is missing from the identity
    file alone keeps a null identity. Of duplicate ids the first counts. Without any partition file every face is
    "train"; without any identity file every identity is null, which is how Kaggle's copy comes (a note), but a problem
    beside the official text files.

    Raises:
        InputError: unreadable images or archive, a malformed annotation file, or not one image with its attributes.
        RunError: a store does not answer.
    """
    problems: list[str] = []
    notes: list[str] = []
    where = str(layout.images)
    zipped = layout.images.is_file()
    listing = list_zip_images(layout.images) if zipped else list_image_files(layout.images, recursive=False)
    problems += listing.problems
    if listing.table.num_rows == 0:
        raise InputError(f"{where} holds no images (jpg, png, webp, bmp or tiff); put Celeb-A's aligned images there.")
    locators = listing.table["locator"].combine_chunks()
    names = pc.replace_substring_regex(locators, r"^.*/", "") if zipped else locators
    images = pa.table({"image_id": names, "locator": locators, "size": listing.table["size"]})
    images = _without_duplicates(images, where, "image", problems)

    attributes = _unique(read_attributes(layout.attributes), problems)
    identities = _unique(read_identities(layout.identities), problems) if layout.identities else None
    partition = _unique(read_partition(layout.partition), problems) if layout.partition else None
    for annotation in (attributes, identities, partition):
        if annotation is not None:
            _report_imageless(annotation, images["image_id"], where, problems)

    table, missing = _join(images, attributes)
    _report_left_out(missing, attributes.path, problems)
    if partition is None:
        split = pa.repeat(pa.scalar("train"), table.num_rows)
        table = table.append_column("split", split)
        notes.append(
            f"There is no list_eval_partition.txt beside {layout.attributes}, so every face is in split train."
        )
    else:
        table, missing = _join(table, partition)
        _report_left_out(missing, partition.path, problems)
    if identities is None:
        sentence = f"There is no identity_CelebA.txt beside {layout.attributes}, so every identity is null."
        (notes if layout.attributes.suffix == ".csv" else problems).append(sentence)
    else:
        found = pc.index_in(table["image_id"], value_set=identities.table["image_id"])
        table = table.append_column("identity", identities.table["identity"].take(found))
        missing = table["image_id"].filter(pc.is_null(found)).combine_chunks()
        if len(missing):
            problems.append(
                disagreement(
                    missing,
                    f"image has no row in {identities.path} and keeps a null identity",
                    f"images have no row in {identities.path} and keep a null identity",
                )
            )
    if table.num_rows == 0:
        raise InputError(f"No image in {where} has all its annotations: {' '.join(problems)}")
    source = ImageSource.at("zip" if zipped else "folder", layout.images)
    return FaceRows(table, source, layout.name, tuple(problems), tuple(notes))


def _without_duplicates(table: pa.Table, where: str, what: str, problems: list[str]) -> pa.Table:
    one = f"{what} in {where} repeats an earlier id and is left out"
    many = f"{what}s in {where} repeat an earlier id and are left out"
    return without_duplicates(table, "image_id", one, many, problems)


def _unique(annotation: Annotation, problems: list[str]) -> Annotation:
    problems += annotation.problems
    table = _without_duplicates(annotation.table, str(annotation.path), "row", problems)
    return Annotation(annotation.path, table)


def _report_imageless(annotation: Annotation, images: pa.ChunkedArray, where: str, problems: list[str]) -> None:
    ids = annotation.table["image_id"]
    extra = ids.filter(pc.invert(pc.is_in(ids, value_set=images))).combine_chunks()
    if len(extra):
        problems.append(
            disagreement(
                extra,
                f"row in {annotation.path} has no image in {where} and is left out",
                f"rows in {annotation.path} have no image in {where} and are left out",
            )
        )


def _join(table: pa.Table, annotation: Annotation) -> tuple[pa.Table, pa.Array]:
    """Add the annotation's columns; return the images that have a row, and the ids of those that have none."""
    found = pc.index_in(table["image_id"], value_set=annotation.table["image_id"])
    present = pc.is_valid(found)
    missing = table["image_id"].filter(pc.invert(present)).combine_chunks()
    table = table.filter(present)
    rows = annotation.table.take(found.drop_null())
    for name in rows.column_names:
        if name != "image_id":
            table = table.append_column(name, rows[name])
    return table, missing


def _report_left_out(missing: pa.Array, path: Place, problems: list[str]) -> None:
    if len(missing):
        problems.append(
            disagreement(
                missing,
                f"image has no row in {path} and is left out",
                f"images have no row in {path} and are left out",
            )
        )
