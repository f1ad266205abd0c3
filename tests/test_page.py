"""The page of verdicts: what it is told, held to numpy; and what it does, driven in a real browser."""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_auc_score

import g100
from g100.algorithms.patchcore import origin_of
from g100.algorithms.semiorth import SemiOrthogonal
from g100.experiments.console import write_pages
from g100.experiments.experiment import run_experiment, write_results
from g100.experiments.grid import Cell
from g100.experiments.grid import opened as grid_opened
from g100.experiments.table import write_table
from g100.foundations import page
from g100.foundations.calibration import Calibration, conformal_threshold
from g100.foundations.overlay import heat_colors, relative
from g100.foundations.views import View, batches
from tests.attacks.names import NAMES
from tests.notebooks import ROOT
from tests.toys import MeanPicture, line_of, mvtec_folder, pictures

pytestmark = pytest.mark.xdist_group("page")


def comes_true(tab, expression: str, seconds: float = 30.0) -> None:
    "Wait for an expression of the page; asked from outside, since the page itself evaluates no text."
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


# ---- what the page is told


def test_the_map_has_the_colours_of_the_reports():
    map = np.random.default_rng(0).normal(2, 1, (40, 50)).astype(np.float32)
    found = np.array(Image.open(io.BytesIO(page.heat_picture(map, (1.0, 3.0)))).convert("RGBA"))
    assert np.abs(found / 255 - heat_colors(relative(map, (1.0, 3.0)))).max() <= 1 / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_its_pictures_are_those_of_pillow(channels):
    "A grey picture is one channel, and shows what three alike would."
    image = np.random.default_rng(0).integers(0, 256, (50, 70, channels), dtype=np.uint8).repeat(3 // channels, 2)
    verdicts = MeanPicture(image_size=32, calibration=0.4).fit(pictures(20, 32), device="cpu").inspect([image])
    files = page.files_of(verdicts, 0, image)
    expected, large = io.BytesIO(), Image.open(io.BytesIO(files["image"]))
    Image.fromarray(image).save(expected, "JPEG", quality=88, subsampling="4:2:0")
    assert large.mode == ("L" if channels == 1 else "RGB") and large.size == (70, 50)
    off = np.array(large.convert("RGB")).astype(int) - np.array(Image.open(expected))
    assert np.abs(off).max() <= (0 if channels == 1 else 2)
    wide = np.repeat(np.repeat(image, 6, 0), 6, 1)
    thumb = Image.open(io.BytesIO(page.files_of(verdicts, 0, wide)["thumb"]))
    assert thumb.size == (192, 137)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["max", "top_percent", "mean"]))
def test_the_share_of_the_worst_region_is_that_of_its_pixels(seed, how):
    "Against a count pixel by pixel, and inside its box."
    rng = np.random.default_rng(seed)
    map = rng.integers(0, 1000, (12, 17)).astype(np.float32) + rng.random((12, 17), dtype=np.float32) / 2
    mask = map > 700
    x, y, w, h, share = page.worst_region(map, mask, 500.0, how)
    rows, columns = np.unravel_index(np.argsort(map, axis=None), map.shape)
    n = page.COUNTED[how](map.size)
    counted = list(zip(rows[-n:], columns[-n:], strict=True))
    inside, front = set(), [np.unravel_index(map.argmax(), map.shape)]
    area = mask if mask[front[0]] else map >= (map.max() + 500) / 2
    while front:
        i, j = front.pop()
        if (i, j) not in inside and 0 <= i < 12 and 0 <= j < 17 and area[i, j]:
            inside.add((i, j))
            front += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    assert share == pytest.approx(sum(map[p] for p in counted if p in inside) / sum(map[p] for p in counted), abs=1e-4)
    ys, xs = zip(*inside, strict=True)
    assert [round(n, 4) for n in (min(xs) / 17, min(ys) / 12)] == [x, y]
    assert round((max(xs) - min(xs) + 1) / 17, 4) == w and round((max(ys) - min(ys) + 1) / 12, 4) == h


