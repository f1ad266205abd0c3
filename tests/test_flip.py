"""Figures with a slider: what their HTML holds, and what they do in a real browser, also where no script is run."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from docs.stage import code_cell
from g100.foundations.errors import G100Error
from g100.foundations.overlay import canvas, flip, small_png
from tests.notebooks import chapters, read

pytestmark = pytest.mark.xdist_group("page")
NASTY = '</script><img src=x onerror="alert(1)"> & <!-- {0} \'"\u2028'


def figure(height: float):
    "A figure with one bar."
    drawn = canvas(3, 1.5)
    drawn.subplots().bar([0], [height])
    return drawn


def three(*labels: str, what: str = "Height", start: int = 1):
    return flip({label: figure(k + 1) for k, label in enumerate(labels)}, what, start)


def opened(source: str) -> np.ndarray:
    "The picture of a data: address, (H, W, 3)."
    assert source.startswith("data:image/png;base64,")
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


class Elements(HTMLParser):
    "The elements of a piece of HTML, (tag, attributes), and the data of its JSON."

    def __init__(self, source: str):
        super().__init__()
        self.found, self.data = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1] == ("script", {"type": "application/json"}):
            self.data += data

    def one(self, tag: str) -> dict:
        (attributes,) = (attributes for each, attributes in self.found if each == tag)
        return attributes


# ---- what it holds


def test_it_shows_the_start_and_holds_the_others():
    seen = Elements(three("low", "middle", "high").data)
    image, slider, frames = seen.one("img"), seen.one("input"), json.loads(seen.data)
    assert image["alt"] == "Height: middle" and image["width"] == "240"
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "1")
    assert [label for label, _ in frames] == ["low", "middle", "high"] and frames[1][1] == ""
    pictures = [opened(source) for source in (frames[0][1], image["src"], frames[2][1])]
    assert {picture.shape for picture in pictures} == {(165, 330, 3)}
    assert not (pictures[0] == pictures[1]).all() and not (pictures[1] == pictures[2]).all()


def test_the_picture_is_that_of_matplotlib_in_fewer_colours_and_bytes():
    drawn, plain = figure(2), io.BytesIO()
    drawn.savefig(plain, dpi=110, bbox_inches=drawn.bbox_inches)
    data = small_png(drawn)
    seen = opened(f"data:image/png;base64,{base64.b64encode(data).decode()}")
    off = np.abs(seen.astype(int) - np.array(Image.open(plain))[..., :3])
    assert off.mean() < 1 and len(data) < len(plain.getvalue()) and drawn.dpi != 110
    assert data == small_png(drawn)


def test_the_same_figures_give_the_same_html_and_others_another_id():
    ids = [Elements(each.data).one("figure")["id"] for each in (three("a", "b"), three("a", "b"), three("a", "c"))]
    assert ids[0] == ids[1] != ids[2]
    assert three("a", "b").data == three("a", "b").data


def test_no_label_ends_an_attribute_or_the_script():
    seen = Elements(three(NASTY, f"{NASTY}2", what=NASTY).data)
    assert [tag for tag, _ in seen.found] == ["figure", "img", "p", "label", "input", "span", "script", "script"]
    assert seen.one("img")["alt"] == f"{NASTY}: {NASTY}2" and json.loads(seen.data)[0][0] == NASTY


@pytest.mark.parametrize("start", [-1, 2])
def test_a_start_that_is_none_of_them(start):
    with pytest.raises(G100Error, match=f"start={start}: there are 2 figures"):
        three("a", "b", start=start)
    with pytest.raises(G100Error, match="0 figures"):
        flip({}, "nothing")


# ---- in the book


def sliders() -> list:
    "The cells of the book that show a slider, with their chapter."
    return [(path, cell) for path in chapters() for cell in read(path).cells
            if any('type="range"' in str(o.get("data", {}).get("text/html", "")) for o in cell.get("outputs", []))]  # fmt: skip


def test_the_book_has_sliders_that_can_stand_on_one_page():
    found = sliders()
    html = ["".join(cell.outputs[0].data["text/html"]) for _, cell in found]
    ids = [re.search(r'id="(flip-\w+)"', each)[1] for each in html]
    assert len(ids) >= 6 and len(set(ids)) == len(ids)
    for (path, _), each in zip(found, html, strict=True):
        assert not re.search(r"(?:src|href)=.?https?:", each), path
        assert 6 <= len(json.loads(Elements(each).data)) <= 12, path


def test_the_site_folds_the_code_that_draws_them():
    for _, cell in sliders():
        assert "hide-input" in code_cell(cell, None, "", "", {"figure": "drawn"}).metadata["tags"]


# ---- in a browser


@pytest.fixture
def page(chromium, tmp_path):
    "A page with two of them; afterwards: nothing was complained of, and nothing was asked for."
    file = tmp_path / "page.html"
    both = three("low", "middle", "high").data + three(NASTY, "b", what="Other", start=0).data
    file.write_text(f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>two</title>{both}</html>', encoding="utf-8")
    context, said, asked = chromium.new_context(), [], []
    tab = context.new_page()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    context.close()
    assert not said and [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


def state(tab, k: int) -> tuple:
    "What the k-th of the page shows: label, alt, what a screen reader says of the slider, the picture."
    box = tab.locator("figure").nth(k)
    image, slider = box.locator("img"), box.locator("input")
    return (box.locator("span").inner_text(), image.get_attribute("alt"), slider.get_attribute("aria-valuetext"),
            image.get_attribute("src"))  # fmt: skip


def test_the_slider_moves_the_picture_and_its_words(page):
    first, other = state(page, 0), state(page, 1)
    assert first[:3] == ("middle", "Height: middle", "middle")
    slider = page.get_by_role("slider", name="Height")
    slider.focus()
    seen = {}
    walk = {"ArrowRight": "high", "Home": "low", "ArrowUp": "middle", "End": "high", "ArrowLeft": "middle"}
    for key, label in walk.items():
        page.keyboard.press(key)
        now = state(page, 0)
        assert now[:3] == (label, f"Height: {label}", label)
        assert seen.setdefault(label, now[3]) == now[3]
        page.wait_for_function("document.querySelector('img').complete && document.querySelector('img').naturalWidth === 330")
    assert len(set(seen.values())) == 3 and seen["middle"] == first[3] and state(page, 1) == other
    page.get_by_role("slider", name="Other").fill("1")
    assert state(page, 1)[:2] == ("b", "Other: b") and state(page, 0)[0] == "middle"
    page.get_by_role("slider", name="Other").fill("0")
    assert state(page, 1)[0].split() == NASTY.split() and state(page, 1)[3] == other[3]


def test_without_scripts_the_start_stays_and_no_slider_is_seen(chromium, tmp_path):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.set_content(three("low", "middle", "high").data)
    assert tab.locator("img").is_visible() and not tab.locator("input").is_visible()
    assert tab.locator("p").inner_text().split() == ["Height:", "middle"]
    context.close()
