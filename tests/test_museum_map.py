"""The picture of a floor plan: what is shown, and what an SVG may not hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import InputError
from pipeline.exhibition import map_file
from pipeline.exhibition.map_file import check_svg, read_map
from pipeline.exhibition.museum import Point

ROOT = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 40 30">'


def svg(inside: str, root: str = ROOT) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- a plan -->{root}{inside}</svg>'.encode()


def test_pictures_of_three_kinds(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "plan.png")
    Image.new("L", (30, 20)).save(tmp_path / "plan.jpg")
    (tmp_path / "plan.svg").write_bytes(svg("<rect width='3' height='4'/>"))
    (tmp_path / "plan.dat").write_bytes((tmp_path / "plan.png").read_bytes())  # what it is, not how it is called
    kinds = {}
    for name in ("plan.png", "plan.jpg", "plan.svg", "plan.dat"):
        plan = read_map(tmp_path / name, Point(0.1, 0.2))
        assert plan.data == (tmp_path / name).read_bytes()
        assert plan.you == Point(0.1, 0.2)
        kinds[name] = (plan.media_type, plan.width, plan.height)
    assert kinds == {
        "plan.png": ("image/png", 30, 20),
        "plan.jpg": ("image/jpeg", 30, 20),
        "plan.svg": ("image/svg+xml", 40, 30),
        "plan.dat": ("image/png", 30, 20),
    }


def test_a_photograph_that_was_held_upright_is_upright(tmp_path):
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "plan.jpg", exif=exif)
    plan = read_map(tmp_path / "plan.jpg")
    assert (plan.width, plan.height) == (20, 30)


def test_what_is_no_map(tmp_path, monkeypatch):
    def refused(name: str, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            read_map(tmp_path / name)

    refused("nothing.png", "it cannot be read .No such file")
    (tmp_path / "text.png").write_text("hello")
    refused("text.png", "it is no picture that can be recognised; save it as PNG, JPEG or SVG")
    (tmp_path / "plan.pdf").write_bytes(b"%PDF-1.7")
    refused("plan.pdf", "no picture that can be recognised")
    Image.new("RGB", (8, 8)).save(tmp_path / "plan.gif")
    refused("plan.gif", "it is GIF; save it as PNG, JPEG or SVG")
    Image.effect_noise((60, 60), 90).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    refused("cut.png", "cannot be decoded.*; save it again as PNG, JPEG or SVG")
    Image.new("1", (10_001, 8)).save(tmp_path / "wide.png")
    refused("wide.png", "it is 10001x8 pixels; at most 10,000 on a side")
    Image.new("1", (9000, 9000)).save(tmp_path / "many.png")
    refused("many.png", "81 million pixels")
    monkeypatch.setattr(map_file, "MAX_BYTES", 1 << 20)
    (tmp_path / "large.svg").write_bytes(svg("<rect/>" + " " * (1 << 20)))
    refused("large.svg", "it has more than 1 MB")


@pytest.mark.parametrize(
    ("root", "size"),
    [
        ('viewBox="0 0 1200 900"', (1200, 900)),
        ('viewBox=" 10,20 , 300.4 200 " width="10" height="10"', (300, 200)),
        ('viewBox="0 0 0.2 0.1"', (1, 1)),
        ('width="640" height="480px"', (640, 480)),
        ('width="210mm" height="297mm"', (794, 1123)),
        ('width="1e3" height=".5in"', (1000, 48)),
    ],
)
def test_the_size_of_an_svg(root, size):
    assert check_svg(svg("", f'<svg xmlns="http://www.w3.org/2000/svg" {root}>')) == size


@pytest.mark.parametrize(
    "root",
    [
        "",
        'width="100%" height="100%"',
        'viewBox="0 0 0 0"',
        'viewBox="0 0 -5 5"',
        'viewBox="0 0 nan 5"',
        'viewBox="0 0 5"',
        'viewBox="0 0 1e9 5"',
        'viewBox="a b c d"',
        'width="5"',
        'width="5em" height="4em"',
    ],
)
def test_an_svg_without_a_size(root):
    with pytest.raises(InputError, match='its <svg> says no size; give it a viewBox such as viewBox="0 0 1200 900"'):
        check_svg(svg("", f'<svg xmlns="http://www.w3.org/2000/svg" {root}>'))


@pytest.mark.parametrize(
    "inside",
    [
        '<use href="#door"/><use xlink:href="#door"/>',
        '<image href="data:image/png;base64,AAAA"/><image xlink:href=" data:image/jpeg;base64,AAAA"/>',
        '<rect fill="url(#floor)" style="stroke: url( \'#line\' )"/>',
        "<style>.wall { fill: url(#floor); font-family: Georgia }</style>",
        "<style><![CDATA[ a > b { fill: red } ]]></style>",
        "<title>Come on: url(x) is a text</title><text>@import, onload=, script, C:\\url</text>",
        '<metadata><rdf xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>',
        '<g xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" inkscape:label="walls"/>',
        '<text font-family="a" aria-label="hello"/>',
    ],
)
def test_drawings_pass(inside):
    assert check_svg(svg(inside)) == (40, 30)


def test_a_public_document_type_passes_and_deep_nesting_costs_nothing():
    doctype = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
    assert check_svg(f"{doctype}{ROOT}</svg>".encode()) == (40, 30)
    assert check_svg(svg("<g>" * 50_000 + "</g>" * 50_000)) == (40, 30)


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        ("<script>alert(1)</script>", "it has a <script>, and a map may only be a drawing"),
        ("<SCRIPT/>", "it has a <SCRIPT>"),
        ('<s:script xmlns:s="http://www.w3.org/2000/svg"/>', "it has a <script>"),
        ('<h:script xmlns:h="http://www.w3.org/1999/xhtml"/>', "it has a <script>"),
        ("<foreignObject/>", "it has a <foreignObject>"),
        ('<h:iframe xmlns:h="http://www.w3.org/1999/xhtml"/>', "it has a <iframe>"),
        ("<animate attributeName='href' to='javascript:x'/>", "it has a <animate>"),
        ("<animateTransform/>", "it has a <animateTransform>"),
        ("<set attributeName='onload'/>", "it has a <set>"),
        ("<rect onclick='x()'/>", "its <rect> has onclick, which runs a script"),
        ("<g onLoad='x()'/>", "its <g> has onLoad"),
        (
            "<a href='https://example.org/'/>",
            'its <a> refers to "https://example.org/", and nothing outside of the map',
        ),
        ("<image href='door.png'/>", 'its <image> refers to "door.png"'),
        ("<image xlink:href='//example.org/x.png'/>", "its <image> refers to"),
        ("<image href='data:image/svg+xml;base64,AAAA'/>", "its <image> refers to"),
        ("<use href=' javascript:x'/>", "its <use> refers to"),
        ("<rect fill='url(https://example.org/x#a)'/>", "fill of its <rect> refers to another file"),
        ("<rect style='fill:URL( \"x.svg#a\")'/>", "style of its <rect> refers to another file"),
        ("<rect style='fill:u\\72l(x)'/>", "style of its <rect> refers to another file"),
        ("<style>@import 'x.css';</style>", "its <style> refers to another file"),
        ("<style>.a { background: url(x.png) }</style>", "its <style> refers to another file"),
        ("<style>.a { background: u<!-- -->rl(x.png) }</style>", "its <style> refers to another file"),
        ("<?xml-stylesheet href='x.css'?>", "it takes its style from another file"),
        ("<g>", "it is not well-formed XML"),
        ("&nbsp;", "it is not well-formed XML"),
    ],
)
def test_more_than_a_drawing_is_refused(inside, sentence):
    with pytest.raises(InputError) as caught:
        check_svg(svg(inside))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"<!DOCTYPE svg [<!ENTITY a 'aaa'>]>" + ROOT.encode() + b"&a;</svg>", "it declares entities"),
        (
            b"<!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + ROOT.encode() + b"&a;</svg>",
            "declares entities",
        ),
        (b"<!DOCTYPE svg [<!ENTITY % a SYSTEM 'x.dtd'> %a;]>" + ROOT.encode() + b"</svg>", "declares entities"),
        (b"<html><body/></html>", "its first element is <html> and not <svg"),
        (b'<svg viewBox="0 0 4 3"/>', "its first element is <svg> and not <svg xmlns="),
        (b"", "it is not well-formed XML"),
        (b"<", "it is not well-formed XML"),
        (b"\xff\xfe<\x00", "it is not well-formed XML"),
    ],
)
def test_what_is_no_svg(data, sentence):
    with pytest.raises(InputError) as caught:
        check_svg(data)
    assert sentence in str(caught.value)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 100))
def test_damage_is_refused_in_a_sentence(noise, at):
    data = bytearray(svg("<rect fill='url(#a)'/>"))
    data[at : at + len(noise) // 2] = noise
    try:
        width, height = check_svg(bytes(data))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert min(width, height) >= 1