def test_who_is_unlike_the_training_pictures():
    "Nearly everything is above the pixel threshold; a large defect is not that."
    maps = np.ones((3, 20, 20))
    maps[1, :10], maps[2] = 9, 9
    maps[2, 0, :10] = 0
    assert page.unlike(maps, 5.0).tolist() == [False, False, True]


def test_where_a_map_lies_on_its_picture():
    for view in (View(64), View((32, 48), resize=56), View(64, fit="crop")):
        size = (120, 200)
        x, y, w, h = page.frame_of(view, size)
        back = np.isfinite(view.back(np.ones(view.shape, np.float32), size))
        rows, columns = np.flatnonzero(back.any(1)), np.flatnonzero(back.any(0))
        assert [rows[0] / 120, (rows[-1] + 1) / 120] == pytest.approx([y, y + h], abs=0.02)
        assert [columns[0] / 200, (columns[-1] + 1) / 200] == pytest.approx([x, x + w], abs=0.02)


@given(st.text(max_size=40))
def test_no_text_ends_the_script(text):
    inside = page.in_script({"x": text})
    assert not re.search("[<>&\u2028\u2029]", inside) and json.loads(inside) == {"x": text}


def test_the_words_at_the_top():
    few = Calibration(np.arange(7.0), np.arange(7.0), 0.0, 0.05)
    assert "7 good pictures promise that at most 12.5 %" in page.promise_said(few) and "cannot" in page.promise_said(few)
    sure = Calibration(np.arange(99.0), np.arange(99.0), 0.0, 0.05, 0.9)
    assert "with confidence 0.9" in page.promise_said(sure)
    labels = np.array([0, 0, 1, 1, 1, 1])
    said = page.kinds_said(labels, ["good", "good", "a", "a", "b", "b"], np.array([1, 0, 0, 0, 1, 0], bool))
    assert said.startswith("1 of 4 abnormal pictures are found, 1 of 2 good ones called abnormal.")
    assert said.endswith("2 kinds of defect, 1 of them less than half the time.")
    assert page.kinds_said(np.array([-1]), ["?"], np.array([True])) == ""


def test_a_widget_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    if find_spec("anywidget") is None:
        assert 'pip install "g100[lab]"' in line_of(page.widget, {})


