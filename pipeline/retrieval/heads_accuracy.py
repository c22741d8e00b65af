"""How accurate attribute heads are on faces that are labelled (Cornia et al., TOMM 2022, Table 2)."""

import numpy as np

from manifests.attributes import ATTRIBUTES
from pipeline.retrieval.described_faces import DescribedFaces
from pipeline.retrieval.face_set import IDENTITY
from pipeline.retrieval.retrieval_model import RetrievalModel
from pipeline.training.attribute_accuracy import AttributeAccuracy, Labels, attribute_accuracy
from pipeline.training.run_faces import UNKNOWN


def heads_accuracy(model: RetrievalModel, faces: DescribedFaces, majority: Labels) -> AttributeAccuracy | None:
    """Score the attributes that a model predicted for faces by their labels.

    Args:
        model: that described them, with attributes; its untrained attributes are left out.
        faces: as it described them.
        majority: int8 [40], the commoner answer of training, -1 unknown, as
            `pipeline.training.attribute_accuracy.majority_class` gives it.

    Returns:
        accuracy over `model.attributes`; None where no face has a label of any of them.
    """
    columns = [ATTRIBUTES.index(name) for name in model.attributes]
    labels = faces.labels.numpy()[:, columns]
    if not (labels != UNKNOWN).any():
        return None
    trained = np.array([name not in model.untrained for name in model.attributes])
    commoner = np.where(trained, majority[columns], UNKNOWN).astype(np.int8)
    people = faces.table[IDENTITY].combine_chunks().dictionary_encode().indices.fill_null(UNKNOWN).to_numpy()
    groups = None if (people == UNKNOWN).any() else people.astype(np.int64)
    return attribute_accuracy(faces.bits.numpy(), labels, commoner, groups)
