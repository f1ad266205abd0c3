"""Commands killed, stopped, resumed, started twice, or run for long: nothing is lost, nothing is left, nothing grows."""

import csv
import gc
import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import psutil
import torch
from tqdm import tqdm

from g100.foundations.detector import load
from g100.foundations.errors import G100Error
from tests.attacks.cases import Case, Debris, Lost
from tests.attacks.commands import command, done, inspecting, material, small, unchanged, whole
from tests.toys import MeanPicture, mvtec_folder, pictures

torch.set_num_threads(1)  # before the first fork: a pool of threads does not survive one
tqdm.set_lock(threading.RLock())  # its own is shared with a fork, and a fork that is killed would keep it
TINY = ("--device", "cpu", "--set", "image_size=32", "--set", "sigma=1")
RIAD = ("riad", *TINY, "--set", "ks=[4,8]", "--set", "width=4", "--set", "depth=1")
PATCHCORE = ("patchcore", *TINY, "--backbone", "resnet18", "--weights", "random")


def forked(work: Callable, folder: Path) -> int:
    "Start a process that does the work and exits with the code it gives; what it says goes into `said.txt`."
    if pid := os.fork():
        return pid
    code = 3
    try:
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 2)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def told(*words) -> Callable[[], int]:
    "The command as work for `forked`."

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code, _, err = command(*words)
        os.write(2, err.encode())
        return code

    return work


def ended(pid: int) -> int:
    "The exit code of a process, or minus the signal that ended it."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_after(pid: int, seconds: float) -> bool:
    "Kill a process and all that it has started; whether it was still at work."
    time.sleep(seconds)
    try:
        others = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        others = []
    os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    for one in others:
        try:
            one.kill()
            one.wait(10)
        except psutil.NoSuchProcess:
            pass
    return code == -signal.SIGKILL


def nothing_else(folder: Path, *names: str) -> None:
    "Debris if there is anything else than these, the material and what was said."
    strays = {path.name for path in folder.iterdir()} - {"model", "photos", "data", "said.txt", *names}
    if strays:
        raise Debris(strays)


# ---- kills


@lru_cache
def another() -> MeanPicture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MeanPicture(image_size=16, calibration=0.3, sigma=2.0).fit(pictures(12, 16, seed=3), device="cpu")


def killed_while_saving(folder: Path, seed: int, times: int = 20) -> None:
    "A folder into which two models are saved by turns is, whenever that is cut off, one of the two."
    chance, X = random.Random(seed), pictures(2, 16)
    scores = [detector.inspect(X).score.tolist() for detector in (small(), another())]
    small().save(folder / "m")

    def saving() -> None:
        for _ in range(100_000):
            another().save(folder / "m", force=True)
            small().save(folder / "m", force=True)

    for _ in range(times):
        assert killed_after(forked(saving, folder), chance.uniform(0.01, 0.15)), (folder / "said.txt").read_text()
        if load(folder / "m", device="cpu").inspect(X).score.tolist() not in scores:
            raise Lost(folder / "m")
    small().save(folder / "m", force=True)
    nothing_else(folder, "m")


def killed_while_inspecting(folder: Path, seed: int, times: int = 15) -> None:
    "A result is there whole or not at all, and the one that was there before stays until then."
    chance = random.Random(seed)
    material(folder)
    words = inspecting(folder, folder / "out", "--force")
    with unchanged(folder / "model", folder / "photos", folder / "data"):
        for i in range(times):
            killed_after(forked(told(*words), folder), chance.uniform(0, 0.12))
            if (folder / "out").exists() or i > times // 2:
                whole(folder / "out")
            if i == times // 2:
                done(*words)
        done(*words)
    nothing_else(folder, "out")


def complete(out: Path) -> list[dict]:
    "The table of scores of a finished run, of which the model can be loaded."
    assert (out / "metrics.json").is_file() and (out / "report.html").is_file()
    load(out / "model", device="cpu")
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def killed_while_running(folder: Path, seed: int, times: int = 6) -> None:
    chance = random.Random(seed)
    data = mvtec_folder(folder / "data", good=12, bad=2, size=32)
    words = ("run", *PATCHCORE, "--data", f"mvtec:{data}", "--out", folder / "out", "--force")
    with unchanged(data):
        for _ in range(times):
            killed_after(forked(told(*words), folder), chance.uniform(0.5, 8))
            if (folder / "out").exists():
                complete(folder / "out")
        done(*words)
    assert len(complete(folder / "out")) == 4
    nothing_else(folder, "out")


