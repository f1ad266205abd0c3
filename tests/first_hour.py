"""An engineer's first hour with g100: the README's lines and a little more, away from any clone.

Copied into an empty folder and run there by a Python that has g100 installed: `python first_hour.py`. Each step is a
function, and they run in the order in which they stand; a step that fails ends the hour. To add one, write it and
put `@step` before it.
"""

import csv
import os
import re
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import metadata, version
from pathlib import Path

import cv2
import jedi
import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import g100

STEPS = []
README = metadata("g100").get_payload() or metadata("g100")["Description"]


def step(work):
    STEPS.append(work)
    return work


def blocks(language: str) -> list[str]:
    "The README's blocks of code in that language."
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command(*words: str, **environment: str) -> str:
    "What the installed command prints; it must succeed."
    told = [Path(sys.executable).parent / "g100", *words]
    done = subprocess.run(told, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def frame(seed: int, spot: bool = False) -> np.ndarray:
    "A frame as OpenCV gives one from a camera: uint8 (H, W, 3), blue first; noise on grey, and a hole if `spot`."
    image = np.random.default_rng(seed).normal((90, 110, 130), 8, (96, 128, 3)).clip(0, 255).astype(np.uint8)
    return cv2.circle(image, (30 + seed % 70, 45), 12, (10, 10, 40), -1) if spot else image


def write(folder: str, frames: list[np.ndarray], end: str = ".png") -> None:
    "The frames as files in that folder."
    Path(folder).mkdir(parents=True)
    for i, image in enumerate(frames):
        assert cv2.imwrite(f"{folder}/{i:03d}{end}", image)


@step
def it_is_the_installed_one():
    home = Path(g100.__file__).parent
    assert home.is_relative_to(sysconfig.get_path("purelib")), f"{home} is not what was installed"
    assert version("g100") == g100.__version__ and (home / "py.typed").is_file()
    assert command("--version") == f"g100 {g100.__version__}\n"


@step
def pictures_are_there():
    good, bad = [frame(i) for i in range(100)], [frame(100 + i, spot=True) for i in range(4)]
    write("good", good)
    write("new", good[:2] + bad)
    write("bottle/train/good", good)
    write("bottle/test/good", [frame(200 + i) for i in range(6)])
    write("bottle/test/hole", bad)
    write("bottle/ground_truth/hole", [255 * (image.max(axis=2) <= 40).astype(np.uint8) for image in bad], "_mask.png")
    write("photos", good[2:4] + bad[:1])


@step
def the_readme_in_python():
    "Its lines as they stand there, in one namespace."
    lines = {"frame": frame(5, spot=True)}
    for block in blocks("python"):
        exec(block, lines)
    assert lines["verdicts"].is_anomalous.tolist() == [False, False, True, True, True, True]
    assert lines["load"]("model").predict("new/").tolist() == [1, 1, -1, -1, -1, -1]


@step
def one_frame_as_from_a_camera():
    detector = g100.load("model", device="cpu")
    for image, bad in ((frame(300), False), (frame(5, spot=True), True)):
        verdict = detector.inspect(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None])
        assert verdict.is_anomalous.tolist() == [bad] and verdict.map.shape == (1, 224, 224)
        assert verdict.mask.any() == bad


@step
def a_frame_in_the_order_of_opencv():
    detector, image = g100.load("model", device="cpu"), frame(7, spot=True)
    as_it_is, turned = detector.inspect(image, channels="bgr"), detector.inspect(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    np.testing.assert_array_equal(as_it_is.score, turned.score)
    assert len(as_it_is) == 1 and detector.inspect([image, image[:80]], channels="bgr").map.shape == (2, 224, 224)


@step
def verdicts_are_looked_at():
    verdicts = g100.load("model").inspect("new/*.png")
    assert [row["is_anomalous"] for row in verdicts.table()] == [False, False, True, True, True, True]
    assert verdicts._repr_html_().count("<img") == 6 and len(verdicts[verdicts.is_anomalous]) == 4
    verdicts.plot("003.png").savefig("verdict.png")


@step
def in_scikit_learns_hands():
    paths = np.array(sorted(map(str, Path("good").iterdir()))[:60])
    small = g100.PatchCore(image_size=64, sigma=1.0)
    good = lambda model, X, y=None: (model.predict(X) == 1).mean()  # noqa: E731
    held = GridSearchCV(small, {"coreset_ratio": [0.02, 0.1]}, cv=2, scoring=good)
    assert held.fit(paths).best_estimator_.predict(paths[:3]).shape == (3,) and held.best_score_ > 0.7
    line = make_pipeline(FunctionTransformer(lambda names: [f"new/{name}" for name in names]), small.fit(paths))
    assert line.predict(["004.png"]).tolist() == [-1]


@step
def an_algorithm_of_ones_own():
    from residual import FeatureResidual  # the file beside this script, as chapter 34 writes it

    detector = FeatureResidual(image_size=64, sigma=2.0).fit("good/")
    assert detector.inspect("new/").is_anomalous[2:].all()
    detector.save("mine")
    place, out = "residual:FeatureResidual", ["--out", "mine-result", "--set", "image_size=64"]
    said = command("run", place, "--data", "mvtec:bottle", *out, PYTHONPATH=".")
    assert "image_auroc" in said and Path("mine-result/report.html").is_file()
    command("inspect", "mine", "photos", "--out", "mine-verdicts", "--algorithm", place, PYTHONPATH=".")


@step
def tools_know_it():
    Path("right.py").write_text("import numpy as np\n\nframe = np.zeros((9, 9, 3), np.uint8)\n" + blocks("python")[0])
    Path("wrong.py").write_text("from g100 import PatchCore\n\nPatchCore(coreset_ratoi=0.1)\n")
    words = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "right.py", "wrong.py"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert "right.py" not in said and 'Unexpected keyword argument "coreset_ratoi"' in said, said
    offered = jedi.Script("from g100 import PatchCore\nPatchCore(").get_signatures()[0].params
    assert {"coreset_ratio", "image_size", "target_fpr"} <= {p.name for p in offered}


@step
def saved_and_loaded_says_the_same():
    before = g100.load("model")
    before.save("again")
    one, other = (model.inspect("new/") for model in (before, g100.load("again")))
    np.testing.assert_array_equal(one.map, other.map)
    np.testing.assert_array_equal(one.score, other.score)


@step
def the_readme_on_the_command_line():
    "Its commands as they stand there, but for the benchmark, which takes its time, and the watch, which has no end."
    lines = [line.split("#")[0].split() for block in blocks("bash") for line in block.splitlines() if line.startswith("g100 ")]
    told = {words[1]: command(*words[1:]) for words in lines if words[1] != "benchmark" and "--watch" not in words}
    assert set(told) == {"run", "inspect", "export", "list", "doctor"} and "given): 0 verdicts changed" in told["export"]
    assert Path("result/report.html").is_file() and "image_auroc" in told["run"] and "patchcore" in told["list"]
    assert '"commit": null' in Path("result/metrics.json").read_text(), "no clone is behind it"
    with open("verdicts/verdicts.csv", encoding="utf-8") as file:
        assert [line["is_anomalous"] for line in csv.DictReader(file)] == ["0", "0", "1"]
    assert cv2.imread("verdicts/pictures/000.png").shape == (96, 128, 3)


if __name__ == "__main__":
    for work in STEPS:
        start = time.perf_counter()
        work()
        print(f"{work.__name__.replace('_', ' '):34s} {time.perf_counter() - start:5.1f} s", flush=True)
