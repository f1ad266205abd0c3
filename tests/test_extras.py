"""What is installed for what: the core judges alone, the rest are extras, and a missing one is one line, before any work."""

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from g100.algorithms.patchcore import PatchCore
from g100.algorithms.riad import RIAD
from g100.experiments import report
from g100.experiments.console import benchmark
from g100.experiments.grid import Cell, grid
from g100.foundations.detector import algorithm, load
from g100.foundations.errors import needs
from tests.notebooks import ROOT
from tests.toys import line_of, mvtec_folder, pictures, refused, spotted

pytestmark = pytest.mark.xdist_group("package")  # shares the wheel with test_package

SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
MODULES = {"scikit-learn": "sklearn", "opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}  # otherwise named


def declared(key: str) -> dict[str, str]:
    "What a line of settings.ini names: the module of each distribution, by its canonical name."
    found = (canonicalize_name(Requirement(text).name) for text in SETTINGS["DEFAULT"][key].split())
    return {name: MODULES.get(name, name.replace("-", "_")) for name in found}


CORE = set(declared("requirements").values())
NAMES = ("report", "train", "demo", "cluster", "lite2", "lab", "onnx", "openvino")
EXTRAS = {name: set(declared(f"{name}_requirements").values()) for name in NAMES}
OPTIONAL = set().union(*EXTRAS.values())
SMALL = {"image_size": 32, "ks": (4, 8), "width": 4, "depth": 1, "epochs": 1, "sigma": 1}
TINY = {"backbone": "resnet18", "weights": "random", "image_size": 64}


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def roots(node: ast.AST) -> list[str]:
    "The packages, of others, that an import statement imports."
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
    found = {name.partition(".")[0] for name in names}
    return sorted(found - {"g100"} - sys.stdlib_module_names)


def asked(node: ast.AST) -> tuple[set[str], str] | None:
    "The modules and the extra of a call of `needs`."
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needs"):
        return None
    (extra,) = (keyword.value.value for keyword in node.keywords if keyword.arg == "extra")
    names = [set(report.REPORT) if isinstance(arg, ast.Starred) else {arg.value} for arg in node.args]
    return set().union(*names), extra


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted((ROOT / "g100").rglob("*.py")):
        yield file.relative_to(ROOT / "g100"), ast.parse(file.read_text(encoding="utf-8"))


def test_what_is_imported_with_a_module_is_core_or_was_asked_for_before():
    "And in the rooms that judge it is core without exception."
    files = 0
    for file, tree in modules():
        there, judges = set(CORE), file.parts[0] in ("foundations", "algorithms")
        for node in tree.body:
            if not judges and isinstance(node, ast.Expr) and (found := asked(node.value)):
                there |= found[0]
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not typing_only(node):
                late = [name for inner in ast.walk(node) for name in roots(inner) if name not in there]
                assert not late, f"{file} imports {late} at its top"
        files += 1
    assert files > 30


def test_what_is_imported_late_is_declared_and_asked_for_by_the_right_name():
    seen = set()
    for file, tree in modules():
        for node in ast.walk(tree):
            assert set(roots(node)) <= CORE | OPTIONAL, f"{file} imports {roots(node)}, which settings.ini does not name"
            if found := asked(node):
                names, extra = found
                assert names <= EXTRAS[extra], f"{file}: {names} do not come with {extra}"
                seen.add(extra)
    assert seen == set(EXTRAS), "each extra is asked for somewhere"
    assert set(report.REPORT) == EXTRAS["report"] and not CORE & OPTIONAL


def required(wheel: Path) -> dict[str | None, set[str]]:
    "What the wheel says it requires: the distributions by extra, None for those that are always installed."
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(name).decode())
    found: dict[str | None, set[str]] = {None: set()} | {extra: set() for extra in told.get_all("Provides-Extra")}
    for requirement in map(Requirement, told.get_all("Requires-Dist")):
        marker = requirement.marker
        for extra in [name for name in found if name and marker.evaluate({"extra": name})] if marker else [None]:
            found[extra].add(canonicalize_name(requirement.name))
    return found


