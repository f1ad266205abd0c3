"""What an engineer does in the first hour, with the wheel and away from the clone: `first_hour.py`."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.notebooks import ROOT
from tests.toys import seventh

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("package")]  # shares the wheel with test_package


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    "A Python with g100 from the wheel and everything else from the environment of the tests; nothing is downloaded."
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    found = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    ask = [found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(site) / "others.pth").write_text("\n".join(others))
    pip = [sys.executable, "-m", "pip", "--python", found, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return found


def test_first_hour(python, tmp_path):
    script = shutil.copy(ROOT / "tests" / "first_hour.py", tmp_path)
    (tmp_path / "residual.py").write_text(seventh())
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # where the page's templates are installed
    done = subprocess.run([python, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