# ---- in a browser


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    "The result of a small run with a hard task: names of all kinds, two defects, verdicts of all four sorts."
    root = mvtec_folder(tmp_path_factory.mktemp("page") / "part", good=24, bad=12, size=32)
    rng = np.random.default_rng(0)
    bad, other = root / "test" / "spot", root / "test" / "<img src=x onerror=alert(1)>"
    other.mkdir()
    names = [name for name in NAMES.values() if "/" not in name and "\0" not in name and len(name) < 60]
    for i, file in enumerate(sorted(bad.glob("*.png"))[:6]):
        file.rename(other / names[i])
    for file in sorted((root / "test").rglob("*.png")):  # noise, so that some are judged wrongly
        image = np.array(Image.open(file).convert("RGB")).astype(float)
        image += rng.normal(0, 40 * rng.random(), image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    parameters = {"image_size": 32, "calibration": 0.4, "target_fpr": 0.2}
    done = run_experiment("mean-picture", f"folder:{root}", parameters=parameters)
    return write_results(done, tmp_path_factory.mktemp("out") / "<b>result"), done


@pytest.fixture
def opened(chromium):
    "A function that opens a page; afterwards: no request has left it, and nothing was complained of."
    contexts, said, asked = [], [], []

    def open_at(url: str, width: int = 1400, scheme: str = "light", height: int = 900):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(url)
        tab.wait_for_selector("#g100[data-ready]")
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert not said, said
    assert all(url.startswith(("file:", "data:")) for url in asked), [url for url in asked if not url.startswith("file:")]


def matrix(tab) -> list[int]:
    return [int(text.replace(",", "")) for text in tab.locator(".matrix td b").all_inner_texts()]


def names(tab) -> list[str]:
    "The names of the cards that exist, in the order in which they are seen."
    return tab.locator(".card .name").all_text_contents()


def shown(tab) -> int:
    return int(tab.locator(".count").inner_text().split()[0].replace(",", ""))


def set_number(tab, label: str, value: float) -> None:
    box = tab.get_by_label(label, exact=True)
    box.fill(repr(float(value)))
    box.press("Enter")


def test_the_slider_moves_all_that_numpy_counts(result, opened):
    out, done = result
    tab = opened((out / "index.html").as_uri())
    y, s = done.data.test.labels, done.verdicts.score
    assert matrix(tab) == confusion_matrix(y, s > done.detector.threshold_).ravel().tolist()
    assert f"{100 * roc_auc_score(y, s):.1f} %" in tab.locator(".curves").inner_text()
    rng, calibration = np.random.default_rng(1), done.verdicts.calibration.scores
    for t in [*rng.uniform(s.min(), s.max(), 6), *s[:4].astype(float), s.max() + 1, s.min() - 1]:
        set_number(tab, "Score", t)
        called = s > t
        assert matrix(tab) == confusion_matrix(y, called).ravel().tolist()
        values = tab.locator(".values dd").all_inner_texts()
        wanted = [recall_score(y, called, pos_label=0), recall_score(y, called)]
        wanted += [precision_score(y, called)] if called.any() else []
        assert values[: len(wanted)] == [f"{100 * v:.1f} %" for v in wanted]
        promised = (1 + (calibration > t).sum()) / (len(calibration) + 1)
        assert float(tab.get_by_label("Promised rate, %").input_value()) == pytest.approx(100 * promised, rel=5e-3)
    for rate in (0.1, 0.2, 0.35, 0.5):
        set_number(tab, "Promised rate, %", 100 * rate)
        assert matrix(tab) == confusion_matrix(y, s > conformal_threshold(calibration, rate)).ravel().tolist()
    tab.get_by_label("threshold on the score").focus()
    before = matrix(tab)
    for _ in range(400):
        tab.keyboard.press("ArrowRight")
    assert sum(matrix(tab)[1::2]) < sum(before[1::2]) and "fewer" in tab.locator(".now").inner_text()
    tab.get_by_role("button", name="Reset").click()
    assert matrix(tab) == confusion_matrix(y, s > done.detector.threshold_).ravel().tolist()


def test_sorting_filtering_and_searching(result, opened):
    out, done = result
    tab = opened((out / "index.html").as_uri(), height=3000)
    test, s, called = done.data.test, done.verdicts.score, done.verdicts.is_anomalous
    told = json.loads((out / "page" / "data.json").read_text())["names"]
    assert names(tab) == [told[i] for i in np.argsort(-s, kind="stable")]
    tab.get_by_role("button", name="order: descending").click()
    assert names(tab) == [told[i] for i in np.argsort(-s, kind="stable")][::-1]
    tab.get_by_label("Truth").select_option("alarm")
    assert shown(tab) == ((test.labels == 0) & called).sum() == len(names(tab))
    tab.get_by_label("Truth").select_option("miss")
    assert shown(tab) == ((test.labels == 1) & ~called).sum()
    tab.get_by_role("button", name="Clear filters").click()
    tab.get_by_label("Verdict").select_option("abnormal")
    assert shown(tab) == called.sum()
    tab.get_by_label("Verdict").select_option("")
    defect = [kind for kind in set(test.defects) if "img" in kind][0]
    tab.get_by_label("Kind").select_option(defect)
    assert shown(tab) == test.defects.count(defect) == 6
    tab.get_by_label("Kind").select_option("")
    tab.get_by_placeholder("name").fill("GOOD/00")
    assert shown(tab) == sum("good/00" in name.lower() for name in told) > 0
    tab.locator(".matrix button").nth(1).click()
    assert tab.get_by_label("Truth").input_value() == "alarm"


def test_a_picture_opens_and_is_walked_by_keyboard(result, opened):
    out, done = result
    tab = opened((out / "index.html").as_uri())
    order = np.argsort(-done.verdicts.score, kind="stable")
    told = json.loads((out / "page" / "data.json").read_text())["names"]
    tab.locator(".card").first.click()
    title = tab.locator("dialog h2")
    assert title.inner_text() == told[order[0]]
    comes_true(tab, "[...document.querySelectorAll('dialog .sheet img')].every(i => i.complete && i.naturalWidth)")
    for key, k in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(order) - 1), ("Home", 0)):
        tab.keyboard.press(key)
        assert title.inner_text() == told[order[k]]
    for key, name in (("m", "Map"), ("o", "Mask"), ("r", "Worst region")):
        button = tab.locator("dialog button[data-toggle]", has_text=name)
        was = button.get_attribute("aria-pressed")
        tab.keyboard.press(key)
        assert button.get_attribute("aria-pressed") != was
    tab.keyboard.press("+")
    assert "scale(1.5)" in tab.locator(".sheet").get_attribute("style")
    tab.keyboard.press("0")
    assert "scale(1)" in tab.locator(".sheet").get_attribute("style")
    link = tab.url
    tab.keyboard.press("Escape")
    comes_true(tab, "!location.hash.includes('picture=')")
    assert not tab.locator("dialog").is_visible()
    again = opened(link)
    assert again.locator("dialog h2").inner_text() == told[order[0]], "the address leads there"


