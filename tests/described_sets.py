"""Drawn sets of described faces with plain pictures, for the tests of what shows them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from manifests.attributes import ATTRIBUTES
from manifests.image_source import ImageSource
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.evaluation import evaluate
from pipeline.retrieval.evaluation_result import Evaluation
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, FaceSet
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_settings import FeedbackSettings

SIZE = (20, 24)
LAMBDAS = (0.0, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0)


def described(
    people: Sequence[str | None],
    *,
    prefix: str = "",
    seed: int = 0,
    attributes: int = 40,
    noise: float = 1.0,
    sources: list[str] | None = None,
) -> DescribedFaces:
    """Faces around a point of each person; id i of one set and of another are of one photograph."""
    rng = np.random.default_rng(seed)
    count = len(people)
    centres = {person: np.random.default_rng(abs(hash_of(person))).normal(size=16) for person in people}
    vectors = np.stack([centres[person] for person in people]) + noise * rng.normal(size=(count, 16))
    columns = {
        "id": [f"{prefix}{at:03d}.jpg" for at in range(count)],
        "source_id": sources or [f"{at:03d}.jpg" for at in range(count)],
        "identity": list(people),
        "locator": [""] * count,
        "version": [""] * count,
        **{name: (rng.random(count) < 0.5).tolist() for name in ATTRIBUTES},
    }
    return DescribedFaces(
        pa.table(columns, schema=FACE_SET_SCHEMA),
        torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1),
        torch.from_numpy(rng.random((count, attributes))).float(),
    )


def hash_of(name: str | None) -> int:
    return 0 if name is None else int.from_bytes(name.encode()[:6], "big")


def pictures(faces: DescribedFaces) -> FaceSet:
    """Plain pictures, each of a colour that says which one it is."""
    width, height = SIZE

    def load(indices: object) -> torch.Tensor:
        shades = torch.as_tensor(np.asarray(indices, np.int64) * 7 % 256).to(torch.uint8)
        return shades[:, None, None, None].expand(-1, 3, height, width)

    return FaceSet("pictures", faces.table, ImageSource("folder", "/"), SIZE, load)


def people(count: int, each: int) -> list[str]:
    return [f"p{at // each}" for at in range(count)]


def evaluation(
    count: int = 24, each: int = 3, *, attributes: int = 40, known: bool = True, weights: tuple[float, ...] = LAMBDAS
) -> tuple[Evaluation, DescribedFaces, DescribedFaces]:
    names: Sequence[str | None] = people(count, each) if known else [None] * count
    queries = described(names, seed=1, attributes=attributes)
    gallery = described(names, prefix="art-", seed=2, attributes=attributes)
    result = evaluate(
        queries, gallery, weights, query_title="photographs", gallery_title="proxies", model_title="a model"
    )
    return result, queries, gallery


def curve(first: float, last: float, *, rounds: int = 10, queries: int = 3) -> FeedbackCurve:
    """A straight one."""
    return FeedbackCurve(FeedbackSettings(), 0.2, np.tile(np.linspace(first, last, rounds + 1), (queries, 1)), 0)
