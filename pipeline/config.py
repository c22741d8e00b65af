"""What a build was asked for: the settings that decide its result, apart from those that only decide how fast."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.errors import InputError
from stylize.settings import TransferSettings

SPLITS = ("train", "valid", "test")

# The parts of run.json that decide the result, and therefore enter the fingerprint.
FINGERPRINTED = ("config", "inputs", "weights", "objective")


@dataclass(frozen=True)
class BuildConfig:
    """Every setting that decides what is in the data set; all of it enters the fingerprint.

    Attributes:
        transfer: settings of the style transfer itself.
        seed: of the pairing of faces and paintings (`pipeline.pairing`); weights "random" are seeded by it, too.
        shard_size: faces per shard. Our choice of default, 512: about 50 MB of lossless Celeb-A proxies, and minutes of
            GPU time, are lost at most when a worker dies.
        splits: the splits to build; None builds all that the faces have.
        limit: build this many faces only (see `pipeline.plan.select_faces`); None builds all.

    Raises:
        InputError: a value is out of range.
    """

    transfer: TransferSettings = field(default_factory=TransferSettings)
    seed: int = 0
    shard_size: int = 512
    splits: tuple[str, ...] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not -(2**63) <= self.seed < 2**64:  # what PyTorch's generators take
            raise InputError(f"the seed must lie in [-2^63, 2^64), not {self.seed}")
        if math.isinf(self.transfer.threshold):  # JSON, and so run.json, has no infinity
            raise InputError("the threshold must be a finite number; give 1e9 to accept everything")
        if self.shard_size < 1:
            raise InputError(f"the shard size must be at least 1, not {self.shard_size}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit must be at least 1 face, not {self.limit}")
        if self.splits is not None and (not self.splits or set(self.splits) - set(SPLITS)):
            raise InputError(f"splits are chosen from {', '.join(SPLITS)}, not {', '.join(self.splits) or 'none'}")

    def document(self) -> dict[str, Any]:
        """Return the settings as one flat JSON object; tuples become lists, splits get their canonical order."""
        settings = dataclasses.asdict(self)
        settings.update(settings.pop("transfer"))
        if self.splits is not None:
            settings["splits"] = [split for split in SPLITS if split in self.splits]
        normalised: dict[str, Any] = json.loads(canonical_json(settings))
        return normalised


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how fast a build runs; none of it changes the result beyond floating-point noise.

    Attributes:
        workers: local workers to start; None is one per GPU, or CPU workers of about four cores each. Giving a number
            asks for a local cluster even where DASK_SCHEDULER_ADDRESS is set.
        batch_size: slots that the engine fills per worker; None ("auto") leaves it to the worker.
        scheduler: address of a running Dask scheduler, "tcp://HOST:PORT" or "tls://HOST:PORT".
        scheduler_file: JSON file that `dask scheduler --scheduler-file` wrote.
        tls_ca_file, tls_cert, tls_key: PEM files, named as `dask worker` names them.
    """

    workers: int | None = None
    batch_size: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"the number of workers must be at least 1, not {self.workers}")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.scheduler and self.scheduler_file:
            raise InputError("give either a scheduler address or a scheduler file, not both")
        if self.workers and (self.scheduler or self.scheduler_file):
            raise InputError("the number of workers is for a local cluster; a running scheduler has its own workers")


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) over the result-deciding parts of a run document: `FINGERPRINTED`."""
    return hashlib.sha256(canonical_json(_deciding(document)).encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line per result-deciding field that differs between a run's document and the one asked for now."""
    return [*_changes(_deciding(old), _deciding(new))]


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], out: str) -> None:
    """Refuse to resume a run under other settings or inputs.

    Raises:
        InputError: naming every changed field and the two ways out.
    """
    if changes := difference(old, new):
        lines = "".join(f"\n  {line}" for line in changes)
        raise InputError(
            f'"{out}" holds a run with other settings; build into another directory, or ask for what it has:{lines}'
        )


def _deciding(document: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: dict(document.get(name, {})) for name in FINGERPRINTED}
    # Only the digest counts: the same weights may lie under another name, and a layout is only a name.
    parts["weights"] = {"digest": parts["weights"].get("digest")}
    parts["inputs"] = {
        name: {key: entry[key] for key in ("count", "digest")} for name, entry in parts["inputs"].items()
    }
    return parts


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    yield from _field_changes(old["config"], new["config"])
    for name in sorted(old["inputs"].keys() | new["inputs"].keys()):
        was, now = old["inputs"].get(name), new["inputs"].get(name)
        if was != now:
            yield f"{name}: this run has {_input(was)}, now {_input(now)}"
    was, now = old["weights"]["digest"], new["weights"]["digest"]
    if was != now:
        yield f"weights: this run has digest {_short(was)}, you gave {_short(now)}"
    yield from _field_changes(old["objective"], new["objective"])


def _field_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: this run has {_value(old.get(name))}, you asked for {_value(new.get(name))}"


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)


def _input(entry: dict[str, Any] | None) -> str:
    return "none" if entry is None else f"{entry['count']:,} images with digest {_short(entry['digest'])}"


def _short(digest: object) -> str:
    return f"{str(digest)[:12]}…"
