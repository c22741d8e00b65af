"""Tables of results: what is in their cells, as text, as Markdown and as JSON; and the paper's tables from results."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval import paper_results as paper
from pipeline.retrieval import tables
from pipeline.retrieval.evaluation_result import PER_QUERY_SCHEMA, Evaluation, WeightResult
from pipeline.retrieval.feedback_curve import FeedbackCurve
from pipeline.retrieval.feedback_settings import STRATEGIES
from pipeline.retrieval.recall import Recall
from pipeline.retrieval.result_table import ResultRow, ResultTable
from pipeline.retrieval.tables import EvaluatedHeads, EvaluatedModel, SimulatedModel
from pipeline.training.attribute_accuracy import attribute_accuracy, majority_class

LAMBDAS = (0.0, 0.2, 0.3)


def evaluation(weights=LAMBDAS, *, queries=10, without=0, agreement=0.75):
    results = [
        WeightResult(
            weight,
            Recall({k: (0.1 * k - weight) / 2 if queries else math.nan for k in (1, 5, 10)}, queries, without),
            0.25 + weight if queries else math.nan,
            None if agreement is None else agreement + weight / 10,
        )
        for weight in weights
    ]
    return Evaluation(
        "Q",
        "G",
        "M",
        queries + without,
        20,
        results,
        None if agreement is None else "labels",
        PER_QUERY_SCHEMA.empty_table(),
    )


def model(name="mobilefacenet", trained="projections", **options):
    return EvaluatedModel(name, "mobilefacenet", 128, trained, evaluation(**options))


def rows_of(table, origin):
    return {row.name: row for row in table.rows if row.origin == origin}


def cells(markdown):
    """Rows of the table in a Markdown text, as a reader of GitHub's Markdown splits them: at bars not escaped."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]] for line in lines]


def test_markdown():
    table = ResultTable(
        "T", ("n", "share"), (ResultRow("a|b", "ours", (3, 0.25)), ResultRow("c", "paper", (None, 1.0), nearest=True))
    )
    assert cells(table.markdown()) == [
        ["Face embedding", "From", "n", "share"],
        ["---", "---", "---:", "---:"],
        ["**a\\|b**", "**this evaluation**", "**3**", "**0.2**"],
        ["c (nearest to ours)", "paper", "\N{EN DASH}", "1.0"],
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab|\\\n*", min_size=1), st.floats()), min_size=1, max_size=4))
def test_no_name_breaks_the_markdown_or_the_json(rows):
    table = ResultTable("T", ("x",), tuple(ResultRow(name, "paper", (value,)) for name, value in rows))
    lines = [line for line in table.markdown().splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(rows)
    unescaped = [re.sub(r"\\.", "", line).count("|") for line in lines]
    assert unescaped == [4] * len(lines)
    for row, (_, value) in zip(table.as_dict()["rows"], rows, strict=True):
        assert row["values"] == [None if math.isnan(value) else value]


def test_a_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="2 values for 1 columns"):
        ResultTable("T", ("x",), (ResultRow("a", "ours", (1.0, 2.0)),))


def test_shortened_keeps_ours_and_the_nearest():
    ours, near, far = (
        ResultRow("a", "ours", ()),
        ResultRow("b", "paper", (), nearest=True),
        ResultRow("c", "paper", ()),
    )
    assert ResultTable("T", (), (ours, near, far)).shortened().rows == (ours, near)
    assert ResultTable("T", (), (ours, far)).shortened().rows == (ours, far)


def test_table_1():
    table = tables.table_1(paper.CELEBA, [model("x", "nothing"), model("y")])
    assert rows_of(table, "ours")["x"].values == (128, "nothing", 5.0, 25.0, 50.0, 25.0)
    assert rows_of(table, "ours")["y"].values[1] == "projections"
    published = [row for row in table.rows if row.origin == "paper"]
    assert len(published) == 12
    assert [row.values[1] for row in published] == ["projections", "all"] * 6
    assert {row.name for row in published if row.nearest} == {paper.LIGHTCNN_9}
    assert published[2].values == (256, "projections", 69.2, 80.7, 83.8, None)
    assert any("10 points of recall" in note for note in table.notes)


def test_sets_that_the_paper_has_not_have_no_published_rows():
    models = [model()]
    for table in (tables.table_1("mine", models), tables.table_3("mine", models), tables.table_4("mine", models)):
        assert rows_of(table, "paper") == {}
        assert not any("paper" in note for note in table.notes)


def test_table_3_has_the_annotated_attributes_in_a_row_of_their_own():
    both = dataclasses.replace(model("x"), annotated=model(agreement=0.5).evaluation)
    table = tables.table_3("mine", [both, model("y")])
    assert [row.name for row in table.rows] == ["x", "x, Acc. by labels", "y"]
    assert table.rows[0].values[::2] == table.rows[1].values[::2]
    assert table.rows[1].values[1] == pytest.approx(50)
    assert any("(by labels in rows that say so)" in note for note in table.notes)


def test_table_3_puts_the_papers_figures_under_the_same_lambda():
    table = tables.table_3(paper.WEBCARICATURE, [model()])
    assert table.columns == ("λ=0 R@1", "λ=0 Acc.", "λ=0.2 R@1", "λ=0.2 Acc.", "λ=0.3 R@1", "λ=0.3 Acc.")
    assert rows_of(table, "ours")["mobilefacenet"].values == pytest.approx((5, 75, -5, 77, -10, 78))
    assert rows_of(table, "paper")[paper.SPHEREFACE].values == (26.8, 85.0, 30.6, 91.5, None, None)
    assert "Attributes are compared by labels." in table.notes


def test_table_4():
    table = tables.table_4(paper.WIKIART_FACES, [model(queries=0, without=10)])
    assert rows_of(table, "ours")["mobilefacenet"].values == pytest.approx((75, 77, 78))
    assert rows_of(table, "paper")[paper.LIGHTCNN_9].values == (83.1, 87.8, None)
    assert rows_of(table, "paper")[paper.LIGHTCNN_9].nearest


def test_nothing_to_find_and_nothing_to_compare_is_a_dash_and_no_number():
    table = tables.table_1(paper.CELEBA, [model(queries=0, without=4, agreement=None)])
    assert rows_of(table, "ours")["mobilefacenet"].values == (128, "projections", None, None, None, None)
    assert "nan" not in table.markdown().lower()
    assert "NaN" not in json.dumps(table.as_dict())
    assert tables.table_3("mine", [model(agreement=None)]).rows[0].values[1] is None


def test_queries_without_an_answer_are_named():
    (note, *_) = tables.table_1("mine", [model(without=3)]).notes
    assert "3 queries have nothing relevant to find" in note
    assert "13 queries" in note


def test_table_2():
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, -1]], np.int8)
    predicted = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    accuracy = attribute_accuracy(predicted, labels, majority_class(labels))
    heads = [EvaluatedHeads("mobilefacenet", "mobilefacenet", "joint", accuracy, None)]
    table = tables.table_2(heads)
    ours = rows_of(table, "ours")
    # Attribute 1: 3 of 4 right, 2/3 of yes and 1/1 of no. Attribute 2: 2 of 3 right, 1/2 of no and 1/1 of yes.
    right = 100 * (3 / 4 + 2 / 3) / 2
    balanced = 100 * ((2 / 3 + 1) / 2 + 3 / 4) / 2
    assert ours["mobilefacenet"].values[:3] == ("Joint", pytest.approx(right), None)
    assert ours["mobilefacenet"].values[3:] == (pytest.approx(balanced), None)
    assert ours["always the commoner answer"].values[1:] == (pytest.approx(100 * (3 / 4 + 2 / 3) / 2), None, 50.0, None)
    assert len(rows_of(table, "paper")) == 3
    assert sum(row.origin == "paper" for row in table.rows) == 9
    assert rows_of(tables.table_2(heads, "mine"), "paper") == {}
    assert any("+0.0 ±" in note and "on photographs" in note for note in table.notes)


