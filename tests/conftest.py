"""Tests run in one process a core, each on one thread: more threads than cores would only wait for each other."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread():
    import torch  # here, since it reads the variables above when it is imported

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def within(monkeypatch, capsys):
    "The command g100 in this process, which spares the start."
    from g100.experiments import cli

    def call(*words) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["g100", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return subprocess.CompletedProcess(words, end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The folder of the sdist, and of the wheel that is built from the sdist. For tests of the xdist group package."
    copy = tmp_path_factory.mktemp("build") / "g100"
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(Path(__file__).parents[1], copy, ignore=ignore)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation"], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.fixture(scope="session")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def chromium():
    "A real browser, for pages."
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (it comes with the extra dev)")
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
