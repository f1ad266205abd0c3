"""The corpus of attacks (`python -m tests.attacks`): its fast part, and that its runner sees what it is there to see."""

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from g100.foundations.errors import G100Error
from tests.attacks.__main__ import CLASSES, main, source
from tests.attacks.cases import Case, Debris, Lost, canary, evil_pickle, refused
from tests.attacks.commands import clear, done
from tests.attacks.runner import Result, failures, run, table

EVERY = {
    "images": 4,
    "arrays": 3,
    "labels": 2,
    "layouts": 2,
    "models": 14,
    "weights": 6,
    "parameters": 50,
    "names": 5,
    "commands": 11,
    "stopping": 1,
    "fuzz": 40,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_so_many_of_the_cases_end_as_they_must(kind):
    results = run(kind, source(kind), lambda i, case: i % EVERY[kind] == 0 and not case.slow)
    print(table(results))
    assert len(results) >= (8 if kind == "stopping" else 20) and not failures(results), failures(results)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_all_of_them(kind):
    results = run(kind, source(kind))
    print(table(results))
    assert not failures(results), failures(results)


def test_the_corpus_is_as_large_as_it_is_said_to_be():
    of = {kind: [case.name for case in source(kind)()] for kind in CLASSES}
    assert sum(map(len, of.values())) - len(of["fuzz"]) >= 4000 and len(of["fuzz"]) == 4000
    cards = [name for name in of["models"] if "card" in name or name.startswith("model.json")]
    tensors = [name for name in of["models"] if "'s tensor " in name or name.startswith(("tensors", "model.safetensors"))]
    assert len(cards) >= 400 and len(tensors) >= 300
    wrong = [name for name in of["parameters"] if " is " in name]
    assert len(wrong) >= 12 * 6 * 20


# ---- the runner: one case of every outcome, most of which must be seen as failures


def work_silent(folder: Path) -> None:
    assert folder == 1


def work_foreign(folder: Path) -> None:
    np.testing.assert_array_equal(1, 2)


def work_two_lines(folder: Path) -> None:
    error = G100Error("one")
    error.args = ("one\ntwo",)
    raise error


def work_debris(folder: Path) -> None:
    Path("left").touch()


def work_partial(folder: Path) -> None:
    (folder / ".x.partial").touch()


def work_code(folder: Path) -> None:
    import pickle

    pickle.loads(evil_pickle())


def work_memory(folder: Path) -> None:
    np.ones(2**27)


def work_too_much(folder: Path) -> None:
    np.ones(2**50)


def work_raises(kind: type[BaseException]):
    def work(folder: Path) -> None:
        raise kind("here")

    return work


def toys() -> Iterator[Case]:
    "Named by the outcome that the runner must find."
    yield Case("right", lambda folder: None, "right")
    yield Case("clear", work_raises(G100Error), "clear", word="here")
    yield Case("clear, though it should be right", work_raises(G100Error), "right")
    yield Case("right, though it should be clear", lambda folder: None)
    yield Case("silent", work_silent)
    yield Case("silent, NumPy's", work_foreign)
    yield Case("silent, for it does not name it", work_raises(G100Error), word="x.png")
    yield Case("traceback", work_raises(KeyError))
    yield Case("traceback of two lines", work_two_lines)
    yield Case("lost", work_raises(Lost))
    yield Case("debris", work_raises(Debris))
    yield Case("debris beside", work_debris, "right")
    yield Case("debris, a draft", work_partial, "right")
    yield Case("code run", work_code, "right")
    yield Case("memory", work_memory, "right")
    yield Case("memory, more than there is", work_too_much, "right")
    yield Case("hang", lambda folder: time.sleep(60), seconds=1)
    yield Case("died", lambda folder: os._exit(3))
    yield Case("right after all that", lambda folder: canary().write_text if not canary().exists() else None, "right")


@pytest.mark.slow
def test_the_runner_sees_every_outcome():
    results = run("toys", toys)
    assert [r.case.name for r in results] == [case.name for case in toys()], "none is left out, whatever happens to the others"
    for r in results:
        assert r.case.name.startswith(r.outcome), (r.case.name, r.outcome, r.said)
    met = [r.case.name for r in results if r.met]
    assert met == ["right", "clear", "right after all that"]
    assert len(failures(results).splitlines()) == len(results) - 3
    counts = table(results).splitlines()[-1].split()
    assert counts[:2] == ["all", str(len(results))]


def test_a_command_is_an_attack_like_any_call(monkeypatch):
    assert "unknown algorithm" in refused(clear, "run", "nosuch", "--data", "folder:none", "--out", "none")
    assert "such option" in refused(clear, "list", "--nosuch")
    assert "patchcore" in done("list")
    with pytest.raises(AssertionError, match="code 0"):
        clear("list")
    with pytest.raises(AssertionError, match="code 2"):
        done("list", "--nosuch")
    monkeypatch.setattr("tests.attacks.commands.command", lambda *words: (1, "", "Traceback"))
    with pytest.raises(AssertionError, match="code 1"):
        clear("list")


def test_a_case_that_wants_either_is_met_by_both_and_nothing_else():
    case = Case("x", lambda folder: None, "either")
    assert [o for o in ("clear", "right", "traceback", "silent") if Result("x", case, o).met] == ["clear", "right"]


def test_the_command_ends_with_1_where_a_case_fails(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attacks", "arrays", "--only", "uint8, read"])
    assert main() == 0 and "uint8, read: right" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["attacks", "arrays", "--only", "no case has this name"])
    assert main() == 1, "nothing was run"
    module = importlib.import_module("tests.attacks.arrays")
    monkeypatch.setattr("tests.attacks.__main__.source", lambda kind: toys)
    monkeypatch.setattr("sys.argv", ["attacks", "arrays", "--only", "traceback"])
    assert main() == 1 and "wants clear, was traceback" in capsys.readouterr().out and module