def killed_while_training(folder: Path, seed: int) -> None:
    "Resumed until it ends, a training gives what it gives undisturbed."
    chance = random.Random(seed)
    data = mvtec_folder(folder / "data", good=12, bad=2, size=32)
    words = ("run", *RIAD, "--data", f"mvtec:{data}", "--set", "epochs=60", "--set", "patience=60", "--out")
    done(*words, folder / "undisturbed")
    for _ in range(12):
        if not killed_after(forked(told(*words, folder / "out", "--resume"), folder), chance.uniform(3, 8)):
            break
    if not (folder / "out").exists():
        done(*words, folder / "out", "--resume")
    assert complete(folder / "out") == complete(folder / "undisturbed")
    nothing_else(folder, "out", "undisturbed")


def killed_while_comparing(folder: Path, seed: int, times: int = 4) -> None:
    "What a benchmark has finished is not run again, and what it has left goes."
    chance = random.Random(seed)
    data = mvtec_folder(folder / "data", good=12, bad=2, size=32)
    words = ("benchmark", "--algorithms", "patchcore", "--data", f"mvtec:{data}", "--seeds", "0,1", "--out", folder / "bench")
    words += (
        "--device",
        "cpu",
        "--set",
        "image_size=32",
        "--set",
        "backbone=resnet18",
        "--set",
        "weights=random",
        "--set",
        "sigma=1",
    )
    finished = {}
    for _ in range(times):
        killed_after(forked(told(*words), folder), chance.uniform(2, 12))
        for file, data in finished.items():
            if file.read_bytes() != data:
                raise Lost(file)
        cells = (folder / "bench").glob("cells/[!.]*/metrics.json")  # those with a dot are drafts
        finished = {file: file.read_bytes() for file in cells}
    done(*words)
    for seed in (0, 1):
        complete(folder / "bench" / "cells" / f"patchcore-mvtec-data-{seed}")
    if left := sorted(path.name for path in (folder / "bench").rglob(".*") if path.name != ".g100"):
        raise Debris(left)


# ---- told to stop


def stopped(folder: Path, words: Callable, number: int, after: float, left: tuple = ()) -> None:
    "Code 130, a word, no debris, and soon."
    material(folder)
    pid = forked(told(*words(folder)), folder)
    time.sleep(after)
    os.kill(pid, number)
    start = time.monotonic()
    code = ended(pid)
    took, said = time.monotonic() - start, (folder / "said.txt").read_text()
    assert code == 130 and "interrupted, " in said and "Traceback" not in said, f"code {code}: {said[-500:]}"
    assert took < 10, f"{took:.1f} s"
    nothing_else(folder, *left)
    left_over = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert not left_over, left_over


def long_inspection(folder: Path) -> tuple:
    for i in range(2000):
        os.link(folder / "photos" / "0.png", folder / "photos" / f"more{i}.png")
    return inspecting(folder, folder / "out")


def long_run(folder: Path) -> tuple:
    return (
        "run",
        *RIAD,
        "--data",
        f"mvtec:{folder / 'data'}",
        "--set",
        "epochs=100000",
        "--set",
        "patience=99999",
        "--out",
        folder / "out",
    )


def without_its_kernel(folder: Path) -> None:
    "The process that computes is killed, as a system does that has no memory left."
    material(folder)
    pid = forked(told(*long_run(folder)), folder)
    until(lambda: any(busy(child) for child in psutil.Process(pid).children()))
    for child in psutil.Process(pid).children():
        child.kill()
    code, said = ended(pid), (folder / "said.txt").read_text()
    assert code == 2, said
    lines = [line for line in said.splitlines() if line.startswith("g100: ")]
    nothing_else(folder, "out.checkpoint")
    raise G100Error(lines[-1])


def busy(process: psutil.Process) -> bool:
    return process.cpu_times().user > 1.5


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not come to that")


# ---- at the same time


def two_inspections(folder: Path) -> None:
    "One of two has its way, the other one is refused and has touched nothing."
    material(folder)
    words = inspecting(folder, folder / "out")
    codes = sorted(ended(pid) for pid in [forked(told(*words), folder) for _ in range(3)])
    assert codes == [0, 2, 2], codes
    whole(folder / "out")
    nothing_else(folder, "out")


def many_savers(folder: Path) -> None:
    X = pictures(2, 16)
    scores = [detector.inspect(X).score.tolist() for detector in (small(), another())]

    def saving() -> None:
        for i in range(40):
            try:
                (small(), another())[(os.getpid() + i) % 2].save(folder / "m", force=True)
            except G100Error as error:
                assert "at work" in str(error) or "meanwhile" in str(error) or "exists" in str(error), error

    for pid in [forked(saving, folder) for _ in range(3)]:
        assert ended(pid) == 0, (folder / "said.txt").read_text()
    assert load(folder / "m", device="cpu").inspect(X).score.tolist() in scores
    for path in folder.iterdir():  # one that found the name taken has kept its own beside
        assert path.name == "said.txt" or load(path, device="cpu").inspect(X).score.tolist() in scores


