"""Schemas: the Hugging Face footer says what ``datasets`` itself would say."""

import json

import pyarrow as pa
import pytest
from datasets import Dataset, Features
from PIL import Image

from manifests import schema
from manifests.attributes import ATTRIBUTES


@pytest.mark.parametrize("columns", [schema.DATA_SCHEMA, schema.MANIFEST_SCHEMA])
def test_footer_lists_every_column_as_datasets_would(columns):
    written = json.loads(columns.metadata[schema.HUGGINGFACE])["info"]["features"]
    features = Features.from_dict(written)
    assert list(written) == columns.names
    assert features.arrow_schema.remove_metadata().equals(columns.remove_metadata())
    assert features.to_dict() == written


def test_datasets_writes_the_same_footer(tmp_path):
    features = Features.from_dict(json.loads(schema.DATA_SCHEMA.metadata[schema.HUGGINGFACE])["info"]["features"])
    sample = dict.fromkeys(schema.DATA_SCHEMA.names) | {"image": Image.new("RGB", (2, 2))}
    Dataset.from_list([sample], features=features).to_parquet(tmp_path / "theirs.parquet")
    theirs = pa.parquet.read_schema(tmp_path / "theirs.parquet")
    assert theirs.metadata[schema.HUGGINGFACE] == schema.DATA_SCHEMA.metadata[schema.HUGGINGFACE]
    assert theirs.remove_metadata().equals(schema.DATA_SCHEMA.remove_metadata())


def test_shared_columns_are_the_labels():
    assert set(schema.DATA_SCHEMA.names) - set(schema.SHARED_COLUMNS) == {"image"}
    assert set(ATTRIBUTES) < set(schema.SHARED_COLUMNS)


def test_unused_types_are_refused():
    with pytest.raises(TypeError, match="map"):
        schema.huggingface_feature(pa.map_(pa.string(), pa.int32()))
