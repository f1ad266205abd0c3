"""What tools see of g100: mypy on the README's snippets, and what an editor offers for completion."""

import os
import re
import subprocess
import sys
from dataclasses import fields

import jedi
import pytest

import g100
from g100.foundations.detector import ALGORITHMS, Inspection, algorithm
from tests.notebooks import ROOT

pytestmark = pytest.mark.xdist_group("tools")
ELSEWHERE = ("torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib", "cv2", "PIL", "accelerate", "tqdm")
WRONG = {
    "PatchCore(coreset_ratoi=0.1)": 'Unexpected keyword argument "coreset_ratoi" for "PatchCore"',
    'KDAD(epochs="many")': 'Argument "epochs" to "KDAD" has incompatible type "str"',
    'FAVAE().fit("good/").inspect("new/").scores': '"Inspection" has no attribute "scores"',
}


def snippets() -> str:
    "The Python of the README."
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, str]:
    "What mypy says of two files, as a user's project has them: the README's snippets, and mistakes."
    home = tmp_path_factory.mktemp("mypy")
    first = "import numpy as np\n\nframe = np.zeros((9, 9, 3), np.uint8)\n"
    last = "from g100 import G100Error, FCDD, RIAD, SemiOrthogonal, run_experiment\n"
    (home / "right.py").write_text(first + snippets() + last)
    (home / "wrong.py").write_text("from g100 import FAVAE, KDAD, PatchCore\n" + "\n".join(WRONG))
    skipped = "\n".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True" for name in ELSEWHERE)
    (home / "mypy.ini").write_text(f"[mypy]\nmypy_path = {ROOT}\n{skipped}\n[mypy-g100.*]\nignore_errors = True\n")
    words = [sys.executable, "-m", "mypy", "right.py", "wrong.py", "--cache-dir", home / "cache"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert "wrong.py" in done.stdout, done.stdout + done.stderr
    return {name: "\n".join(line for line in done.stdout.splitlines() if line.startswith(name)) for name in ("right", "wrong")}


def test_mypy_finds_nothing_in_the_readme(said):
    assert "PatchCore" in snippets() and said["right"] == ""


def test_mypy_finds_mistakes(said):
    for mistake in WRONG.values():
        assert mistake in said["wrong"]
    assert len([line for line in said["wrong"].splitlines() if ": error:" in line]) == len(WRONG)


def editor(code: str) -> jedi.Script:
    return jedi.Script(code, project=jedi.Project(ROOT, added_sys_path=[str(ROOT)], smart_sys_path=False))


@pytest.mark.parametrize("name", [name for name, place in ALGORITHMS.items() if place.startswith("g100.")])
def test_the_signature_is_offered(name):
    cls = algorithm(name)
    code = f"from g100 import {cls.__name__}\n{cls.__name__}("
    (signature,) = editor(code).get_signatures()
    assert {f.name for f in fields(cls)} <= {p.name for p in signature.params}


def test_members_of_a_verdict_are_offered():
    code = "from g100 import PatchCore\nverdicts = PatchCore().fit('good/').inspect('new/')\nverdicts."
    offered = {completion.name for completion in editor(code).complete()}
    assert {f.name for f in fields(Inspection)} <= offered
    assert {"plot", "table"} <= offered


def test_what_mypy_is_told_is_what_can_be_imported():
    told = set(re.findall(r"^    from g100\..+ import (\w+) as \1$", (ROOT / "g100" / "__init__.py").read_text(), re.MULTILINE))
    assert told == set(g100.__all__)
