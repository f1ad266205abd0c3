"What a notebook's outputs rest on: its own imports, those of what it imports, the tables it reads; not the words about them."

import nbformat
import pytest

from tests import freshness


@pytest.fixture
def house(tmp_path, monkeypatch):
    "A small repository: a imports b, and c.d its neighbour c.e."
    files = {
        "g100/__init__.py": '_HOME = {"A": "a", "D": "c.d"}', "g100/a.py": "from .b import g as h\n\nclass A: pass",
        "g100/b.py": '"Words."\ndef g():\n    "More words."\n    return 1', "g100/c/__init__.py": "",
        "g100/c/d.py": "def D():\n    from .e import x\n    from ..b import g\n    return x", "g100/c/e.py": "x = 1",
        "tests/t.py": "import g100.c.e", "nbs/results/some.csv": "1", "constraints.txt": "torch==1",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(freshness, "ROOT", tmp_path)
    freshness.homes.cache_clear()
    freshness.of_module.cache_clear()
    yield tmp_path
    freshness.homes.cache_clear()
    freshness.of_module.cache_clear()


def notebook(*cells: str):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


@pytest.mark.parametrize("cell, found", [
    ("import numpy", []), ("from g100.a import A", ["g100.a", "g100.b"]), ("from g100 import A", ["g100.a", "g100.b"]),
    ("%time\nfrom g100 import D", ["g100.b", "g100.c.d", "g100.c.e"]), ("import tests.t", ["g100.c.e", "tests.t"]),
    ("from g100.c import e", ["g100.c", "g100.c.e"]), ("read('some.csv', 'other.csv')", ["some.csv"]),
])  # fmt: skip
def test_what_a_notebook_rests_on(house, cell, found):
    assert sorted(freshness.below(notebook(cell))) == sorted(["constraints.txt", *found])


@pytest.mark.parametrize("file, text, changes", [
    ("g100/b.py", "'Other words.'\ndef g():  # a remark\n\n    return 1", False), ("g100/b.py", "def g():\n    return 2", True),
    ("g100/c/e.py", "x = 2", False), ("nbs/results/some.csv", "2", True), ("constraints.txt", "torch==2", True),
])  # fmt: skip
def test_words_make_nothing_stale_and_code_does(house, file, text, changes):
    nb = notebook("from g100 import A", "open('some.csv')")
    before = freshness.stamp(nb)
    (house / file).write_text(text)
    freshness.of_module.cache_clear()
    assert (freshness.stamp(nb) != before) == changes


def test_every_import_of_the_package_is_seen():
    "Against Python's own word: the modules of g100 that are loaded where each of them is imported alone."
    import subprocess
    import sys

    code = "import sys; import g100.algorithms.riad; print(*sorted(m for m in sys.modules if m.startswith('g100.')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=freshness.ROOT)
    seen = freshness.below(notebook("import g100.algorithms.riad"))
    rooms = {"g100.algorithms", "g100.foundations", "g100.experiments"}
    assert set(told.stdout.split()) - rooms <= seen.keys() | {"g100._modidx"}
