"""What a run on disk says of itself: status, summary, verification, contact sheet."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import RunError
from manifests.run import RunDirectory
from manifests.status import RunStatus, read_status
from manifests.verify import verify

if TYPE_CHECKING:
    from pipeline.recompute import Recomputation


def status(out: str | os.PathLike[str]) -> RunStatus:
    """Read how far a run is, from storage alone; InputError where there is none."""
    return read_status(out)


def status_lines(status: RunStatus) -> list[str]:
    """Say how far a run is, one sentence to a line."""
    faces, planned = sum(sum(counts.values()) for counts in status.faces.values()), sum(status.faces_planned.values())
    state = "complete" if status.complete else "not complete"
    lines = [
        f"{status.url}: {state}, {status.shards_committed:,} of {status.shards_planned:,} shards, "
        f"{faces:,} of {planned:,} faces",
        ", ".join(f"{name} {status.total(name):,}" for name in ("accepted", "rejected", "failed"))
        + f", retries {status.retries:,}, unreadable paintings {status.unusable:,}",
    ]
    if status.loss:
        lines.append("loss of accepted proxies: " + ", ".join(f"{name} {q:.2f}" for name, q in status.loss.items()))
    return [*lines, *status.unreadable]


def write_summary(out: str | os.PathLike[str], page: str | os.PathLike[str]) -> None:
    """Write the summary of a run, finished or not, as one self-contained HTML file.

    Loss histogram, attempts per face, rejections by painting and by style, and from the event log throughput over time
    and what happened to every execution (`pipeline.run_summary`).

    Raises:
        InputError: there is no run.
        RunError: the storage does not answer, or the page cannot be written.
    """
    from pipeline.run_summary import summarise, write_summary  # noqa: PLC0415  # jinja2 and matplotlib take a second

    write_summary(summarise(out), page)


@dataclass(frozen=True)
class Report:
    """The outcome of `stylize verify`.

    Attributes:
        findings: one sentence each; empty for a clean run.
        counts: what was looked at.
        recomputation: of recorded losses; None if it was not asked for.
    """

    findings: tuple[str, ...]
    counts: Mapping[str, int]
    recomputation: "Recomputation | None"

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        document: dict[str, Any] = {
            "clean": self.clean,
            "counts": dict(self.counts),
            "findings": list(self.findings),
        }
        if self.recomputation is not None:
            document["recomputed"] = {
                "proxies": self.recomputation.checked,
                "largest_relative_difference": self.recomputation.largest_difference,
            }
        return document

    def lines(self) -> list[str]:
        """Say what was found, one sentence to a line."""
        looked = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        lines = [*self.findings, f"{'clean' if self.clean else f'{len(self.findings)} findings'}: {looked}"]
        if self.recomputation is not None:
            lines.append(
                f"recomputed the loss of {self.recomputation.checked} proxies from their pixels: largest relative "
                f"difference {self.recomputation.largest_difference:.1e}"
            )
        return lines


def verify_run(
    out: str | os.PathLike[str],
    *,
    recompute_losses: bool = False,
    sample: int = 16,
    faces: str | os.PathLike[str] | None = None,
    paintings: str | os.PathLike[str] | None = None,
    paintings_csv: str | os.PathLike[str] | None = None,
    weights: str | None = None,
) -> Report:
    """Check a run against its plan and itself and, if asked, recorded losses against the pixels.

    Losses of a run that is damaged are not recomputed: its pixels or its records are not what was written.

    Raises:
        InputError: there is no run, or its inputs are not to be had for recomputing.
        WeightsError: likewise its weights.
    """
    verification = verify(out)
    recomputation = None
    if recompute_losses and verification.clean:
        from pipeline.recompute import recompute  # noqa: PLC0415  # torch takes seconds, and the rest needs storage alone

        recomputation = recompute(
            out, count=sample, faces=faces, paintings=paintings, paintings_csv=paintings_csv, weights=weights
        )
    findings = (*verification.findings, *(recomputation.findings if recomputation else ()))
    return Report(findings, verification.counts, recomputation)


def preview(
    out: str | os.PathLike[str],
    sheet: str | os.PathLike[str],
    *,
    count: int = 12,
    columns: int = 3,
    seed: int = 0,
    faces: str | os.PathLike[str] | None = None,
    paintings: str | os.PathLike[str] | None = None,
    paintings_csv: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Draw a contact sheet of a seeded sample of a run, and return the image ids on it.

    Raises:
        InputError: there is no run, nothing is accepted yet, or its inputs are not to be had.
        RunError: the sheet cannot be written.
    """
    from pipeline.contact_sheet import contact_sheet  # noqa: PLC0415  # as above
    from pipeline.run_inputs import open_inputs  # noqa: PLC0415
    from pipeline.triples import sample_triples  # noqa: PLC0415

    run = RunDirectory.open(out)
    triples = sample_triples(run, open_inputs(run, faces, paintings, paintings_csv), count, seed)
    buffer = io.BytesIO()
    contact_sheet(triples, columns).save(buffer, format="PNG")
    try:
        Path(sheet).write_bytes(buffer.getvalue())
    except OSError as error:
        raise RunError(f'the contact sheet "{sheet}" cannot be written ({error.strerror})') from error
    return [triple.row["image_id"] for triple in triples]
