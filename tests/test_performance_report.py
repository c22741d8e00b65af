"""Dask's performance report: refused before the work begins where it cannot be written, and never in its way."""

import contextlib
import importlib.util

import pytest
from distributed import Client, LocalCluster

from manifests.errors import InputError
from pipeline.performance_report import check_performance_report, performance_report


@contextlib.contextmanager
def running():
    cluster = LocalCluster(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=100
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def have_bokeh(monkeypatch, there):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there else None)


def test_bokeh_is_asked_for_before_the_work_begins(tmp_path, monkeypatch):
    have_bokeh(monkeypatch, False)
    with pytest.raises(InputError, match=r"bokeh, which is not installed here; install stylize\[report\]"):
        check_performance_report(tmp_path / "report.html")


def test_so_is_a_place_to_write_to(tmp_path, monkeypatch):
    have_bokeh(monkeypatch, True)
    check_performance_report(tmp_path / "report.html")
    for place in (tmp_path / "missing" / "report.html", tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            check_performance_report(place)


def test_no_report_was_asked_for():
    with performance_report(None, None):
        pass


def test_a_report_that_cannot_be_made_is_told_and_harms_nothing(tmp_path, monkeypatch):
    told: list[str] = []
    with running() as client:

        def fail(*_, **__):
            raise ModuleNotFoundError("No module named 'bokeh'")

        monkeypatch.setattr(client, "get_task_stream", fail)
        with performance_report(client, tmp_path / "report.html", told.append):
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    (sentence,) = told
    assert "could not be made" in sentence
    assert "the run is not harmed" in sentence
    assert not (tmp_path / "report.html").exists()


def test_the_failure_of_the_work_is_what_is_raised(tmp_path):
    told: list[str] = []
    place = tmp_path / "report.html"
    with (
        running() as client,
        pytest.raises(KeyError, match="the work"),
        performance_report(client, place, told.append),
    ):
        raise KeyError("the work")
    assert len(told) == (importlib.util.find_spec("bokeh") is None)


def test_the_report_is_one_file(tmp_path):
    pytest.importorskip("bokeh.models")
    with running() as client, performance_report(client, tmp_path / "report.html"):
        client.submit(sum, [1, 2]).result(timeout=30)
    text = (tmp_path / "report.html").read_text()
    assert "<html" in text
    assert "cdn.bokeh.org" not in text
