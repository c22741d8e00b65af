"""An optional CSV that tells artist, genre, style and title of paintings."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from manifests.errors import InputError
from manifests.remote_path import Place, RemotePath

LABELS = ("artist", "title", "genre", "style")
_KEYS = ("file", "path", "filename", "painting")


def read_painting_csv(path: Place) -> pa.Table:
    """Read ``key`` (posix path) and those of LABELS that the file has, all strings, empty cells null.

    The header names the columns, in any case and order; the key is ``file``, ``path``, ``filename`` or ``painting``;
    other columns are ignored. Quoted cells may hold commas and line breaks.

    Raises:
        InputError: missing file, no key column, none of LABELS, or a malformed row.
        RunError: a store does not answer.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the CSV that describes the paintings.")
    content = path.read_bytes() if isinstance(path, RemotePath) else None

    def source() -> object:
        return path if content is None else pa.BufferReader(content)

    try:
        with pa_csv.open_csv(source()) as reader:
            header = reader.schema.names
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a readable CSV with a header ({_one_line(error)}); correct it.") from None
    wanted: dict[str, str] = {}
    for column in header:
        wanted.setdefault(column.strip().lower(), column)
    key = next((name for name in _KEYS if name in wanted), None)
    labels = [name for name in LABELS if name in wanted]
    if key is None or not labels:
        raise InputError(
            f"{path} has the columns {', '.join(header[:8])}; it needs one of {', '.join(_KEYS)} "
            f"and at least one of {', '.join(LABELS)}."
        )
    types = {wanted[name]: pa.string() for name in (key, *labels)}
    try:
        table = pa_csv.read_csv(
            source(),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowException as error:
        raise InputError(f"{path} has a malformed row ({_one_line(error)}); correct it.") from None
    keys = pc.replace_substring(pc.utf8_trim_whitespace(table[wanted[key]]), "\\", "/")
    keys = pc.replace_substring_regex(keys, r"^(\./)+", "")
    return pa.table({"key": keys} | {name: table[wanted[name]] for name in labels})


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
