"""The command line and the report: what is left in the folder, and what is said when something is wrong."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g100.algorithms.patchcore import PatchCore
from g100.algorithms.riad import RIAD
from g100.experiments import experiment as room
from g100.experiments.cli import metric_size_from, parse_settings
from g100.experiments.experiment import Experiment, overlay_name, peak_memory_mb, run_experiment, write_results
from g100.experiments.report import checkpoint_of, execute, template, to_html, who_saw_what
from g100.experiments.table import result_table
from g100.foundations.detector import load
from g100.foundations.errors import G100Error
from g100.foundations.store import read_card, write_tensors
from tests.notebooks import ROOT
from tests.toys import MeanPicture, line_of, mvtec_folder, pictures, refused

pytestmark = pytest.mark.xdist_group("cli")  # its fixtures are made once

COLUMNS = """algorithm dataset category seed params backbone image_size counts threshold_image threshold_pixel target_fpr
promised_fpr calibration_method calibration_shortage normal_recall abnormal_recall precision_image image_auroc image_aupr
image_f1_max pixel_auroc pixel_aupr aupro pixel_f1_max seg_f1 aupro_05 aupimo metric_size regions regions_lost fit_seconds
seconds_per_image peak_memory_mb versions machine commit dataset_sha256""".split()
TINY = ["--backbone", "resnet18", "--weights", "random", "--set", "image_size=64", "--set", "sigma=2", "--device", "cpu"]


def g100(*words, cwd=None, **environment: str) -> subprocess.CompletedProcess:
    "The installed command, in a process of its own."
    command = [Path(sys.executable).parent / "g100", *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mvtec_folder(tmp_path_factory.mktemp("data") / "bottle", size=64)


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "result"
    done = g100("run", "patchcore", "--data", f"mvtec:{folder}", "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    return out, done


def test_run_leaves_everything_and_says_where(result):
    out, done = result
    left = {p.name for p in out.iterdir()}
    pages = {"index.html", "page", "report.ipynb", "report.html", "run.yaml"}
    assert left == pages | {".g100", "metrics.json", "scores.csv", "model", "pictures"}
    assert len(list((out / "pictures").rglob("*.png"))) == 16
    for name in ("index.html", "report.html", "pictures", "scores.csv", "model"):
        assert str(out / name) in done.stdout
    assert "image_auroc" in done.stdout and "PatchCore: 30 x 64 patches" in done.stderr
    assert "\r" not in done.stderr and "img/s" not in done.stderr, "no bar where there is no terminal"
    assert "Warning" not in done.stderr, "nothing but bars"
    assert sorted(p.name for p in out.parent.iterdir()) == ["result"], "no drafts are left"


def test_the_row_has_its_columns_and_sound_values(result, folder):
    row = json.loads((result[0] / "metrics.json").read_text())
    assert list(row) == COLUMNS
    assert row["counts"] == {"train": 30, "calibration": 30, "test_normal": 8, "test_abnormal": 8}
    assert row["calibration_method"] == "cross" and row["promised_fpr"] == 1 / 31 and row["calibration_shortage"] is None
    assert row["image_auroc"] == 1.0 and row["pixel_auroc"] > 0.8 and 0 < row["aupro"] <= 1
    assert row["category"] == "bottle" and row["params"]["image_size"] == 64 and len(row["dataset_sha256"]) == 64


def test_the_row_is_what_its_parts_say(result):
    "Recalls and AUROC again, from the table of scores."
    from sklearn.metrics import roc_auc_score

    row = json.loads((result[0] / "metrics.json").read_text())
    with (result[0] / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    y, s = (np.array([float(line[key]) for line in scores]) for key in ("label", "score"))
    called = np.array([int(line["is_anomalous"]) for line in scores])
    assert row["image_auroc"] == pytest.approx(roc_auc_score(y, s))
    assert row["normal_recall"] == (called[y == 0] == 0).mean() and row["abnormal_recall"] == (called[y == 1] == 1).mean()
    assert [float(line["p_value"]) <= row["promised_fpr"] + 1e-4 for line in scores] == called.astype(bool).tolist()


def test_the_page_asks_nobody_and_hides_nothing(result):
    page = (result[0] / "report.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']?(https?:)?//", page), "self-contained"
    assert page.count("data:image/png;base64") >= 5
    for word in ("Who saw what", "No test picture has set anything", "In hindsight", "In [", "random weights"):
        assert (word.lower() in page.lower()) == (word != "In ["), word
    assert "remembering" not in page, "progress bars stay out"
    assert "No description has been provided" not in page and "<details>" in page and "<title>g100: patchcore" in page


def test_inspect_judges_new_pictures(within, result, folder, tmp_path):
    out = tmp_path / "verdicts"
    done = within("inspect", result[0] / "model", folder / "test" / "spot", folder / "test" / "good" / "000.png", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "%|" not in done.stderr, "a bar is for a terminal"
    with (out / "verdicts.csv").open() as file:
        verdicts = list(csv.DictReader(file))
    assert len(verdicts) == 9 and all(v["is_anomalous"] == "1" for v in verdicts if "spot" in v["name"])
    for verdict in verdicts:
        assert Image.open(out / "pictures" / verdict["picture"]).size == (64, 64)
        assert (float(verdict["p_value"]) <= 1 / 31 + 1e-4) == (verdict["is_anomalous"] == "1")


def test_inspect_moves_the_threshold_or_says_why_not(within, result, folder, tmp_path):
    words = "inspect", result[0] / "model", folder / "test" / "good", "--target-fpr"
    done = within(*words, 0.3, "--out", tmp_path / "many")
    with (tmp_path / "many" / "verdicts.csv").open() as file:
        verdicts = list(csv.DictReader(file))
    assert done.returncode == 0 and all((float(v["p_value"]) <= 0.3) == (v["is_anomalous"] == "1") for v in verdicts)
    refused(within(*words, 0.01, "--out", tmp_path / "few"), "target_fpr=0.01: 30 good pictures", "needs 99")
    assert not (tmp_path / "few").exists()


def test_too_few_are_said_aloud(within, folder, tmp_path):
    few = ("--set", "calibration=0.2", "--set", "target_fpr=0.05")
    done = within("run", "patchcore", "--data", f"mvtec:{folder}", "--out", tmp_path / "result", *TINY, *few)
    assert done.returncode == 0 and "warning: 6 good pictures calibrate" in done.stderr.splitlines()[-1]
    row = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert "needs 19" in row["calibration_shortage"] and row["promised_fpr"] == 1 / 7
    assert "needs 19" in (tmp_path / "result" / "report.html").read_text()
    photo = folder / "test" / "good" / "000.png"
    done = within("inspect", tmp_path / "result" / "model", photo, "--out", tmp_path / "verdicts")
    assert "warning: 6 good pictures calibrate" in done.stderr
    lines = result_table([row]).splitlines()
    assert "patchcore †" in lines[2] and lines[-1].startswith("† Too few")


def test_every_picture_has_an_overlay_of_its_own(within, result, tmp_path):
    "Names that would be one, were folders flattened or extensions cut off."
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    colours = {"a/b.png": (9, 9, 200), "a_b.png": (9, 200, 9), "a_b.jpg": (200, 9, 9), "a_b.jpg.png": (9, 9, 9)}
    for name, colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(photos / name)
    assert within("inspect", result[0] / "model", photos, "--out", tmp_path / "out").returncode == 0
    with (tmp_path / "out" / "verdicts.csv").open() as file:
        shown = {verdict["name"]: tmp_path / "out" / "pictures" / verdict["picture"] for verdict in csv.DictReader(file)}
    assert set(shown) == set(colours) and len(set(shown.values())) == len(colours)
    assert len({file.read_bytes() for file in shown.values()}) == len(colours), "nobody has written over another's"


IMAGE = st.from_regex(r"([ab_.]{1,3}/){0,2}[ab_]{1,2}(\.png|\.jpg|\.PNG)(\.png)?", fullmatch=True)


@settings(deadline=None, max_examples=300)
@given(st.sets(IMAGE.filter(lambda name: "//" not in name and "/./" not in f"/{name}"), min_size=2))
def test_names_of_overlays_are_as_many_as_names_and_lie_inside(names):
    made = {overlay_name(name) for name in names}
    assert len(made) == len(names) and all(name.endswith(".png") for name in made)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in made)
    assert overlay_name("/etc/a.png") == "root/etc/a.png" and overlay_name("b/a.png") == "b/a.png"


def test_inspect_and_run_give_the_same_scores(within, result, folder, tmp_path):
    within("inspect", result[0] / "model", folder / "test", "--out", tmp_path / "verdicts")
    tables = []
    for file in (result[0] / "scores.csv", tmp_path / "verdicts" / "verdicts.csv"):
        with file.open() as text:
            tables.append({Path(line["name"]).parts[-2:]: line["score"] for line in csv.DictReader(text)})
    assert tables[0] == tables[1]


def test_papermill_alone_runs_the_template(folder, tmp_path):
    parameters = {"data": f"folder:{folder}", "out": str(tmp_path / "result"), "limit_train": 20}
    parameters |= {"device": "cpu", "parameters": {"backbone": "resnet18", "weights": "random", "image_size": 64}}
    papermill.execute_notebook(
        template("experiment"), tmp_path / "report.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    assert json.loads((tmp_path / "result" / "metrics.json").read_text())["counts"]["train"] == 20
    assert "seeded sample of 20" in to_html(nbformat.read(tmp_path / "report.ipynb", as_version=4), "report")


# --- what goes wrong: exit code 2, one line, nothing left ---


@pytest.mark.parametrize("words, said", [
    (("patchcor",), "did you mean 'patchcore'"), (("patchcore", "--set", "coreset_ration=1"), "did you mean 'coreset_ratio'"),
    (("patchcore", "--set", "coreset_ratio"), "KEY=VALUE"), (("patchcore", "--set", "coreset_ratio=0"), "coreset_ratio=0"),
    (("patchcore", "--weights", "nowhere.safetensors", "--backbone", "resnet18"), "nowhere.safetensors"),
    (("patchcore", "--set", "device=cpu"), "fit(X, device=...)"), (("riad", "--set", "verbose=True"), "fit(X, verbose=...)"),
])  # fmt: skip
def test_run_refuses_in_one_line(within, folder, tmp_path, words, said):
    refused(within("run", *words, "--data", f"mvtec:{folder}", "--out", tmp_path / "out"), said)
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize("spec, said", [
    ("mvtek:x", "did you mean 'mvtec'"), ("mvtec:nowhere", "nowhere"), ("elpv:duo", "duo"), ("mvtec:", "mvtec:DIR"),
])  # fmt: skip
def test_run_refuses_data_in_one_line(within, tmp_path, spec, said):
    refused(within("run", "patchcore", "--data", spec, "--out", tmp_path / "out"), said)
    assert not list(tmp_path.iterdir())


def test_an_unreadable_picture_is_named_or_left_out(within, folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "train" / "good" / "005.png").write_bytes(b"")
    broken = (data / "test" / "spot" / "003.png").read_bytes()
    (data / "test" / "spot" / "003.png").write_bytes(broken[: len(broken) // 2])
    refused(g100("run", "patchcore", "--data", f"mvtec:{data}", "--out", tmp_path / "out", *TINY), "003.png")  # sizes first
    assert not (tmp_path / "out").exists()
    done = g100("run", "patchcore", "--data", f"mvtec:{data}", "--out", tmp_path / "out", *TINY, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "005.png" in page and "003.png" in page, "what was left out is listed"
    words = ("inspect", tmp_path / "out" / "model", data / "test")
    done = within(*words, "--out", tmp_path / "left-out", "--skip-unreadable")
    assert done.returncode == 0 and "003.png" in done.stderr
    assert "spot/003.png" not in (tmp_path / "left-out" / "verdicts.csv").read_text()


def test_a_broken_picture_among_others_is_a_line_that_says_so(within, result, folder, tmp_path):
    "And the lines of the others are what they are without it, wherever it stands in its batch."
    shutil.copytree(folder / "test", tmp_path / "test")
    words = ("inspect", result[0] / "model", tmp_path / "test", "--out")
    assert within(*words, tmp_path / "whole").returncode == 0
    for name in ("good/002.png", "spot/003.png"):
        (tmp_path / "test" / name).write_bytes(b"no picture")
    done = within(*words, tmp_path / "some")
    assert done.returncode == 0 and "warning: 2 of 16 pictures cannot be read" in done.stderr
    lines = {}
    for name in ("whole", "some"):
        with (tmp_path / name / "verdicts.csv").open(newline="") as file:
            lines[name] = {line["name"]: line for line in csv.DictReader(file)}
    assert list(lines["some"]) == list(lines["whole"])
    for name, line in lines["some"].items():
        if name in ("good/002.png", "spot/003.png"):
            assert line["score"] == line["is_anomalous"] == "" and name in line["error"]
        else:
            assert line["is_anomalous"] == lines["whole"][name]["is_anomalous"] and line["error"] == ""
            assert float(line["score"]) == pytest.approx(float(lines["whole"][name]["score"]), rel=1e-4)
    for picture in (tmp_path / "test").rglob("*.png"):
        picture.write_bytes(b"no picture")
    refused(within(*words, tmp_path / "none"), "none of the 16 pictures can be read")
    assert not (tmp_path / "none").exists()


def test_a_folder_may_be_called_anything_and_stays_text(folder, tmp_path):
    "In the pages of a run and of a benchmark."
    evil = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(folder, evil)
    (evil / "test" / "good" / "<b>000.png").write_bytes(b"broken")
    words = ("--data", f"mvtec:{evil}", *TINY, "--set", "image_size=32")
    done = g100("run", "patchcore", *words, "--out", tmp_path / "out", "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in page and "<b>000" not in page and "onerror=alert(1)&" in page


def test_what_was_left_out_is_one_line_on_the_error_stream(result, folder, tmp_path):
    shutil.copytree(folder / "test" / "good", tmp_path / "photos")
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    done = g100("inspect", result[0] / "model", tmp_path / "photos", "--out", tmp_path / "out")
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert done.returncode == 0 and len(lines) == 1 and "1 file ignored" in lines[0] and "UserWarning" not in done.stderr


def test_an_existing_result_is_kept_unless_forced(within, result, folder):
    before = (result[0] / "metrics.json").read_bytes()
    words = ("run", "patchcore", "--data", f"mvtec:{folder}", "--out", result[0], *TINY)
    refused(within(*words), "exists", "--force")
    assert (result[0] / "metrics.json").read_bytes() == before
    assert g100(*words, "--force").returncode == 0


def test_inspect_refuses_what_is_no_model(within, folder, tmp_path):
    refused(within("inspect", tmp_path, folder / "test", "--out", tmp_path / "out"), "model.json")
    refused(within("inspect", tmp_path / "none", folder / "test", "--out", tmp_path / "out"), "no such model folder")


def test_list_names_what_there_is(within):
    done = within("list", "--backbones", "resnet18")
    assert done.returncode == 0
    for word in ("patchcore", "elpv:mono", "mvtec:DIR", "lite0", "resnet18"):
        assert word in done.stdout


def test_settings_are_json_where_they_can_be():
    given = ["a=1", "b=0.5", "c=[1, 2]", "d=resnet18", "e=None", "f=true", "g=a=b", "h=320,128", "i=(2, 3)", "j=a,b", "k=,"]
    expected = {"a": 1, "b": 0.5, "c": [1, 2], "d": "resnet18", "e": None, "f": True, "g": "a=b", "h": [320, 128], "i": [2, 3]}
    expected |= {"j": "a,b", "k": ","}
    assert parse_settings(given) == expected


# --- the experiment as a library ---


def test_no_masks_no_pixel_metrics(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, image in enumerate(pictures(25, 48)):
        Image.fromarray(image).save(flat / f"{i}.png")
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 48, "calibration": 0.2}
    done = run_experiment("patchcore", f"folder:{flat}", parameters=parameters)
    for column in ("image_auroc", "image_aupr", "abnormal_recall", "pixel_auroc", "aupro", "pixel_f1_max"):
        assert done.row[column] is None
    assert done.row["normal_recall"] is not None and any("false-positive rate" in remark for remark in done.remarks)
    write_results(done, tmp_path / "result")
    with pytest.raises(G100Error, match="finished result"):
        write_results(done, tmp_path / "result")


def test_same_seed_same_row(folder):
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 64}
    rows = [run_experiment("patchcore", f"mvtec:{folder}", parameters=parameters, seed=3).row for _ in range(2)]
    measured = {"fit_seconds", "seconds_per_image", "peak_memory_mb"}
    assert [{k: v for k, v in row.items() if k not in measured} for row in rows][0] == {
        k: v for k, v in rows[1].items() if k not in measured
    }


# --- a training that is cut off ---

SMALL = {"image_size": 32, "ks": [4, 8], "width": 4, "depth": 1, "epochs": 1, "sigma": 1}


def test_a_file_of_the_users_is_no_checkpoint(within, tmp_path):
    "And one that is a checkpoint is continued, or removed by force."
    (tmp_path / "out.checkpoint").write_text("a diary")
    words = ("run", "riad", "--data", "elpv:mono", "--out", tmp_path / "out")
    for more in ((), ("--resume",), ("--force",)):
        refused(within(*words, *more), "out.checkpoint", "delete it")
    assert (tmp_path / "out.checkpoint").read_text() == "a diary" and os.listdir(tmp_path) == ["out.checkpoint"]
    write_tensors(tmp_path / "out.checkpoint", {"w": torch.ones(1)}, {"fingerprint": {}, "state": {}})
    refused(within(*words), "--resume", "--force")
    assert checkpoint_of(tmp_path / "out", force=False, resume=True) == tmp_path / "out.checkpoint"
    assert os.listdir(tmp_path) == ["out.checkpoint"]
    assert checkpoint_of(tmp_path / "out", force=True, resume=False) == tmp_path / "out.checkpoint"
    assert not os.listdir(tmp_path)


def test_only_what_trains_is_told_of_the_checkpoint(folder, tmp_path):
    "And where it lay is in neither the row nor the model; how the fit was run is not, either."
    done = run_experiment("riad", f"mvtec:{folder}", parameters=SMALL, checkpoint=tmp_path / "kept", device="cpu", verbose=True)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"], "`fit` leaves it to the one that has named it"
    card = read_card(done.detector.save(tmp_path / "model"))
    for told in (done.row["params"], card["parameters"]):
        assert not {"checkpoint", "resume", "device", "verbose"} & set(told) and told["epochs"] == 1
    again = run_experiment("riad", f"mvtec:{folder}", parameters=SMALL, checkpoint=tmp_path / "kept", device="cpu")
    assert any("went on from its checkpoint" in remark for remark in again.remarks)
    assert again.row["threshold_image"] == done.row["threshold_image"] and again.row["fit_seconds"] > 0
    assert room.continued(RIAD(), None) == ({}, 0.0) == room.continued(MeanPicture(), tmp_path / "kept")


# --- what a run depends on, and what not ---


def test_the_kernel_looks_for_nothing_in_the_working_folder_and_asks_no_kernelspec(folder, tmp_path):
    "A stranger's matplotlib.py, the parent of a clone, and a kernel `python3` that somebody else has installed."
    home, kernel = tmp_path / "home", tmp_path / "jupyter" / "kernels" / "python3"
    (home / "g100" / "nbs").mkdir(parents=True)
    for module in ("matplotlib", "json", "torch"):
        (home / f"{module}.py").write_text(f"raise SystemExit('{module} of the working folder')")
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    words = ("run", "patchcore", "--data", f"mvtec:{folder}", "--out", "out", *TINY)
    done = g100(*words, cwd=home, JUPYTER_PATH=str(tmp_path / "jupyter"))
    assert done.returncode == 0, done.stderr
    assert (home / "out" / "report.html").is_file()


WHERE = "import sys, g100, matplotlib\nprint(sys.executable, g100.__file__, matplotlib.__file__, sys.flags.safe_path)"


def executed_where(start: list[str], cwd: Path, path: str | None) -> list[str]:
    "What a kernel prints that is started from a Python started by these words in that folder."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WHERE)])
    nb.metadata = nbformat.read(template("experiment"), as_version=4).metadata
    nbformat.write(nb, cwd / "where.ipynb")
    code = "from pathlib import Path; from g100.experiments.report import execute\n"
    code += "print(execute(Path('where.ipynb'), {}).cells[0].outputs[0].text)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ({"PYTHONPATH": path} if path else {})
    done = subprocess.run([sys.executable, *start, code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


FINDER = """import importlib.util, sys
class Editable:
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {file!r}) if name == "g100" else None
after = [getattr(finder, "__name__", "") for finder in sys.meta_path].index("PathFinder") + 1
sys.meta_path.insert(after, Editable)"""


def test_the_kernel_has_the_g100_that_started_it(tmp_path):
    """From the working folder alone (`python -c` looks there); by a PYTHONPATH; and in the parent of a clone, by a finder
    that is asked after the path, as one of an editable install is."""
    import matplotlib

    copy = shutil.copytree(ROOT / "g100", tmp_path / "clone" / "g100", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "clone" / "nbs").symlink_to(ROOT / "nbs")
    (tmp_path / "parent" / "g100").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FINDER.format(file=str(copy / "__init__.py")))
    for start, cwd, path in (
        (["-c"], copy.parent, None),
        (["-P", "-c"], tmp_path, str(copy.parent)),
        (["-P", "-c"], tmp_path / "parent", str(tmp_path / "site")),
    ):
        assert executed_where(start, cwd, path) == [sys.executable, str(copy / "__init__.py"), matplotlib.__file__, "True"]


def test_a_kernel_that_fails_leaves_the_report_that_was_there(tmp_path):
    from g100.experiments.report import run_report

    (tmp_path / "report.html").write_text("the old one")
    assert "did you mean 'patchcore'" in line_of(run_report, "experiment", {"algorithm": "patchcor"}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"] and (tmp_path / "report.html").read_text() == "the old one"
    assert "did you mean 'algorithm'" in line_of(execute, template("experiment"), {"algoritm": "patchcore"})


def test_no_module_needs_what_only_unix_has():
    "At the top of no module: `fcntl` and `resource` are not there on Windows."
    for file in (ROOT / "g100").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"fcntl", "resource", "termios", "pwd", "grp"} & set(names), file


def test_peak_memory_is_that_of_this_program_alone():
    "A process that a large one has started does not begin with the large one's peak, and it keeps its own."
    code = "from g100.experiments.experiment import peak_memory_mb as peak; import numpy as np; a = peak(); "
    code += "np.ones((300, 2**20), np.uint8).sum(); print(a, peak())"
    large = np.ones((600, 2**20), np.uint8)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    small, grown = map(float, done.stdout.split())
    assert len(large) == 600 and small < peak_memory_mb() - 400 and 299 <= grown - small < 400


@pytest.mark.parametrize("system", ["Linux", "Windows", "macOS", "another"])
def test_peak_memory_on_other_systems(monkeypatch, system):
    "What each system tells, in place of this one's."
    import psutil

    class Told:
        rss = 7 * 2**20

    if system == "Windows":
        Told.peak_wset = 9 * 2**20
    if system == "macOS":
        used = type("resource", (), {"RUSAGE_SELF": 0, "getrusage": lambda who: type("Used", (), {"ru_maxrss": 8 * 2**20})})
        monkeypatch.setitem(sys.modules, "resource", used)
        monkeypatch.setattr(room.sys, "platform", "darwin")
    status = "Name: x\nVmHWM:\t  6144 kB\n" if system == "Linux" else None
    monkeypatch.setattr(room.Path, "exists", lambda file: status is not None)
    monkeypatch.setattr(room.Path, "read_text", lambda file: status)
    monkeypatch.setattr(psutil, "Process", lambda: type("Process", (), {"memory_info": staticmethod(lambda: Told)}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_memory_mb() == {"Linux": 6, "Windows": 9, "macOS": 8, "another": 7}[system]


def test_the_report_counts_pictures_that_chose_the_epoch_with_crops_too(folder):
    parameters = SMALL | {"tile": 32, "overlap": 0}
    done = run_experiment("riad", f"mvtec:{folder}", parameters=parameters, device="cpu")
    assert isinstance(done, Experiment) and done.row["counts"] == {
        "train": 24, "calibration": 6, "validation": 3, "test_normal": 8, "test_abnormal": 8}  # fmt: skip
    assert "24 good pictures; 3 of them chose the epoch" in who_saw_what(done)


def test_what_is_told_to_a_run_is_no_parameter():
    for name in ("device", "verbose", "checkpoint", "resume"):
        assert f"{name} is no parameter of PatchCore any more" in line_of(room.make_detector, "patchcore", {name: "x"})
        assert f"{name} is no parameter of RIAD any more" in line_of(room.make_detector, "riad", {name: "x"}, True)
    made = room.make_detector("patchcore", {"levels": [2, 3]}, paper=True)
    assert made.levels == (2, 3) and made.backbone == PatchCore.paper().backbone


def test_the_metric_size_is_pixels_or_own():
    assert metric_size_from("512") == 512 and metric_size_from("own") is None
    for wrong in ("big", "-3", "2.5", ""):
        assert "--metric-size" in line_of(metric_size_from, wrong) and "own" in line_of(metric_size_from, wrong)


# --- update ---


def threshold_of(model: Path) -> float:
    return read_card(model)["fitted"]["threshold"]


def test_update_replaces_the_model_whole_and_writes_elsewhere_what_is_asked(within, result, tmp_path):
    place, more = tmp_path / "result", tmp_path / "more"
    shutil.copytree(result[0], place)
    more.mkdir()
    for i, picture in enumerate(pictures(6, 64, seed=21)):
        Image.fromarray(picture).save(more / f"{i}.png")
    before = (place / "model" / "model.json").read_bytes()
    done = within("update", place, more, "--out", tmp_path / "new", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "6 pictures joined, 36 have taught" in done.stdout and "as before" in done.stdout
    assert (place / "model" / "model.json").read_bytes() == before
    new = read_card(tmp_path / "new")
    assert new["fitted"]["counts"] == {"train": 36, "calibration": 30}
    assert threshold_of(tmp_path / "new") == threshold_of(place / "model")
    refused(within("update", place, more, "--out", tmp_path / "new"), "exists")
    done = within("update", place, more, "--keep-size", "--set", "max_memory=0.01")
    assert done.returncode == 0, done.stderr
    card = read_card(place / "model")
    assert card["fitted"]["counts"] == {"train": 36, "calibration": 6} and card["parameters"]["max_memory"] == 0.01
    assert threshold_of(place / "model") != threshold_of(tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["more", "new", "result"], "no drafts are left"
    done = within("inspect", place, more, "--out", tmp_path / "seen", "--no-pictures")
    assert done.returncode == 0, done.stderr


def test_update_says_in_one_line_what_cannot_be(within, result, tmp_path):
    place = tmp_path / "result"
    shutil.copytree(result[0], place)
    file = tmp_path / "one.png"
    Image.fromarray(pictures(1, 64)[0]).save(file)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    before = (place / "model" / "model.json").read_bytes()
    refused(within("update", place, file, "--set", "sigma=9"), "sigma was 2", "recalibrate first")
    refused(within("update", place, file, "--set", "bank_size=1"), "bank_size=1;", "--keep-size")
    refused(within("update", place, tmp_path / "bad.png"), "bad.png")
    refused(within("update", tmp_path / "none", file), "none")
    mean = MeanPicture(image_size=32).fit(pictures(20, 32)).save(tmp_path / "mean")
    refused(within("update", mean, file), "MeanPicture takes in no more pictures")
    assert (place / "model" / "model.json").read_bytes() == before


def test_update_of_semi_orthogonal(within, tmp_path):
    from g100.algorithms.semiorth import SemiOrthogonal

    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 64, "k": 20}
    place = SemiOrthogonal(**parameters).fit(pictures(30, 64), device="cpu").save(tmp_path / "model")
    for i, picture in enumerate(pictures(5, 64, seed=3)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    done = within("update", place, tmp_path / "*.png")
    assert done.returncode == 0, done.stderr
    assert "5 pictures joined, 35 have taught" in done.stdout and read_card(place)["fitted"]["counts"]["train"] == 35
    refused(within("update", place, tmp_path / "*.png", "--keep-size"), "SemiOrthogonal keeps no bank")


@pytest.mark.slow
def test_killed_at_any_moment_a_fit_in_blocks_and_an_update_leave_all_or_nothing(folder, tmp_path):
    "SIGKILL at random moments: no result or a whole one, the old model or the new one; and the same command goes through."
    run = ["run", "patchcore", "--data", f"mvtec:{folder}", "--out", tmp_path / "result", *TINY]
    run += ["--set", "max_memory=0.0026", "--set", "batch_size=8"]
    command = [Path(sys.executable).parent / "g100"]
    environment, rng = os.environ | {"PYTHONPATH": str(ROOT)}, np.random.default_rng(0)

    def killed(words, seconds: float) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, *map(str, words)], env=environment, **quiet)
        time.sleep(seconds)
        process.kill()
        process.wait()

    start = time.monotonic()
    done = g100(*run)
    took = time.monotonic() - start
    assert done.returncode == 0 and "in 4 blocks" in done.stderr, done.stderr
    whole = sorted(p.relative_to(tmp_path / "result") for p in (tmp_path / "result").rglob("*"))
    shutil.rmtree(tmp_path / "result")
    for moment in rng.uniform(0.3, 0.8, 6) * took:
        killed(run, moment)
        if (tmp_path / "result").exists():  # it was faster this time
            assert sorted(p.relative_to(tmp_path / "result") for p in (tmp_path / "result").rglob("*")) == whole
            shutil.rmtree(tmp_path / "result")
    assert g100(*run).returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["result"], "what was left behind has been tidied away"
    model, more = tmp_path / "result" / "model", tmp_path / "more.png"
    Image.fromarray(pictures(1, 64, seed=21)[0]).save(more)
    taught = [load(model, device="cpu").counts_["train"]]
    for moment in rng.uniform(0.2, 0.7, 5) * took:
        killed(["update", tmp_path / "result", more], moment)
        taught.append(load(model, device="cpu").counts_["train"])
    assert set(np.diff(taught)) <= {0, 1}
    done = g100("update", tmp_path / "result", more)
    assert done.returncode == 0 and load(model, device="cpu").counts_["train"] == taught[-1] + 1
    assert sorted(p.name for p in (tmp_path / "result").iterdir() if ".partial" in p.name) == []
