"""The page of verdicts: how long until it can be used, as ratios to an empty page, and what writing it adds to `inspect`.

`python -m tests.benchmarks.page` prints a line a size. Needs playwright and chromium.
"""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from g100.foundations import page
from g100.foundations.calibration import Calibration
from tests.toys import MeanPicture, pictures

EMPTY = '<!DOCTYPE html><title>e</title><main id="g100" data-ready="true">empty</main>'


def many(folder: Path, n: int) -> None:
    "A page of n pictures, half of them with an outline, whose files are there."
    rng = np.random.default_rng(0)
    outline = "M" + "L".join(f"{x} {y}" for x, y in rng.integers(0, 1000, (24, 2))) + "Z"
    alike = {"size": [300, 300], "marked": 0.1, "region": [0.1, 0.1, 0.2, 0.2, 0.7], "far": False}
    rows = [{"name": f"part/{i:06d}.png", "score": float(s), "outline": outline * (i % 2)} | alike
            for i, s in enumerate(rng.random(n))]  # fmt: skip
    file = {"thumb": page.photo(pictures(1, 160)[0], 80), "map": page.heat_picture(rng.random((160, 160)), (0, 1))}
    for i in range(n):
        page.keep_files(folder / "page", i, file)
    record, labels = Calibration(rng.random(999), rng.random(999), 0.5, 0.05), rng.integers(0, 2, n)
    data = page.page_data("Many", [], rows, [page.run_data(rows, record)], 0.05)
    page.write_page(folder, data | {"labels": labels.tolist(), "defects": ["ab"[y] for y in labels]})


def ready(browser, url: str) -> float:
    "Seconds until the page at this address has been built, the fastest of three."
    took = []
    for _ in range(3):
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        tab.goto(url, wait_until="commit")
        tab.wait_for_selector("#g100[data-ready]", state="attached")
        took.append(time.perf_counter() - start)
        tab.close()
    return min(took)


def writing() -> float:
    "Seconds for the page's files of a picture of 900 x 900 pixels."
    image = pictures(1, 900)[0]
    verdicts = MeanPicture(image_size=224, calibration=0.4).fit(pictures(30, 224), device="cpu").inspect([image])
    with tempfile.TemporaryDirectory() as place:
        took = []
        for _ in range(20):
            start = time.perf_counter()
            page.keep_files(Path(place), 0, page.files_of(verdicts, 0, image))
            page.told_of(verdicts, 0, image.shape[:2])
            took.append(time.perf_counter() - start)
    return min(took)


def main() -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, tempfile.TemporaryDirectory() as place:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        (Path(place) / "empty.html").write_text(EMPTY)
        empty = ready(browser, (Path(place) / "empty.html").as_uri())
        print(f"empty page: {1000 * empty:.0f} ms")
        for n in (549, 20_000):
            (folder := Path(place) / str(n)).mkdir()
            many(folder, n)
            took = ready(browser, (folder / "index.html").as_uri())
            print(f"{n} pictures: {1000 * took:.0f} ms, {took / empty:.1f} times an empty page")
        browser.close()
    print(f"the files of a picture of 900 x 900: {1000 * writing():.1f} ms")


if __name__ == "__main__":
    main()