def curve(setting, precisions, without=0, weight=0.2):
    return FeedbackCurve(STRATEGIES[setting], weight, np.array(precisions, np.float64), without)


def test_table_5_and_figure_7():
    rising = [[0.1 * at for at in range(11)], [0.1 * at - 0.02 for at in range(1, 12)]]
    models = [SimulatedModel("m", "vggface2-resnet50", {name: curve(name, rising, 3) for name in STRATEGIES})]
    table = tables.table_5(paper.CELEBA, models)
    assert table.columns[-4:] == ("before", "1", "5", "10")
    ours = rows_of(table, "ours")
    assert list(ours) == ["QPM, m", "FSW, m", "QPM + FSW, m"]
    assert ours["QPM + FSW, m"].values == pytest.approx((0.8, 0.1, 0.1, 0.5, 0.8, 4, 14, 54, 104))
    published = rows_of(table, "paper")
    assert len(published) == 6
    assert published["QPM, VGG-Face-2 (ResNet)"].values[-4:] == (None, 56.41, 56.20, 55.98)
    assert {name for name, row in published.items() if row.nearest} == {
        f"{setting}, VGG-Face-2 (ResNet)" for setting in STRATEGIES
    }
    assert any("3 queries have nothing relevant" in note for note in table.notes)
    figure = tables.figure_7(paper.CELEBA, models)
    assert figure.columns == ("before", *map(str, range(1, 11)))
    assert rows_of(figure, "ours")["m"].values == pytest.approx(tuple(4 + 10 * at for at in range(11)))
    expected = (48.6, 56.68, None, None, None, 73.0, None, None, None, None, 81.53)
    assert rows_of(figure, "paper")[paper.VGGFACE2_SENET].values == expected


@pytest.mark.parametrize(("rounds", "shown"), [(0, ()), (1, ("1",)), (3, ("1", "3")), (7, ("1", "5", "7"))])
def test_fewer_rounds_show_those_there_are_and_the_last(rounds, shown):
    models = [SimulatedModel("m", "tiny", {paper.BOTH: curve(paper.BOTH, [[0.5] * (rounds + 1)])})]
    assert tables.table_5(paper.CELEBA, models).columns[6:] == shown
    assert len(tables.figure_7(paper.CELEBA, models).columns) == rounds + 1


def test_feedback_of_nobody_is_dashes():
    nobody = FeedbackCurve(STRATEGIES[paper.BOTH], 0.2, np.zeros((0, 3)), 4)
    table = tables.table_5("mine", [SimulatedModel("m", "tiny", {paper.BOTH: nobody})])
    assert table.rows[0].values[5:] == (None, None, None)
    assert "nan" not in table.markdown()
