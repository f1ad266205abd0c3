"""Cases run one after the other in a child process; one that hangs or kills the child is counted, and a new child goes on."""

import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from g100.foundations.errors import G100Error, printable
from tests.attacks.cases import BAD, GOOD, Case, Debris, Lost

ADDRESSES = 4 * 2**30  # bytes of addresses that it may reserve
START = 120.0  # seconds that a child may take to import what it needs
LEFT = re.compile(r"\.partial$|\.old$|\.holder$|\.tmp$")


@dataclass(frozen=True)
class Result:
    "What came of a case."

    kind: str  # its class
    case: Case
    outcome: str  # one of GOOD and BAD
    said: str = ""
    seconds: float = 0.0

    @property
    def met(self) -> bool:
        return self.case.is_met_by(self.outcome)


# ---- in the child


def memory(what: str) -> int:
    "Bytes of this process: VmSize, VmRSS, or VmHWM, the highest resident set since `forget_peak`. 0 where none is told."
    with suppress(OSError):
        found = re.search(rf"^{what}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return 1024 * int(found[1])
    return 0


def forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def room(base: Path) -> Iterator[Path]:
    "An empty folder of a case, and around it an empty working folder, an empty one for temporary files, and the canary."
    place = Path(tempfile.mkdtemp(dir=base))
    place.chmod(0o755)
    for name in ("files", "here", "tmp"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    before = os.getcwd(), tempfile.tempdir
    os.environ["G100_CANARY"], tempfile.tempdir = str(place / "canary"), str(place / "tmp")
    os.chdir(place / "here")
    try:
        yield place
    finally:
        os.chdir(before[0])
        tempfile.tempdir = before[1]
        shutil.rmtree(place, ignore_errors=True)


def left_behind(place: Path) -> list[str]:
    "What a case should have taken away with it."
    strays = [path for name in ("here", "tmp") for path in (place / name).rglob("*")]
    return [
        p.relative_to(place).as_posix() for p in [*strays, *(place / "files").rglob("*")] if p in strays or LEFT.search(p.name)
    ]


def of_error(error: BaseException, word: str) -> tuple[str, str]:
    "The outcome that an exception stands for."
    said = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    own = "tests" in Path(frames[-1].filename).parts or "numpy/testing" in frames[-1].filename
    if isinstance(error, G100Error):
        line = str(error)
        if not line or not line.isprintable() or "Traceback" in line or len(line) > 5000:
            return "traceback", f"not one printable line: {line[:500]!r}"
        return ("clear", line) if word in line else ("silent", f"{word!r} is not named in: {line}")
    if isinstance(error, AssertionError) and own:
        return "silent", str(error) or f"assert {frames[-1].line}"
    kinds = {Lost: "lost", Debris: "debris", MemoryError: "memory"}
    outcome = next((outcome for kind, outcome in kinds.items() if isinstance(error, kind)), "traceback")
    return outcome, f"{said} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"


def tried(case: Case, base: Path) -> tuple[str, str]:
    "What came of a case, and what was said."
    forget_peak()
    before = memory("VmRSS")
    with room(base) as place:
        try:
            case.work(place / "files")
            found = "right", ""
        except Exception as error:
            found = of_error(error, case.word)
        if (place / "canary").exists():
            return "code run", found[1]
        if left := left_behind(place):
            return "debris", f"{', '.join(left[:3])} {found[1]}"
    if (grown := (memory("VmHWM") - before) / 2**20) > case.memory:
        return "memory", f"{grown:.0f} MiB; {found[0]}: {found[1]}"
    return found


def child(connection, source: Callable[[], Iterable[Case]], names: list[str]) -> None:
    "Run the cases of these names, telling the parent before and after each."
    import warnings

    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    of = {case.name: case for case in source()}
    limit = memory("VmSize") + ADDRESSES
    if limit > ADDRESSES:
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with tempfile.TemporaryDirectory(prefix="g100-attacks-") as base:
        os.chmod(base, 0o755)
        for name in names:
            connection.send((name, None, "", 0.0))
            start = time.perf_counter()
            outcome, said = tried(of[name], Path(base))
            connection.send((name, outcome, said, time.perf_counter() - start))


# ---- in the parent


def attempt(source: Callable, names: list[str], limits: dict[str, float]) -> Iterator[tuple[str, str, str, float]]:
    "One child: name, outcome, words and seconds of its cases, until all are done or one has hung or ended the child."
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(its, source, names), daemon=False)
    process.start()
    its.close()
    now, wait = names[0], START
    try:
        for _ in range(2 * len(names)):
            if not mine.poll(wait):
                yield now, "hang", f"no end after {wait:.0f} s", wait
                return
            name, outcome, said, seconds = mine.recv()
            now, wait = name, limits[name] if outcome is None else START
            if outcome is not None:
                yield name, outcome, said, seconds
        process.join(START)
    except EOFError:
        process.join()
        yield now, "died", f"the process ended with {process.exitcode}", 0.0
    finally:
        process.kill()
        process.join()
        mine.close()


def run(
    kind: str,
    source: Callable[[], Iterable[Case]],
    chosen: Callable[[int, Case], bool] = lambda i, case: True,
    tell: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    "The results of the chosen cases of a class. `source` is at the top of a module, where the child finds it again."
    cases = {case.name: case for i, case in enumerate(source()) if chosen(i, case)}
    names = [case.name for case in source()]
    assert len(set(names)) == len(names), f"two cases have one name: {[n for n, k in Counter(names).items() if k > 1]}"
    limits = {name: case.seconds for name, case in cases.items()}
    results: list[Result] = []
    while left := [name for name in cases if name not in {r.case.name for r in results}]:
        for name, *found in attempt(source, left, limits):
            results.append(Result(kind, cases[name], *found))
            tell(results[-1])
    return results


def table(results: list[Result]) -> str:
    "Counts by class and outcome."
    counts = Counter((r.kind, r.outcome) for r in results)
    kinds, outcomes = list(dict.fromkeys(r.kind for r in results)), (*GOOD, *BAD)
    lines = [["class", "cases", *outcomes, "not met", "seconds"]]
    for kind in [*kinds, "all"]:
        of = [r for r in results if kind in (r.kind, "all")]
        row = [sum(counts[k, outcome] for k in kinds if kind in (k, "all")) for outcome in outcomes]
        lines.append([kind, len(of), *row, sum(not r.met for r in of), f"{sum(r.seconds for r in of):.0f}"])
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(str(x).ljust(w) if i == 0 else str(x).rjust(w) for i, (x, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def failures(results: list[Result]) -> str:
    "A line for each case that did not end as it must."
    return "\n".join(
        f"{r.kind}: {r.case.name}: wants {r.case.wants}, was {r.outcome}: {printable(r.said)[:300]}"
        for r in results
        if not r.met
    )
