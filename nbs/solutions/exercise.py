"""What the notebooks of solutions share: the numbers that a reader should see, and the cells of a chapter, changed as asked."""

import ast
import re
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

import nbformat
import numpy as np


def see(target, found, within=0.0):
    "Print what should be seen, numbers or a text; AssertionError where what was found differs, numbers by more than `within`."
    if isinstance(target, str):
        assert found == target, f"should be {target!r}, is {found!r}"
        return print(f"you should see {target}")
    target, found = np.atleast_1d(target), np.atleast_1d(np.asarray(found, float))
    assert np.allclose(found, target, rtol=0, atol=within), f"should be {target}, is {found}"
    measured = f" (here {', '.join(f'{value:.4g}' for value in found)})" if within else ""
    print(f"you should see {', '.join(str(value) for value in target.tolist())}{measured}")


def defined(source):
    "The names that the top level of a cell defines."
    nodes = ast.parse(source).body
    named = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = (target for node in nodes if isinstance(node, ast.Assign) for target in node.targets)
    return named | {name.id for target in assigned for name in ast.walk(target) if isinstance(name, ast.Name)}


def chapter(path, *names, change=()):
    """A dict of what a chapter knows: its module, imports and parameters, and what those cells define in which these names are.

    path: the notebook, seen from here; change: pairs (old, new) of what is written otherwise. KeyError for a name or an old
    text that the chapter does not have."""
    there, left = {"__name__": "chapter"}, dict(change)
    for cell in nbformat.read(path, as_version=4).cells:
        source = re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE) if cell.cell_type == "code" else ""
        if module := re.match(r"#\| default_exp (\S+)", source):
            there |= vars(import_module(f"g100.{module[1]}"))
        tree = ast.parse(source)
        if set(names) & defined(source) or "parameters" in cell.metadata.get("tags", []):
            for old in [old for old in left if old in source]:
                source = source.replace(old, left.pop(old))
            tree = ast.parse(source)
        else:
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        with redirect_stdout(StringIO()):
            exec(compile(tree, str(path), "exec"), there)
    if missing := [name for name in names if name not in there] + list(left):
        raise KeyError(f"{path} has no {missing[0]!r}")
    return there
