"""What an attack is, what may come of it, and what its author needs to write it."""

import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from g100.foundations.errors import G100Error

ROOT = Path(__file__).parents[2]
GOOD = ("clear", "right")
BAD = ("traceback", "silent", "lost", "code run", "hang", "debris", "memory", "died")


class Lost(Exception):
    "Something that was there before is not there any more, or has changed."


class Debris(Exception):
    "Something has been left behind."


@dataclass(frozen=True)
class Case:
    """An attack. `work` gets an empty folder to put its files in, and does what is attacked from an empty working folder.

    It may raise G100Error, which must be one printable line (and hold the `word`): clear. It may end: right. An `assert` of
    its own that fails is a wrong result without a word: silent. `Lost`, `Debris` say what they are, and anything else is a
    traceback. The runner sees whether code was run (the canary), what is left behind, memory and time.
    """

    name: str
    work: Callable[[Path], None]
    wants: str = "clear"  # or "right", or "either" of them
    word: str = ""  # that the clear line must hold: the name of the file or of the parameter
    seconds: float = 30.0  # until it counts as hanging
    slow: bool = False  # left out of the fast part
    memory: int = 512  # MiB that it may take

    def is_met_by(self, outcome: str) -> bool:
        return outcome in GOOD and self.wants in (outcome, "either")


def canary() -> Path:
    "The file that is there after code was run which came with data."
    return Path(os.environ["G100_CANARY"])


class Evil:
    "An object whose pickle runs code when it is read."

    def __reduce__(self):
        return os.system, (f"touch '{canary()}'",)


def evil_pickle() -> bytes:
    return pickle.dumps(Evil())


@contextmanager
def heard(*words: str) -> Iterator[None]:
    "Within the block there must be a UserWarning, in one printable line, that holds all these words."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    lines = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    assert any(all(word in line for word in words) and line.isprintable() for line in lines), f"{words} not in {lines}"


@contextmanager
def quiet() -> Iterator[None]:
    "Within the block no UserWarning may be heard."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    assert not said, [str(w.message) for w in said]


@contextmanager
def unprivileged() -> Iterator[None]:
    "Within the block the process is nobody, if it is root, so that rights on files are held against it."
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refused(work: Callable, *args, **options) -> str:
    "The line of the G100Error that a call must raise; for cases that go on after it."
    try:
        work(*args, **options)
    except G100Error as error:
        return str(error)
    raise AssertionError(f"{getattr(work, '__name__', work)} took it without a word")


def chunk(kind: bytes, data: bytes) -> bytes:
    "A chunk of a PNG file, with its check sum."
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
