"""The report: queries drawn by lot and ranked by definition, and one page that is whole, safe and says what is so."""

import base64
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.retrieval import report
from pipeline.retrieval.evaluation import evaluate
from pipeline.retrieval.plots import Reference
from pipeline.retrieval.report import References, headlines, render_report, write_report
from pipeline.retrieval.report_grids import main_weight, query_grids
from pipeline.retrieval.result_table import NOTHING, ResultRow, ResultTable
from pipeline.retrieval.scoring import attribute_scores, identity_scores
from tests.described_sets import curve, described, evaluation, pictures

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of them; refuses what is not closed."""

    def __init__(self, html):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.texts))

    def classes(self, name):
        return [attrs for _, attrs in self.elements if name in attrs.get("class", "").split()]


@pytest.fixture(scope="module")
def searched():
    return evaluation()


@pytest.fixture(scope="module")
def grids(searched):
    result, queries, gallery = searched
    return query_grids(result, queries, gallery, pictures(queries), pictures(gallery))


def whole(searched, grids, **changes):
    table = ResultTable(
        "Table 3",
        ("R@1",),
        (ResultRow("a model", "ours", (32.5,)), ResultRow("LightCNN-9L", "paper", (69.6,), nearest=True)),
        notes=("Of 24 photographs.",),
    )
    given = {
        "title": "Drawn faces",
        "evaluation": searched[0],
        "grids": grids,
        "curves": {"FSW": curve(0.5, 0.6), "QPM + FSW": curve(0.5, 0.75)},
        "tables": [table],
        "references": References(feedback=[Reference("QPM + FSW (paper)", (1, 5), (0.5, 0.6))]),
        "remarks": ["An untrained network."],
        "details": {"command": "stylize evaluate"},
    }
    return render_report(**{**given, **changes})


# Grids


def test_rankings_are_those_of_the_definition(searched, grids):
    """Own proxy left out, by Eq. 9 pair by pair, in float64."""
    _, queries, gallery = searched
    ids, proxies = queries.table["id"].to_pylist(), gallery.table["id"].to_pylist()
    people = queries.table["identity"].to_pylist()
    assert len(grids) == 8
    for grid in grids:
        query = ids.index(grid.id)
        assert [ranking.weight for ranking in grid.rankings] == [0.0, 0.2, 1.0]
        for ranking in grid.rankings:
            identity = identity_scores(queries.embeddings[query].double(), gallery.embeddings.double())
            attributes = attribute_scores(queries.bits[query], gallery.bits)
            score = identity + ranking.weight * attributes
            order = [item for item in score.argsort(descending=True).tolist() if item != query]
            assert [hit.id for hit in ranking.hits] == [proxies[item] for item in order[:5]]
            relevant = [people[item] == people[query] for item in order]
            assert [hit.relevant for hit in ranking.hits] == relevant[:5]
            assert [hit.rank for hit in ranking.hits] == [1, 2, 3, 4, 5]
            first = relevant.index(True)
            assert (ranking.first_relevant is None) == (first < 5)
            for hit in (*ranking.hits, *([ranking.first_relevant] if ranking.first_relevant else [])):
                item = proxies.index(hit.id)
                assert hit.score == pytest.approx(float(score[item]), abs=1e-6)
                assert hit.identity_score == pytest.approx(float(identity[item]), abs=1e-6)
                assert hit.attribute_score == pytest.approx(float(attributes[item]))
            if ranking.first_relevant:
                assert (ranking.first_relevant.id, ranking.first_relevant.rank) == (proxies[order[first]], first + 1)


def test_pictures_are_of_the_faces(searched, grids):
    proxies = searched[2].table["id"].to_pylist()
    for hit in grids[0].rankings[0].hits:
        with Image.open(io.BytesIO(hit.picture)) as picture:
            shade = picture.convert("L").getpixel((3, 3))
        assert abs(shade - proxies.index(hit.id) * 7 % 256) <= 2


def test_half_were_found_first_and_half_were_not(searched, grids):
    rows = [row for row in searched[0].per_query.to_pylist() if row["lambda"] == 0.2]
    ranks = {row["query_id"]: row["rank"] for row in rows}
    assert [grid.found for grid in grids] == [True] * 4 + [False] * 4
    assert all((ranks[grid.id] == 1) == grid.found for grid in grids)


def test_the_lot_does_not_depend_on_the_order_of_the_queries(searched, grids):
    result, queries, gallery = searched
    turned = queries.take(list(reversed(range(len(queries)))))
    again = evaluate(turned, gallery, [one.weight for one in result.results])
    drawn = query_grids(again, turned, gallery, pictures(turned), pictures(gallery))
    assert [grid.id for grid in drawn] == [grid.id for grid in grids]


def test_nobody_is_shown_twice_while_there_are_others(searched, grids):
    rows = [row for row in searched[0].per_query.to_pylist() if row["lambda"] == 0.2]
    people = {row["query_id"]: row["identity"] for row in rows}
    turns: Counter[str] = Counter()
    for kind in (True, False):
        waiting = {row["query_id"] for row in rows if (row["rank"] == 1) is kind}
        for grid in (grid for grid in grids if grid.found is kind):
            assert turns[people[grid.id]] == min(turns[people[query]] for query in waiting)
            waiting.remove(grid.id)
            turns[people[grid.id]] += 1


def test_few_people_are_shown_as_often_as_is_asked_for():
    names = ["a"] * 6 + ["b"] * 6
    queries, gallery = described(names, seed=1, noise=0.01), described(names, prefix="art-", seed=2, noise=0.01)
    result = evaluate(queries, gallery, (0.0,))
    assert result.result(0.0).recall.at[1] == 1
    shown = query_grids(result, queries, gallery, pictures(queries), pictures(gallery), found=5)
    people = dict(zip(queries.table["id"].to_pylist(), names, strict=True))
    assert len(shown) == 5
    assert {"a", "b"} == {people[grid.id] for grid in shown[:2]}


def test_without_known_people_queries_are_neither_found_nor_missed():
    result, queries, gallery = evaluation(known=False)
    shown = query_grids(result, queries, gallery, pictures(queries), pictures(gallery))
    assert len(shown) == 8
    assert {grid.found for grid in shown} == {None}
    assert {hit.relevant for grid in shown for ranking in grid.rankings for hit in ranking.hits} == {None}
    page = Page(render_report(title="", evaluation=result, grids=shown))
    assert not page.classes("same")
    assert "the same person" not in page.text.split("How to read this")[0]


def test_equal_items_come_in_the_gallerys_order():
    names = ["a", "b", "b", "b"]
    queries = described(names, seed=1)
    gallery = described(names, prefix="art-", seed=2)
    gallery.embeddings[:] = gallery.embeddings[0]
    gallery.probabilities[:] = 1
    result = evaluate(queries, gallery, (0.2,))
    (grid, *_) = query_grids(result, queries, gallery, pictures(queries), pictures(gallery), found=0, missed=1)
    own = int(grid.id[:3])
    assert [hit.id for hit in grid.rankings[0].hits] == [f"art-{at:03d}.jpg" for at in range(4) if at != own]


def test_a_gallery_with_nothing_but_the_querys_own_proxy():
    result, queries, gallery = evaluation(1, 1)
    (grid,) = query_grids(result, queries, gallery, pictures(queries), pictures(gallery))
    assert [list(ranking.hits) for ranking in grid.rankings] == [[], [], []]
    Page(render_report(title="one", evaluation=result, grids=[grid]))


def test_large_pictures_are_made_smaller(searched):
    result, queries, gallery = searched
    large = replace(pictures(gallery), load=lambda indices: torch.zeros(len(indices), 3, 436, 356, dtype=torch.uint8))
    grid = query_grids(result, queries, gallery, pictures(queries), large)[0]
    with Image.open(io.BytesIO(grid.rankings[0].hits[0].picture)) as picture:
        assert picture.size == (178, 218)


def test_sets_that_do_not_fit_are_refused(searched):
    result, queries, gallery = searched
    with pytest.raises(ValueError, match="do not go together"):
        query_grids(result, queries.take([0, 1]), gallery, pictures(queries), pictures(gallery))
    turned = pictures(gallery).take(list(reversed(range(len(gallery)))))
    with pytest.raises(ValueError, match="another order"):
        query_grids(result, queries, gallery, pictures(queries), turned)


def test_main_weight():
    assert main_weight(evaluation()[0]) == 0.2
    assert main_weight(evaluation(attributes=0, weights=(0.0,))[0]) == 0.0


# The page


def test_it_asks_nobody_for_anything(searched, grids):
    html = whole(searched, grids)
    page = Page(html)
    for tag, attrs in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name.endswith(("src", "href")):
                assert value.startswith(("data:image/jpeg;base64,", "#"))
            assert name not in {"srcset", "background", "poster", "action"}
    assert not re.findall(r"@import|url\((?!#)", html)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    (policy,) = [attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs]
    assert "default-src 'none'" in policy


def test_its_pictures_are_those_given(searched, grids):
    page = Page(whole(searched, grids))
    shown = [attrs["src"].partition(",")[2] for tag, attrs in page.elements if tag == "img"]
    given = [grid.picture for grid in grids]
    given += [hit.picture for grid in grids for ranking in grid.rankings for hit in ranking.hits]
    given += [ranking.first_relevant.picture for grid in grids for ranking in grid.rankings if ranking.first_relevant]
    assert sorted(base64.b64decode(data) for data in shown) == sorted(given)
    assert all(attrs.get("alt") for tag, attrs in page.elements if tag == "img")


def test_what_is_framed_is_the_same_person(searched, grids):
    page = Page(whole(searched, grids))
    rankings = [ranking for grid in grids for ranking in grid.rankings]
    same = sum(bool(hit.relevant) for ranking in rankings for hit in ranking.hits)
    late = sum(ranking.first_relevant is not None for ranking in rankings)
    assert len(page.classes("hit")) == sum(len(ranking.hits) for ranking in rankings) + late
    assert len(page.classes("same")) == same + late
    assert len(page.classes("late")) == late
    assert late
    for attrs in page.classes("hit"):
        assert ("same" in attrs["class"].split()) == ("the same person" in attrs["title"])


def test_bars_are_parts_of_the_best_score(searched, grids):
    page = Page(whole(searched, grids))
    parts = (page.classes(name) for name in ("of-identity", "of-attributes"))
    styles = ([attrs["style"] for attrs in part if "style" in attrs] for part in parts)  # the legend's have none
    widths = [[float(style.removeprefix("width: ").removesuffix("%")) for style in part] for part in styles]
    hits = [
        (hit, ranking.weight)
        for grid in sorted(grids, key=lambda grid: not grid.found)
        for ranking in grid.rankings
        for hit in (*ranking.hits, *([ranking.first_relevant] if ranking.first_relevant else []))
    ]
    for (hit, weight), identity, attributes in zip(hits, *widths, strict=True):
        assert identity + attributes == pytest.approx(100 * hit.score / (1 + weight), abs=0.11)
        assert attributes == pytest.approx(100 * weight * hit.attribute_score / (1 + weight), abs=0.06)


def test_nothing_given_is_taken_for_html(grids):
    trap = "\"><script>alert('&amp;')</script>"
    names = [f"p{at // 3}" for at in range(12)]
    queries, gallery = described(names, prefix=trap, seed=1), described(names, prefix=trap, seed=2)
    result = evaluate(queries, gallery, (0.0, 0.2), query_title=trap, gallery_title=trap, model_title=trap)
    table = ResultTable(trap, (trap,), (ResultRow(trap, "ours", (trap,)),), notes=(trap,))
    html = render_report(
        title=trap,
        evaluation=result,
        grids=query_grids(result, queries, gallery, pictures(queries), pictures(gallery)),
        curves={trap: curve(0.5, 0.6)},
        tables=[table],
        references=References(recall=[Reference(trap, (1,), (0.5,))]),
        remarks=[trap],
        details={trap: trap},
    )
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(trap) >= 14
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_headlines_are_the_evaluations_figures(searched):
    result = searched[0].result(0.2)
    first, second, third = headlines(searched[0], {"FSW": curve(0.5, 0.6), "QPM + FSW": curve(0.481, 0.822)})
    assert first.value == f"{100 * result.recall.at[1]:.1f}"
    assert first.sentence.startswith("of 24 queries have the same person as their first hit")
    assert second.value == f"{100 * result.agreement:.1f}"
    alone = searched[0].result(0.0)
    assert (
        f"{100 * alone.agreement:.1f}\u00a0%, and {100 * alone.recall.at[1]:.1f}\u00a0% are found first"
        in second.sentence
    )
    assert (third.before, third.value) == ("48", "82")
    assert "(QPM + FSW)" in third.sentence
    assert "10 rounds" in third.sentence


def test_headlines_without_feedback_are_about_the_first_ten(searched):
    for curves in ({}, {"both": curve(0.5, 0.6, queries=0)}):
        third = headlines(searched[0], curves)[2]
        assert third.value == f"{100 * searched[0].result(0.2).recall.at[10]:.1f}"
        assert third.before is None


def test_headlines_are_of_what_there_is():
    bare = evaluation(attributes=0, weights=(0.0,))[0]  # the drawn faces have labels, which agree or not
    first, second, third = headlines(bare, {})
    assert "first hit" in first.sentence
    assert "attributes agree" in second.sentence
    assert "identity alone" not in second.sentence
    assert "among the first 10" in third.sentence
    (only,) = headlines(evaluation(known=False)[0], {})
    assert "attributes agree" in only.sentence
    assert headlines(evaluation(1, 1, attributes=0, weights=(0.0,))[0], {}) == []


def test_the_table_of_every_weight(searched):
    page = Page(render_report(title="", evaluation=searched[0]))
    for result in searched[0].results:
        figures = [*(result.recall.at[k] for k in (1, 5, 10)), result.average_precision, result.agreement]
        assert f"{result.weight:g}{''.join(f'{100 * one:.1f}' for one in figures)}" in page.text.replace(" ", "")


def test_what_was_not_measured_is_shown_as_a_dash_and_not_as_a_number():
    page = Page(render_report(title="", evaluation=evaluation(known=False)[0]))
    assert f"0.2{4 * NOTHING}" in page.text.replace(" ", "")
    assert "nan" not in page.text


def test_tables_of_the_paper_have_ours_apart(searched, grids):
    page = Page(whole(searched, grids))
    assert len(page.classes("nearest")) == 1
    assert "amodelthisevaluation32.5" in page.text.replace(" ", "")
    assert "Of 24 photographs." in page.text


def test_parts_without_content_are_left_out(searched, grids):
    page = Page(whole(searched, grids))
    parts = {attrs["id"] for tag, attrs in page.elements if tag == "section" and "id" in attrs}
    assert parts == {"examples", "curves", "tables", "reading", "details"}
    assert {attrs["href"][1:] for tag, attrs in page.elements if tag == "a"} == parts
    bare = Page(render_report(title="", evaluation=evaluation(known=False, attributes=0, weights=(0.0,))[0]))
    assert {attrs["id"] for tag, attrs in bare.elements if tag == "section" and "id" in attrs} == {"tables", "reading"}
    assert "Feedback" not in bare.text
    assert not bare.classes("remarks")


def test_queries_with_nothing_to_find_are_mentioned():
    queries, gallery = described(["a", "a", "b"], seed=1), described(["a", "a", "b"], prefix="art-", seed=2)
    page = Page(render_report(title="", evaluation=evaluate(queries, gallery, (0.0,))))
    assert "1 query has nothing to find and is not counted." in page.text


def test_the_same_page_for_the_same_evaluation(searched, grids):
    assert whole(searched, grids) == whole(searched, grids)


def test_it_is_written_whole_or_not_at_all(searched, tmp_path, monkeypatch):
    place = tmp_path / "new" / "report.html"
    write_report(place, title="first", evaluation=searched[0])
    before = place.read_bytes()
    assert before == render_report(title="first", evaluation=searched[0]).encode()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("manifests.commit._write_durably", full)
        with pytest.raises(OSError, match="No space"):
            write_report(place, title="second", evaluation=searched[0])
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == ["report.html"]


def test_the_template_lies_in_the_package():
    assert (Path(report.__file__).parent / report.TEMPLATE_FILE).is_file()
    assert "<!doctype html>" in report._template()
