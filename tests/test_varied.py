"""The `parameters` cell of a chapter: what it offers to vary is used, and the chapter holds with what it proposes to try.

A line of it is `name = value  # what it is; try OTHER`. `papermill CHAPTER OUT -p name other` runs the chapter so.
"""

import ast
import re

import papermill
import pytest

from docs.contents import PARTS
from tests import notebooks

BOOK = [path for path in notebooks.chapters() if any(path.stem in part.chapters for part in PARTS[:-1])]  # no engine room


def offered(path) -> dict:
    "Name -> (value, the one to try) of a chapter's parameters."
    found = papermill.inspect_notebook(str(path)).values()
    tried = {one["name"]: re.fullmatch(r".+; try (.+)", one["help"]) for one in found}
    assert all(tried.values()), f"no `; try VALUE` in the comment of {[name for name, match in tried.items() if not match]}"
    return {one["name"]: (ast.literal_eval(one["default"]), ast.literal_eval(tried[one["name"]][1])) for one in found}


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_a_chapter_offers_what_can_be_varied(path):
    cells = notebooks.read(path).cells
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and not cells[tagged[0]].source.startswith("#| export")
    parameters = offered(path)
    assert 1 <= len(parameters) <= 3
    later = "\n".join(cell.source for cell in cells[tagged[0] + 1 :] if cell.cell_type == "code")
    read = {node.id for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", later, flags=re.MULTILINE)))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}  # fmt: skip
    for name, (value, other) in parameters.items():
        assert name in read, f"{name} is not used"
        assert type(value) is type(other) and value != other, name
        assert isinstance(value, int | float | str | list), f"{name}: papermill writes a {type(value).__name__} as text"


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_a_chapter_holds_with_what_it_proposes(path):
    notebooks.run(path, {name: other for name, (_, other) in offered(path).items()}, timeout=1200)
