"""What keeps the notebooks and the package honest: in sync, clean, fresh, their links lead somewhere, and they run."""

import ast
import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from docs.stage import is_imports
from tests import notebooks
from tests.notebooks import ROOT, chapters, code_hash, read, solutions, templates

BIN = Path(sys.executable).parent


def name(path: Path) -> str:
    return path.stem


def test_package_is_what_the_notebooks_export(tmp_path):
    copy = tmp_path / "g100"
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for file in ("settings.ini", "setup.py", "README.md"):
        shutil.copy(ROOT / file, copy)
    (copy / "g100").mkdir()
    for file in ("__init__.py", "__main__.py", "runtime.py"):
        shutil.copy(ROOT / "g100" / file, copy / "g100")
    subprocess.run([BIN / "nbdev_export"], check=True, cwd=copy)

    def modules(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in (root / "g100").rglob("*.py")}

    assert modules(copy) == modules(ROOT)


@pytest.mark.parametrize("path", chapters() + solutions() + templates(), ids=name)
def test_notebook_is_clean(path, tmp_path):
    copy = shutil.copy(path, tmp_path)
    notebooks.clean(Path(copy))
    assert Path(copy).read_text() == path.read_text()


@pytest.mark.parametrize("path", chapters() + solutions(), ids=name)
def test_outputs_are_fresh(path):
    nb = read(path)
    stamp = nb.metadata.get("g100", {}).get("executed")
    assert stamp == code_hash(nb), f"run: python -m tests.notebooks refresh {path.relative_to(ROOT)}"
    assert path.stat().st_size < 2_000_000, "outputs must stay small"


@pytest.mark.parametrize("path", templates(), ids=name)
def test_template_is_stored_without_outputs(path):
    nb = read(path)
    assert not any(cell.get("outputs") for cell in nb.cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in nb.cells) == 1


LONGER = {  # classes that are longer than about 60 lines, and why they stay whole
    "Detector": 114,  # the contract in one place: parameters, and a line or two for each of its methods
    "TrainedDetector": 75,  # the same for training: a third of it is parameters
    "FCDD": 100,  # most of it are parameters, and `fit` with labels
}


def code_lines(source: str, node: ast.AST) -> int:
    "Lines of code of a function or class: blank lines, comments on their own and docstrings are not counted."
    told = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner) is not None:
            told |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    lines = source.splitlines()
    return sum(1 for n in range(node.lineno, node.end_lineno + 1)
               if n not in told and lines[n - 1].strip() and not lines[n - 1].strip().startswith("#"))  # fmt: skip


@pytest.mark.parametrize("path", chapters(), ids=name)
def test_what_is_exported_stays_short(path):
    "Functions under 25 lines, a class whole in one cell and up to about 60."
    for cell in read(path).cells:
        if cell.cell_type == "code" and cell.source.startswith("#| export"):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef):
                    assert code_lines(cell.source, node) < 25, node.name
                elif isinstance(node, ast.ClassDef):
                    assert code_lines(cell.source, node) <= LONGER.get(node.name, 64), node.name


@pytest.mark.parametrize("path", chapters() + solutions(), ids=name)
def test_what_is_shown_stays_short(path):
    for cell in read(path).cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if cell.cell_type == "code" and not cell.source.startswith("#| export") and not is_imports(cell.source):
            assert len(lines) <= 30, f"{len(lines)} lines: {lines[:2]}"


def links(text: str) -> list[str]:
    "The relative links of a Markdown text, code and formulas left out, without what stands behind #."
    text = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL)
    return [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("https?:|mailto:|#", link)]


@pytest.mark.parametrize("path", [*chapters(), *solutions(), *templates(), ROOT / "README.md"], ids=name)
def test_every_link_leads_to_a_file(path):
    if path.suffix == ".md":
        texts = [path.read_text()]
    else:
        texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    lost = [link for text in texts for link in links(text) if not (path.parent / link).exists()]
    assert not lost


def test_readme_is_what_the_index_says():
    assert notebooks.readme() == (ROOT / "README.md").read_text()


LONG = {"16_patchcore", "17_bank", "20_semiorth", "25_riad", "26_vae", "27_favae", "29_kdad", "32_fcdd"}  # minutes
LONG |= {"48_report", "35_comparison", "51_console", "40_your_own", "37_watch", "38_engines", "21_alignment"}
LONG |= {"14_merging"}
LONG |= {"1_see_and_measure", "2_remember", "3_learn", "4_compare"}  # solutions of more than 20 s
RUN = [pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else []) for path in chapters() + solutions()]


@pytest.mark.parametrize("path", RUN, ids=name)
def test_notebook_runs(path):
    notebooks.run(path)


def test_what_is_printed_in_pieces_is_stored_in_one():
    def said(name: str, text: str) -> dict:
        return {"output_type": "stream", "name": name, "text": text}

    shown = {"output_type": "display_data"}
    pieces = [said("stdout", "a\n"), said("stderr", "w"), said("stdout", "b\n"), shown, said("stdout", "c\n")]
    assert notebooks.joined(pieces) == [said("stdout", "a\nb\n"), shown, said("stdout", "c\n")]


def drawn(with_pixels: bool) -> dict:
    "What a notebook's kernel stores of a small figure: a PNG of two pixels for one, and an SVG."
    figure, axis = plt.subplots(figsize=(2, 1))
    if with_pixels:
        axis.imshow([[0, 1]])
    data = {}
    for kind in ("png", "svg"):
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=160, bbox_inches=None)
        data[kind] = file.getvalue()
    plt.close(figure)
    both = {"image/png": base64.b64encode(data["png"]).decode(), "image/svg+xml": data["svg"].decode()}
    return {"data": both, "metadata": {"image/png": {"width": 160, "height": 80}}}


def test_a_figure_of_lines_is_stored_as_lines_and_one_of_pixels_as_pixels():
    lines, pixels = notebooks.lighter(drawn(False)), notebooks.lighter(drawn(True))
    assert list(lines["data"]) == ["image/svg+xml"] and not lines["metadata"]
    assert list(pixels["data"]) == ["image/png"] and pixels["metadata"]["image/png"]["width"] == 160
    root = ElementTree.fromstring(lines["data"]["image/svg+xml"])
    assert (root.get("width"), root.get("height")) == ("160", "80"), "as large on the page as at 80 dots an inch"
    assert "date" not in lines["data"]["image/svg+xml"]
