"""What an evaluation of retrieval has come to: recall, precision and attribute agreement for every λ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from pipeline.retrieval.recall import Recall

AgreementBy = Literal["labels", "predictions"]

PER_QUERY_SCHEMA: Final = pa.schema(
    [
        pa.field("lambda", pa.float64(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("identity", pa.string()),
        pa.field("relevant", pa.int64(), nullable=False),
        pa.field("rank", pa.int64()),
        pa.field("average_precision", pa.float64()),
        pa.field("top_id", pa.string()),
        pa.field("top_score", pa.float64()),
        pa.field("top_identity_score", pa.float64()),
        pa.field("top_attribute_score", pa.float64()),
        pa.field("agreement", pa.float64()),
    ]
)
"""One row for every λ and query.

relevant: how many relevant items. rank: of the first of them; null without any, as is average_precision, which
is that of the full ranking. top_…: of the first item its id, s of Eq. 9 and its two parts, (1 + s_i)/2 and s_a (null
without attributes). agreement: share of attributes in which query and first item agree, null where none is known.
"""


@dataclass(frozen=True)
class WeightResult:
    """One λ.

    Attributes:
        weight: λ.
        recall: over the answerable queries.
        average_precision: mean over the answerable queries; NaN if there are none.
        agreement: mean share of attributes in which a query and its first item agree, over all queries with known
            attributes; None where there are no attributes.
    """

    weight: float
    recall: Recall
    average_precision: float
    agreement: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Queries searched in a gallery.

    Attributes:
        queries, gallery, model: titles.
        query_count, gallery_count: how many there are.
        results: one for every λ, in the order asked for.
        agreement_by: whether attributes are compared as annotated or as predicted; None where there are none.
        per_query: PER_QUERY_SCHEMA; sorted by λ as in `results`, then in the order of the queries.
    """

    queries: str
    gallery: str
    model: str
    query_count: int
    gallery_count: int
    results: Sequence[WeightResult]
    agreement_by: AgreementBy | None
    per_query: pa.Table

    def result(self, weight: float) -> WeightResult:
        """Return the result of one λ; KeyError if it was not asked for."""
        for result in self.results:
            if result.weight == weight:
                return result
        raise KeyError(weight)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rows of single queries, as JSON can hold it."""
        return {
            "model": self.model,
            "queries": {"title": self.queries, "count": self.query_count},
            "gallery": {"title": self.gallery, "count": self.gallery_count},
            "agreement_by": self.agreement_by,
            "results": [
                {
                    "lambda": result.weight,
                    **result.recall.as_dict(),
                    "mAP": result.average_precision if result.recall.queries else None,
                    "agreement": result.agreement,
                }
                for result in self.results
            ],
        }
