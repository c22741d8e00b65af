"""Neural style transfer of one batch of (face, painting) pairs; knows nothing of Dask, Parquet or the run on disk."""
