"""Stages that turn one data set into another, on a Dask cluster."""
