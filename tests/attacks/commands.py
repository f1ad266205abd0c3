"""Words after `g100` and folders after `--out`: what is refused, what stays as it was, what a benchmark's folder may hold."""

import csv
import json
import os
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache, partial
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from g100.experiments import cli
from g100.foundations.detector import load
from g100.foundations.errors import MEMORY, G100Error
from g100.foundations.folders import MARK, beside, files_below, fresh_folder, locked, mark
from tests.attacks.cases import Case, Debris, Lost, unprivileged
from tests.test_benchmark import write_row
from tests.toys import MeanPicture, mvtec_folder, pictures

MEAN = ("--set", "image_size=16", "--set", "calibration=0.3", "--device", "cpu")


def command(*words) -> tuple[int, str, str]:
    "Exit code, standard output and standard error of `g100 WORDS`, run in this process."
    out, err, before = StringIO(), StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(sys, "argv", ["g100", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, out.getvalue(), err.getvalue()


def done(*words) -> str:
    "What a command that must go well has written on standard output and standard error."
    code, out, err = command(*words)
    assert code == 0, f"code {code}: {err[-300:]}"
    return out + err


def clear(*words) -> None:
    "A command must end with code 2 and a line; a G100Error of that line is raised, for the runner to look at."
    code, _, err = command(*words)
    lines = [line for line in err.splitlines() if line.startswith(("g100: ", "Error: "))]
    assert code == 2, f"code {code}: {err[-300:]}"
    assert len(lines) == 1 and "Traceback" not in err, err
    raise G100Error(lines[0])


@lru_cache
def small() -> MeanPicture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MeanPicture(image_size=16, calibration=0.3).fit(pictures(12, 16), device="cpu")


def material(folder: Path) -> None:
    "A model, photographs and a data set, as the cases find them."
    small().save(folder / "model")
    (folder / "photos").mkdir()
    for i, image in enumerate(pictures(4, 16)):
        Image.fromarray(image).save(folder / "photos" / f"{i}.png")
    mvtec_folder(folder / "data", good=8, bad=2, size=16)


@contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    "What lies in these folders must be there afterwards, to the byte; Lost if it is not."
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    try:
        yield
    finally:
        for path, data in before.items():
            if not path.is_file() or path.read_bytes() != data:
                raise Lost(path)


def inspecting(folder: Path, out, *more) -> tuple:
    return ("inspect", folder / "model", folder / "photos", "--out", out, "--device", "cpu", *more)


def running(folder: Path, out, *more) -> tuple:
    return ("run", "mean-picture", "--data", f"mvtec:{folder / 'data'}", "--out", out, *MEAN, *more)


COMMANDS = {"inspect": inspecting, "run": running}


def whole(out: Path, n: int = 4) -> None:
    "A result of `inspect`: a verdict and an overlay for every picture."
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == n and all((out / "pictures" / row["picture"]).is_file() for row in rows)


# ---- --out


def someones(folder: Path) -> Path:
    "A folder that g100 has not made."
    (folder / "mine").mkdir()
    (folder / "mine" / "diary.txt").write_text("precious")
    return folder / "mine"


def ours(folder: Path) -> Path:
    "A folder that g100 has made."
    with fresh_folder(folder / "ours") as draft:
        (draft / "result.txt").write_text("old")
    return folder / "ours"


def with_a_note(folder: Path) -> Path:
    (ours(folder) / "note.txt").write_text("mine")
    return folder / "ours"


def without_its_mark(folder: Path) -> Path:
    (ours(folder) / MARK).unlink()
    return folder / "ours"


def with_a_forged_mark(folder: Path) -> Path:
    (someones(folder) / MARK).write_text('{"made by g100": "diary.txt"}')
    return folder / "mine"


def with_an_odd_mark(folder: Path) -> Path:
    (someones(folder) / MARK).write_text("[" * 100_000)
    return folder / "mine"


def a_link(folder: Path) -> Path:
    (folder / "link").symlink_to(ours(folder), target_is_directory=True)
    return folder / "link"


def a_dangling_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link"


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("precious")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "out"


def an_empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def a_marked_folder_of_pictures(folder: Path) -> Path:
    "The photographs to be judged, where somebody has copied a mark that fits."
    mark(folder / "photos")
    mark(folder / "data")
    return folder


def place(name: str) -> Callable[[Path], Path]:
    def there(folder: Path) -> Path:
        return folder / name

    there.__name__ = name
    return there


def in_the_marked(name: str) -> Callable[[Path], Path]:
    def there(folder: Path) -> Path:
        return a_marked_folder_of_pictures(folder) / name

    there.__name__ = f"{name} that bears a mark"
    return there


FOREIGN = (
    someones,
    with_a_note,
    without_its_mark,
    with_a_forged_mark,
    with_an_odd_mark,
    a_link,
    a_dangling_link,
    a_file,
    below_a_file,
    an_empty_folder,
    place("model"),
    place("photos"),
    place("data"),
    place("data/train"),
    place("data/train/good"),
    place("."),
    place(".."),
)


def kept(folder: Path, name: str, where: Callable, force: bool) -> None:
    "What stands at --out stays, whatever is said of force."
    material(folder)
    out = where(folder)
    with unchanged(folder):
        clear(*COMMANDS[name](folder, out, *["--force"] * force))


def in_use(folder: Path, name: str, needed: str) -> None:
    "A folder of g100's making that holds what is needed."
    material(folder)
    with fresh_folder(folder / "ours") as draft:
        shutil.copytree(folder / needed, draft / needed)
    words = [
        str(word).replace(str(folder / needed), str(folder / "ours" / needed))
        for word in COMMANDS[name](folder, folder / "ours", "--force")
    ]
    with unchanged(folder):
        clear(*words)


def here(folder: Path, name: str, out: str) -> None:
    "The working folder, or one above it, even if it bears a mark."
    material(folder)
    with fresh_folder(folder / "ours") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "x").write_text("x")
    before = os.getcwd()
    os.chdir(folder / "ours" / "deep")
    try:
        with unchanged(folder):
            clear(*COMMANDS[name](folder, out, "--force"))
    finally:
        os.chdir(before)


def replaced(folder: Path) -> None:
    material(folder)
    done(*inspecting(folder, ours(folder), "--force"))
    whole(folder / "ours")
    assert "ours/result.txt" not in files_below(folder)


def made_at(folder: Path, out: str) -> None:
    "A name of any kind, relative to the working folder."
    material(folder)
    os.chdir(folder)
    done(*inspecting(folder, out))
    whole(Path(os.path.abspath(out)))


def refused_at(folder: Path, out: str) -> None:
    material(folder)
    os.chdir(folder)
    with unchanged(folder):
        clear(*inspecting(folder, out))


def appears(folder: Path) -> None:
    "Somebody makes the folder while the pictures are judged."
    material(folder)
    judge = cli.write_verdicts

    def slow(*how):
        someones(folder)
        return judge(*how)

    with unchanged(folder), patch.object(cli, "write_verdicts", slow):
        try:
            clear(*inspecting(folder, folder / "mine"))
        finally:
            whole(folder / "mine-2")


def at_work(folder: Path, name: str, force: bool) -> None:
    "Another command holds the folder."
    material(folder)
    out = ours(folder) if force else folder / "out"
    with locked(beside(out, "lock")), unchanged(folder):
        clear(*COMMANDS[name](folder, out, *["--force"] * force))


GOOD_NAMES = (
    "a b",
    "ä",
    "缺陷",
    "{}",
    "{out}",
    "{0.__class__}",
    "%s",
    "$HOME",
    "~",
    "a'b",
    'a"b',
    "a;b",
    "[a]",
    "*",
    "-x",
    "😀",
    "x" * 255,
    "a/b/c/d",
    "./a",
    "a/",
    "a/../b",
    ".hidden",
    "new\nline",
    "\udcff",
    "con",
    "a\\b",
    " ",
)
BAD_NAMES = (
    "",
    ".",
    "..",
    "x" * 256,
    "缺" * 86,
    "/".join(["x" * 200] * 30),
    "photos",
    "model/model.json/x",
    "/dev/null",
    "/dev/full",
    "/proc/x",
    "/",
    "/proc/self/fd/1",
    "a/./../photos",
)


# ---- words

PATCHCORE = ("run", "patchcore", "--data", "elpv:mono", "--out", "o")
MEAN_PICTURE = ("run", "mean-picture", "--data", "elpv:mono", "--out", "o")
BENCHMARK = ("benchmark", "--algorithms", "mean-picture", "--data", "elpv:mono", "--out", "o")
WRONG = {
    "an unknown command": ("fly",),
    "an unknown algorithm": ("run", "patchcor", "--data", "elpv:mono", "--out", "o"),
    "a module that is not there": ("run", "nobody:Detector", "--data", "elpv:mono", "--out", "o"),
    "a module's name that is code": ("run", "os;x:system", "--data", "elpv:mono", "--out", "o"),
    "a class that is no detector": ("run", "os:PathLike", "--data", "elpv:mono", "--out", "o"),
    "no data": ("run", "patchcore", "--out", "o"),
    "no out": ("run", "patchcore", "--data", "elpv:mono"),
    "data without a layout": ("run", "patchcore", "--data", "mono", "--out", "o"),
    "data without a place": ("run", "patchcore", "--data", "mvtec:", "--out", "o"),
    "data that is not there": ("run", "patchcore", "--data", "mvtec:nowhere", "--out", "o"),
    "an empty layout": ("run", "patchcore", "--data", ":x", "--out", "o"),
    "a null byte in data": ("run", "patchcore", "--data", "mvtec:a\0b", "--out", "o"),
    "a place that is too long": ("run", "patchcore", "--data", "mvtec:" + "x" * 5000, "--out", "o"),
    "a kind that is none": ("run", "patchcore", "--data", "elpv:multi", "--out", "o"),
    "a seed that is no number": (*PATCHCORE, "--seed", "x"),
    "a seed below zero": (*PATCHCORE, "--seed", "-1"),
    "a seed of 40 digits": (*PATCHCORE, "--seed", "9" * 40),
    "a seed told twice": (*PATCHCORE, "--seed", "1", "--set", "seed=x"),
    "a device that is none": (*MEAN_PICTURE, "--device", "tpu9"),
    "a backbone that is none": (*PATCHCORE, "--backbone", "resnet1"),
    "weights that are not there": (*PATCHCORE, "--weights", "none.safetensors"),
    "one picture to learn from": (*PATCHCORE, "--limit-train", "1"),
    "no pictures to learn from": (*PATCHCORE, "--limit-train", "0"),
    "fewer than none": (*PATCHCORE, "--limit-train", "-3"),
    "a metric size of 0": (*MEAN_PICTURE, "--metric-size", "0"),
    "a metric size that is none": (*MEAN_PICTURE, "--metric-size", "-2"),
    "a superscript for a metric size": (*MEAN_PICTURE, "--metric-size", "²"),
    "a model that is not there": ("inspect", "nowhere", "photos", "--out", "o"),
    "a folder that is no model": ("inspect", "photos", "photos", "--out", "o"),
    "a file that is no model": ("inspect", "photos/0.png", "photos", "--out", "o"),
    "no pictures": ("inspect", "model", "--out", "o"),
    "pictures that are not there": ("inspect", "model", "nowhere", "--out", "o"),
    "a pattern that fits nothing": ("inspect", "model", "*.gif", "--out", "o"),
    "a rate of 0": ("inspect", "model", "photos", "--out", "o", "--target-fpr", "0"),
    "a rate of 2": ("inspect", "model", "photos", "--out", "o", "--target-fpr", "2"),
    "a rate that is none": ("inspect", "model", "photos", "--out", "o", "--target-fpr", "nan"),
    "a rate below zero": ("inspect", "model", "photos", "--out", "o", "--target-fpr=-0.1"),
    "a rate that cannot be promised": ("inspect", "model", "photos", "--out", "o", "--target-fpr", "1e-9"),
    "a scheduler that does not answer": ("inspect", "model", "photos", "--out", "o", "--scheduler", "tcp://127.0.0.1:9"),
    "a scheduler that is none": ("inspect", "model", "photos", "--out", "o", "--scheduler", "gopher://x"),
    "a scheduler's file that is none": ("inspect", "model", "photos", "--out", "o", "--scheduler", "model/model.json"),
    "an algorithm that is not the model's": ("inspect", "model", "photos", "--out", "o", "--algorithm", "os:PathLike"),
    "seeds that are none": (*BENCHMARK, "--seeds", "0;1"),
    "an empty seed": (*BENCHMARK, "--seeds", "0,"),
    "a seed of a benchmark below zero": (
        *BENCHMARK,
        "--seeds=-1",
    ),
    "an empty algorithm": ("benchmark", "--algorithms", "mean-picture,", "--data", "elpv:mono", "--out", "o"),
    "no algorithm": ("benchmark", "--algorithms", "", "--data", "elpv:mono", "--out", "o"),
    "no job": (*BENCHMARK, "--jobs", "0"),
    "jobs below zero": (*BENCHMARK, "--jobs", "-1"),
    "a parameter of another algorithm": (
        *BENCHMARK,
        "--set",
        "k=3",
    ),
    "a parameter of an algorithm that is not there": (
        *BENCHMARK,
        "--set",
        "riad:k=3",
    ),
    "a benchmark's data that is not there": ("benchmark", "--algorithms", "mean-picture", "--data", "mvtec:x", "--out", "o"),
    "a benchmark in a file": ("benchmark", "--algorithms", "mean-picture", "--data", "elpv:mono", "--out", "photos/0.png"),
    "a benchmark below a file": ("benchmark", "--algorithms", "mean-picture", "--data", "elpv:mono", "--out", "photos/0.png/x"),
    "a benchmark among photographs": ("benchmark", "--algorithms", "mean-picture", "--data", "elpv:mono", "--out", "photos"),
    "a benchmark on the model": ("benchmark", "--algorithms", "mean-picture", "--data", "elpv:mono", "--out", "model"),
}
SETTINGS = (
    "",
    "=",
    "=1",
    "x",
    "x=1",
    "image_size",
    "image_size=",
    "image_size=abc",
    "image_size=0",
    "image_size=-5",
    "image_size=1e9",
    "image_size=NaN",
    "image_size=Infinity",
    "image_size=[1]",
    "image_size={}",
    "image_size=true",
    "image_size=9999999999999999999999",
    "image_size=16.5",
    "image_size=null",
    'image_size="16"',
    "image_size=[[[[[[",
    "calibration=2",
    "calibration=-1",
    "calibration=x",
    "target_fpr=0",
    "target_fpr=1e999",
    "batch_size=0",
    "sigma=-1",
    "sigma=1e30",
    "image_score=best",
    "__class__=x",
    "a.b=1",
    "seed=0.5",
    "a" * 10_000 + "=1",
    "image_size=" + "9" * 5000,
    "image_size=" + "[" * 100_000,
    "\x1b[31m=1",
    "image_size=\x1b[31m",
)


def wrong(folder: Path, words: tuple) -> None:
    "Words that cannot be meant; nothing is written, and nothing is lost."
    material(folder)
    os.chdir(folder)
    with unchanged(folder):
        try:
            clear(*words)
        finally:
            if strays := {path.name for path in folder.iterdir()} - {"model", "photos", "data"}:
                raise Debris(strays)


# ---- disk, rights, memory


@contextmanager
def disk_of(limit: int) -> Iterator[None]:
    "Within the block no file can grow beyond so many bytes."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full(folder: Path, name: str, limit: int) -> None:
    "A disk on which no file can grow beyond some bytes."
    material(folder)
    try:
        with unchanged(folder), disk_of(limit):
            clear(*COMMANDS[name](folder, folder / "out"))
    finally:
        if strays := {path.name for path in folder.iterdir()} - {"model", "photos", "data"}:
            raise Debris(strays)


def full_while_saving(folder: Path, limit: int) -> None:
    "A model is not half a model, and the one that was there stays."
    small().save(folder / "model")
    try:
        with unchanged(folder), disk_of(limit):
            small().save(folder / "model", force=True)
    except OSError as error:
        assert str(folder) in str(error), "the file is not named"
        raise G100Error(f"{error}") from None
    finally:
        load(folder / "model", device="cpu")


def no_rights(folder: Path, what: str, mode: int) -> None:
    "Rights that are missing."
    material(folder)
    folder.chmod(0o777)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / what).chmod(mode)
    out = folder / "photos" / "out" if what == "photos" and mode & 0o4 else folder / "out"
    try:
        with unprivileged():
            if what == "photos/0.png":  # one of four: a line in the table
                assert "1 of 4 pictures cannot be read" in done(*inspecting(folder, out))
                return
            clear(*inspecting(folder, out))
    finally:
        (folder / what).chmod(0o755)


