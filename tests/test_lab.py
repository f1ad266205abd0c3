"""The widget and a slider in a real JupyterLab and a real browser: `pytest -m slow tests/test_lab.py`, with the extra [lab]."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import nbformat
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tests.notebooks import ROOT
from tests.test_page import comes_true, matrix, set_number
from tests.toys import MeanPicture, pictures, spotted

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]
CELLS = {"explore": "from tests.test_lab import judged\n\njudged().explore()",
         "flip": "from tests.test_flip import three\n\nthree('low', 'middle', 'high')"}  # fmt: skip


def judged():
    "Verdicts on twelve good pictures and six with a spot, of which some are wrong."
    from g100.foundations.pictures import ImageSet

    images = [*pictures(12, 32, seed=2), *(pictures(6, 32, seed=3) // 2 + spotted(6, 32)[0] // 2)]
    names, labels = [f"{i:02d}.png" for i in range(18)], [0] * 12 + [1] * 6
    test = ImageSet(images, names, labels, ["good"] * 12 + ["spot"] * 6, [None] * 18)
    return MeanPicture(image_size=32, calibration=0.4, target_fpr=0.2).fit(pictures(60, 32), device="cpu").inspect(test)


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab of this environment, with nothing of the user's in it; its folder is `tmp_path`."
    for module in ("jupyterlab", "anywidget"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed (it comes with the extra lab)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root := tmp_path / "notebooks").mkdir()
    for name, cell in CELLS.items():
        cells, kernel = map(nbformat.v4.new_code_cell, (cell, "1 + 1")), {"name": "python3", "display_name": "Python 3"}
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), root / f"{name}.ipynb")
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "spaces"),
            "PYTHONPATH": str(ROOT)}  # fmt: skip
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
             "--IdentityProvider.token=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
             f"--ServerApp.root_dir={root}"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], env=os.environ | own, cwd=root, stdout=log,
                                  stderr=subprocess.STDOUT)  # fmt: skip
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def run_first(tab, address: str) -> None:
    "Open a notebook and run its first cell."
    tab.set_default_timeout(300_000)
    tab.goto(address)
    tab.locator(".jp-Notebook .jp-CodeCell").first.click()
    tab.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    tab.keyboard.press("Control+Enter")


def test_the_widget_lives_in_jupyterlab(lab, chromium, tmp_path):
    "It counts as scikit-learn does, a picture opens, and keys that the notebook knows too are the widget's there."
    verdicts = judged()
    y, s = verdicts.images.labels, verdicts.score
    tab = chromium.new_page(viewport={"width": 1400, "height": 1000})
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    run_first(tab, f"{lab}/lab/tree/explore.ipynb")
    tab.wait_for_selector(".g100[data-ready]")
    assert matrix(tab) == confusion_matrix(y, verdicts.is_anomalous).ravel().tolist()
    for t in (float(np.median(s)), float(s.max())):
        set_number(tab, "Score", t)
        assert matrix(tab) == confusion_matrix(y, s > t).ravel().tolist()
    tab.locator(".card").first.click()
    order = np.argsort(-s, kind="stable")
    title = tab.locator("dialog h2")
    for key, k in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 17), ("Home", 0)):
        tab.keyboard.press(key)
        assert title.inner_text() == verdicts.names[order[k]]
    for key, name in (("m", "Map"), ("r", "Worst region"), ("o", "Mask")):  # Markdown, raw and fold, for the notebook
        button = tab.locator("dialog button[data-toggle]", has_text=name)
        was = button.get_attribute("aria-pressed")
        tab.keyboard.press(key)
        assert button.get_attribute("aria-pressed") != was
    comes_true(tab, "[...document.querySelectorAll('dialog .sheet img')].every(i => i.complete && i.naturalWidth)")
    tab.keyboard.press("Escape")
    assert not tab.locator("dialog").is_visible()
    for key in "mrox":
        tab.keyboard.press(key)
    assert tab.locator(".jp-CodeCell").count() == 2 and tab.locator(".g100[data-ready]").count() == 1
    assert not complaints
    if shots := os.environ.get("G100_SHOTS"):
        tab.screenshot(path=f"{shots}/lab.png")
    tab.close()


def test_a_slider_lives_in_jupyterlab(lab, chromium):
    "Its keys move it, and those that the notebook knows too do nothing to the notebook."
    tab = chromium.new_page()
    run_first(tab, f"{lab}/lab/tree/flip.ipynb")
    slider, image, said = (tab.locator(f".jp-OutputArea figure {part}") for part in ("input", "img", "span"))
    slider.wait_for()
    assert said.inner_text() == "middle"
    slider.focus()
    walk = {"ArrowRight": "high", "ArrowDown": "middle", "Home": "low", "x": "low", "ArrowUp": "middle", "m": "middle"}
    for key, label in walk.items():
        tab.keyboard.press(key)
        assert (said.inner_text(), image.get_attribute("alt")) == (label, f"Height: {label}"), key
    assert tab.locator(".jp-CodeCell").count() == 2 and tab.locator(".jp-OutputArea figure").count() == 1
    tab.close()