def beside_a_live_run(folder: Path, more: tuple) -> None:
    "--resume, and --force, while the run that they mean is alive."
    material(folder)
    words = (
        "run",
        *RIAD,
        "--data",
        f"mvtec:{folder / 'data'}",
        "--set",
        "epochs=400",
        "--set",
        "patience=400",
        "--out",
        folder / "out",
    )
    pid = forked(told(*words), folder)
    until(lambda: any(busy(child) for child in psutil.Process(pid).children()))
    code, _, err = command(*words, *more)
    assert ended(pid) == 0, (folder / "said.txt").read_text()
    complete(folder / "out")
    nothing_else(folder, "out")
    assert code == 2, err
    raise G100Error(err.splitlines()[-1])


def threads_agree(folder: Path) -> None:
    "Four threads that judge with one detector get what one gets."
    X = pictures(40, 16)
    alone, found = small().inspect(X), []
    threads = [threading.Thread(target=lambda: found.append(small().inspect(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(
        np.array_equal(one.score, alone.score) and np.array_equal(one.map, alone.map) for one in found
    )


# ---- for long


def does_not_grow(folder: Path, work: Callable[[Path], None], times: int) -> None:
    "Memory and open files after many calls are what they were after a few."
    me = psutil.Process()
    for _ in range(times // 4):
        work(folder)
    gc.collect()
    before = me.memory_info().rss, me.num_fds(), threading.active_count()
    for _ in range(times):
        work(folder)
    gc.collect()
    with suppress(AssertionError):
        until(lambda: threading.active_count() <= before[2], 5)  # threads that have done their work may still be ending
    after = me.memory_info().rss, me.num_fds(), threading.active_count()
    assert after[0] - before[0] < 30 * 2**20, f"{(after[0] - before[0]) / 2**20:.0f} MiB more after {times} calls"
    assert after[1] <= before[1] and after[2] <= before[2], f"{before} -> {after}"


def judge(folder: Path) -> None:
    small().inspect(pictures(8, 16))


def keep(folder: Path) -> None:
    small().save(folder / "m", force=True)
    load(folder / "m", device="cpu")


def mistake(folder: Path) -> None:
    for wrong in (folder / "none", np.zeros((3, 0, 4)), "*.nothing"):
        try:
            small().inspect(wrong)
        except G100Error:
            continue
        raise AssertionError("it was taken")


def learn(folder: Path) -> None:
    MeanPicture(image_size=16, calibration=0.3, target_fpr=0.3).fit(pictures(12, 16), device="cpu")


def cases() -> Iterator[Case]:
    for seed in range(3):
        yield Case(
            f"20 kills while saving, {seed}", partial(killed_while_saving, seed=seed), "right", seconds=120, slow=seed > 0
        )
        yield Case(
            f"15 kills while inspecting, {seed}",
            partial(killed_while_inspecting, seed=seed),
            "right",
            seconds=120,
            slow=seed > 0,
        )
    for seed in range(2):
        yield Case(
            f"6 kills while running, {seed}",
            partial(killed_while_running, seed=seed),
            "right",
            seconds=400,
            slow=True,
            memory=2000,
        )
        yield Case(
            f"kills while training, {seed}",
            partial(killed_while_training, seed=seed),
            "right",
            seconds=600,
            slow=True,
            memory=2000,
        )
        yield Case(
            f"4 kills while comparing, {seed}",
            partial(killed_while_comparing, seed=seed),
            "right",
            seconds=400,
            slow=True,
            memory=2000,
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        for after in (0.05, 0.5, 1.5):
            yield Case(
                f"{number.name} after {after} s of inspect",
                partial(stopped, words=long_inspection, number=number, after=after),
                "right",
                seconds=60,
                slow=after != 0.5,
            )
        for after in (0.5, 2, 5, 9):
            yield Case(
                f"{number.name} after {after} s of run",
                partial(stopped, words=long_run, number=number, after=after, left=("out.checkpoint",)),
                "right",
                seconds=120,
                slow=True,
                memory=2000,
            )
    yield Case(
        "the process that computes is killed", without_its_kernel, word="was killed", seconds=120, slow=True, memory=2000
    )
    yield Case("three inspections into one folder", two_inspections, "right", seconds=60)
    yield Case("three processes save into one folder", many_savers, "right", seconds=120)
    for more in (("--resume",), ("--force",), ("--resume", "--force")):
        yield Case(
            f"run {' '.join(more)} beside a live run",
            partial(beside_a_live_run, more=more),
            word="at work",
            seconds=200,
            slow=True,
            memory=2000,
        )
    yield Case("four threads agree with one", threads_agree, "right")
    for work, times in ((judge, 2000), (keep, 100), (mistake, 300), (learn, 100)):
        yield Case(
            f"{times} times: {work.__name__}",
            partial(does_not_grow, work=work, times=times),
            "right",
            seconds=300,
            slow=times > 100,
        )
