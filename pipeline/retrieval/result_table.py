"""A table of results, the paper's rows beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

Origin = Literal["ours", "paper"]
Value = float | int | str | None

NOTHING: Final = "\N{EN DASH}"
"""Stands for a value that there is none of."""

_WHERE: Final[dict[Origin, str]] = {"ours": "this evaluation", "paper": "paper"}


@dataclass(frozen=True)
class ResultRow:
    """One row.

    Attributes:
        name: of what was evaluated.
        origin: "ours", or "paper" for a published row.
        values: one for every column of the table; None where there is none.
        nearest: for a published row: it is the one to compare ours with.
    """

    name: str
    origin: Origin
    values: tuple[Value, ...]
    nearest: bool = False


@dataclass(frozen=True)
class ResultTable:
    """Rows of results under common columns.

    Attributes:
        title: what it shows.
        columns: names of the values; the first column, of the rows' names, is called `names`.
        rows: in the order to be shown.
        notes: sentences below the table.
        names: what the rows are.
        decimals: of floats; whole numbers and text are shown as they are.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    notes: tuple[str, ...] = ()
    names: str = "Face embedding"
    decimals: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{row.name} has {len(row.values)} values for {len(self.columns)} columns")

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of all columns as shown: of the names, of where a row is from, and of the values."""
        return (self.names, "From", *self.columns)

    def cells(self, row: ResultRow) -> tuple[str, ...]:
        """Return a row as text, one cell for every column of `header`."""
        name = f"{row.name} (nearest to ours)" if row.nearest else row.name
        return (name, _WHERE[row.origin], *(self._text(value) for value in row.values))

    def shortened(self) -> "ResultTable":
        """Return the table without published rows other than the nearest; as it is if none is nearest."""
        if not any(row.nearest for row in self.rows):
            return self
        return replace(self, rows=tuple(row for row in self.rows if row.origin == "ours" or row.nearest))

    def markdown(self) -> str:
        """Return the table as GitHub's Markdown has it: title, table, notes; ours in bold."""
        header = [_escaped(name) for name in self.header]
        lines = [f"## {self.title}", "", _line(header), _line(["---", "---", *("---:" for _ in self.columns)])]
        for row in self.rows:
            cells = [_escaped(cell) for cell in self.cells(row)]
            lines.append(_line([f"**{cell}**" for cell in cells] if row.origin == "ours" else cells))
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; NaN as null."""
        return {
            "title": self.title,
            "names": self.names,
            "columns": list(self.columns),
            "rows": [
                {
                    "name": row.name,
                    "origin": row.origin,
                    "nearest": row.nearest,
                    "values": [None if _undefined(value) else value for value in row.values],
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def _text(self, value: Value) -> str:
        if value is None or _undefined(value):
            return NOTHING
        return f"{value:.{self.decimals}f}" if isinstance(value, float) else str(value)


def _undefined(value: Value) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124  # NaN


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
