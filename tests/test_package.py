"""The package as a thing that is built, installed and imported; and the order of its rooms."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import g100
from tests.notebooks import ROOT, chapters, read
from tests.toys import mvtec_folder

pytestmark = pytest.mark.xdist_group("package")  # its fixtures are made once


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The sdist, and the wheel that is built from the sdist."
    copy = tmp_path_factory.mktemp("build") / "g100"
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignore)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation"], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


def test_wheel_holds_the_package_and_the_templates(built):
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "g100").rglob("*.py")}
    templates = {f"g100/reports/{p.name}" for p in (ROOT / "nbs" / "reports").glob("*.ipynb")}
    assert modules | templates | {"g100/book.mplstyle"} <= names
    assert not [name for name in names if name.startswith(("nbs", "tests"))]


def test_sdist_holds_the_licence(built):
    names = tarfile.open(next(built.glob("*.tar.gz"))).getnames()
    assert {Path(name).name for name in names} >= {"LICENSE", "settings.ini", "README.md"}


def test_installed_wheel_works_away_from_the_clone(built, tmp_path):
    site, wheel = tmp_path / "site", next(built.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    data = mvtec_folder(tmp_path / "bottle")
    words = ["run", "patchcore", "--data", f"mvtec:{data}", "--out", "out", "--backbone", "resnet18", "--weights", "random"]
    code = f"""
import sys, g100
assert g100.__file__.startswith({str(site)!r}), g100.__file__
from g100.experiments.cli import main
sys.argv = ["g100", *{[*words, "--set", "image_size=64"]!r}]
main()
"""
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file() and '"commit": null' in (tmp_path / "out/metrics.json").read_text()


def test_public_names_are_there_and_cost_nothing_to_name():
    for name in g100.__all__:
        assert getattr(g100, name) is not None
    assert set(g100.__all__) <= set(dir(g100))
    with pytest.raises(AttributeError, match="PatchCor"):
        g100.PatchCor  # noqa: B018
    code = "import sys, g100; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def module_of(path: Path) -> str | None:
    "The module that a notebook exports, such as data or algorithms.patchcore."
    for cell in read(path).cells:
        if found := re.match(r"#\|\s*default_exp\s+(\S+)", cell.source):
            return found[1]
    return None


def imported(module: str) -> set[str]:
    "The modules of g100 that a module imports, anywhere in it."
    file = ROOT / "g100" / (module.replace(".", "/") + ".py")
    depth = module.count(".") + 1
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth and node.module:
            found.add(node.module)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("g100."):
            found.add(node.module.removeprefix("g100."))
    return found


def test_rooms_import_only_from_rooms_before_them():
    order = [module for path in chapters() if (module := module_of(path))]
    assert len(order) == len(set(order)) >= 14
    for n, module in enumerate(order):
        assert imported(module) <= set(order[:n]), f"{module} imports from a room behind it"


def test_nothing_is_undefined_and_all_is_tidy():
    ruff = [Path(sys.executable).parent / "ruff", "check", "--no-cache"]
    for words in (["nbs", "tests", "setup.py"], ["--isolated", "--select", "F821", "g100"]):
        done = subprocess.run([*ruff, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_readme_has_both_commands_in_one_line_each():
    lines = [line for line in (ROOT / "README.md").read_text().splitlines()[:40] if line.startswith("python3 -m venv")]
    assert [line.rsplit("/", 1)[-1] for line in lines] == ["g100 demo", "pytest"]


def test_benchmarks_can_be_imported():
    for file in (ROOT / "tests" / "benchmarks").glob("[!_]*.py"):
        __import__(f"tests.benchmarks.{file.stem}")
