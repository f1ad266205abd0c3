"""The grid: cut off anywhere and continued, one failure among many, several at a time, many machines; what its table says."""

import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from g100.algorithms import bank
from g100.algorithms.patchcore import PatchCore
from g100.algorithms.riad import RIAD
from g100.algorithms.semiorth import SemiOrthogonal
from g100.experiments import cli, console
from g100.experiments import grid as grids
from g100.experiments.cluster import connected, spread_over
from g100.experiments.comparison import by_defect, common_seed, draw_verdict, drawn_by_lot
from g100.experiments.console import benchmark, clock, expected
from g100.experiments.experiment import run_experiment, write_results
from g100.experiments.grid import Cell, grid, opened, parameters_for, recorded, run_cell
from g100.experiments.table import COLUMNS, groups, mean_spread, read_rows, remarks, result_table, rows_of, write_rows
from g100.foundations.checkpoint import read_checkpoint
from g100.foundations.errors import G100Error
from tests.benchmarks import table as results_table
from tests.benchmarks.table import LINE, RESULTS, alike, merged
from tests.notebooks import NBS, ROOT, read
from tests.toys import line_of, mvtec_folder, pictures, refused

pytestmark = [
    pytest.mark.xdist_group("benchmark"),  # its fixtures are made once
    pytest.mark.filterwarnings("ignore:.*false-positive rate.*", "ignore:.*RANDOM weights.*", "ignore:Port .* is already"),
]
SMALL = {"image_size": 32, "ks": [4, 8], "width": 4, "depth": 1, "epochs": 40, "sigma": 1}
SET = ["--device", "cpu", *(word for key, value in SMALL.items() for word in ("--set", f"{key}={value}"))]
MEASURED = {"fit_seconds", "seconds_per_image", "peak_memory_mb", "threads"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mvtec_folder(tmp_path_factory.mktemp("data") / "bottle", size=32)


def until(happened, alive=lambda: True) -> None:
    while not happened():
        assert alive(), "it ended too early"
        time.sleep(0.02)


def fixed(row: dict) -> dict:
    "What two runs of one cell must agree on."
    return {key: value for key, value in row.items() if key not in MEASURED}


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    "The folder of a benchmark that nobody has killed: RIAD, small, seeds 0 and 1."
    out, cells = tmp_path_factory.mktemp("undisturbed"), grid(["riad"], [f"mvtec:{folder}"], [0, 1], SMALL)
    with opened(out, cells):
        for cell in cells:
            done = run_experiment("riad", cell.data, seed=cell.seed, parameters=cell.parameters, device="cpu")
            write_results(done, out / "cells" / cell.name)
    return out


# --- the real thing ---


@pytest.mark.slow
def test_killed_and_continued_it_gives_the_same_table(within, folder, undisturbed, tmp_path):
    "SIGKILL while the second cell trains. The first is not touched, the second goes on, and the table is the same."
    out, start = shutil.copytree(undisturbed, tmp_path / "out"), [Path(sys.executable).parent / "g100"]
    shutil.rmtree(out / "cells" / "riad-mvtec-bottle-1")
    words = ["benchmark", "--algorithms", "riad", "--data", f"mvtec:{folder}", "--seeds", "0,1", "--out", out, *SET]
    running = subprocess.Popen([*start, *map(str, words)], stdout=subprocess.PIPE, text=True)
    first, checkpoint = out / "cells" / "riad-mvtec-bottle-0", out / "cells" / "riad-mvtec-bottle-1.checkpoint"
    until(checkpoint.exists, lambda: running.poll() is None)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and read_checkpoint(checkpoint)[1]["state"]["epoch"] < 40
    assert re.search(r"bottle-0 +kept +[\d.]+ +\d:\d\d +\d:\d\d\n", running.stdout.read()), "the live table"

    def there() -> dict:
        "Every file but the page, which the benchmark's report gives a link to itself."
        files = (p for p in first.rglob("*") if p.is_file() and p.name not in ("index.html", "data.json"))
        return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}

    before = there()
    done = within(*words)
    assert done.returncode == 0 and "bottle-0  kept" in done.stdout, done.stderr
    assert there() == before and len(before) > 20, "never run again"
    assert "went on from its checkpoint" in (out / "cells" / "riad-mvtec-bottle-1" / "report.html").read_text()
    left = {p.name for p in (out / "cells").iterdir() }
    assert left == {"riad-mvtec-bottle-0", "riad-mvtec-bottle-1"}, "no drafts, no checkpoints"
    assert [fixed(row) for row in rows_of(out)] == [fixed(row) for row in rows_of(undisturbed)]
    for cell in left:
        assert (out / "cells" / cell / "scores.csv").read_bytes() == (undisturbed / "cells" / cell / "scores.csv").read_bytes()
    with (out / "results.csv").open() as file:
        assert [row["cell"] for row in csv.DictReader(file)] == sorted(left)
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 4 and "riad-mvtec-bottle-1/report.html" in page


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        yield local


