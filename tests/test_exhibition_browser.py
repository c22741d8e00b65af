"""The exhibition's page in a browser: a whole visit, by touch and by keys; trouble; forgetting; who can use it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.exhibition.app import HERE, create_app
from pipeline.exhibition.messages import read_messages
from pipeline.exhibition.serving import serving
from pipeline.exhibition.settings import ExhibitionSettings
from tests.exhibition_visitors import detect, make_index, open_gallery
from tests.trained_models import register_tiny

pytest.importorskip("playwright", reason="playwright is not installed (dependency group dev)")

from playwright.sync_api import Page, expect, sync_playwright

from tests.exhibition_pages import (
    KIOSK,
    PHONE,
    arrive,
    consent,
    drawn,
    launch,
    live_blobs,
    make_museum,
    order,
    screen,
    upload,
    watched,
)

IDLE = 60


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        yield open_gallery(make_index(tmp_path_factory.mktemp("exhibition")))


@pytest.fixture(scope="module")
def app(gallery):
    settings = ExhibitionSettings(idle_seconds=IDLE, explanation_steps=4, max_pixels=1_000_000)
    return create_app(gallery, make_museum(gallery), settings, detect=detect, messages=read_messages())


@pytest.fixture(scope="module")
def url(app):
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with sync_playwright() as playwright:
        browser = launch(playwright, tmp_path_factory.mktemp("camera") / "drawn.mjpeg")
        yield browser
        browser.close()


def dividing_feature(gallery) -> tuple[str, set[str]]:
    """A trained attribute that some of the gallery's faces have and some do not, and those that have it."""
    bits = gallery.index.gallery.bits
    for name in gallery.trained:
        has = bits[:, gallery.index.attributes.index(name)]
        if name not in {"Attractive", "Blurry"} and 3 <= int(has.sum()) <= len(has) - 3:
            faces = {item: face for face, item in gallery.faces.items()}
            return name, {faces[int(item)] for item in torch.nonzero(has)[:, 0]}
    raise AssertionError("no attribute divides the gallery")


def test_a_whole_visit_with_a_camera(browser, url, gallery, tmp_path):
    with watched(browser, url, viewport=KIOSK) as eyes:
        page = eyes.page()
        expect(page.locator("h1")).to_have_text("Who do you look like?")
        page.click("#begin")
        expect(page.locator(".points")).to_contain_text(f"{IDLE} seconds")
        assert eyes.tokens == []  # nothing begins before the visitor agrees
        page.click("#agree")
        expect(page.locator("#shoot")).to_be_enabled()
        page.click("#shoot")
        expect(page.locator("#number")).to_have_text("2")
        screen(page, "review")
        assert page.evaluate("window.streams.every(s => s.getTracks().every(t => t.readyState === 'ended'))")
        width, height = page.locator("#photo").evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert width / height == pytest.approx(3 / 4, abs=0.01)  # what the preview showed, and no more
        page.click("#use")
        screen(page, "results")
        before = order(page)
        assert len(before) == 12

        liked, unliked = before[4], before[0]
        page.click(f'[data-face="{liked}"] .verdict-yes')
        page.click(f'[data-face="{unliked}"] .verdict-no')
        expect(page.locator("#judged")).to_contain_text("2 answers")
        page.click("#others")
        expect(page.locator("#live")).to_contain_text("Round 1")
        after = order(page)
        assert after != before
        assert after.index(liked) < before.index(liked)
        assert unliked not in after[:1]
        expect(page.locator(f'[data-face="{liked}"] .verdict-yes')).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#judged")).to_be_hidden()

        feature, having = dividing_feature(gallery)
        page.click("#refine")
        choose(page, feature, "with")
        expect(page.locator("#left")).to_contain_text(str(len(having)))
        assert set(order(page)) <= having
        choose(page, feature, "without")
        expect(page.locator("#left")).to_contain_text(str(len(gallery) - len(having)))
        assert not set(order(page)) & having
        page.locator("#weight").fill("1")
        expect(page.locator("#weight")).to_have_attribute("aria-valuetext", re.compile("100 percent"))
        page.click("#done")
        expect(page.locator(".chip")).to_have_count(1)
        page.click(".chip")
        expect(page.locator(".chip")).to_have_count(0)

        page.click(".closest .why")
        screen(page, "painting")
        expect(page.locator("#why-answer")).to_be_visible(timeout=30_000)
        for side in ("#why-photo", "#why-painting"):
            expect(page.locator(side)).to_have_js_property("complete", True)
            assert page.locator(side).evaluate("image => image.naturalWidth") > 0
        expect(page.locator("#share-face")).to_have_text(re.compile(r"The face: \d+%"))
        expect(page.locator(".map .pin")).to_have_count(2)
        title = page.locator("#title").inner_text()

        page.click("#print-page")
        screen(page, "print")
        expect(page.locator(".sheet-title")).to_have_text(title)
        expect(page.locator(".sheet-you")).to_have_attribute("src", re.compile("^blob:"))
        expect(page.locator(".sheet-map .pin")).to_have_count(2)
        page.click("#print")
        assert page.evaluate("window.prints") == 1
        sheet = page.pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", sheet)) == 1
        assert re.search(rb"/MediaBox \[0 0 59[45][.\d]* 84[12][.\d]*\]", sheet)

        (token,) = eyes.tokens
        assert not eyes.forgotten(page, token)
        page.click("#finish")
        screen(page, "bye")
        expect(page.locator("h1")).to_have_text("All forgotten")
        assert eyes.forgotten(page, token)
        assert live_blobs(page) == 0
        page.click("#begin")
        screen(page, "welcome")


