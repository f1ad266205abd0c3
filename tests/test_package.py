"""The package as a thing that is built, installed and imported; and the order of its rooms."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import g100
from tests.notebooks import ROOT, chapters, read

pytestmark = pytest.mark.xdist_group("package")  # what is built is built once


def test_wheel_holds_the_package_and_the_templates(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "g100").rglob("*.py")}
    templates = {f"g100/reports/{p.name}" for p in (ROOT / "nbs" / "reports").glob("*.ipynb")}
    page = {f"g100/foundations/page.{kind}" for kind in ("js", "css")}
    assert modules | templates | page | {"g100/book.mplstyle", "g100/py.typed"} <= names
    assert not [name for name in names if name.startswith(("nbs", "tests"))]


def test_sdist_holds_the_licence(built):
    names = tarfile.open(next(built.glob("*.tar.gz"))).getnames()
    assert {Path(name).name for name in names} >= {"LICENSE", "settings.ini", "README.md", "py.typed"}


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


ROOMS = ("foundations", "algorithms", "experiments")


def imported(module: str) -> set[str]:
    "The modules of g100 that a module imports, such as foundations.maps, wherever in its file."
    file, found = ROOT / "g100" / (module.replace(".", "/") + ".py"), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = ["g100", *module.split(".")][: -node.level] if node.level else []
            whole = ".".join([*base, node.module])
            if whole.startswith("g100."):
                found.add(whole.removeprefix("g100."))
    return found


def test_every_module_has_its_chapter_and_both_sides_have_the_same_rooms():
    files = (p.relative_to(ROOT / "g100").with_suffix("") for p in (ROOT / "g100").rglob("[!_]*.py"))
    modules = {file.as_posix().replace("/", ".") for file in files} - {"runtime"}  # a door, written by hand
    of = {path: module for path in chapters() if (module := module_of(path))}
    assert sorted(of.values()) == sorted(modules)
    for path, module in of.items():
        room, _, name = module.partition(".")
        assert path.parent.name.split("_")[1] == room
        assert path.stem.split("_")[1] == {"errors": "notation"}.get(name, name)


def test_chapters_are_numbered_as_they_are_read_without_a_gap():
    numbers = [int(path.stem.split("_")[0]) for path in chapters() if path.stem != "index"]
    assert numbers == list(range(len(numbers)))


def test_rooms_import_only_from_rooms_before_them_and_in_no_circle():
    of = {module: imported(module) for path in chapters() if (module := module_of(path))}
    assert len(of) >= 30
    for module, others in of.items():
        room = ROOMS.index(module.partition(".")[0])
        assert all(ROOMS.index(other.partition(".")[0]) <= room for other in others), f"{module} imports from a room behind it"
    done = []
    while left := [module for module in of if module not in done]:
        free = [module for module in left if of[module] <= set(done)]
        assert free, f"these import one another in a circle: {left}"
        done += free


def classes() -> dict[str, list[str]]:
    "The classes of the package and what each is derived from."
    found = {}
    for file in (ROOT / "g100").rglob("[!_]*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name] = [getattr(base, "id", getattr(base, "attr", "")) for base in node.bases]
    return found


STAND_INS = {"_Outlier", "_Estimator"}  # for type checkers alone, in the place of two classes of scikit-learn


def test_classes_are_few_and_shallow():
    "A class is there because it is a thing, not because a cell was too long for the one before it."
    of = classes()

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in of[name] if base in of), default=0)

    exported = [name for name in of if not name.startswith("_")]
    assert len(exported) <= 60, sorted(exported)
    assert max(map(depth, of)) <= 4, max(of, key=depth)
    bases = [base for mine in of.values() for base in mine if base in of]
    assert {name for name in of if bases.count(name) == 1} <= STAND_INS, "a class with a single subclass"


def test_nothing_is_undefined_and_all_is_tidy():
    ruff = [Path(sys.executable).parent / "ruff", "check", "--no-cache"]
    for words in (["nbs", "tests", "docs", "setup.py"], ["--isolated", "--select", "F821", "g100"]):
        done = subprocess.run([*ruff, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_readme_has_both_commands_in_one_line_each():
    lines = [line for line in (ROOT / "README.md").read_text().splitlines()[:40] if line.startswith("python3 -m venv")]
    assert [line.rsplit("/", 1)[-1] for line in lines] == ["g100 demo", "pytest"]


def test_benchmarks_can_be_imported():
    for file in (ROOT / "tests" / "benchmarks").glob("[!_]*.py"):
        __import__(f"tests.benchmarks.{file.stem}")
