"""A seventh algorithm from outside, the one of chapter 34: by place, by decorator, by entry point, through every command."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from g100.foundations import detector as room
from g100.foundations.detector import ALGORITHMS, Detector, algorithm, algorithms, load, name_of, register
from tests.notebooks import ROOT
from tests.toys import Mean, MeanPicture, line_of, mvtec_folder, pictures, refused, seventh

pytestmark = pytest.mark.xdist_group("outside")
PLACE = "residual:FeatureResidual"
SMALL = ["--set", "image_size=64", "--set", "sigma=2", "--device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with the file that the chapter writes, and pictures."
    home = tmp_path_factory.mktemp("outside")
    text = seventh()
    assert len([line for line in text.splitlines() if line.strip()]) < 40
    (home / "residual.py").write_text(text)
    mvtec_folder(home / "bottle", size=64)
    return home


def command(home, *words, path="."):
    "The installed command in that folder, with PYTHONPATH set to this checkout and `path`."
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *([path] if path else [])])}
    words = [Path(sys.executable).parent / "g100", *map(str, words)]
    return subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def result(home):
    done = command(home, "run", PLACE, "--data", "mvtec:bottle", "--out", "result", *SMALL)
    assert done.returncode == 0, done.stderr
    return home / "result"


def test_it_runs_and_is_reported(result):
    row = json.loads((result / "metrics.json").read_text())
    assert row["algorithm"] == PLACE and row["params"]["kept"] == 0.97 and row["image_auroc"] > 0.9
    assert "FeatureResidual" in (result / "report.html").read_text()
    assert json.loads((result / "model" / "model.json").read_text())["algorithm"] == "residual"


def test_its_model_judges_when_it_is_told_whose_it_is(result, home):
    words = ["inspect", "result/model", "bottle/test/spot", "--out"]
    refused(command(home, *words, "a"), "'residual' is not known here", "--algorithm")
    done = command(home, *words, "b", "--algorithm", PLACE)
    assert done.returncode == 0, done.stderr
    with (home / "b" / "verdicts.csv").open() as file:
        mine = [float(line["score"]) for line in csv.DictReader(file)]
    with (result / "scores.csv").open() as file:
        theirs = [float(line["score"]) for line in csv.DictReader(file) if line["name"].startswith("test/spot")]
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.slow
def test_it_stands_in_a_benchmark_of_two_processes(home):
    words = ["benchmark", "--algorithms", f"patchcore,{PLACE}", "--data", "mvtec:bottle", "--jobs", "2", "--out", "table"]
    done = command(home, *words, *SMALL, "--set", f"{PLACE}:kept=0.9")
    assert done.returncode == 0, done.stderr
    with (home / "table" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["algorithm"] for row in rows} == {"patchcore", PLACE} and '"kept": 0.9' in str(rows)
    assert "residual" in (home / "table" / "report.html").read_text()
    assert all(":" not in folder.name for folder in (home / "table" / "cells").iterdir())


def test_without_a_path_the_way_is_said(home):
    refused(command(home, "run", PLACE, "--data", "mvtec:bottle", "--out", "x", path=None), "PYTHONPATH=.")


def test_an_installed_package_brings_its_algorithm(home, result):
    "An entry point, as `pip install` would leave it; in processes that import nothing of it themselves."
    info = home / "site" / "residual-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: residual\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[g100.algorithms]\nresidual = {PLACE}\npatchcore = {PLACE}\nbroken = nowhere:No\n")
    (home / "site" / "residual.py").write_text((home / "residual.py").read_text())
    listed = command(home, "list", path=str(home / "site"))
    assert listed.returncode == 0 and "residual     What the principal subspace" in listed.stdout
    assert "broken       cannot be used: algorithm 'nowhere:No': ModuleNotFoundError" in listed.stdout
    assert "patchcore    The distance to the nearest" in listed.stdout  # no package takes the name of one of the six
    script = "from g100 import load; print(type(load('result/model')).__name__)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(home / "site")])}
    done = subprocess.run([sys.executable, "-c", script], cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "FeatureResidual\n", done.stderr


@pytest.mark.parametrize(("name", "said"), [
    ("patchcoer", "did you mean 'patchcore'"), ("nowhere:No", "ModuleNotFoundError"), ("json:dumps", "is no detector"),
    ("tests.toys:Nothing", "AttributeError"), (":", "algorithm ':'"), ("os:path.join", "is no detector"),
])  # fmt: skip
def test_what_is_no_algorithm_is_said(name, said):
    assert said in line_of(algorithm, name)


def test_a_name_is_given_once():
    assert name_of(MeanPicture) == "mean-picture" and algorithms()["mean-picture"] == "tests.toys:MeanPicture"
    assert register("mean-picture")(MeanPicture) is MeanPicture  # as when a cell is run again
    assert "the name belongs to g100.algorithms.riad:RIAD" in line_of(register("riad"), MeanPicture)
    assert "small letters" in line_of(register, "Mean Picture")
    hidden = type("Hidden", (MeanPicture,), {"__qualname__": "f.<locals>.Hidden"})
    assert "inside a function" in line_of(register("hidden"), hidden)
    assert "hidden" not in ALGORITHMS


class Grows(MeanPicture):
    "Learns a buffer that `build` does not make."

    def learn(self, model, lessons):
        super().learn(model, lessons)
        model.register_buffer("more", torch.zeros(1))


class Holds(Detector):
    "Has a parameter that JSON does not give back."

    what: object = None

    def build(self, size):
        return Mean(size)

    def learn(self, model, lessons):
        model.mean.fill_(0.5)


def test_save_refuses_what_load_could_not_restore(tmp_path):
    class Hidden(MeanPicture):
        "Nobody finds it again."

    for kind, parameters, said in ((Hidden, {}, "could not find this class"), (Grows, {}, "more is only in one"),
                                   (Holds, {"what": nn.Identity()}, "what JSON gives back")):  # fmt: skip
        detector = kind(image_size=16, **parameters).fit(pictures(30), device="cpu")
        assert said in line_of(detector.save, tmp_path / "m")
        assert not list(tmp_path.iterdir())


def test_a_card_names_a_module_but_does_not_import_it(tmp_path, monkeypatch):
    model = Holds(image_size=16).fit(pictures(30), device="cpu").save(tmp_path / "m")
    card = json.loads((model / "model.json").read_text())
    assert card["algorithm"] == "tests.test_outside:Holds"
    monkeypatch.setattr(room, "import_module", None, raising=False)
    assert type(load(model, device="cpu")) is Holds  # imported already
    monkeypatch.delitem(sys.modules, "tests.test_outside")
    assert "if you trust it" in line_of(load, model)
    assert "tests.test_outside" not in sys.modules
    assert type(load(model, device="cpu", algorithm=Holds)).__name__ == "Holds"