def test_text_from_elsewhere_stays_text(result, opened):
    out, _ = result
    tab = opened((out / "index.html").as_uri(), height=3000)
    assert "<img src=x" not in (out / "index.html").read_text()
    for i in range(tab.locator(".card").count()):
        tab.locator(".card").nth(i).click()
        tab.keyboard.press("Escape")
    assert tab.locator("img[src='x']").count() == 0 and tab.locator("script").count() == 2


@pytest.mark.parametrize("width, scheme", [(1400, "light"), (1400, "dark"), (420, "light"), (420, "dark")])
def test_it_is_accessible_and_fits_the_window(result, opened, width, scheme):
    out, _ = result
    tab = opened((out / "index.html").as_uri(), width, scheme)
    axe = (ROOT / "tests" / "vendor" / "axe.min.js").read_text()

    def bad() -> list[str]:
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html'][:150]} {v['nodes'][0]['failureSummary'][:300]}" for v in found
                if v["impact"] in ("serious", "critical")]  # fmt: skip

    tab.evaluate(axe)
    assert not bad()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    small = """[...document.querySelectorAll('#g100 *')].filter(e => e.childNodes.length && [...e.childNodes].some(n =>
        n.nodeType === 3 && n.data.trim()) && e.getClientRects().length && parseFloat(getComputedStyle(e).fontSize) < 10.4
        ).map(e => e.outerHTML.slice(0, 80))"""
    assert tab.evaluate(small) == []
    tab.locator(".card").first.click()
    assert not bad()
    assert tab.evaluate("document.querySelector('dialog').scrollWidth") <= width
    assert tab.title() and not tab.locator("img:not([alt])").count()


def test_one_file_alone(result, opened, tmp_path):
    "Nothing lies beside it, and it shows the same."
    _, done = result
    (tmp_path / "one.html").write_text(page.page_html(page.inspection_data(done.verdicts, "One")))
    tab = opened((tmp_path / "one.html").as_uri())
    assert matrix(tab) == confusion_matrix(done.data.test.labels, done.verdicts.is_anomalous).ravel().tolist()
    tab.locator(".card").first.click()
    comes_true(tab, "[...document.querySelectorAll('dialog .sheet img')].every(i => i.complete && i.naturalWidth)")