@pytest.mark.slow
def test_a_worker_is_killed_and_nothing_is_lost(within, folder, undisturbed, cluster, tmp_path):
    "A cluster of two worker processes; the one that trains is killed, the other one takes over."
    out, held = tmp_path / "out", []
    holder = out / "cells" / ".riad-mvtec-bottle-0.holder"

    def another() -> bool:
        "Whether the cell is held by a process that has not held it before."
        found = None
        with suppress(OSError):  # not there yet, or no more
            found = re.search(r"process (\d+)", holder.read_text())
        if new := found and int(found[1]) not in held:
            held.append(int(found[1]))
        return bool(new)

    def kill():
        until((out / "cells" / "riad-mvtec-bottle-0.checkpoint").exists)
        assert another()
        os.kill(held[0], signal.SIGKILL)
        until(another)

    with connected(cluster.scheduler_address) as client:
        assert len(client.run(os.getpid)) == 2
        thread = threading.Thread(target=kill)
        thread.start()
        cells = grid(["riad"], [f"mvtec:{folder}"], [0], SMALL)
        bad = benchmark(out, cells, scheduler=cluster.scheduler_address, device="cpu", report=False)
        thread.join()
    assert not bad and len(held) == 2 and not holder.exists(), "the other one took over, and let go"
    assert [fixed(row) for row in rows_of(out)] == [fixed(row) for row in rows_of(undisturbed)[:1]]