def test_the_wheel_has_the_extras(wheel):
    found = required(wheel)
    assert set(found) == {None, "lab", "docs", "dev", *NAMES}
    assert found[None] == set(declared("requirements"))
    for name in set(NAMES) - {"demo", "lab"}:
        assert found[name] == set(declared(f"{name}_requirements")) and found[name]
    assert not found[None] & {"accelerate", "matplotlib", "papermill", "nbconvert", "ipykernel", "distributed"}
    assert found["demo"] == found["report"] | {"elpv-dataset"}
    for name in ("dev", "lab"):
        assert set().union(*(found[other] for other in set(NAMES) - {"lab"})) < found[name]
    assert found["docs"] == set(declared("docs_requirements")) < found["dev"]
    assert {"pytest", "hypothesis", "nbdev", "ruff"} <= found["dev"] and {"jupyterlab", "anywidget"} <= found["lab"]


def test_what_is_locked_is_all_that_the_two_commands_install(wheel):
    locked = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()
              if "==" in line}  # fmt: skip
    found = required(wheel)
    assert (found[None] | found["demo"] | found["dev"]) - locked <= {"setuptools"}


def python(code: str, *words: object) -> str:
    "What a process of its own prints."
    run = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT = "import time; start = time.perf_counter(); import g100; took = time.perf_counter() - start; "


def test_to_import_g100_takes_no_time():
    "The fastest of three, since whatever else the machine does can only have lengthened it."
    took, loaded = [], ""
    for _ in range(3):
        seconds, loaded = python(IMPORT + "import sys; print(took, 'torch' in sys.modules)").split()
        took.append(float(seconds))
    assert min(took) < 0.1 and loaded == "False"


def test_who_judges_loads_nothing_of_a_report():
    code = "import json, sys; from g100 import load, PatchCore, RIAD, run_experiment; import g100.experiments.report"
    loaded = json.loads(python(code + "; print(json.dumps(list(sys.modules)))"))
    assert "timm" in loaded and not (OPTIONAL | {"IPython", "nbclient", "dask", "pandas"}) & set(loaded)


CORE_ALONE = """
import sys
import numpy as np
told = sys.argv[3].split(",")
sys.modules.update(dict.fromkeys(told))  # None: as if it were not installed
from g100 import G100Error, PatchCore, SemiOrthogonal, load, run_experiment
from g100.experiments import cli
from g100.experiments.experiment import write_results

folder, data = sys.argv[1:3]
x = np.load(f"{folder}/x.npy")

def line(work, *args):
    try:
        work(*args)
    except G100Error as error:
        print(error)

riad = load(f"{folder}/riad")
np.save(f"{folder}/map.npy", riad.inspect(x).map)
line(riad.fit, x)
np.save(f"{folder}/after.npy", riad.inspect(x).map)
line(riad.explain, x[:1])
small = dict(backbone="resnet18", weights="random", image_size=64)
for kind in (PatchCore(**small), SemiOrthogonal(**small, k=8)):
    kind.fit(x).save(f"{folder}/model", force=True)
    np.testing.assert_allclose(load(f"{folder}/model").inspect(x).map, kind.inspect(x).map, rtol=1e-5)
done = run_experiment("patchcore", f"mvtec:{data}", parameters=small)
write_results(done, f"{folder}/result")
sys.argv = ["g100", "inspect", f"{folder}/model", f"{data}/test/spot", "--out", f"{folder}/verdicts"]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
assert not [name for name in told if sys.modules[name] is not None]
"""