def raising(folder: Path, error: BaseException) -> None:
    "An error of the system in the middle of the work."
    material(folder)

    def fails(*how):
        raise error

    with unchanged(folder), patch.object(cli, "write_verdicts", fails):
        try:
            clear(*inspecting(folder, folder / "out"))
        finally:
            if (folder / "out").exists():
                raise Debris(folder / "out")


# ---- the folder of a benchmark


def benchmark(folder: Path) -> tuple:
    "A finished benchmark of two cells, and the words that would go on with it."
    material(folder)
    data = f"mvtec:{folder / 'data'}"
    words = ("benchmark", "--algorithms", "mean-picture", "--data", data, "--out", folder / "bench", "--seeds", "0,1", *MEAN)
    (folder / "bench" / "cells").mkdir(parents=True)
    parameters = {"image_size": 16, "calibration": 0.3}
    cells = [
        {"algorithm": "mean-picture", "data": data, "seed": seed, "parameters": parameters, "paper": False} for seed in (0, 1)
    ]
    (folder / "bench" / "grid.json").write_text(json.dumps({"cells": cells}))
    for seed in (0, 1):
        write_row(folder / "bench" / "cells" / f"mean-picture-mvtec-data-{seed}", "mean-picture", seed)
    return words


ROWS = (
    "",
    "{",
    "[]",
    "7",
    "null",
    '"x"',
    "{}",
    '{"counts": 7}',
    '{"counts": {}, "params": {}}',
    "\xff",
    "[" * 100_000,
    '{"counts": null}',
)


