"""The three annotation files of Celeb-A: attributes, identities and the evaluation partition.

The official files separate fields by one or more spaces, may start with a line that counts the rows, and only the
attribute file has a header. The Kaggle copies are the same as CSV with a header. Both are brought to one regular form
byte-wise and parsed by Arrow; no loop of ours runs over the rows unless a bad line has to be found and named.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.remote_path import Place

SPLITS = ("train", "valid", "test")
"""Names of the evaluation partitions 0, 1 and 2."""

_LONGEST_QUOTE = 80


@dataclass(frozen=True)
class Annotation:
    """One annotation file: ``table`` has ``image_id`` (string) and the value columns, in the order of the file."""

    path: Place
    table: pa.Table
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """A file in regular form: no carriage returns, one separator between fields, count line and header taken off."""

    path: Place
    comma: bool
    announced: int | None
    header: list[str] | None
    body: bytes


def read_attributes(path: Place) -> Annotation:
    """Read ``list_attr_celeba.txt`` or ``.csv``: ``image_id`` and the 40 attributes (bool) in official order.

    The columns of the file may be in any order; they are taken by the names in its header. A value of 1 is true; -1,
    and in a CSV 0 too, is false.

    Raises:
        InputError: no header, unknown or missing attribute names, or a malformed row, with its line.
    """
    rows = _regular(path, has_header=True)
    names = _attribute_names(rows)
    allowed = ("1", "-1", "0") if rows.comma else ("1", "-1")

    def fault(fields: list[str]) -> str | None:
        if len(fields) != len(names) + 1:
            return f"{len(fields) - 1} attribute values instead of {len(names)}"
        bad = next((i for i, value in enumerate(fields[1:]) if value not in allowed), None)
        return (
            None if bad is None else f"the value {fields[bad + 1]!r} for {names[bad]}, which is not {_either(allowed)}"
        )

    table = _parse(rows, ["image_id", *names], pa.int8(), fault)
    columns = {"image_id": table["image_id"]}
    for name in ATTRIBUTES:
        values = table[name]
        bounds = pc.min_max(values).as_py()
        regular = bounds["min"] >= -1 and bounds["max"] <= 1 and (rows.comma or pc.all(pc.not_equal(values, 0)).as_py())
        if not regular:
            raise _bad_line(rows, fault, f"a value of {name} is not {_either(allowed)}")
        columns[name] = pc.equal(values, 1)
    return Annotation(path, pa.table(columns), _count_problems(rows, table.num_rows))


def read_identities(path: Place) -> Annotation:
    """Read ``identity_CelebA.txt`` (or ``.csv``): ``image_id`` and ``identity`` (int64).

    Raises:
        InputError: a malformed row, with its line.
    """

    def fault(fields: list[str]) -> str | None:
        if len(fields) != 2:
            return f"{len(fields)} fields instead of an image and its identity"
        return None if _is_integer(fields[1]) else f"the identity {fields[1]!r}, which is not a whole number"

    rows = _regular(path, has_header=path.suffix == ".csv")
    table = _parse(rows, ["image_id", "identity"], pa.int64(), fault)
    return Annotation(path, table, _count_problems(rows, table.num_rows))


def read_partition(path: Place) -> Annotation:
    """Read ``list_eval_partition.txt`` or ``.csv``: ``image_id`` and ``split`` ("train", "valid" or "test").

    Raises:
        InputError: a malformed row, or a partition other than 0, 1 or 2, with its line.
    """

    def fault(fields: list[str]) -> str | None:
        if len(fields) != 2:
            return f"{len(fields)} fields instead of an image and its partition"
        return None if fields[1] in {"0", "1", "2"} else f"the partition {fields[1]!r}, which is not 0, 1 or 2"

    rows = _regular(path, has_header=path.suffix == ".csv")
    table = _parse(rows, ["image_id", "partition"], pa.int64(), fault)
    bounds = pc.min_max(table["partition"]).as_py()
    if bounds["min"] < 0 or bounds["max"] > 2:
        raise _bad_line(rows, fault, "a partition is not 0, 1 or 2")
    split = pa.array(SPLITS).take(table["partition"].combine_chunks())
    return Annotation(
        path, pa.table({"image_id": table["image_id"], "split": split}), _count_problems(rows, len(split))
    )


def _either(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _is_integer(text: str) -> bool:
    try:
        return -(2**63) <= int(text) < 2**63
    except ValueError:
        return False


def _regular(path: Place, *, has_header: bool) -> _Rows:
    comma = path.suffix == ".csv"
    data = _squeezed(path.read_bytes(), comma)
    first, rest = _split_line(data)
    announced = None
    if first.isdigit() and not comma:
        announced = int(first)
        data = rest
        first, rest = _split_line(data)
    header = None
    if has_header:
        header = [field.strip('"') for field in first.decode("utf-8", "replace").split("," if comma else " ") if field]
        data = rest
    return _Rows(path, comma, announced, header, data)


def _squeezed(data: bytes, comma: bool) -> bytes:
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not comma:
        data = data.replace(b"\t", b" ")
        while b"  " in data:
            data = data.replace(b"  ", b" ")
    data = data.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" \n")
    return data + b"\n" if data else b""


def _split_line(data: bytes) -> tuple[bytes, bytes]:
    line, _, rest = data.partition(b"\n")
    return line, rest


def _attribute_names(rows: _Rows) -> list[str]:
    """Return the attribute names of the header, in the order of the file."""
    header = rows.header or []
    # CSV headers name the image column; some copies of the text file do so too.
    names = header[1:] if rows.comma or (len(header) == len(ATTRIBUTES) + 1 and header[0] not in ATTRIBUTES) else header
    known = set(ATTRIBUTES)
    unknown = [name for name in names if name not in known]
    if len(unknown) == len(names):
        raise InputError(
            f"{rows.path} has no header naming the 40 Celeb-A attributes in front of its rows; use the official file."
        )
    if unknown:
        raise InputError(
            f"{rows.path} names unknown attributes ({', '.join(unknown[:3])}); use Celeb-A's own 40 names."
        )
    missing = [name for name in ATTRIBUTES if name not in names]
    if missing:
        raise InputError(f"{rows.path} lacks the attributes {', '.join(missing[:3])}; the header must name all 40.")
    twice = [name for name in ATTRIBUTES if names.count(name) > 1]
    if twice:
        raise InputError(f"{rows.path} names the attribute {twice[0]} twice in its header; name each of the 40 once.")
    return names


def _parse(rows: _Rows, names: list[str], kind: pa.DataType, fault: Callable[[list[str]], str | None]) -> pa.Table:
    """Parse the body: the first column as string, the others as ``kind``."""
    if not rows.body.strip():
        raise InputError(f"{rows.path} holds no rows; use the official file.")
    types = dict.fromkeys(names[1:], kind) | {names[0]: pa.string()}
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(rows.body),
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=pa_csv.ParseOptions(
                delimiter="," if rows.comma else " ", quote_char='"' if rows.comma else False
            ),
            convert_options=pa_csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise _bad_line(rows, fault, str(error).splitlines()[0]) from None
    if pc.any(pc.equal(table[names[0]], "")).as_py():
        raise _bad_line(rows, fault, "a row has no image name")
    return table


def _bad_line(rows: _Rows, fault: Callable[[list[str]], str | None], otherwise: str) -> InputError:
    """Find the first bad line in the file as it is on disk; slow, but only on the way out."""
    separator = "," if rows.comma else None
    to_skip = (rows.announced is not None) + (rows.header is not None)
    lines = rows.path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if to_skip:
            to_skip -= 1
            continue
        fields = [field.strip().strip('"') for field in line.split(separator)]
        reason = fault(fields) or (None if fields[0] else "no image name")
        if reason:
            text = line.strip()
            text = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
            return InputError(f"{rows.path}, line {number} has {reason}: {text!r}; correct or remove this line.")
    return InputError(f"{rows.path} is malformed ({otherwise}); use the official file.")


def _count_problems(rows: _Rows, count: int) -> tuple[str, ...]:
    if rows.announced is None or rows.announced == count:
        return ()
    return (f"{rows.path} announces {rows.announced:,} rows in its first line but holds {count:,}.",)
