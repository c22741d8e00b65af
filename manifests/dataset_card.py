"""The dataset card: README.md of a run, whose front matter lets Hugging Face ``datasets`` load the folder as it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from manifests.schema import ACCEPTED, DATA_SCHEMA, FAILED, MANIFEST_SCHEMA, REJECTED, SPLITS, STATUSES
from manifests.shard_name import DATA_FOLDER, MANIFEST_FOLDER

_DESCRIPTIONS = {
    "image": "the proxy: the face repainted in the style of the painting",
    "image_id": "name of this image, unique in the data set",
    "source_id": "name of the photograph it was made from; leave it out of the gallery when its proxy is the query",
    "split": "split of the input data set",
    "identity": "number of the person; null where the input has none",
    "painting": "painting whose style was transferred",
    "artist": "artist of the painting, where known",
    "genre": "genre of the painting, where known",
    "style": "style of the painting, where known",
    "loss": "final loss of the stored picture, in loss units",
    "status": "`accepted`, `rejected` (no painting came under the threshold) or `failed` (see `error`)",
    "attempts": "every painting tried: losses, evaluations, why it stopped",
    "error": "why the face failed",
    "sha256": "SHA-256 of the stored image bytes",
    "width": "width of the proxy in pixels",
    "height": "height of the proxy in pixels",
    "data_file": "data file that holds the proxy",
    "data_row": "its row there, from 0",
    "convention": "normalisation of the objective",
    "precision": "arithmetic of the optimisation (losses are float32 always)",
}


def card(run: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the dataset card as Markdown.

    ``run`` is the content of run.json; ``counts`` gives faces by split and status ({"train": {"accepted": 120, …}}),
    ``RunStatus.faces`` for one. Pure: the same arguments give the same text. A split without a face, or in ``data/``
    without an accepted one, is left out of the configuration: ``load_dataset`` fails for a split of no rows.
    """
    faces = [split for split in SPLITS if sum(counts.get(split, {}).values())]
    accepted = [split for split in faces if counts[split].get(ACCEPTED, 0)]
    lines = [
        *_front_matter(accepted, faces),
        "",
        "# Artistic proxies of a face data set",
        "",
        "Every face of a labelled data set of photographs, repainted in the style of a randomly drawn painting by "
        "neural style transfer. A proxy keeps the identity and attribute labels of its photograph, so that models for "
        "faces in art can be trained without labelled art. Built with `stylize` after the PersonArt approach.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        "images = load_dataset(FOLDER)                # accepted proxies with their labels",
        'rows = load_dataset(FOLDER, "manifest")      # one row per input face, with every attempt',
        "```",
        "",
        "## Counts",
        "",
        *_table(
            ("split", "faces", *STATUSES),
            ((split, sum(counts[split].values()), *_by_status(counts[split])) for split in SPLITS if split in counts),
        ),
        "",
        "## How it was made",
        "",
        *_table(
            ("setting", "value"),
            [pair for key in ("config", "objective", "weights", "inputs", "versions") for pair in _flat(key, run[key])]
            + [("fingerprint", run["fingerprint"])],
        ),
        "",
        "## Columns",
        "",
        f"`{DATA_FOLDER}/` holds the accepted proxies, `{MANIFEST_FOLDER}/` one row per input face. In the manifest, "
        "the columns that describe a proxy are null unless the face is accepted.",
        "",
        *_table(("column", "type", "in", "meaning"), _columns()),
        "",
        "## Licence",
        "",
        "Proxies are derived from the face photographs and the paintings: the terms of both inputs pass on to this "
        "data set (Celeb-A: non-commercial research only). The pictures show real people. Check both before you share.",
        "",
        "## Citation",
        "",
        "```bibtex",
        "@article{cornia2022personart,",
        "  author  = {Cornia, Marcella and Tomei, Matteo and Baraldi, Lorenzo and Cucchiara, Rita},",
        "  title   = {Matching Faces and Attributes Between the Artistic and the Real Domain: the PersonArt Approach},",
        "  journal = {ACM Transactions on Multimedia Computing, Communications, and Applications},",
        "  volume  = {18},",
        "  number  = {3},",
        "  year    = {2022},",
        "  doi     = {10.1145/3490033}",
        "}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _front_matter(accepted: list[str], faces: list[str]) -> Iterator[str]:
    yield from ("---", "pretty_name: Artistic proxies of a face data set", "license: other")
    yield from ("tags:", "- style-transfer", "- faces", "- art", "configs:")
    for config, folder, splits in (("default", DATA_FOLDER, accepted), ("manifest", MANIFEST_FOLDER, faces)):
        if not splits:
            continue
        yield f"- config_name: {config}"
        if config == "default":
            yield "  default: true"
        yield "  data_files:"
        for split in splits:
            yield f"  - split: {split}"
            yield f"    path: {folder}/{split}-*.parquet"
    yield "---"


def _by_status(counts: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(counts.get(status, 0) for status in (ACCEPTED, REJECTED, FAILED))


def _columns() -> Iterator[tuple[object, ...]]:
    data, manifest = set(DATA_SCHEMA.names), set(MANIFEST_SCHEMA.names)
    attributes_done = False
    for name in dict.fromkeys((*DATA_SCHEMA.names, *MANIFEST_SCHEMA.names)):
        place = "both" if name in data & manifest else DATA_FOLDER if name in data else MANIFEST_FOLDER
        field = (DATA_SCHEMA if name in data else MANIFEST_SCHEMA).field(name)
        if name in _DESCRIPTIONS:
            kind = "image" if name == "image" else "list" if name == "attempts" else str(field.type)
            yield f"`{name}`", kind, place, _DESCRIPTIONS[name]
        elif not attributes_done:
            attributes_done = True
            yield "`5_o_Clock_Shadow` … `Young`", "bool", place, "the 40 Celeb-A attributes; null where unknown"


def _flat(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value


def _table(header: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield _table_row(header)
    yield _table_row(("---",) * len(header))
    for row in rows:
        yield _table_row(row)


def _table_row(cells: tuple[object, ...]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
