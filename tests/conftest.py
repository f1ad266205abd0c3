"""Tests run in one process a core, each on one thread: more threads than cores would only wait for each other."""

import os
import subprocess
import sys

import pytest

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
