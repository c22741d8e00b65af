"""The command line: parse, call one function of `pipeline`, print."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def _size(value: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT in pixels."""
    width, separator, height = value.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f'"{value}" is not WIDTHxHEIGHT, as in 178x218')
    return int(width), int(height)


def _batch_size(value: str) -> int | None:
    """Read a whole number, or "auto"."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f'"{value}" is neither a whole number from 1 on nor auto')
    return int(value)


def _crop(value: str) -> tuple[float, float, float, float]:
    """Read LEFT,TOP,RIGHT,BOTTOM as fractions of an image's sides."""
    try:
        left, top, right, bottom = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f'"{value}" is not LEFT,TOP,RIGHT,BOTTOM, as in 0.2,0.25,0.8,0.82') from error
    return left, top, right, bottom


def _names(value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(","))


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_inputs = _options(
    click.option("--faces", required=True, metavar="PATH", help="Celeb-A, or any folder or Parquet copy of faces."),
    click.option("--paintings", required=True, metavar="PATH", help="WikiArt, or any folder or Parquet copy."),
)
_moved_inputs = _options(
    click.option("--faces", metavar="PATH", help="Where the faces are now, if not where run.json says."),
    click.option("--paintings", metavar="PATH", help="Where the paintings are now."),
    click.option("--paintings-csv", metavar="FILE", help="Where their CSV is now."),
)
_transfer = _options(
    click.option("--weights", default="imagenet", show_default=True, help="imagenet, random, or a checkpoint's path."),
    click.option("--evaluations", type=int, help="Of the objective, per attempt at most (100)."),
    click.option("--alpha", type=float, help="Weight of the content loss (0.02)."),
    click.option("--convention", help="How the loss is normalised: personart or raw."),
    click.option("--style-layers", metavar="L,L,…", help="VGG-19 layers of the style loss."),
    click.option("--content-layer", metavar="L", help="VGG-19 layer of the content loss."),
    click.option("--tolerance", type=float, help="Stop when ten evaluations lower the loss by less, relatively."),
    click.option("--history", type=int, help="Pairs that L-BFGS keeps."),
    click.option("--preconditioner", help="Of L-BFGS: adaptive, colour, low-pass or none."),
    click.option("--precision", help="Of the convolutions: auto, fp32, tf32 or bf16."),
    click.option("--size", type=_size, metavar="WxH", help="Working size; by default every face keeps its own."),
)
_batch_size_option = click.option(
    "--batch-size",
    type=_batch_size,
    metavar="N|auto",
    default="auto",
    show_default=True,
    help="Faces in flight per worker; auto goes by device, size and free memory.",
)
_cluster = _options(
    click.option("--workers", type=int, help="Local workers; by default one per GPU, or per four cores."),
    _batch_size_option,
    click.option("--scheduler", metavar="ADDRESS", help="Attach to a running Dask scheduler."),
    click.option("--scheduler-file", metavar="FILE", help="Attach to the scheduler that wrote this file."),
    click.option("--tls-ca-file", metavar="FILE", help="Certificate authority, PEM."),
    click.option("--tls-cert", metavar="FILE", help="Certificate, PEM."),
    click.option("--tls-key", metavar="FILE", help="Private key, PEM."),
)
_report = click.option("--performance-report", "report", metavar="FILE", help="Dask's report of this execution, HTML.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _user_errors(command: Command) -> Command:
    """Turn what a user can mend into one sentence and an exit code: 2 for wrong usage, 1 for failure."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        # Imported here: torch and Dask take seconds that --help must not.
        from pipeline.errors import FAILURES, USAGE_ERRORS, Interrupted  # noqa: PLC0415

        try:
            return command(*args, **kwargs)
        except Interrupted as error:
            _end(str(error), 130)  # as shells report a program ended by Ctrl-C
        except KeyboardInterrupt:
            _end("Stopped.", 130)
        except USAGE_ERRORS as error:
            _end(f"Error: {error}", 2)
        except FAILURES as error:
            _end(f"Error: {error}", 1)

    return wrapper  # type: ignore[return-value]


def _end(sentence: str, code: int) -> None:
    click.echo(sentence, err=True)
    sys.exit(code)


def _print(lines: list[str], document: dict[str, Any], as_json: bool) -> None:
    click.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else "\n".join(lines))


def _notice(sentence: str) -> None:
    click.echo(sentence, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="stylize")
def main() -> None:
    """Build artistic proxy data sets: every face repainted in the style of a random painting, labels kept."""


@main.command()
@click.argument("out", metavar="OUT")
@_inputs
@click.option("--paintings-csv", metavar="FILE", help="Artist, genre, style and title of the paintings.")
@_transfer
@click.option("--threshold", type=float, help="Redraw the painting while the final loss is this or more (40).")
@click.option(
    "--give-up/--no-give-up",
    default=None,
    help="Stop an attempt that clearly will not get under the threshold (default), or optimise it to the end.",
)
@click.option("--max-attempts", type=int, help="Paintings tried per face (10).")
@click.option("--image-format", help="png, webp (both lossless) or jpeg.")
@click.option("--shard-size", type=int, help="Faces per shard (512).")
@click.option("--split", metavar="S,S,…", help="Build these splits only, out of train, valid, test.")
@click.option("--limit", type=int, help="Build this many faces only, shared out over the splits.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pairing of faces and paintings.")
@click.option("--strict", is_flag=True, help="Refuse inputs that disagree with themselves.")
@_cluster
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost, and do nothing.")
@click.option("--retry-failed", is_flag=True, help="Try the faces that failed in earlier executions again, too.")
@_report
@_json
@_user_errors
def build(out: str, faces: str, paintings: str, **options: Any) -> None:
    """Repaint a face data set into OUT, or finish what an earlier run of the same command left undone."""
    from pipeline.build import build as build_run  # noqa: PLC0415
    from pipeline.build import dry_run  # noqa: PLC0415
    from pipeline.config import BuildConfig, ExecutionConfig  # noqa: PLC0415
    from pipeline.inspection import status_lines  # noqa: PLC0415
    from pipeline.transfer_settings import from_options  # noqa: PLC0415

    take = options.pop
    as_json, csv, strict, weights = take("as_json"), take("paintings_csv"), take("strict"), take("weights")
    execution = ExecutionConfig(**{name: take(name) for name in _EXECUTION})
    retry_failed, report = take("retry_failed"), take("report")
    dry, seed, limit, splits = take("dry_run"), take("seed"), take("limit"), _names(take("split"))
    sharding = {} if (size := take("shard_size")) is None else {"shard_size": size}
    config = BuildConfig(from_options(_layers(options)), seed=seed, splits=splits, limit=limit, **sharding)
    if dry:
        plan = dry_run(out, faces, paintings, config, paintings_csv=csv, strict=strict, notify=_notice)
        _print(plan.lines(), plan.as_dict(), as_json)
        return
    summary = build_run(
        *(out, faces, paintings, config, execution),
        weights=weights,
        paintings_csv=csv,
        strict=strict,
        retry_failed=retry_failed,
        report=report,
        quiet=as_json,
        notify=_notice,
    )
    if summary.retried:
        _notice(f"failed faces tried again: {summary.retried:,}")
    _print(status_lines(summary.status), summary.status.as_dict(), as_json)


_EXECUTION = ("workers", "batch_size", "scheduler", "scheduler_file", "tls_ca_file", "tls_cert", "tls_key")


def _layers(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "style_layers": _names(options["style_layers"])}


@main.command()
@click.argument("out", default="stylize-demo", metavar="[OUT]")
@click.option("--weights", default="random", show_default=True, help="random, imagenet, or a checkpoint's path.")
@click.option("--workers", type=int, help="Local workers.")
@_user_errors
def demo(out: str, weights: str, workers: int | None) -> None:
    """Draw cartoon faces and paintings into OUT, build a data set of them, train on it, search in it, report."""
    from pipeline.config import ExecutionConfig  # noqa: PLC0415
    from pipeline.demo.demo import run_demo  # noqa: PLC0415
    from pipeline.inspection import status_lines  # noqa: PLC0415

    result = run_demo(out, weights=weights, execution=ExecutionConfig(workers=workers), notify=_notice)
    for line in (*status_lines(result.summary.status), *result.report.lines(), *result.identity.lines()):
        click.echo(line)
    click.echo(f"contact sheet: {result.sheet}")
    click.echo(f"report: {result.page}")


@main.command()
@_inputs
@_transfer
@click.option("--pairs", type=int, default=64, show_default=True, help="How many pairs to measure.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, help="Of sample and pairing.")
@click.option("-o", "--output", default="calibration.png", show_default=True, help="Histogram and curve, PNG.")
@_json
@_user_errors
def calibrate(faces: str, paintings: str, **options: Any) -> None:
    """Measure final losses on your own pairs, and suggest a threshold that accepts nine in ten."""
    from pipeline.calibrate import calibrate as measure  # noqa: PLC0415
    from pipeline.calibration_report import (  # noqa: PLC0415
        calibration_dict,
        calibration_lines,
        plot_calibration,
    )
    from pipeline.output_place import check_place  # noqa: PLC0415
    from pipeline.transfer_settings import from_options  # noqa: PLC0415

    take = options.pop
    as_json, output, weights, pairs, seed = (take(name) for name in ("as_json", "output", "weights", "pairs", "seed"))
    check_place(output, "histogram")  # before the work, not after it
    with click.progressbar(length=pairs, label="pairs", file=sys.stderr) as bar:
        result = measure(
            *(faces, paintings, from_options(_layers(options))),
            weights=weights,
            pairs=pairs,
            seed=seed,
            on_pair=lambda _: bar.update(1),
        )
    plot_calibration(result, output)
    _print(calibration_lines(result), calibration_dict(result), as_json)
    _notice(f"histogram: {output}")


@main.command()
@click.option("--faces", metavar="PATH", help="Real ones; by default cartoon faces are drawn.")
@click.option("--paintings", metavar="PATH", help="Real ones; by default they are drawn.")
@_transfer
@_batch_size_option
@click.option("--pairs", type=click.IntRange(1), help="For the engine: two batches; on CUDA, eight.")
@click.option("--textbook-pairs", type=click.IntRange(1), help="Of them, for the textbook loop: all; on CUDA, eight.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, help="Of sample and pairing.")
@click.option("--utilisation", is_flag=True, help="Also faces of 5 to 150 evaluations, in flight and in fixed batches.")
@click.option("--retrieval", is_flag=True, help="Instead: search, 1,000 queries in 20,000 items, beside bare torch.")
@click.option("--loader", metavar="OUT", help="Instead: loading the run in OUT, beside datasets and webdataset.")
@click.option("--visitors", metavar="URL", help="Instead: ten visitors at once at a running exhibition, with --faces.")
@click.option("--scale", is_flag=True, help="Instead: all of Celeb-A and WikiArt, and ten times that, with no engine.")
@_json
@_user_errors
def bench(
    as_json: bool, retrieval: bool, loader: str | None, visitors: str | None, scale: bool, **options: Any
) -> None:
    """Measure this machine: images/s beside a textbook loop's, on the same pairs; precision; where the time goes.

    Both sides do all evaluations (150 unless told), so --tolerance plays no part; the size is 178x218 unless told.
    """
    if retrieval + scale + (loader is not None) + (visitors is not None) > 1:
        raise click.UsageError("give one of --retrieval, --loader, --visitors and --scale")
    if retrieval:
        from pipeline.retrieval.retrieval_bench import retrieval_bench  # noqa: PLC0415

        searched = retrieval_bench(seed=options["seed"], notify=_notice)
        _print(searched.lines(), searched.as_dict(), as_json)
        return
    if loader is not None:
        from pipeline.loader_bench import loader_bench  # noqa: PLC0415

        loaded = loader_bench(loader, seed=options["seed"], notify=_notice)
        _print(loaded.lines(), loaded.as_dict(), as_json)
        return
    if visitors is not None:
        from pipeline.exhibition.load import visit_together  # noqa: PLC0415

        if options["faces"] is None:
            raise click.UsageError("--visitors needs their photographs: --faces PATH")
        report = visit_together(visitors, options["faces"], seed=options["seed"])
        _print(report.lines(), report.as_dict(), as_json)
        if report.served < len(report.visits):
            sys.exit(1)
        return
    if scale:
        from pipeline.scale_simulation import simulate  # noqa: PLC0415

        simulated = simulate(notify=_notice)
        _print(simulated.lines(), simulated.as_dict(), as_json)
        return
    from pipeline.bench import TEXTBOOK_EVALUATIONS  # noqa: PLC0415
    from pipeline.bench import bench as measure  # noqa: PLC0415
    from pipeline.bench_report import bench_dict, bench_lines  # noqa: PLC0415
    from pipeline.transfer_settings import from_options  # noqa: PLC0415

    own = {name: options.pop(name) for name in _BENCH}
    if options["evaluations"] is None:
        options["evaluations"] = TEXTBOOK_EVALUATIONS
    result = measure(from_options(_layers(options)), notify=_notice, **own)
    _print(bench_lines(result), bench_dict(result), as_json)


_BENCH = ("weights", "faces", "paintings", "pairs", "textbook_pairs", "batch_size", "seed", "utilisation")


@main.command()
@_json
@_user_errors
def backbones(as_json: bool) -> None:
    """List the face recognition networks that can be trained on: input, embedding, where weights come from, licence."""
    from pipeline.backbones.card_table import card_dicts, card_lines  # noqa: PLC0415

    _print(card_lines(), {"backbones": card_dicts()}, as_json)


@main.group()
def train() -> None:
    """Train on a built data set: identity across the two domains, attributes, or both jointly."""


_backbone = _options(
    click.option("--backbone", required=True, help="Face recognition network: a name, or timm:<model>."),
    click.option("--weights", required=True, metavar="FILE", help="Its checkpoint, or random."),
    click.option("--faces", metavar="PATH", help="Where the photographs are now, if not where run.json says."),
    click.option("--partial", is_flag=True, help="Take what is there of an unfinished run."),
)
_training = _options(
    click.option("--epochs", type=int, help="At most. A finished run given more goes on."),
    click.option("--patience", type=int, help="Stop after so many epochs in a row without a better one."),
    click.option("--batch-size", type=int, help="Of all processes together."),
    click.option("--lr", type=float, help="Learning rate at first."),
    click.option("--seed", type=int, help="Of everything drawn."),
    click.option("--crop", type=_crop, metavar="L,T,R,B", help="What the network sees of a face, as fractions."),
    click.option("--precision", help="Of what is computed while training: fp32, or bf16 by autocast."),
    click.option("--device", help="cpu, cuda or cuda:N; by default CUDA if there is any."),
    click.option("--tensorboard", is_flag=True, help="Write metrics for TensorBoard, too (extra tensorboard)."),
)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the user said; the rest has its default where it is documented."""
    return {name: value for name, value in options.items() if value is not None}


def _train(stage: Callable[..., Any], config: Any, as_json: bool, **options: Any) -> None:
    """Train, and print what came of it; under torchrun in the first process alone."""
    from pipeline.training import ranks  # noqa: PLC0415

    result = stage(config, quiet=as_json, notify=_notice, **options)
    if ranks.rank() == 0:
        _print(result.lines(), result.as_dict(), as_json)
    ranks.finish()


@train.command()
@click.argument("run", metavar="RUN")
@click.argument("out", metavar="OUT")
@_backbone
@click.option("--form", help="Of the projections: residual (default), literal or linear.")
@click.option("--positives", help="A photograph's partner: proxy of another one of the person (other), or its own.")
@click.option("--margin", type=float, help="Of the triplet loss.")
@click.option("--plateau", type=int, help="Epochs without a better one after which the learning rate falls.")
@click.option("--finetune", is_flag=True, help="Train the backbone, too.")
@_training
@_json
@_user_errors
def identity(as_json: bool, faces: str | None, partial: bool, tensorboard: bool, **options: Any) -> None:
    """Learn who is who across photographs and proxies of RUN; recall before and after into OUT."""
    from pipeline.training.identity import IdentityConfig, train_identity  # noqa: PLC0415

    config = IdentityConfig(**_given(options))
    _train(train_identity, config, as_json, faces=faces, partial=partial, tensorboard=tensorboard)


@train.command()
@click.argument("run", metavar="RUN")
@click.argument("out", metavar="OUT")
@_backbone
@click.option("--train-on", help="Photographs (real), proxies (art) or both (joint, the default).")
@click.option("--optimise-for", help="accuracy (default), or balanced: both answers count the same.")
@_training
@_json
@_user_errors
def attributes(as_json: bool, faces: str | None, partial: bool, tensorboard: bool, **options: Any) -> None:
    """Learn the 40 attributes from photographs, proxies or both of RUN; accuracy beside the majority's into OUT."""
    from pipeline.training.attributes import AttributesConfig, train_attributes  # noqa: PLC0415

    config = AttributesConfig(**_given(options))
    _train(train_attributes, config, as_json, faces=faces, partial=partial, tensorboard=tensorboard)


@train.command()
@click.argument("faces", metavar="FACES")
@click.argument("out", metavar="OUT")
@click.option("--case", required=True, help="What identity sees of the attributes: none, ground-truth or predicted.")
@click.option("--weights", metavar="FILE", help="VGG-16's convolutions to begin with; random by default.")
@click.option("--min-images", type=int, help="Photographs that a person has at least.")
@click.option("--identities", type=int, help="People at most, those with most photographs.")
@click.option("--test-share", type=float, help="Of each person's photographs.")
@click.option("--attributes", metavar="A,A,…", help="To learn; by default 21 that a person keeps.")
@click.option("--size", type=int, help="Side of the square input in pixels.")
@click.option("--width", type=float, help="Factor on the channels of VGG-16.")
@click.option("--hidden", type=int, help="Width of each branch's first fully connected layer.")
@click.option("--batch-norm", is_flag=True, help="Normalise after every convolution.")
@click.option("--dropout", type=float, help="After the first fully connected layer of each branch.")
@click.option("--flip", is_flag=True, help="Mirror training photographs at random.")
@_training
@_json
@_user_errors
def fusion(as_json: bool, attributes: str | None, tensorboard: bool, **options: Any) -> None:
    """Learn identity and attributes jointly from photographs, after Izadi; one of the paper's three cases."""
    from pipeline.training.fusion import FusionConfig, train_fusion  # noqa: PLC0415

    config = FusionConfig(**_given({**options, "attributes": _names(attributes)}))
    _train(train_fusion, config, as_json, tensorboard=tensorboard)


_bare_or_trained = _options(
    click.option("--backbone", help="A bare network instead of a trained identity model."),
    click.option("--weights", metavar="FILE", help="Its checkpoint, or random; of --identity, where it is now."),
)
_heads = _options(
    click.option("--art-attributes", metavar="DIR", help="Heads of their own for paintings."),
    click.option("--attribute-weights", metavar="FILE", help="Where the checkpoint of the heads' network is now."),
    click.option("--crop", type=_crop, metavar="L,T,R,B", help="What the networks see of a picture, as fractions."),
    click.option("--device", help="cpu, cuda or cuda:N; by default CUDA if there is any."),
)
_one_model = _options(
    click.option("--identity", metavar="DIR", help="Folder of `stylize train identity`."),
    click.option("--attributes", metavar="DIR", help="Folder of `stylize train attributes`; none: identity alone."),
    _bare_or_trained,
    _heads,
)
_PLACES = ("identity", "backbone", "weights", "attributes", "art_attributes", "attribute_weights", "crop")


@main.command()
@click.argument("source", metavar="SOURCE")
@click.argument("out", metavar="INDEX")
@_one_model
@click.option("--split", metavar="S,S,…", help="Of a run, these splits alone.")
@click.option("--partial", is_flag=True, help="Take what is there of an unfinished run.")
@click.option("--size", type=_size, metavar="WxH", help="Of a folder's pictures as networks see them (178x218).")
@_json
@_user_errors
def index(source: str, out: str, as_json: bool, split: str | None, **options: Any) -> None:
    """Make INDEX of the proxies of a run, or of a folder of faces, to search in; or add what is new."""
    from pipeline.retrieval.make_index import make_index  # noqa: PLC0415
    from pipeline.retrieval.retrieval_model import ModelPlaces  # noqa: PLC0415

    places = ModelPlaces(**{name: options.pop(name) for name in _PLACES})
    update = make_index(source, out, places, splits=_names(split), quiet=as_json, notify=_notice, **options)
    _print(update.lines(), update.as_dict(), as_json)


@main.command()
@click.argument("test_set", metavar="SET")
@click.option("--out", metavar="DIR", help="Folder for JSON, tables, curves, single queries and report.html.")
@click.option("--identity", "models", multiple=True, metavar="DIR", help="Of `stylize train identity`; repeatable.")
@click.option("--attributes", multiple=True, metavar="DIR", help="Of `stylize train attributes`; several for Table 2.")
@_bare_or_trained
@_heads
@click.option("--layout", help="Of SET: a run, or a published test set; recognised by itself.")
@click.option("--split", help="Of a run, or of --queries (test).")
@click.option("--faces", metavar="PATH", help="Where a run's photographs are now.")
@click.option("--queries", metavar="RUN", help="Whose photographs search a set that has none, such as WikiArt Faces.")
@click.option("--table", type=click.IntRange(1, 5), help="This table of the paper alone.")
@click.option("--figure", type=click.IntRange(7, 7), help="This figure of the paper alone.")
@click.option("--lambda", "lambdas", type=float, multiple=True, help="Weight of the attributes; repeatable.")
@click.option("--agreement", help="Attributes as annotated (labels), as predicted (predictions), or auto.")
@click.option("--rounds", type=int, help="Of simulated feedback (10).")
@click.option("--feedback", multiple=True, metavar="NAME=VALUE", help="A choice of docs/feedback.md; repeatable.")
@click.option("--seed", type=int, help="Of simulated users, and of random weights.")
@click.option("--batch-size", type=int, help="Pictures at a time.")
@_json
@_user_errors
def evaluate(as_json: bool, **options: Any) -> None:
    """Search SET's photographs in its art: recall, precision, attributes, feedback, beside the paper's figures."""
    from pipeline.retrieval.evaluate_set import EvaluateConfig, evaluate_set  # noqa: PLC0415

    options["lambdas"] = options["lambdas"] or None
    result = evaluate_set(EvaluateConfig(**_given(options)), quiet=as_json, notify=_notice)
    _print(result.lines(), result.as_dict(), as_json)


_moved_models = _options(
    click.option("--identity", metavar="DIR", help="Where the index's identity model is now."),
    click.option("--weights", metavar="FILE", help="Where its network's checkpoint is now."),
    click.option("--attributes", metavar="DIR", help="Where its attribute heads are now."),
    click.option("--art-attributes", metavar="DIR", help="Where those for paintings are now."),
    click.option("--attribute-weights", metavar="FILE", help="Where the checkpoint of the heads' network is now."),
)
_MOVED = ("identity", "weights", "attributes", "art_attributes", "attribute_weights")


@main.command()
@click.argument("photo", metavar="PHOTO")
@click.option("--index", "index_dir", required=True, metavar="INDEX", help="Made by `stylize index`.")
@click.option("-k", "--count", "k", type=click.IntRange(1), help="How many to find (12).")
@click.option("--lambda", "weight", type=float, help="Weight of the attributes beside the face (0.2).")
@click.option("--with", "with_", multiple=True, metavar="ATTRIBUTE", help="Only with it; repeatable.")
@click.option("--without", multiple=True, metavar="ATTRIBUTE", help="Only without it; repeatable.")
@click.option("--like", multiple=True, metavar="ID", help="More like this item; repeatable.")
@click.option("--unlike", multiple=True, metavar="ID", help="Less like this item; repeatable.")
@click.option(
    "--explain",
    is_flag=False,
    flag_value=1,
    type=click.IntRange(0),
    help="Say of so many first items (1) which regions made them match; shown on the contact sheet.",
)
@click.option("--feedback", "choices", multiple=True, metavar="NAME=VALUE", help="Of --like and --unlike, see docs.")
@click.option("--engine", help="exact (default), or by faiss (extra faiss): flat, ivf or hnsw.")
@click.option("--head", type=_crop, metavar="L,T,R,B", help="Where the head is in PHOTO, as fractions.")
@click.option("-o", "--output", metavar="FILE", help="Contact sheet of what was found, PNG.")
@_moved_models
@click.option("--device", help="cpu, cuda or cuda:N; by default CUDA if there is any.")
@_json
@_user_errors
def search(
    photo: str, index_dir: str, as_json: bool, output: str | None, choices: tuple[str, ...], **options: Any
) -> None:
    """Find the faces of INDEX that look like the one of PHOTO, a picture cropped to a head as Celeb-A's are."""
    from pipeline.output_place import check_place  # noqa: PLC0415
    from pipeline.retrieval.feedback_settings import FeedbackSettings, with_choices  # noqa: PLC0415
    from pipeline.retrieval.retrieval_model import ModelPlaces  # noqa: PLC0415
    from pipeline.retrieval.search import search as find  # noqa: PLC0415
    from pipeline.retrieval.search_sheet import write_search_sheet  # noqa: PLC0415

    if output is not None:
        check_place(output, "contact sheet")  # before the work, not after it
    places = ModelPlaces(**{name: options.pop(name) for name in _MOVED})
    feedback = with_choices(FeedbackSettings(), choices)
    result = find(photo, index_dir, places=places, feedback=feedback, **_given(options))
    _print(result.lines(), result.as_dict(), as_json)
    if output is None:
        if options["explain"]:
            _notice("the maps of --explain are drawn on the contact sheet; say where with -o FILE")
    else:
        write_search_sheet(result, output)
        _notice(f"contact sheet: {output}")


@main.command()
@click.argument("places", metavar="[IN] OUT", nargs=-1)
@click.option("--detector", help="auto, centerface (comes with the extra faces) or s3fd (from --weights).")
@click.option("--weights", metavar="FILE", help="The detector's checkpoint.")
@click.option("--enlarge", type=float, help="By how much of its edge each side of a box moves outwards (0.4).")
@click.option("--minimum", type=int, help="Pixels of a box's shorter edge, before that (100).")
@click.option("--confidence", type=float, help="Of a face, at least; by default the detector's own.")
@click.option("--image-format", help="Of the crops: png (default), jpeg or webp.")
@click.option("--paintings-csv", "csv", metavar="FILE", help="Titles, artists and styles of the paintings.")
@click.option("--strike", metavar="FILE", help="Faces that are none, one id a line, as review.html writes it.")
@click.option("--unstrike", metavar="FILE", help="Faces whose strike is taken back.")
@click.option("--device", help="cpu, cuda or cuda:N; by default CUDA if there is any.")
@_json
@_user_errors
def faces(places: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Find the faces in IN, paintings or photographs, and cut them out with their heads: OUT/faces is for `index`.

    With --strike or --unstrike IN can be left out.
    """
    from pipeline.faces.extraction import extract_faces, strike_faces  # noqa: PLC0415

    given = _given(options)
    if len(places) == 1 and given and given.keys() <= {"strike", "unstrike"}:
        summary = strike_faces(*places, given.get("strike"), unstrike=given.get("unstrike"))
    elif len(places) == 2:
        summary = extract_faces(*places, quiet=as_json, notify=_notice, **given)
    else:
        raise click.UsageError("give IN and OUT; OUT alone goes with --strike and --unstrike, and nothing else")
    _print(summary.lines(), summary.as_dict(), as_json)


@main.command()
@click.option("--index", "index_dir", metavar="INDEX", help="Made by `stylize index`.")
@click.option("--demo", is_flag=True, help="A drawn museum of the demo's pictures; made first if it is not there.")
@click.option("--demo-folder", metavar="DIR", help="Of the demo (stylize-demo).")
@click.option("--museum", metavar="FILE", help="TOML: rooms, map, titles; see docs/exhibition.md.")
@click.option("--host", help="Address to serve on (127.0.0.1: this machine alone).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to serve on (8077); 0 takes a free one.")
@click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", help="Another name of it; repeatable.")
@click.option("--language", help="That pages open in: en or it; by default the museum's.")
@click.option("--lambda", "weight", type=float, help="Weight of the attributes to begin with (0.2).")
@click.option("-k", "--count", "k", type=int, help="How many paintings to show (12).")
@click.option("--idle", "idle_seconds", type=float, metavar="SECONDS", help="Start over after so long untouched (90).")
@click.option("--detector", help="auto, centerface, s3fd, or centre: the face is in the middle.")
@click.option("--detector-weights", metavar="FILE", help="Its checkpoint.")
@_moved_models
@click.option("--device", help="cpu, cuda or cuda:N; by default CUDA if there is any.")
@_user_errors
def exhibit(index_dir: str | None, demo: bool, demo_folder: str | None, museum: str | None, **options: Any) -> None:
    """Serve the exhibition: visitors take a photograph in the browser and walk to the painting that looks like them."""
    if demo == bool(index_dir):
        raise click.UsageError("give --index INDEX, or --demo for a drawn museum")
    from pipeline.exhibition.exhibit import exhibit as open_exhibition  # noqa: PLC0415
    from pipeline.retrieval.retrieval_model import ModelPlaces  # noqa: PLC0415

    places = ModelPlaces(**{name: options.pop(name) for name in _MOVED})
    if demo and (museum is not None or places != ModelPlaces()):
        raise click.UsageError("--demo has its own museum and models; leave out --museum and where models are")
    if demo_folder is not None and not demo:
        raise click.UsageError("--demo-folder goes with --demo")
    open_exhibition(index_dir, museum, demo_folder=demo_folder, places=places, notify=_notice, **_given(options))


@main.command()
@click.argument("out", metavar="OUT")
@click.option("--html", "page", metavar="FILE", help="Write a summary, too: losses, attempts, rejections, throughput.")
@_json
@_user_errors
def status(out: str, as_json: bool, page: str | None) -> None:
    """Say how far the run in OUT is, from its files alone."""
    from pipeline import inspection  # noqa: PLC0415

    found = inspection.status(out)
    _print(inspection.status_lines(found), found.as_dict(), as_json)
    if page is not None:
        inspection.write_summary(out, page)
        _notice(f"summary: {page}")


@main.command()
@click.argument("out", metavar="OUT")
@click.option("--ids", required=True, metavar="FILE", help="One image_id a line, a reason after a tab if you like.")
@click.option("--reason", help="Why, for faces that have none in the file.")
@_moved_inputs
@click.option("--weights", help="Where the weights are now, if not where run.json says.")
@_cluster
@_report
@_json
@_user_errors
def redraw(out: str, ids: str, as_json: bool, **options: Any) -> None:
    """Strike the proxies of some faces of the finished run in OUT, and make them again from the next painting."""
    from pipeline.config import ExecutionConfig  # noqa: PLC0415
    from pipeline.redraw import redraw as redraw_faces  # noqa: PLC0415

    execution = ExecutionConfig(**{name: options.pop(name) for name in _EXECUTION})
    summary = redraw_faces(out, ids, execution=execution, quiet=as_json, notify=_notice, **options)
    _print(summary.lines(), summary.as_dict(), as_json)


@main.command()
@click.argument("out", metavar="OUT")
@click.option("--recompute", is_flag=True, help="Recompute recorded losses of a sample from the stored pixels, too.")
@click.option("--sample", type=click.IntRange(1), default=16, show_default=True, help="Proxies to recompute.")
@_moved_inputs
@click.option("--weights", help="Where the weights are now, if not where run.json says.")
@_json
@_user_errors
def verify(out: str, recompute: bool, as_json: bool, **options: Any) -> None:
    """Check every digest, row count, schema and label of the run in OUT; exit 1 if anything is wrong."""
    from pipeline.inspection import verify_run  # noqa: PLC0415

    report = verify_run(out, recompute_losses=recompute, **options)
    _print(report.lines(), report.as_dict(), as_json)
    if not report.clean:
        sys.exit(1)


@main.command()
@click.argument("out", metavar="OUT")
@click.option("-o", "--output", default="sheet.png", show_default=True, metavar="FILE", help="Where to write the PNG.")
@click.option("-n", "--count", type=click.IntRange(1), default=12, show_default=True, help="Faces on the sheet.")
@click.option("--columns", type=click.IntRange(1), default=3, show_default=True, help="Faces in a row.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice.")
@_moved_inputs
@_json
@_user_errors
def preview(out: str, output: str, as_json: bool, **options: Any) -> None:
    """Draw a contact sheet of the run in OUT: face, painting, proxy, loss."""
    from pipeline.inspection import preview as draw  # noqa: PLC0415

    shown = draw(out, output, **options)
    _print([f"contact sheet of {len(shown)} faces: {output}"], {"sheet": output, "image_ids": shown}, as_json)


if __name__ == "__main__":
    main()