def test_the_core_alone_fits_judges_saves_loads_and_draws(tmp_path):
    "With every extra missing; a trained detector that was saved is as good as before, and only its `fit` says what is missing."
    x, data = pictures(12, 64), mvtec_folder(tmp_path / "bottle", size=64)
    np.save(tmp_path / "x.npy", x)
    riad = RIAD(**SMALL).fit(x, device="cpu")
    riad.save(tmp_path / "riad")
    said = python(CORE_ALONE, tmp_path, data, ",".join(sorted(OPTIONAL))).splitlines()
    assert said[0] == 'accelerate is not installed here; it comes with: pip install "g100[train]"'
    assert said[1] == 'matplotlib is not installed here; it comes with: pip install "g100[report]"'
    for file in ("map", "after"):
        np.testing.assert_allclose(np.load(tmp_path / f"{file}.npy"), riad.inspect(x).map, atol=1e-6)
    assert (tmp_path / "result" / "metrics.json").is_file()
    drawn = sorted((tmp_path / "verdicts" / "pictures").glob("*.png"))
    assert len(drawn) == 8 and Image.open(drawn[0]).size == (64, 64)


# --- a missing extra is said before any work ---


@pytest.fixture
def without(monkeypatch):
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", ["papermill", "nbconvert", "ipykernel", "matplotlib"])
def test_run_asks_for_the_report_before_it_fits(within, without, monkeypatch, tmp_path, name):
    without(name)
    monkeypatch.setattr(PatchCore, "fit", None)
    refused(within("run", "patchcore", "--data", "elpv:mono", "--out", tmp_path / "out"), name, 'pip install "g100[report]"')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["riad", "favae", "kdad", "fcdd"])
def test_who_trains_asks_before_a_picture_is_read(without, tmp_path, name):
    "These cannot be read, and nobody tries."
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file in files:
        file.write_bytes(b"no picture")
    detector = algorithm(name)()
    assert "0.png" in line_of(detector.fit, files)
    without("accelerate")
    assert "g100[train]" in line_of(detector.fit, files) and not hasattr(detector, "fitted_")


def test_run_and_benchmark_ask_for_what_trains_before_they_begin(within, without, tmp_path):
    data = f"mvtec:{mvtec_folder(tmp_path / 'bottle')}"
    without("accelerate")
    refused(within("run", "riad", "--data", data, "--out", tmp_path / "out"), 'pip install "g100[train]"')
    assert "g100[train]" in line_of(grid, ["patchcore", "fcdd"], [data], [0]) and len(grid(["patchcore"], [data], [0])) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bottle"]


def test_a_benchmark_asks_for_the_report_and_a_scheduler_for_dask(within, without, tmp_path):
    cell = Cell(algorithm="patchcore", data="elpv:mono", seed=0)
    without("distributed")
    words = ("--algorithms", "patchcore", "--data", "elpv:mono", "--out", tmp_path / "out", "--scheduler", "tcp://nobody:1")
    refused(within("benchmark", *words), 'pip install "g100[cluster]"')
    without("papermill")
    assert "g100[report]" in line_of(benchmark, tmp_path / "out", [cell])
    assert not list(tmp_path.iterdir())


def test_a_figure_asks_for_matplotlib(without, tmp_path):
    riad = RIAD(**SMALL).fit(pictures(8), device="cpu")
    riad.save(tmp_path / "model")
    assert riad.explain(spotted(1)[0]) is not None
    without("matplotlib")
    assert "g100[report]" in line_of(load(tmp_path / "model").explain, spotted(1)[0])
    for module in ("plots", "comparison"):
        code = "import sys; sys.modules['matplotlib'] = None\nfrom g100.foundations.errors import G100Error\n"
        code += f"try:\n    import g100.experiments.{module}\nexcept G100Error as error:\n    print(error)"
        assert "g100[report]" in python(code)


def test_a_folder_of_that_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "accelerant").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert "accelerant is not installed here" in line_of(lambda: needs("numpy", "accelerant", extra="train"))
    assert needs("numpy", "json", "sys", extra="train") is None
