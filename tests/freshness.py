"""What the outputs of a notebook rest on beside its own code: the modules it imports, the tables it reads, the versions.

The code of a chapter must be that which made its outputs: a test holds that. What lies below it may be newer, since a new
sentence in a table or a faster loop in a module need not cost half an hour of computing at once; `python -m tests.notebooks
refresh` finds those chapters and runs them, and no others.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("g100", "tests")  # what is imported from elsewhere is held by the versions


def file_of(name: str) -> Path | None:
    "The file of a module of the repository, None for what is none."
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def homes() -> dict[str, str]:
    "The module of each name that is importable from g100 itself."
    tree = ast.parse((ROOT / "g100" / "__init__.py").read_text(encoding="utf-8"))
    table = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "_HOME")
    return {name: f"g100.{module}" for name, module in ast.literal_eval(table).items()}


def imported(tree: ast.AST, package: str = "") -> set[str]:
    "The modules of the repository that code imports; `package`: the one that its relative imports start from."
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            names = {alias.name for alias in node.names}
            found |= {homes().get(name, module) for name in names} if module == "g100" else {module}
            found |= {f"{module}.{name}" for name in names}
    return {name for name in found if name.split(".")[0] in ROOMS and file_of(name)}


def bare(tree: ast.AST) -> str:
    "Code without its docstrings, comments and layout: what can change a result."
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


@cache
def of_module(name: str) -> tuple[str, frozenset[str]]:
    "A hash of a module's code, and the modules that it imports."
    file = file_of(name)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    below = frozenset(imported(tree, package))
    return hashlib.sha256(bare(tree).encode()).hexdigest(), below


def code_of(nb) -> tuple[ast.Module, str]:
    "The code of a notebook, as a tree of what Python can parse, and as text."
    cells = [re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE) for cell in nb.cells if cell.cell_type == "code"]
    return ast.parse("\n".join(cells)), "\n".join(cells)


def below(nb) -> dict[str, str]:
    "Hashes of all that a notebook's outputs rest on beside its own code, by name."
    tree, text = code_of(nb)
    waiting, found = imported(tree), {}
    while waiting:
        name = waiting.pop()
        found[name], more = of_module(name)
        waiting |= more - found.keys()
    tables = {ROOT / "nbs" / "results" / name for name in re.findall(r"[\w-]+\.csv", text)}
    for file in (*tables, ROOT / "constraints.txt"):
        if file.is_file():
            found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def stamp(nb) -> str:
    "One hash of all that `below` names."
    return hashlib.sha256(repr(sorted(below(nb).items())).encode()).hexdigest()