def choose(page: Page, feature: str, side: str) -> None:
    radio = page.locator(f'input[name="switch-{feature}"][value="{side}"]')
    if not radio.is_visible():
        page.click("#more")
    radio.check()


def reach(page: Page, selector: str) -> None:
    """Press Tab until something has the focus; it has to be seen that it has."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{selector} does not show that it has the focus"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_a_visit_by_keys_alone(browser, url, gallery):
    with watched(browser, url) as eyes:
        page = eyes.page()
        reach(page, "#begin")
        page.keyboard.press("Enter")
        reach(page, "#agree")
        page.keyboard.press("Space")
        expect(page.locator("#shoot")).to_be_focused()
        page.keyboard.press("Enter")
        screen(page, "review")
        reach(page, "#use")
        page.keyboard.press("Enter")
        screen(page, "results")
        reach(page, ".closest .verdict-no")
        page.keyboard.press("Space")
        before = order(page)
        reach(page, "#others")
        page.keyboard.press("Enter")
        expect(page.locator("#live")).to_contain_text("Round 1")
        assert order(page) != before

        reach(page, "#refine")
        page.keyboard.press("Enter")
        expect(page.locator("dialog[open]")).to_be_visible()
        names = set()
        for _ in range(60):  # once around: the sheet keeps the focus
            page.keyboard.press("Tab")
            where = page.evaluate(
                "document.activeElement === document.body ? 'body' :"
                " document.activeElement.closest('dialog[open]') ? document.activeElement.id || 'switch' : 'outside'"
            )
            names.add(where)
        assert "outside" not in names
        assert {"weight", "done", "switch"} <= names
        feature, having = dividing_feature(gallery)
        if not page.locator(f'input[name="switch-{feature}"]').first.is_visible():
            reach(page, "#more")
            page.keyboard.press("Enter")
        reach(page, f'input[name="switch-{feature}"]')
        page.keyboard.press("ArrowRight")
        expect(page.locator("#left")).to_contain_text(str(len(having)))
        page.keyboard.press("Escape")
        expect(page.locator("#refine")).to_be_focused()

        reach(page, ".closest .picture")
        page.keyboard.press("Enter")
        screen(page, "painting")
        reach(page, "#back")
        page.keyboard.press("Enter")
        expect(page.locator(".closest .picture")).to_be_focused()
        page.keyboard.press("Enter")
        reach(page, "#print-page")
        page.keyboard.press("Enter")
        reach(page, "#print")
        page.keyboard.press("Enter")
        expect(page.locator("#end")).to_be_focused()
        page.keyboard.press("Enter")
        screen(page, "bye")


@pytest.mark.parametrize(
    ("error", "sentence"), [("NotAllowedError", "was not allowed"), ("NotFoundError", "No camera was found")]
)
def test_without_a_camera_a_photo_is_chosen(browser, url, error, sentence):
    with watched(browser, url) as eyes:
        eyes.context.add_init_script(
            "if (navigator.mediaDevices) navigator.mediaDevices.getUserMedia ="
            f" () => Promise.reject(new DOMException('', '{error}'));"
        )
        page = eyes.page()
        # From the beginning: choosers that open before the browser knows that somebody waits for them are lost.
        page.on("filechooser", lambda chooser: chooser.set_files(upload(drawn(2))))
        consent(page)
        expect(page.locator("#camera-text")).to_contain_text(sentence)
        expect(page.locator("#live")).to_contain_text(sentence)
        expect(page.locator("#shoot")).to_be_hidden()
        expect(page.locator("#upload")).to_be_focused()
        page.keyboard.press("Enter")
        page.click("#use")
        screen(page, "results")


def test_photos_that_cannot_be_used_are_taken_again_and_several_faces_are_chosen_from(browser, url):
    with watched(browser, url) as eyes:
        page = eyes.page()
        consent(page)
        for photo, sentence in (
            (upload(np.zeros((400, 300, 3), np.uint8)), "could not find a face"),
            (upload(np.full((1100, 1000, 3), 90, np.uint8)), "too many pixels"),
            (upload(drawn(1, (40, 49))), "too small"),
        ):
            page.set_input_files("#file", photo)
            page.click("#use")
            expect(page.locator("#notice")).to_contain_text(sentence)
            screen(page, "camera")
        page.set_input_files("#file", upload(b"not a picture", "notes.txt", "text/plain"))
        expect(page.locator("#notice")).to_contain_text("not a photo")
        screen(page, "camera")
        page.click("#notice-close")
        expect(page.locator("#notice")).to_be_hidden()
        assert live_blobs(page) <= 1

        page.set_input_files("#file", upload(np.concatenate([drawn(3), drawn(8)], axis=1)))
        page.click("#use")
        screen(page, "faces")
        page.get_by_role("button", name="Face 2").click()
        screen(page, "results")
        place = page.locator("#photo").evaluate("image => image.style.objectPosition")
        assert float(place.split("%")[0]) > 50  # the right half is shown as the visitor


def test_two_tabs_are_two_visits(browser, url):
    with watched(browser, url) as eyes:
        first, second = eyes.page(), eyes.page()
        for page, number in ((first, 1), (second, 2)):
            page.bring_to_front()  # clocks of others are slow
            arrive(page, upload(drawn(number)))
        one, other = eyes.tokens
        first.bring_to_front()
        first.click("#finish")
        screen(first, "bye")
        assert eyes.forgotten(first, one)
        assert not eyes.forgotten(first, other)
        second.bring_to_front()
        second.click(".closest .verdict-yes")
        second.click("#others")
        expect(second.locator("#live")).to_contain_text("Round 1")


def test_a_closed_page_is_forgotten(browser, url, app):
    with watched(browser, url) as eyes:
        page, other = eyes.page(), eyes.page()
        page.bring_to_front()
        arrive(page)
        (token,) = eyes.tokens
        assert not eyes.forgotten(other, token)
        page.close()
        for _ in range(100):
            if eyes.forgotten(other, token):
                return
            other.wait_for_timeout(100)
        pytest.fail("the server still knows the visit of a page that was closed")


def test_the_language_changes_in_the_middle_of_a_visit(browser, url):
    messages = read_messages()
    with watched(browser, url) as eyes:
        page = eyes.page()
        arrive(page)
        page.click(".closest .verdict-yes")
        shown = order(page)
        page.get_by_role("button", name="Italiano").click()
        expect(page.locator("html")).to_have_attribute("lang", "it")
        expect(page).to_have_title("Museo disegnato")
        expect(page.locator("h1")).to_have_text(messages["it"]["results.title"])
        expect(page.locator(".closest .work-title")).to_have_text(re.compile("Ritratto numero"))
        expect(page.locator(".closest .verdict-yes")).to_have_attribute("aria-label", re.compile("mi somiglia"))
        expect(page.locator("#judged")).to_contain_text("1 risposta")
        assert order(page) == shown
        english = set(messages["en"].values()) - set(messages["it"].values())
        texts = page.locator("body *").evaluate_all(
            "all => all.filter(e => e.checkVisibility() && !e.children.length).map(e => e.textContent.trim())"
        )
        assert not english.difference({"English"}) & set(texts)
        page.click("#refine")
        expect(page.locator("#left")).to_have_text("Restano 32 volti")
        page.click("#done")
        page.click("#finish")
        page.click("#begin")
        expect(page.locator("h1")).to_have_text(messages["it"]["welcome.title"])


def test_nobody_there_is_asked_and_then_forgotten(browser, url):
    with watched(browser, url) as eyes:
        page = eyes.context.new_page()
        page.clock.install()
        page.goto(f"{url}?lang=en")
        arrive(page)
        page.get_by_role("button", name="Italiano").click()
        (token,) = eyes.tokens
        page.clock.fast_forward(IDLE * 1000)
        expect(page.locator("#idle")).to_be_visible()
        expect(page.locator("#idle-seconds")).to_have_text(re.compile(r"\d+ secondi"))
        page.click("#idle-stay")
        expect(page.locator("#idle")).to_be_hidden()
        assert not eyes.forgotten(page, token)
        screen(page, "results")

        page.clock.fast_forward(IDLE * 1000)
        expect(page.locator("#idle")).to_be_visible()
        page.clock.fast_forward(16_000)
        screen(page, "welcome")
        expect(page.locator("#idle")).to_be_hidden()
        expect(page.locator("html")).to_have_attribute("lang", "en")  # the museum's, for the next one
        assert live_blobs(page) == 0
        for _ in range(100):
            if eyes.forgotten(page, token):
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail("the server still knows the visit")


def test_who_only_looks_is_not_forgotten_by_the_server(browser, url):
    with watched(browser, url) as eyes:
        page = eyes.context.new_page()
        page.clock.install()
        page.goto(f"{url}?lang=en")
        arrive(page)
        asked = []
        page.on("request", lambda request: asked.append(request.url) if request.method == "GET" else None)
        page.clock.fast_forward(IDLE * 600)
        page.mouse.wheel(0, 50)
        for _ in range(100):
            if any(address.endswith("/api/visit") for address in asked):
                return
            page.clock.run_for(600)
            page.wait_for_timeout(50)
        pytest.fail("the page does not tell the server that somebody is there")


def test_a_whole_work_that_has_gone_gives_way_to_the_face(browser, url):
    with watched(browser, url) as eyes:
        page = eyes.page()
        page.route("**/works/*.jpg", lambda route: route.fulfill(status=404, body=""))
        arrive(page)
        page.click(".closest .look")
        screen(page, "painting")
        expect(page.locator("#whole")).to_have_attribute("src", re.compile("^/pictures/"))
        expect(page.locator("#whole")).to_have_js_property("naturalWidth", 16)
        expect(page.locator("#mark")).to_be_hidden()
        page.click("#print-page")
        screen(page, "print")
        expect(page.locator(".sheet-painting")).to_have_attribute("src", re.compile("^/pictures/"))
        page.unroute("**/works/*.jpg")


def test_a_visit_that_the_server_has_forgotten_begins_again(browser, url, app):
    with watched(browser, url) as eyes:
        page = eyes.page()
        arrive(page)
        (token,) = eyes.tokens
        csrf = page.locator('meta[name="csrf"]').get_attribute("content")
        page.request.delete(f"{url}api/visit", headers={"X-Visit": token, "X-CSRF-Token": csrf or ""})
        page.click(".closest .verdict-yes")
        page.click("#others")
        screen(page, "welcome")
        expect(page.locator("#notice")).to_contain_text("This visit is over")
        assert live_blobs(page) == 0


def test_a_server_that_does_not_answer_keeps_the_photo(browser, url):
    with watched(browser, url) as eyes:
        page = eyes.page()
        consent(page)
        page.set_input_files("#file", upload(drawn(5)))
        page.route("**/api/visit/photo", lambda route: route.abort())
        page.click("#use")
        expect(page.locator("#notice")).to_contain_text("does not answer")
        screen(page, "review")
        page.unroute("**/api/visit/photo")
        page.click("#use")
        screen(page, "results")
        assert all("ERR_FAILED" in complaint for complaint in eyes.complaints)
        eyes.complaints.clear()


SIZES = """() => {
  const shown = [...document.querySelectorAll("button, label, input, a")].filter(
    (e) => e.checkVisibility() && !e.closest(".sheet") && !e.closest(".unseen") && !e.matches(".unseen"));
  const small = shown.map((e) => [e, (e.matches("input[type=radio]") ? e.parentElement : e).getBoundingClientRect()])
    .filter(([, box]) => Math.min(box.width, box.height) < LEAST - 0.5 && box.width > 0)
    .map(([e, box]) => `${e.id || e.className || e.tagName}: ${Math.round(box.width)} x ${Math.round(box.height)}`);
  const nameless = shown.filter((e) => e.matches("button") && !(e.ariaLabel || e.textContent.trim())).map((e) => e.id);
  const words = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest(".sheet, svg")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  const fine = words.filter((e) => parseFloat(getComputedStyle(e).fontSize) < TEXT - 0.5)
    .map((e) => `${e.className}: ${getComputedStyle(e).fontSize} ${e.textContent}`);
  const over = document.documentElement.scrollWidth - innerWidth;
  const titles = document.querySelectorAll("h1").length;
  const noAlt = [...document.images].filter((i) => i.alt === "" && i.checkVisibility()
    && !i.closest("button, [aria-hidden=true], [role=img]")).map((i) => i.id);
  const twice = [...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, at, all) => all.indexOf(id) !== at);
  return { small, nameless, fine, over: Math.max(0, over), titles, noAlt, twice };
}"""
FINE = {"small": [], "nameless": [], "fine": [], "over": 0, "titles": 1, "noAlt": [], "twice": []}


@pytest.mark.parametrize(("view", "least", "text"), [(PHONE, 44, 16), (KIOSK, 64, 28)], ids=["phone", "kiosk"])
def test_every_screen_can_be_touched_and_read(browser, url, view, least, text):
    script = SIZES.replace("LEAST", str(least)).replace("TEXT", str(text))
    with watched(browser, url, viewport=view, has_touch=True) as eyes:
        page = eyes.page("it")

        def check(name: str) -> None:
            screen(page, name)
            assert page.evaluate(script) == FINE, name

        check("welcome")
        page.click("#begin")
        check("consent")
        page.click("#agree")
        expect(page.locator("#shoot")).to_be_enabled()
        check("camera")
        page.set_input_files("#file", upload(np.concatenate([drawn(3), drawn(8)], axis=1)))
        check("review")
        page.click("#use")
        check("faces")
        page.click(".face-box >> nth=0")
        screen(page, "results")
        page.click(".closest .verdict-no")
        check("results")
        page.click("#refine")
        page.click("#more")
        check("results")
        page.click("#done")
        page.click(".closest .look")
        screen(page, "painting")
        page.click("#why")
        expect(page.locator("#why-answer")).to_be_visible(timeout=30_000)
        check("painting")
        page.click("#print-page")
        check("print")
        page.click("#end")
        check("bye")


def test_stillness_is_respected_and_otherwise_pictures_move(browser, url):
    longest = "Math.max(0, ...document.getAnimations().map((a) => a.effect.getComputedTiming().duration))"
    for motion, moves in (("reduce", False), ("no-preference", True)):
        with watched(browser, url, reduced_motion=motion) as eyes:
            page = eyes.page()
            page.click("#begin")
            assert (page.evaluate(longest) > 50) == moves


def colours() -> dict[str, str]:
    sheet = (HERE / "static" / "style" / "colours.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", sheet))


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [
        *(
            (ink, wall, 4.5)
            for ink in ("on-wall", "on-wall-soft", "gilt")
            for wall in ("wall", "wall-deep", "wall-light")
        ),
        *((ink, paper, 4.5) for ink in ("ink", "ink-soft", "alarm") for paper in ("paper", "paper-shade")),
        ("on-gilt", "gilt", 4.5),
        ("gilt", "on-gilt", 4.5),
        ("on-verdict", "yes", 4.5),
        ("on-verdict", "no", 4.5),
        ("line", "paper", 3.0),  # edges of what can be touched
        ("gilt-deep", "paper", 3.0),
    ],
)
def test_words_stand_out_from_their_ground(ink, ground, least):
    known = colours()
    assert contrast(known[ink], known[ground]) >= least


def test_the_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_the_page_names_no_other_host():
    for file in (path for room in ("static", "templates") for path in (HERE / room).rglob("*") if path.is_file()):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?://|[\"'(]//\w", text), file


def test_scripts_and_styles_are_files_of_their_own():
    for file in (HERE / "templates").rglob("*.jinja"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\sstyle=|\son\w+=|<style", text), file  # the policy would refuse them
    assert all(len(path.read_text().splitlines()) < 200 for path in Path(HERE, "static").rglob("*.js"))