@pytest.mark.parametrize("how", ["save", "export"])
def test_inspect_on_a_cluster_judges_each_picture_once(how, within, folder, cluster, tmp_path, monkeypatch):
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 32, "batch_size": 4}
    getattr(PatchCore(**parameters).fit(str(folder / "train" / "good"), device="cpu"), how)(tmp_path / "model")
    monkeypatch.setattr(cli, "CHUNK", 1)
    words = ("inspect", tmp_path / "model", folder / "test", folder / "test" / "good" / "003.png", "--device", "cpu")
    for name, more in (("here", ()), ("there", ("--scheduler", cluster.scheduler_address))):
        assert within(*words, "--out", tmp_path / name, *more).returncode == 0
    assert (tmp_path / "there" / "verdicts.csv").read_bytes() == (tmp_path / "here" / "verdicts.csv").read_bytes()
    with (tmp_path / "there" / "verdicts.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted(p.relative_to(folder / "test").as_posix() for p in (folder / "test").rglob("*.png"))
    for name in names:
        here, there = (tmp_path / where / "pictures" / name for where in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()
    shutil.copytree(folder / "test", tmp_path / "photos")
    (tmp_path / "photos" / "spot" / "005.png").write_bytes(b"")
    words = ("inspect", tmp_path / "model", tmp_path / "photos", "--out", tmp_path / "no")
    done = within(*words, "--scheduler", cluster.scheduler_address)
    assert done.returncode == 0 and "1 of 16 pictures cannot be read" in done.stderr
    with (tmp_path / "no" / "verdicts.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file) if "005.png" in row["error"]] == ["spot/005.png"]


def launched(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *map(str, words)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_several_processes_train_one_result(folder, tmp_path):
    "Two processes, started as `accelerate launch` starts them on GPUs, train one RIAD; the first makes the result."
    words = ["run", "riad", "--data", f"mvtec:{folder}", "--out", tmp_path / "out", *SET, "--set", "epochs=2"]
    done = launched("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "g100", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("image_auroc") == 1 and [p.name for p in tmp_path.iterdir()] == ["out"]
    row = json.loads((tmp_path / "out" / "metrics.json").read_text())
    alone = run_experiment("riad", f"mvtec:{folder}", parameters=SMALL | {"epochs": 2}, device="cpu").row
    assert row["dataset_sha256"] == alone["dataset_sha256"] and row["counts"] == alone["counts"]
    assert row["threshold_image"] != alone["threshold_image"], "each process has batch statistics of its own"


def test_accelerate_launches_the_command():
    done = launched("accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "g100", "--version")
    assert done.returncode == 0 and done.stdout.startswith("g100 "), done.stderr


def test_the_page_on_clusters_shows_a_job_that_dask_jobqueue_writes():
    "The script of the page, up to the point where it would submit something."
    pytest.importorskip("dask_jobqueue")
    cells = read(NBS / "3_experiments" / "39_cluster.ipynb").cells
    script = next(part for cell in cells for part in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL))
    before, submits, _ = script.replace("8786", "0").partition("cluster.scale")
    names = {}
    exec(before.replace("print(cluster.job_script())", ""), names)
    with names["cluster"] as cluster:
        job = cluster.job_script()
    assert submits and "--cpus-per-task=8" in job and "#SBATCH --gres=gpu:1" in job and "#SBATCH -t 08:00:00" in job
    start = next(line for line in job.splitlines() if "dask_worker" in line)
    assert start.startswith("/shared/env/bin/python -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 1 " in start and "--nworkers" not in start, "one experiment at a time"
    assert job.index("export OMP_NUM_THREADS=8") < job.index(start)


# --- the grid ---


def test_settings_are_for_all_or_for_one():
    given = {"riad:epochs": 5, "image_size": 64, "semi-ort:image_size": 96}
    assert parameters_for(["riad", "semi-ort"], given) == {
        "riad": {"epochs": 5, "image_size": 64},
        "semi-ort": {"image_size": 96},
    }
    assert "did you mean 'epochs'" in line_of(parameters_for, ["riad"], {"epoch": 5})
    assert "did you mean 'riad'" in line_of(parameters_for, ["riad"], {"ria:epochs": 5})


def test_the_grid_is_the_product_without_repetitions(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    cells = grid(["riad", "patchcore", "riad"], ["mvtec:bottle", f"mvtec:{folder}", "elpv:mono"], [0, 1, 0])
    assert len({cell.name for cell in cells}) == len(cells) == 2 * 2 * 2
    assert {cell.data for cell in cells} == {f"mvtec:{folder}", "elpv:mono"}, "paths are absolute"
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


@pytest.mark.parametrize("wrong, said", [
    (("--algorithms", "riad,patchcor"), "did you mean 'patchcore'"), (("--data", "mvtec:nowhere"), "nowhere"),
    (("--data", "mvtek:x"), "did you mean 'mvtec'"), (("--seeds", "0,x"), "--seeds 0,x"), (("--jobs", "0"), "jobs=0"),
    (("--set", "epoch=1"), "did you mean 'epochs'"), (("--set", "device=cpu"), "fit(X, device=...)"),
    (("--set", "riad:verbose=1"), "fit(X, verbose=...)"), (("--set", "epochs=0"), "epochs=0"),
])  # fmt: skip
def test_what_does_not_exist_is_refused_before_the_first_cell(within, folder, tmp_path, wrong, said):
    given = {"--algorithms": "riad", "--data": f"mvtec:{folder}", "--seeds": "0"} | {wrong[0]: wrong[1]}
    words = [word for pair in given.items() for word in pair]
    refused(within("benchmark", *words, "--out", tmp_path / "out"), said)
    assert not (tmp_path / "out").exists()


def test_an_unreachable_scheduler_is_told_within_ten_seconds(within, folder, tmp_path):
    words = ("benchmark", "--algorithms", "riad", "--data", f"mvtec:{folder}", "--out", tmp_path / "out")
    start = time.monotonic()
    refused(within(*words, "--scheduler", "tcp://127.0.0.1:9"), "--scheduler tcp://127.0.0.1:9", "dask scheduler")
    assert time.monotonic() - start < 10
    assert not (tmp_path / "out").exists()


# --- its execution, with experiments that cost nothing ---

PARTS = {"counts": {"train": 3, "test_normal": 4, "test_abnormal": 4}, "versions": {"g100": "0"}, "params": {}}
MACHINE = {"processor": "a", "threads": 1}


def write_row(goal: Path, algorithm: str, seed: int, **others) -> None:
    row = {key: 0.5 for _, key, *_ in COLUMNS} | {"algorithm": algorithm, "dataset": "toy", "category": "x"}
    row |= PARTS | {"seed": seed, "machine": MACHINE, "commit": "c", "dataset_sha256": "d"}
    draft = goal.with_name(f".{goal.name}.draft")
    draft.mkdir()
    (draft / "metrics.json").write_text(json.dumps(row | others))
    draft.rename(goal)  # as `experiment` does it: others may be looking


class Toy:
    "In the place of `experiment`: keeps a list of what was run, fails where told to."

    def __init__(self):
        self.ran, self.failing, self.inside, self.device = [], {}, lambda: None, "auto"

    def __call__(self, goal, algorithm, data, *, resume, force, seed, paper, parameters, device):
        assert resume and force and device == self.device
        self.ran.append((algorithm, seed))
        self.inside()
        if (algorithm, seed) in self.failing:
            raise self.failing[algorithm, seed]
        write_row(goal, algorithm, seed)


@pytest.fixture
def toy(monkeypatch):
    made = Toy()
    monkeypatch.setattr(grids, "experiment", made)
    return made


def cells_of(*names: str, seeds: int = 2, **more) -> list[Cell]:
    return [Cell(algorithm=name, data="elpv:mono", seed=seed, **more) for seed in range(seeds) for name in names]


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_failure_is_reported_and_the_rest_go_on(toy, tmp_path, capsys, jobs):
    toy.failing = {("b", 0): G100Error("the disk is full"), ("a", 1): ZeroDivisionError("0 / 0")}
    bad = benchmark(tmp_path / "out", cells_of("a", "b", "c"), jobs=jobs, report=False)
    assert {(o.cell.algorithm, o.cell.seed) for o in bad} == set(toy.failing) and len(toy.ran) == 6
    told = capsys.readouterr().out
    assert "the disk is full (b-elpv-mono-0.error.txt)" in told and "ZeroDivisionError: 0 / 0" in told
    assert len(rows_of(tmp_path / "out")) == 4
    table = (tmp_path / "out" / "table.md").read_text()
    assert "- b-elpv-mono-0 failed: the disk is full" in table and "Traceback" not in table
    assert "Traceback" in (tmp_path / "out" / "cells" / "a-elpv-mono-1.error.txt").read_text()
    toy.ran, toy.failing = [], {}
    assert not benchmark(tmp_path / "out", cells_of("a", "b", "c"), jobs=jobs, report=False)
    assert sorted(toy.ran) == [("a", 1), ("b", 0)], "finished cells are not run again, failed ones are"
    assert "failed" not in (tmp_path / "out" / "table.md").read_text()


def test_the_command_says_how_many_failed(within, toy, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "run_report", lambda *told: None)
    toy.failing = {("riad", 1): G100Error("no")}
    words = ("benchmark", "--algorithms", "riad", "--data", f"mvtec:{folder}", "--seeds", "0,1", "--out", tmp_path / "out")
    toy.device = "cuda:7"  # is told to each experiment and remembered nowhere
    done = within(*words, "--device", "cuda:7")
    assert "cuda" not in (tmp_path / "out" / "grid.json").read_text()
    refused(done, "1 of 2 experiments failed")
    assert "| riad |" in done.stdout


def test_jobs_run_together_and_share_the_threads(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(grids.joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    meeting, seen = threading.Barrier(3), []

    def inside():
        meeting.wait(30)  # breaks unless three are here at once
        seen.append((os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]))

    toy.inside = inside
    assert not benchmark(tmp_path / "out", cells_of("a", "b", "c"), jobs=3, report=False)
    assert set(seen) == {("2", "2")}, "8 cores, 3 jobs: 2 threads each"
    assert os.environ["OMP_NUM_THREADS"] == "2" and "MKL_NUM_THREADS" not in os.environ


HOLDING = """import sys
from g100.foundations.folders import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    input()"""


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(toy, tmp_path):
    benchmark(tmp_path / "out", cells_of("a"), report=False)
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "out" / ".lock")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    said = line_of(lambda: benchmark(tmp_path / "out", cells_of("a", "b"), report=False))
    assert f"another command is at work here (process {other.pid} on " in said and len(recorded(tmp_path / "out")) == 2
    other.kill()
    other.wait()
    benchmark(tmp_path / "out", cells_of("a", "b"), report=False)
    assert len(recorded(tmp_path / "out")) == 4


def test_a_cell_that_another_worker_has_finished_is_not_run_again(toy, tmp_path):
    "The second of two that were given one cell waits for the first, and finds it done."
    (cell,) = cells_of("a", seeds=1)
    entered, go = threading.Event(), threading.Event()
    toy.inside = lambda: (entered.set(), go.wait(30))
    with opened(tmp_path, [cell]):
        two = [threading.Thread(target=run_cell, args=(cell, tmp_path)) for _ in range(2)]
        for thread in two:
            thread.start()
        assert entered.wait(30)
        go.set()
        for thread in two:
            thread.join()
    assert toy.ran == [("a", 0)]


def test_what_does_not_belong_together_is_refused(toy, tmp_path):
    benchmark(tmp_path / "out", cells_of("a", parameters={"k": 1}), report=False)
    before = (tmp_path / "out" / "grid.json").read_bytes()
    moved = [Cell(algorithm="b", data="mvtec:/x/mono", seed=0), Cell(algorithm="b", data="mvtec:/y/mono", seed=0)]
    for cells, said in (
        (cells_of("a", seeds=3, parameters={"k": 2}), "a would mean both"),
        (cells_of("a", parameters={"k": 1}, paper=True), "the reference recipe"),
        (moved, "mvtec-mono would mean both"),
    ):
        assert said in line_of(lambda cells=cells: benchmark(tmp_path / "out", cells, report=False))
    assert (tmp_path / "out" / "grid.json").read_bytes() == before
    benchmark(tmp_path / "out", cells_of("a", "b", seeds=3, parameters={"k": 1}), report=False)
    assert len(rows_of(tmp_path / "out")) == 6, "more seeds and algorithms may come later"


def test_a_folder_of_something_else_is_left_alone(toy, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "no benchmark's folder" in line_of(lambda: benchmark(tmp_path, cells_of("a"), report=False))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").rename(tmp_path / "grid.json")
    assert "not a benchmark's grid" in line_of(lambda: benchmark(tmp_path, cells_of("a"), report=False))


def test_what_a_killed_process_has_left_of_a_new_folder_is_in_nobodys_way(toy, tmp_path):
    "It had the lock, and was writing the grid."
    for name in (".lock", ".lock.holder", ".grid.json.partial"):
        (tmp_path / name).write_text("process 1 on nowhere")
    assert not benchmark(tmp_path, cells_of("a"), report=False) and len(rows_of(tmp_path)) == 2
    hidden = {p.name for p in tmp_path.rglob(".*")}
    assert hidden <= {".g100"}, "neither drafts nor locks nor names of holders"


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path):
    assert "shared file system" in run_cell(cells_of("a")[0], tmp_path / "elsewhere").error


# --- the table ---


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_mean_and_spread_are_those_of_statistics(values):
    mean, spread = (float(part) for part in mean_spread(values, form=".9f").split(" ± "))
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-8)
    assert spread == pytest.approx(statistics.stdev(values), abs=1e-8)
    assert mean_spread([*values, None]) == "-" and mean_spread(values[:1], form=".9f") == f"{values[0]:.9f}"


def test_table_has_a_line_for_each_algorithm_and_data_set(tmp_path):
    with opened(tmp_path, cells := cells_of("b", "a", seeds=3)):
        for cell in cells:
            auroc = 0.7 + 0.1 * cell.seed if cell.algorithm == "a" else 0.5
            write_row(tmp_path / "cells" / cell.name, cell.algorithm, cell.seed, image_auroc=auroc, pixel_auroc=None)
    head, _, *lines = result_table(rows_of(tmp_path)).splitlines()
    columns = [part.strip() for part in head.split("|")]
    b, a = (dict(zip(columns, (part.strip() for part in line.split("|")), strict=True)) for line in lines)
    assert (b["algorithm"], a["algorithm"], a["class"], a["seeds"]) == ("b", "a", "toy:x", "3")
    assert a["image AUROC"] == "0.800 ± 0.100" and b["image AUROC"] == "0.500 ± 0.000" and a["pixel AUROC"] == "-"
    assert a["ms per picture"] == "500.0 ± 0.0"


def test_whatever_differs_among_the_cells_is_remarked(tmp_path):
    others = ({}, {"commit": "e"}, {"machine": MACHINE | {"threads": 2}}, {"dataset_sha256": "other"})
    with opened(tmp_path, cells := cells_of("a", "b", "c", "d", "e", seeds=1)):
        for cell, more in zip(cells, others, strict=False):
            write_row(tmp_path / "cells" / cell.name, cell.algorithm, cell.seed, **more)
        said = "\n".join(remarks(tmp_path))
    for word in ("2 different commit", "2 different threads", "the pictures changed", "e-elpv-mono-0 has not run"):
        assert word in said
    assert "versions" not in said and "processor" not in said


def test_time_left_is_guessed_from_the_cells_most_alike():
    a, b, c = (Cell(algorithm=n, data=d, seed=0) for n, d in (("a", "x:1"), ("a", "x:2"), ("b", "x:1")))
    took = [(a, 10.0), (a, 20.0), (b, 100.0)]
    assert expected(a, took) == 15 and expected(Cell(algorithm="a", data="x:3", seed=0), took) == 130 / 3
    assert expected(c, took) == 130 / 3 and expected(c, []) is None
    assert [clock(s) for s in (None, 0, 59.6, 3600)] == ["-", "0:00", "1:00", "1:00:00"]


def row_of(algorithm="a", seed=0, backbone=None, sha="x", **parameters) -> dict:
    "What decides where a row belongs; `parameters` that it ran with."
    made = {"cell": f"{algorithm}-{backbone}-{seed}-{parameters}", "dataset": "toy", "category": "x", "algorithm": algorithm}
    return made | {"backbone": backbone, "seed": seed, "dataset_sha256": sha, "params": json.dumps(parameters)}


numbers = st.one_of(st.none(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.fixed_dictionaries({"cell": st.from_regex(r"[\w ,;\"'\n]+", fullmatch=True), "v": numbers}), min_size=1))
def test_rows_come_back_from_a_file_as_they_were(tmp_path_factory, rows):
    file = tmp_path_factory.getbasetemp() / "rows.csv"
    write_rows(file, [row | {"commit": "1234", "image_size": [8, 16]} for row in rows] + [{"cell": "last"}])
    *found, last = read_rows(file)
    assert found == [row | {"commit": "1234", "image_size": "[8, 16]"} for row in rows]
    assert all(type(a["v"]) is type(b["v"]) for a, b in zip(rows, found, strict=True))
    assert last == {"cell": "last", "v": None, "commit": None, "image_size": None}


def test_new_rows_take_the_place_of_old_ones():
    old = [row_of(seed=0, k=1), row_of(seed=1, k=1), row_of(backbone="big", k=7), row_of("b", seed=0, k=1)]
    new = [row_of(seed=1, k=1, verbose=True), row_of(seed=2, k=1, new_parameter=0)]
    rows, dropped = merged(old, new)
    assert rows == [old[0], *new, old[2], old[3]] and not dropped
    assert merged(rows, new) == (rows, []), "twice is once"


def test_no_line_of_the_committed_table_mixes_parameters_or_pictures():
    old = [row_of(seed=0, k=1), row_of(seed=1, k=1), row_of("b", seed=0, k=1)]
    rows, dropped = merged(old, [row_of(seed=1, k=2)])
    assert rows == [row_of(seed=1, k=2), old[2]] and dropped == [old[0]["cell"]]
    for same in groups(read_rows(RESULTS), *LINE).values():
        assert all(alike(same[0], row) for row in same)
        assert len({row["seed"] for row in same}) == len(same)
    assert not re.search(r"[:\"' ]/\w", RESULTS.read_text()), "no path of the machine on which it was computed"


def test_the_table_is_filled_from_benchmarks_and_from_single_experiments(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results_table, "RESULTS", tmp_path / "results.csv")
    cells = cells_of("a", "b", seeds=1)
    with opened(tmp_path / "grid", cells):
        write_row(tmp_path / "grid" / "cells" / cells[0].name, "a", 0, backbone=None)  # the other one has not finished
    write_row(tmp_path / "alone", "c", 3, backbone="big")
    results_table.main([str(tmp_path / "grid"), str(tmp_path / "alone")])
    assert [(r["cell"], r["seed"]) for r in read_rows(tmp_path / "results.csv")] == [("a-elpv-mono-0", 0), ("alone", 3)]
    assert "2 rows" in capsys.readouterr().out
    results_table.main(["--into", "starts", str(tmp_path / "alone")])
    assert [r["cell"] for r in read_rows(tmp_path / "starts.csv")] == ["alone"]
    (tmp_path / "empty").mkdir()
    assert "neither a benchmark" in line_of(lambda: results_table.main([str(tmp_path / "empty")]))


# --- the comparison ---


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=30))
def test_by_defect_is_the_count_of_pairs(drawn):
    label = np.array([min(kind, 1) for kind, _ in drawn])
    scores = {"label": label, "score": np.array([float(s) for _, s in drawn])}
    scores |= {"is_anomalous": scores["score"] > 2, "defect": np.array([f"kind {kind}" for kind, _ in drawn])}
    found, good = by_defect(scores), [s for kind, s in drawn if kind == 0]
    assert set(found) == {f"kind {kind}" for kind, _ in drawn if kind}
    for kind, (n, value, recall) in found.items():
        mine = [s for k, s in drawn if f"kind {k}" == kind]
        assert n == len(mine) and recall == pytest.approx(np.mean([s > 2 for s in mine]))
        pairs = [(d > g) + (d == g) / 2 for d in mine for g in good]
        assert np.isnan(value) if not good else value == pytest.approx(np.mean(pairs))


def test_pictures_are_drawn_by_lot_from_both_kinds():
    names, labels = np.array([f"{i:02d}" for i in range(20)]), np.arange(20) % 2
    chosen = drawn_by_lot(names, labels)
    assert [int(name) % 2 for name in chosen] == [0, 0, 0, 1, 1, 1] and len(set(chosen)) == 6
    order = np.random.default_rng(0).permutation(20)
    assert drawn_by_lot(names[order], labels[order]) == chosen, "the order of the table does not matter"
    assert len(drawn_by_lot(names[:3], labels[:3])) == 3


def test_a_verdict_is_shown_even_where_its_overlay_is_gone(tmp_path):
    scores = {"name": np.array(["a/b.png"]), "label": np.array([1]), "is_anomalous": np.array([0])}
    for kept in (True, False):
        if kept:
            (tmp_path / "a").mkdir()
            Image.new("RGB", (8, 8)).save(tmp_path / "a" / "b.png")
        axis = Figure().subplots()
        draw_verdict(axis, tmp_path, scores, "a/b.png")
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        assert axis.get_title(loc="left") == "called good" and bool(axis.images) == kept
        assert [text.get_text() for text in axis.texts] == ([] if kept else ["no overlay"])


def test_the_common_seed_is_that_of_most_algorithms():
    rows = [{"algorithm": name, "seed": seed} for name, seed in (("a", 0), ("a", 1), ("b", 1), ("b", 2), ("c", 2))]
    assert common_seed(rows) == [rows[1], rows[2]]


# --- several processes ---


@pytest.mark.parametrize("detector", [PatchCore, SemiOrthogonal])
def test_what_is_not_trained_in_steps_refuses_several_processes(detector, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = line_of(lambda: detector().fit(np.zeros((4, 32, 32, 3), np.uint8), device="cpu"))
    assert detector.__name__ in said and "2 processes" in said
    RIAD().check()


@pytest.mark.slow
def test_a_worker_that_thins_is_killed_and_the_fit_is_that_of_one_machine(tmp_path, monkeypatch):
    "A cluster of two worker processes; one is killed while it has a block, the other one does it again."
    from distributed import LocalCluster

    monkeypatch.setattr(bank, "SHARD", 1)
    for i, picture in enumerate(pictures(40, 64)):
        Image.fromarray(picture).save(tmp_path / f"{i:02d}.png")
    parameters = {"backbone": "resnet18", "weights": "random", "image_size": 64, "coreset_ratio": 0.05, "batch_size": 4}
    here = PatchCore(**parameters).fit(tmp_path, device="cpu", spread=lambda work, calls: (work(*call) for call in calls))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local, \
            spread_over(local.scheduler_address) as spread, connected(local.scheduler_address) as client:  # fmt: skip
        victim, died = list(client.run(os.getpid).values())[0], []

        def watched(work, calls):
            for i, answer in enumerate(spread(work, calls)):
                if i == 1 and not died:
                    os.kill(victim, signal.SIGKILL)
                    died.append(victim)
                yield answer

        there = PatchCore(**parameters).fit(tmp_path, device="cpu", spread=watched)
        assert died and victim not in client.run(os.getpid).values()
    assert there.covering_["blocks"] == 10 and there.fitted_.notes == here.fitted_.notes
    np.testing.assert_allclose(there.bank_, here.bank_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(there.calibration_scores_, here.calibration_scores_, rtol=1e-5)
    assert there.covering_radius(tmp_path) <= there.covering_["bound"]


@pytest.mark.slow
def test_run_lets_the_workers_of_a_scheduler_fit(within, folder, cluster, tmp_path):
    words = ["--data", f"mvtec:{folder}", "--scheduler", cluster.scheduler_address, "--device", "cpu"]
    tiny = ["--backbone", "resnet18", "--weights", "random", "--set", "image_size=64"]
    done = within("run", "patchcore", *words, *tiny, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["image_auroc"] > 0.9
    assert "scheduler" not in (tmp_path / "out" / "run.yaml").read_text()
    refused(within("run", "riad", *words, "--out", tmp_path / "two"), "RIAD is not fitted on several machines")
    assert not (tmp_path / "two").exists()