def test_twenty_thousand_are_a_window_of_few(opened, tmp_path):
    "Only what is near the window exists, wherever one scrolls to."
    rng, n = np.random.default_rng(0), 20_000
    rows = [{"name": f"{i:05d}.png", "score": float(s), "size": [300, 300], "marked": 0.0} for i, s in enumerate(rng.random(n))]
    record = Calibration(rng.random(999), rng.random(999), 0.5, 0.05)
    page.write_page(tmp_path, page.page_data("Many", [], rows, [page.run_data(rows, record)], 0.05))
    for i in (0, 1):
        page.keep_files(tmp_path / "page", i, {"thumb": page.photo(pictures(1, 32)[0])})
    text = (tmp_path / "index.html").read_text().replace("`${run.base}/${kind}/", "`${run.base}/thumb/000000.jpg?${kind}/")
    (tmp_path / "index.html").write_text(text)  # one picture for all
    tab = opened((tmp_path / "index.html").as_uri())
    assert shown(tab) == n and 10 < tab.locator(".card").count() < 200
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    last = f"{int(np.argmin([row['score'] for row in rows])):05d}.png"
    tab.wait_for_selector(f".card[title='{last}']")
    assert tab.locator(".card").count() < 200


def served(folder: Path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


def test_the_widget_is_the_same_page(result, chromium, tmp_path):
    "What anywidget is given, as a module in a page of its own."
    _, done = result
    data = page.inspection_data(done.verdicts)
    module = base64.b64encode((page.asset("page.js") + page.WIDGET).encode()).decode()
    (tmp_path / "index.html").write_text(f"""<!DOCTYPE html><title>w</title>
<style>{page.asset("page.css")}</style><div id="w"></div>
<script type="module">import w from "data:text/javascript;base64,{module}";
window.heard = ""; document.addEventListener("keydown", (event) => {{ window.heard += event.key; }}, true);
window.end = w.render({{ model: {{ get: () => ({page.in_script(data)}) }}, el: document.getElementById("w") }});</script>""")
    server = served(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab = chromium.new_page()
    tab.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
    tab.wait_for_selector("#w[data-ready]")
    assert matrix(tab) == confusion_matrix(done.data.test.labels, done.verdicts.is_anomalous).ravel().tolist()
    tab.locator(".card").first.click()
    assert tab.locator("dialog h2").inner_text() and "#" not in tab.url
    shown_map = tab.locator("dialog button[data-toggle='map']")
    tab.keyboard.press("m")
    assert shown_map.get_attribute("aria-pressed") == "false"
    tab.keyboard.press("Escape")
    tab.keyboard.press("x")
    assert tab.evaluate("window.heard") == "", "a notebook around it has keys of its own, and does not hear these"
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("y")
    tab.locator(".card").first.focus()
    tab.evaluate("window.end()")
    tab.keyboard.press("z")
    assert tab.evaluate("window.heard") == "yz"
    tab.close()
    server.shutdown()
    server.server_close()


SMALL = {"backbone": "resnet18", "weights": "random", "image_size": 64}


def test_a_benchmark_shows_the_same_picture_as_each_sees_it(opened, tmp_path):
    "One shared rate; recalls as numpy counts them; links there and back; what cannot be told apart is marked."
    data = f"mvtec:{mvtec_folder(tmp_path / 'part', good=24, bad=6, size=64)}"
    cells = [Cell(algorithm="patchcore", data=data, seed=0, parameters=SMALL),
             Cell(algorithm="mean-picture", data=data, seed=0, parameters={"image_size": 32, "calibration": 0.4})]  # fmt: skip
    with grid_opened(tmp_path / "all", cells):
        done = {cell.algorithm: run_experiment(cell.algorithm, data, parameters=cell.parameters) for cell in cells}
        for cell in cells:
            write_results(done[cell.algorithm], tmp_path / "all" / "cells" / cell.name)
        write_pages(tmp_path / "all", write_table(tmp_path / "all"))
    tab = opened((tmp_path / "all" / "index.html").as_uri())
    for rate in (0.1, 0.25):
        set_number(tab, "Rate, %", 100 * rate)
        for row in tab.locator(".byrun tbody tr").all():
            name, cells_of = row.locator("th").inner_text().strip(), row.locator("td").all_inner_texts()
            y, verdicts = done[name].data.test.labels, done[name].verdicts
            called = verdicts.score > conformal_threshold(verdicts.calibration.scores, rate)
            assert cells_of[1:3] == [f"{100 * recall_score(y, called, pos_label=k):.1f}" for k in (0, 1)]
            assert re.fullmatch(r"[\d.]+ [*=]", cells_of[0]), "marked"
    tab.locator(".card").first.click()
    assert tab.locator("dialog .pane").count() == 3, "the picture, and as both see it"
    comes_true(tab, "[...document.querySelectorAll('dialog .sheet img')].every(i => i.complete && i.naturalWidth)")
    name = tab.locator("dialog h2").inner_text()
    tab.locator("dialog .facts a").first.click()
    tab.wait_for_selector("dialog[open]")
    assert tab.locator("dialog h2").inner_text() == name and "/cells/" in tab.url
    tab.keyboard.press("Escape")
    tab.get_by_role("link", name="benchmark").click()
    tab.wait_for_selector(".byrun tbody tr")


def test_evidence_is_where_it_says(opened, tmp_path):
    "PatchCore's: the crop of a good picture, found again in that picture; and the page shows both crops."
    data = f"mvtec:{mvtec_folder(tmp_path / 'part', good=24, bad=4, size=64)}"
    done = run_experiment("patchcore", data, parameters=SMALL)
    out = write_results(done, tmp_path / "out", evidence=True)
    told = json.loads((out / "page" / "data.json").read_text())["runs"][0]["evidence"]
    model, remembered = done.detector.model_, done.detector.remembered_
    alarms = done.verdicts.is_anomalous
    assert 0 < alarms.sum() < len(alarms) == len(told), "both kinds, or the next line says nothing"
    assert [each is not None and len(each["pictures"]) == 2 for each in told] == alarms.tolist()
    train = done.data.train
    for member in range(0, len(model.bank), 5):
        name, y, x = origin_of(remembered, member)
        with torch.inference_mode():
            z = model.patches(next(batches(train[[train.names.index(name)]], done.detector.view_, 1)))
        h, w = z.shape[1:3]
        torch.testing.assert_close(z[0, int(y * h), int(x * w)], model.bank[member], rtol=1e-4, atol=1e-5)
    tab = opened((out / "index.html").as_uri())
    tab.locator(".card").first.click()
    comes_true(tab, "[...document.querySelectorAll('.crops img')].length === 2")
    comes_true(tab, "[...document.querySelectorAll('.crops img')].every(i => i.complete && i.naturalWidth)")
    assert "The nearest good patch" in tab.locator(".facts").inner_text()


def test_all_explain_one_picture_with_a_figure(result):
    from matplotlib.figure import Figure

    _, done = result
    assert isinstance(done.detector.explain(done.data.test[[0]]), Figure)
    assert "explain wants one picture, not 2" in line_of(done.detector.explain, done.data.test[[0, 1]])
    semi = SemiOrthogonal(**SMALL, k=8).fit(pictures(12, 64), device="cpu")
    texts = [text.get_text() for text in semi.explain(pictures(1, 64)).findobj(lambda a: hasattr(a, "get_text"))]
    assert any("standard deviations from the mean of the 12 good ones" in text for text in texts)


def test_the_mean_of_the_good_pictures_stands_beside_an_alarm(opened, tmp_path):
    "Semi-orthogonal's: the same place in the picture and in the mean, which a saved model knows."
    root = mvtec_folder(tmp_path / "part", good=24, bad=4, size=64)
    done = run_experiment("semi-ort", f"mvtec:{root}", parameters=SMALL | {"k": 8, "levels": (1, 2)})
    out = write_results(done, tmp_path / "out", evidence=True)
    told = json.loads((out / "page" / "data.json").read_text())["runs"][0]["evidence"]
    alarms, taught = done.verdicts.is_anomalous, done.data.train
    assert alarms.any() and [each is not None for each in told] == alarms.tolist()
    i = int(np.argmax(done.verdicts.score))
    assert [text for text, _ in told[i]["pictures"]] == ["this picture", "mean of 24 good pictures"]
    own, mean = (np.array(Image.open(out / "page" / file)).astype(float) for _, file in told[i]["pictures"])
    place = np.divmod(done.verdicts.map[i].argmax(), 64)
    rows, columns = (slice(top, top + 16) for top in (min(max(0, n - 8), 48) for n in place))
    for crop, whole in ((own, done.data.test[i]), (mean, np.mean([taught[k] for k in range(24)], axis=0))):
        assert np.abs(crop - whole[rows, columns]).mean() < 4, "as a JPEG shows it"
    tab = opened((out / "index.html").as_uri())
    tab.locator(".card").first.click()
    comes_true(tab, "[...document.querySelectorAll('.crops img')].length === 2")
    comes_true(tab, "[...document.querySelectorAll('.crops img')].every(i => i.complete && i.naturalWidth)")
    assert "mean of 24 good pictures" in tab.locator(".crops").inner_text()


QUICK = {
    "RIAD": {"ks": (4, 8), "width": 4},
    "FAVAE": {"width": 4, "z": 4, "backbone": "resnet18", "weights": "random"},
    "KDAD": {"width": 4, "backbone": "resnet18", "weights": "random"},
    "FCDD": {"backbone": "resnet18", "weights": "random"},
}


def test_a_page_may_be_one_file(within, opened, tmp_path):
    "With all its pictures and what its alarms rest on; nothing is beside it, and it opens anywhere."
    root = mvtec_folder(tmp_path / "part", good=24, bad=4, size=64)
    parameters = {"image_size": 64, "epochs": 1} | QUICK["FAVAE"]
    done = run_experiment("favae", f"mvtec:{root}", parameters=parameters)
    done.detector.save(tmp_path / "model")
    threshold = str(float(np.median(done.verdicts.score)))
    words = ("--out", tmp_path / "out", "--embed", "--evidence", "--threshold", threshold, "--device", "cpu")
    assert within("inspect", tmp_path / "model", root / "test", *words).returncode == 0
    shutil.copy(tmp_path / "out" / "index.html", tmp_path / "alone.html")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".g100", "index.html", "pictures", "verdicts.csv"]
    tab = opened((tmp_path / "alone.html").as_uri())
    tab.locator(".card").first.click()
    comes_true(tab, "[...document.querySelectorAll('.crops img')].length === 2")
    comes_true(tab, "[...document.querySelectorAll('img')].every(i => i.complete && i.naturalWidth)")
    assert "What the code of the picture cannot say here" in tab.locator(".facts").inner_text()


@pytest.mark.parametrize("name", QUICK)
def test_every_learner_tells_what_an_alarm_rests_on(name):
    "A sentence of shares that make a whole, and of those that paint the painting."
    X = pictures(12, 64)
    detector = getattr(g100, name)(image_size=64, epochs=1, calibration=0.4, **QUICK[name]).fit(X, device="cpu")
    told = detector.evidence(X[:1], (0.25, 0.6))
    shares = [int(share) for share in re.findall(r"(\d+) %", told["said"])]
    assert len(shares) >= 2 and shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= len(shares), told["said"]
    assert ("seen" in told) == (name in ("RIAD", "FAVAE"))
    for painted in told.get("seen", {}).values():
        assert painted.shape == (64, 64, 3) and painted.min() >= 0 and painted.max() <= 1
    assert "explain wants one picture, not 2" in line_of(detector.explain, X[:2])


def test_a_notebook_explores_or_shows_a_figure(result, monkeypatch):
    from matplotlib.figure import Figure

    verdicts = result[1].verdicts
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert isinstance(verdicts.explore(), Figure)
    monkeypatch.undo()
    if find_spec("anywidget"):
        assert verdicts[:3].explore().data["names"] == [page.escaped(name) for name in verdicts.names[:3]]


def test_the_static_page_says_what_it_needs(result):
    text = (result[0] / "index.html").read_text()
    assert "<noscript>" in text and "Content-Security-Policy" in text and "<title>mean-picture on" in text
