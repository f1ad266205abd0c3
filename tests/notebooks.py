"""The notebooks as files: where they are, how one is run, and what keeps its committed outputs honest.

`python -m tests.notebooks refresh [NOTEBOOK ...]` exports the package, runs notebooks (those named; else those whose code, or
what it rests on, has changed, see tests/freshness.py; with `--all` every one), stores their fresh outputs, stamps them, and
writes README.md. `stale` names them and runs none. `zh`, `zh-stale` and `zh-stamp` are for the translation (tests/chinese.py).
"""

import base64
import copy
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbconvert
import nbformat
import papermill
from PIL import Image

from tests import freshness

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
SKIPPED = re.compile(r"^#\|\s*(eval:\s*false|slow|notest)\b", re.MULTILINE)


def chapters() -> list[Path]:
    "The notebooks of the book as they are read, in the order of their numbers, without templates and solutions."
    others = {"reports", "solutions", ".ipynb_checkpoints"}
    found = (p for p in NBS.rglob("*.ipynb") if not others & set(p.relative_to(NBS).parts))
    return sorted(found, key=lambda p: (p.stem != "index", p.name))


def templates() -> list[Path]:
    return sorted((NBS / "reports").glob("*.ipynb"))


def solutions() -> list[Path]:
    "The notebooks of `nbs/solutions`, one for each part of the book; nothing is exported from them."
    return sorted((NBS / "solutions").glob("*.ipynb"))


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_hash(nb) -> str:
    "SHA-256 of the code cells in their order: what the outputs depend on, as far as a notebook can say."
    code = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


# figures that a screen or a printer shows sharp: two pixels for one, and as lines
SHARP = ("--InlineBackend.figure_formats=retina", "--InlineBackend.figure_formats=svg")
LINES = 120_000  # bytes that a figure may have as SVG: one of ten thousand points is better kept as pixels


def run(path: Path, parameters: dict | None = None, timeout: int = 600, arguments: tuple[str, ...] = ()):
    "Run a notebook in its own folder through papermill and give it back executed; the file is not touched."
    nb = copy.deepcopy(read(path))
    for cell in nb.cells:
        if cell.cell_type == "code" and SKIPPED.search(cell.source):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "skip-execution"]
    with tempfile.TemporaryDirectory() as folder:
        source, executed = Path(folder) / path.name, Path(folder) / f"executed-{path.name}"
        nbformat.write(nb, source)
        unknown = set(parameters or {}) - set(papermill.inspect_notebook(str(source)))
        assert not unknown, f"{path.name} has no parameters {sorted(unknown)}"
        papermill.execute_notebook(
            str(source), str(executed), parameters=parameters or {}, kernel_name="python3", cwd=str(path.parent),
            execution_timeout=timeout, progress_bar=False, extra_arguments=["--IPKernelApp.log_level=50", *arguments],
        )  # fmt: skip
        return read(executed)


def as_lines(svg: str) -> str:
    "An SVG of matplotlib as large on the page as the PNG of 80 dots an inch, without the day and the program that drew it."
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'\b(width|height)="([\d.]+)pt"', lambda m: f'{m[1]}="{float(m[2]) * 80 / 72:.0f}"', svg, count=2)


def lighter(output):
    "The output with one picture: lines as SVG, if nothing in it is made of pixels; else a PNG, opaque and tightly packed."
    data, told = output.get("data", {}), output.get("metadata", {})
    if "<image" not in (svg := data.pop("image/svg+xml", "<image")) and len(svg) < LINES:
        data.pop("image/png"), told.pop("image/png", None)
        data["image/svg+xml"] = as_lines(svg)
    if "image/png" in data:
        picture, file = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGBA"), io.BytesIO()
        paper = Image.new("RGBA", picture.size, "white")
        Image.alpha_composite(paper, picture).convert("RGB").save(file, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
    return output


def joined(outputs: list) -> list:
    "The outputs without what was said on stderr; what came on stdout in pieces, as it does where a cell is slow, in one."
    kept = []
    for output in outputs:
        if output.get("name") == "stdout" and kept and kept[-1].get("name") == "stdout":
            kept[-1]["text"] += output["text"]
        elif output.get("name") != "stderr":
            kept.append(output)
    return kept


def refresh(path: Path) -> None:
    "Store fresh outputs in a notebook, cell by cell (papermill's own metadata stays out), clean it and stamp it."
    nb, executed = read(path), {cell.id: cell for cell in run(path, arguments=SHARP).cells}
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = list(map(lighter, joined(executed[cell.id].outputs)))
            cell.execution_count = None
    nb.metadata["g100"] = {"executed": code_hash(nb), "below": freshness.stamp(nb)}
    nbformat.write(nb, path)
    clean(path)


def stale(path: Path) -> bool:
    "Whether the code of a notebook, or what it rests on, is not that which made its outputs."
    nb = read(path)
    return nb.metadata.get("g100") != {"executed": code_hash(nb), "below": freshness.stamp(nb)}


def clean(path: Path) -> None:
    subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", str(path)], check=True, cwd=ROOT)


def markdown(nb) -> str:
    "A notebook of `nbs` as Markdown, its hidden cells left out, links seen from the top of the repository."
    nb.cells = [cell for cell in nb.cells if not cell.source.startswith("#| hide")]
    for cell in nb.cells:
        if cell.source.startswith("#| echo: false"):
            cell.source = ""
    page, _ = nbconvert.MarkdownExporter().from_notebook_node(nb)
    page = re.sub(r"```(python)?\n\s*```\n", "", page)
    page = re.sub(r"\]\((?!http|#|\.\./)", "](nbs/", page).replace("](../", "](")
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def switched(nb, **links: str):
    "The notebook with links below its title, such as to itself in another language."
    title, _, rest = nb.cells[0].source.partition("\n")
    line = " · ".join(f"[{name}]({target})" for name, target in links.items())
    nb.cells[0].source = f"{title}\n\n{line}\n{rest}"
    return nb


def readme() -> str:
    "README.md: the index notebook, with the way to the Chinese one."
    return markdown(switched(read(NBS / "index.ipynb"), 中文="../README.zh-CN.md"))


def export() -> None:
    "Write the package from the notebooks."
    subprocess.run([Path(sys.executable).parent / "nbdev_export"], check=True, cwd=ROOT)


if __name__ == "__main__":
    from tests import chinese

    if sys.argv[1:2] and sys.argv[1] in ("zh", "zh-stale", "zh-stamp"):
        sys.exit(chinese.command(sys.argv[1:]))
    if sys.argv[1:2] == ["stale"]:
        sys.exit("\n".join(str(path.relative_to(ROOT)) for path in chapters() + solutions() if stale(path)) or None)
    if sys.argv[1:2] != ["refresh"]:
        sys.exit(__doc__)
    os.environ.pop("MPLBACKEND", None)
    export()
    everything = "--all" in sys.argv
    named = [Path(name).resolve() for name in sys.argv[2:] if name != "--all"]
    for chapter in named or [path for path in chapters() + solutions() if everything or stale(path)]:
        print(chapter.relative_to(ROOT), flush=True)
        refresh(chapter)
    (ROOT / "README.md").write_text(readme())
    (ROOT / "README.zh-CN.md").write_text(chinese.readme(), encoding="utf-8")
