"""What keeps the notebooks and the package honest: in sync, clean, fresh, and they run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import notebooks
from tests.notebooks import ROOT, chapters, code_hash, read, templates

BIN = Path(sys.executable).parent


def name(path: Path) -> str:
    return path.stem


def test_package_is_what_the_notebooks_export(tmp_path):
    copy = tmp_path / "g100"
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for file in ("settings.ini", "setup.py", "README.md"):
        shutil.copy(ROOT / file, copy)
    (copy / "g100").mkdir()
    for file in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "g100" / file, copy / "g100")
    subprocess.run([BIN / "nbdev_export"], check=True, cwd=copy)

    def modules(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in (root / "g100").rglob("*.py")}

    assert modules(copy) == modules(ROOT)


@pytest.mark.parametrize("path", chapters() + templates(), ids=name)
def test_notebook_is_clean(path, tmp_path):
    copy = shutil.copy(path, tmp_path)
    notebooks.clean(Path(copy))
    assert Path(copy).read_text() == path.read_text()


@pytest.mark.parametrize("path", chapters(), ids=name)
def test_outputs_are_fresh(path):
    nb = read(path)
    stamp = nb.metadata.get("g100", {}).get("executed")
    assert stamp == code_hash(nb), f"run: python -m tests.notebooks refresh {path.relative_to(ROOT)}"
    assert path.stat().st_size < 400_000, "outputs must stay small"


@pytest.mark.parametrize("path", templates(), ids=name)
def test_template_is_stored_without_outputs(path):
    nb = read(path)
    assert not any(cell.get("outputs") for cell in nb.cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in nb.cells) == 1


@pytest.mark.parametrize("path", chapters(), ids=name)
def test_cells_stay_short(path):
    for cell in read(path).cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        limit = 26 if cell.source.startswith("#| export") else 30  # the directive is not code
        assert cell.cell_type != "code" or len(lines) <= limit, f"{len(lines)} lines: {lines[:2]}"


def test_readme_is_what_the_index_says():
    assert notebooks.readme() == (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", chapters(), ids=name)
def test_notebook_runs(path):
    notebooks.run(path)
