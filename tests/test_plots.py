"""Plots: what is drawn is what was evaluated, and the SVG fits into a page of any colour."""

import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pipeline.retrieval.plots import Plot, Reference, plot_feedback, plot_recall, plot_weights, random_recall
from tests.described_sets import LAMBDAS, curve, evaluation


@pytest.fixture(scope="module")
def searched():
    return evaluation()[0]


@pytest.fixture(scope="module")
def plots(searched):
    references = [Reference("LightCNN (paper)", (1, 5, 10), (0.6, 0.7, 0.8))]
    curves = {"FSW": curve(0.5, 0.6), "QPM + FSW": curve(0.5, 0.75)}
    return {
        "recall": drawn(plot_recall(searched, references)),
        "weights": plot_weights(searched, Reference("LightCNN (paper)", LAMBDAS, [0.5] * 7)),
        "feedback": plot_feedback(curves, [Reference("QPM + FSW (paper)", (1, 5, 10), (0.5, 0.6, 0.8))]),
    }


def drawn(plot: Plot | None) -> Plot:
    assert plot is not None
    return plot


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", ["recall", "weights", "feedback"])
def test_the_png_is_a_picture(plots, name):
    with Image.open(io.BytesIO(plots[name].png)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 600
        assert np.asarray(picture.convert("RGB")).std() > 5


@pytest.mark.parametrize("name", ["recall", "weights", "feedback"])
def test_the_svg_takes_colour_and_font_from_the_page_and_asks_for_nothing(plots, name):
    svg = plots[name].svg
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == plots[name].caption
    assert root.get("width") is root.get("height") is None
    assert root.get("viewBox")
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", svg)
    assert {"var(--ink)", "var(--muted)", "var(--rule)"} <= set(re.findall(r"var\(--[\w-]+\)", svg))
    assert "DejaVu" not in svg
    linked = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
    assert all(value.startswith("#") for value in linked)


def test_plots_of_a_page_do_not_share_names(plots):
    names = [re.findall(r' id="([^"]+)"', plot.svg) for plot in plots.values()]
    flat = [name for one in names for name in one]
    assert len(flat) == len(set(flat))
    for plot, own in zip(plots.values(), names, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', plot.svg)) <= set(own)


def test_the_same_is_drawn_for_the_same(searched, plots):
    again = plot_weights(searched, Reference("LightCNN (paper)", LAMBDAS, [0.5] * 7))
    assert again == plots["weights"]


def test_recall_is_that_of_the_evaluation(searched, plots):
    at = searched.result(0.2).recall.at
    assert f"λ = 0.2 finds {100 * at[1]:.1f} % with one item and 100.0 % with 24" in plots["recall"].caption
    shown = texts(plots["recall"].svg)
    assert {"λ = 0", "λ = 0.2", "λ = 1", "random order", "LightCNN (paper)"} <= set(shown)
    assert not {"λ = 5", "λ = 10"} & set(shown)


def test_recall_where_nobody_can_be_found():
    searched = evaluation(known=False)[0]
    assert plot_recall(searched) is None
    assert math.isnan(random_recall(searched, 1))


def test_recall_in_a_gallery_of_one():
    searched = evaluation(1, 1)[0]
    assert plot_recall(searched) is None  # the only item is the query's own proxy


@pytest.mark.parametrize("k", [1, 2, 5, 23, 24, 100])
def test_random_order_against_counting(searched, k):
    """Two relevant items of 24, drawn without replacement."""
    size = searched.gallery_count
    missed = math.comb(size - 2, min(k, size)) / math.comb(size, min(k, size))
    assert random_recall(searched, k) == pytest.approx(1 - missed)


def test_weights_are_in_order_whatever_they_were_asked_in(searched, plots):
    turned = replace(searched, results=tuple(reversed(searched.results)))
    assert plot_weights(turned, Reference("LightCNN (paper)", LAMBDAS, [0.5] * 7)) == plots["weights"]
    labels = [text for text in texts(plots["weights"].svg) if re.fullmatch(r"[\d.]+", text)]
    assert labels[:7] == [f"{weight:g}" for weight in LAMBDAS]
    first, last = searched.result(0.0), searched.result(10.0)
    caption = plots["weights"].caption
    assert f"R@1 goes from {100 * first.recall.at[1]:.1f} % to {100 * last.recall.at[1]:.1f} %" in caption
    assert f"from {100 * first.agreement:.1f} % to {100 * last.agreement:.1f} %" in caption


def test_weights_leave_out_what_the_paper_has_for_others(searched):
    elsewhere, once = Reference("elsewhere", (0.3, 0.4), (0.5, 0.5)), Reference("once", (0.3, 5), (0.5, 0.75))
    plot = drawn(plot_weights(searched, elsewhere, once))
    assert not any("elsewhere" in text for text in texts(plot.svg))
    assert "attribute agreement: once goes from 75.0 % to 75.0 %" in plot.caption


def test_one_weight_is_no_curve():
    assert plot_weights(evaluation(attributes=0, weights=(0.0,))[0]) is None


def test_weights_without_anybody_to_find_are_about_attributes_alone():
    plot = drawn(plot_weights(evaluation(known=False)[0]))
    assert "attribute agreement" in texts(plot.svg)
    assert "R@1" not in texts(plot.svg)


def test_feedback(plots):
    assert "FSW goes from 50.0 % to 60.0 % in 10 rounds" in plots["feedback"].caption
    assert "QPM + FSW goes from 50.0 % to 75.0 % in 10 rounds" in plots["feedback"].caption


def test_feedback_of_the_paper_has_the_colour_of_its_setting():
    names = ("QPM", "FSW", "QPM + FSW")
    curves = {name: curve(0.5, 0.6) for name in names}
    published = [Reference(f"{name} (paper)", (1, 5), (0.5, 0.6)) for name in names]
    svg = drawn(plot_feedback(curves, published)).svg
    assert len(set(re.findall(r"var\(--series-\d\)", svg))) == 3


def test_feedback_without_a_query_that_was_answered():
    assert plot_feedback({}) is None
    assert plot_feedback({"both": curve(0.5, 0.5, queries=0)}) is None
    shown = drawn(plot_feedback({"none": curve(0.5, 0.5, queries=0), "some": curve(0.5, 0.6)}))
    assert "none" not in texts(shown.svg)


def test_names_are_text_and_nothing_else():
    """Neither HTML, which the page takes the drawing for, nor the formulas that matplotlib takes dollars for."""
    name = '<b onload="x">&amp; $\\frac{1}{2}$ "quoted"'
    plot = drawn(plot_feedback({name: curve(0.5, 0.6)}))
    assert name in texts(plot.svg)
    assert ElementTree.fromstring(plot.svg).get("aria-label") == plot.caption
    assert "<b" not in plot.svg


@pytest.mark.parametrize(("x", "y"), [((1, 5), (0.5,)), ((1,), (56.4,)), ((1,), (-0.1,)), ((1,), (math.nan,))])
def test_references_in_per_cent_or_of_other_lengths_are_refused(x, y):
    with pytest.raises(ValueError, match="paper"):
        Reference("paper", x, y)