def corrupt_row(folder: Path, text: str) -> None:
    words = benchmark(folder)
    file = folder / "bench" / "cells" / "mean-picture-mvtec-data-1" / "metrics.json"
    file.write_bytes(text.encode("latin-1"))
    with unchanged(folder / "bench" / "cells"):
        clear(*words)


def corrupt_grid(folder: Path, text: str) -> None:
    words = benchmark(folder)
    (folder / "bench" / "grid.json").write_bytes(text.encode("latin-1"))
    with unchanged(folder / "bench"):
        clear(*words)


def two_at_once(folder: Path) -> None:
    words = benchmark(folder)
    with locked(folder / "bench" / ".lock"), unchanged(folder / "bench"):
        clear(*words)


def other_parameters(folder: Path) -> None:
    words = benchmark(folder)
    with unchanged(folder / "bench"):
        clear(*words, "--set", "sigma=3")


def cases() -> Iterator[Case]:
    for name in COMMANDS:
        for where in FOREIGN:
            for force in (False, True):
                said = where.__name__.replace("_", " ")
                yield Case(f"{name}{' --force' * force}: --out is {said}", partial(kept, name=name, where=where, force=force))
        marked = in_the_marked("data" if name == "run" else "photos")
        yield Case(f"{name} --force: --out is {marked.__name__}", partial(kept, name=name, where=marked, force=True))
        yield Case(
            f"{name} --force: a folder that holds the data",
            partial(in_use, name=name, needed="data" if name == "run" else "photos"),
        )
        for out in (".", "..", "../deep", "/", "../../ours"):
            yield Case(f"{name} --force: --out {out}", partial(here, name=name, out=out))
        for force in (False, True):
            yield Case(
                f"{name}{' --force' * force}: another command at work", partial(at_work, name=name, force=force), word="at work"
            )
    yield Case("inspect --force: a folder that holds the model", partial(in_use, name="inspect", needed="model"), word="in use")
    yield Case("a result is replaced by force", replaced, "right")
    yield Case("a folder appears meanwhile", appears, word="mine-2")
    for out in GOOD_NAMES:
        yield Case(f"--out {ascii(out)[:30]}", partial(made_at, out=out), "right")
    for i, out in enumerate(BAD_NAMES):
        yield Case(f"--out {ascii(out)[:30]} cannot be, {i}", partial(refused_at, out=out))
    for what, words in WRONG.items():
        yield Case(what, partial(wrong, words=words))
    for setting in SETTINGS:
        words = (*MEAN_PICTURE, "--set", setting)
        yield Case(f"--set {ascii(setting)[:40]}", partial(wrong, words=words))
    for limit in (0, 60, 150):
        yield Case(f"a disk for {limit} bytes a file", partial(full, name="inspect", limit=limit), word="out")
    for limit in (0, 10, 500, 2000):
        yield Case(f"a disk for {limit} bytes a file, while saving", partial(full_while_saving, limit=limit))
    for what, mode in (
        ("photos", 0o000),
        ("photos/0.png", 0o000),
        ("model", 0o000),
        ("model/model.json", 0o000),
        ("model/model.safetensors", 0o000),
        ("photos", 0o555),
        (".", 0o555),
        (".", 0o000),
    ):
        wants = "right" if what == "photos/0.png" else "clear"
        yield Case(f"rights {mode:03o} of {what}", partial(no_rights, what=what, mode=mode), wants)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")):
        yield Case(f"{type(error).__name__} in the middle", partial(raising, error=error), word=MEMORY)
    for error in (
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error"),
        PermissionError(13, "Permission denied", "x"),
        TimeoutError(),
    ):
        yield Case(f"{error!r} in the middle", partial(raising, error=error))
    for i, text in enumerate(ROWS):
        yield Case(
            f"a row of a benchmark that is none, {i}: {ascii(text)[:20]}", partial(corrupt_row, text=text), word="metrics.json"
        )
        yield Case(
            f"a grid of a benchmark that is none, {i}: {ascii(text)[:20]}", partial(corrupt_grid, text=text), word="grid.json"
        )
    yield Case("two benchmarks in one folder", two_at_once, word="at work")
    yield Case("a benchmark with other parameters", other_parameters)
