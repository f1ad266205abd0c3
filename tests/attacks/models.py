"""Model folders: cards and tensors with a value changed, sealed again or not; forged headers; other files in their places."""

import hashlib
import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from g100.foundations.checkpoint import read_checkpoint
from g100.foundations.detector import Inspection, algorithm, load
from g100.foundations.store import PICKLES, canonical, digest, read_card, read_model, write_model, write_tensors
from tests.attacks.cases import Case, canary, evil_pickle, unprivileged
from tests.toys import pictures

SHOWN = pictures(3, 24, seed=5)
SETTINGS: dict[str, dict] = {
    "mean-picture": {"calibration": 0.3},
    "patchcore": {"weights": "random", "levels": (1, 2), "coreset_ratio": 0.05, "image_score": "reweighted"},
    "semi-ort": {"weights": "random", "levels": (1, 2), "k": 8},
    "riad": {"epochs": 1, "ks": (2, 4), "width": 4, "depth": 2},
    "favae": {"epochs": 1, "weights": "random", "levels": (1, 2), "z": 4, "width": 4},
    "kdad": {"epochs": 1, "weights": "random", "levels": (1, 2), "width": 4},
    "fcdd": {"epochs": 1, "weights": "random", "levels": (1, 2)},
}


@lru_cache
def model(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    "Card and tensors of a small model of that algorithm."
    import tests.toys  # noqa: F401 - registers mean-picture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = algorithm(name)(image_size=32, target_fpr=0.3, **SETTINGS[name]).fit(pictures(12, 24), device="cpu")
    return {"algorithm": name} | json.loads(canonical(detector.fitted_.card())), detector.fitted_.tensors()


def verdicts(folder: Path, **how) -> Inspection:
    "What the model in a folder says of three pictures; all of it finite and of the right shape."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = load(folder, device="cpu", **how).inspect(SHOWN)
    assert len(said) == 3 and np.isfinite(said.score).all() and all(np.isfinite(map).all() for map in said.map)
    assert (said.is_anomalous == (said.score > said.calibration.threshold)).all()
    assert ((said.p_value > 0) & (said.p_value <= 1)).all()
    return said


@lru_cache
def before(name: str) -> np.ndarray:
    "The scores of the model as it was saved."
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return verdicts(write_model(Path(folder) / "m", *model(name))).score


def whole(folder: Path, name: str) -> None:
    assert (verdicts(write_model(folder / "m", *model(name))).score == before(name)).all()


# ---- values of the card and tensors, sealed again: whoever can write the files can do that


def leaves(card, path=()) -> Iterator[tuple]:
    if isinstance(card, dict):
        yield path
        for key in card:
            yield from leaves(card[key], (*path, key))
    else:
        yield path


VALUES = {
    "null": None,
    "true": True,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "10^9": 10**9,
    "10^30": 10**30,
    "text": "x",
    "empty text": "",
    "list": [],
    "list of lists": [[[1]]],
    "object": {},
}


def changed(card: dict, path: tuple, value) -> dict:
    card = json.loads(json.dumps(card))
    if not path:
        return value
    inner = card
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return card


def seal(folder: Path, card, tensors: dict[str, torch.Tensor]) -> Path:
    "A model folder whose sums are right, whatever is in it."
    folder.mkdir()
    said = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()
    write_tensors(folder / "model.safetensors", tensors, {"card": said})
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def card_value(folder: Path, name: str, path: tuple, value, sealed: bool) -> None:
    card, tensors = model(name)
    card = {"format": 2} | card
    if sealed:
        verdicts(seal(folder / "m", changed(card, path, value), tensors))
        return
    write_model(folder / "m", *model(name))
    (folder / "m" / "model.json").write_text(json.dumps(changed(card, path, value)))
    assert (verdicts(folder / "m").score == before(name)).all()


def without_key(folder: Path, name: str, path: tuple) -> None:
    card, tensors = model(name)
    card = json.loads(json.dumps({"format": 2} | card))
    inner = card
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    verdicts(seal(folder / "m", card, tensors))


def with_key(folder: Path, path: tuple, value) -> None:
    card, tensors = model("mean-picture")
    verdicts(seal(folder / "m", changed({"format": 2} | card, path, value), tensors))


def cards() -> Iterator[Case]:
    for name in ("patchcore", "riad"):
        for path in leaves({"format": 2} | model_shape(name)):
            where = ".".join(path) or "all"
            for what, value in VALUES.items():
                if name == "patchcore" or what in ("null", "-1", "10^9", "text"):
                    yield Case(
                        f"{name}'s card, {where} is {what}, sealed",
                        partial(card_value, name=name, path=path, value=value, sealed=True),
                        "either",
                    )
            if path and name == "patchcore":
                yield Case(f"{name}'s card without {where}", partial(without_key, name=name, path=path), "either")
    for path in leaves({"format": 2} | model_shape("mean-picture")):
        for what in ("null", "10^30", "list of lists"):
            yield Case(
                f"mean-picture's card, {'.'.join(path) or 'all'} is {what}",
                partial(card_value, name="mean-picture", path=path, value=VALUES[what], sealed=False),
                "either",
            )
    for path, value in (
        (("parameters", "device"), "cpu"),
        (("parameters", "__class__"), "x"),
        (("parameters", "nosuch"), 1),
        (("more",), {"a": 1}),
        (("fitted", "notes", "fit"), 1),
        (("fitted", "notes", "__init__"), 1),
        (("fitted", "notes", "history"), "x"),
        (("fitted", "counts", "train"), "x"),
        (("parameters", "self"), 1),
        (("parameters", "cls"), 1),
    ):
        yield Case(f"a card with {'.'.join(path)}", partial(with_key, path=path, value=value), "either")


@lru_cache
def model_shape(name: str) -> dict:
    "The keys of a card, known without a fit."
    from dataclasses import fields

    import tests.toys  # noqa: F401

    parameters = {f.name: None for f in fields(algorithm(name))}
    fitted = dict.fromkeys(("threshold", "pixel_threshold", "typical", "method", "notes"))
    return {"algorithm": name, "parameters": parameters, "fitted": fitted | {"counts": {"train": 0, "calibration": 0}}}


def tensor_value(folder: Path, name: str, which: int, change: Callable) -> None:
    "One tensor of a model is changed, or gone, and the file sealed again."
    card, tensors = model(name)
    key = sorted(tensors)[which % len(tensors)]
    new = change(tensors[key])
    kept = {k: t for k, t in tensors.items() if k != key} | ({} if new is None else {key: new})
    verdicts(write_model(folder / "m", card, kept))


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "gone": lambda t: None,
    "empty": lambda t: t.flatten()[:0],
    "a number": lambda t: t.flatten()[:1].sum(),
    "in one row": lambda t: t.flatten(),
    "with an axis more": lambda t: t[None],
    "twice as long": lambda t: torch.cat([t.reshape(1, *t.shape).flatten(0, 1) if t.ndim else t[None]] * 2),
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "int64": lambda t: t.long(),
    "uint8": lambda t: t.byte(),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "float8": lambda t: t.float().to(torch.float8_e4m3fn),
    "nan": lambda t: (t * float("nan")).float(),
    "1e38": lambda t: torch.full_like(t.float(), 1e38),
    "-1": lambda t: torch.full_like(t, -1),
    "99999": lambda t: torch.full_like(t.float(), 99999).to(t.dtype),
    "0": lambda t: torch.zeros_like(t),
    "reversed": lambda t: t.flatten().flip(0).reshape(t.shape),
    "-1e38": lambda t: torch.full_like(t.float(), -1e38),
}
TURNS = {"mean-picture": 3, "patchcore": 7, "semi-ort": 4, "riad": 3}


def tensors() -> Iterator[Case]:
    for name, turns in TURNS.items():
        for turn in range(turns):
            for what, change in CHANGES.items():
                yield Case(
                    f"{name}'s tensor {turn} is {what}", partial(tensor_value, name=name, which=turn, change=change), "either"
                )


# ---- bytes of the files, not sealed again: nothing may go unnoticed


def spoilt(folder: Path, file: str, how: str, seed: int) -> None:
    path = write_model(folder / "m", *model("mean-picture")) / file
    data, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    at = int(random.integers(len(data)))
    if how == "flip":
        data[at] ^= 1 << int(random.integers(8))
    elif how == "cut":
        del data[at:]
    elif how == "insert":
        data[at:at] = random.bytes(3)
    else:
        data[at : at + 20] = random.bytes(20)
    path.write_bytes(bytes(data))
    assert (verdicts(folder / "m").score == before("mean-picture")).all()


def bytes_() -> Iterator[Case]:
    for file, n in (("model.json", 15), ("model.safetensors", 18)):
        for how in ("flip", "cut", "insert", "noise"):
            for seed in range(n):
                yield Case(f"{file}, {how} {seed}", partial(spoilt, file=file, how=how, seed=seed), "either")


# ---- other files in their places


def placed(folder: Path, file: str, make: Callable[[Path], object]) -> None:
    "A whole model, of which one file is made anew by `make`."
    root = write_model(folder / "m", *model("mean-picture"))
    if (root / file).exists():
        (root / file).unlink()
    make(root / file)
    verdicts(root)


def data(make: Callable[[], bytes] | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(make if isinstance(make, bytes) else make())


def torch_pickle(path: Path) -> None:
    from tests.attacks.cases import Evil

    torch.save({"x": Evil()}, path)


def sparse_file(path: Path) -> None:
    "A file of a terabyte that takes no space."
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 8) + b'{"a":{}}')
        file.truncate(2**40)


def safetensors(header, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def sealed_header(card, tensors: dict | None = None) -> dict:
    return (tensors or {}) | {"__metadata__": {"g100": card if isinstance(card, str) else json.dumps(card)}}


NO_TENSORS = digest({})
HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "7 bytes": bytes(7),
    "8 zeros": bytes(8),
    "a length of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "a length of 2^64 - 1": b"\xff" * 8 + b"{}",
    "a length of a terabyte": struct.pack("<Q", 2**40) + b"{}",
    "no JSON": safetensors(b"noise"),
    "a list": safetensors([]),
    "a number": safetensors(7),
    "null": safetensors(None),
    "no metadata": safetensors({}),
    "metadata that is a list": safetensors({"__metadata__": []}),
    "metadata that is text": safetensors({"__metadata__": "x"}),
    "metadata without a card": safetensors({"__metadata__": {}}),
    "a card that is no JSON": safetensors(sealed_header("x")),
    "a card that is a list": safetensors(sealed_header([])),
    "a card that is text": safetensors(sealed_header('"x"')),
    "a card that is null": safetensors(sealed_header("null")),
    "a card that is a number": safetensors(sealed_header("3")),
    "a card without a sum": safetensors(sealed_header({})),
    "a sum that is none": safetensors(sealed_header({"sha256": None})),
    "a card nested 100,000 deep": safetensors(sealed_header("[" * 100_000)),
    "a header nested 100,000 deep": safetensors(b"[" * 100_000),
    "no tensors, sealed": safetensors(sealed_header({"sha256": NO_TENSORS})),
    "an odd tie": safetensors(sealed_header({"sha256": NO_TENSORS, "card": [1]})),
    "a tensor of terabytes": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    ),
    "a shape that overflows": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 0]}})
    ),
    "offsets that run backwards": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}), bytes(4)
    ),
    "offsets that overlap": safetensors(
        sealed_header({"sha256": "x"}, {k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "ab"}), bytes(4)
    ),
    "negative offsets": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), bytes(4)
    ),
    "a negative shape": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), bytes(4)
    ),
    "an unknown type": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F999", "shape": [1], "data_offsets": [0, 4]}}), bytes(4)
    ),
    "a hole": safetensors(
        sealed_header({"sha256": "x"}, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), bytes(8)
    ),
    "a name twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    ),
    "100,000 tensors": safetensors(
        sealed_header(
            {"sha256": "x"}, {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
        )
    ),
    "a huge whole number": safetensors(sealed_header('{"sha256": ' + "9" * 9999 + "}")),
    "no UTF-8": safetensors(b'{"\xff":1}'),
}
CARDS: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "text": b'"x"',
    "a number": b"2",
    "no format": b"{}",
    "another format": b'{"format": 1}',
    "a newer format": b'{"format": 3}',
    "format in words": b'{"format": "2"}',
    "format true": b'{"format": true}',
    "format null": b'{"format": null}',
    "nothing but format": b'{"format": 2}',
    "NaN": b'{"format": 2, "x": NaN}',
    "Infinity": b'{"format": 2, "x": Infinity}',
    "1e999": b'{"format": 2, "x": 1e999}',
    "-1e999": b'{"format": 2, "x": -1e999}',
    "deep lists": b'{"format": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep, but not too deep": b'{"format": 2, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "many digits": b'{"format": 2, "x": ' + b"9" * 9999 + b"}",
    "no UTF-8": b'{"format": 2, "x": "\xff"}',
    "a mark of byte order": b'\xef\xbb\xbf{"format": 2}',
    "a surrogate": b'{"format": 2, "x": "\\ud800"}',
    "a key twice": b'{"format": 2, "format": 3}',
    "UTF-16": '{"format": 2}'.encode("utf-16"),
    "100 MB of spaces": b" " * 10**8,
    "a comment": b'{"format": 2} // x',
    "YAML": b"!!python/object/apply:os.system ['true']",
}


def files() -> Iterator[Case]:
    for what, raw in HEADERS.items():
        yield Case(
            f"tensors: {what}", partial(placed, file="model.safetensors", make=data(raw)), word="model.safetensors", seconds=15
        )
    for what, raw in CARDS.items():
        yield Case(f"card: {what}", partial(placed, file="model.json", make=data(raw)), word="m", seconds=15)
    for file in ("model.json", "model.safetensors"):
        for what, make in {
            "a pickle": data(evil_pickle),
            "torch's pickle": torch_pickle,
            "a pipe": os.mkfifo,
            "a folder": os.mkdir,
            "missing": lambda p: None,
            "a link to nothing": lambda p: p.symlink_to("nowhere"),
            "a device": lambda p: p.symlink_to("/dev/zero"),
            "a link to itself": lambda p: p.symlink_to(p.name),
            "a terabyte": sparse_file,
            "the terminal": lambda p: p.symlink_to("/dev/tty"),
            "memory": lambda p: p.symlink_to("/proc/self/mem"),
        }.items():
            yield Case(f"{file}: {what}", partial(placed, file=file, make=make), word="model.", seconds=10)
    for ending in sorted(PICKLES):
        yield Case(
            f"a pickle beside, {ending}", partial(placed, file=f"model{ending}", make=data(evil_pickle)), word=f"model{ending}"
        )
    for name in ("MODEL.PKL", "sitecustomize.py", "conftest.py", "model.npy", ".hidden", "__init__.py"):
        yield Case(f"beside the model: {name}", partial(placed, file=name, make=data(evil_pickle)), "either")


def not_a_folder(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "m")
    load(folder / "m")


def of_algorithm(folder: Path, name) -> None:
    "A model whose card names another algorithm; nothing may be imported for it."
    card, kept = model("mean-picture")
    for place in (folder, Path.cwd()):
        (place / "evil.py").write_text(f"open({str(canary())!r}, 'w')\n")
    try:
        load(seal(folder / "m", {"format": 2} | card | {"algorithm": name}, kept))
    finally:
        (Path.cwd() / "evil.py").unlink()


def loaded_wrongly(folder: Path, **how) -> None:
    load(write_model(folder / "m", *model("mean-picture")), **how)


def denied(folder: Path, part: str) -> None:
    root = write_model(folder / "m", *model("mean-picture"))
    (root / part).chmod(0)
    try:
        with unprivileged():
            load(root)
    finally:
        (root / part).chmod(0o755)


def mixed(folder: Path, one: str, other: str) -> None:
    "The card of one model beside the tensors of another, sealed."
    verdicts(write_model(folder / "m", model(one)[0], model(other)[1]))


def checkpoint(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "c.ckpt")
    read_checkpoint(folder / "c.ckpt")


def doors(folder: Path, door: Callable) -> None:
    door(folder / "none")


def others() -> Iterator[Case]:
    for name in SETTINGS:
        yield Case(
            f"{name} as it was saved", partial(whole, name=name), "right", seconds=60, slow=name in ("kdad", "favae", "fcdd")
        )
    for what, make in {
        "missing": lambda p: None,
        "a file": Path.touch,
        "a pipe": os.mkfifo,
        "an empty folder": Path.mkdir,
        "a link to itself": lambda p: p.symlink_to("m"),
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a pickle": data(evil_pickle),
    }.items():
        yield Case(f"the model folder is {what}", partial(not_a_folder, make=make), word="m", seconds=10)
    for path in ("", "\0", "a" * 5000, "~nosuchuser", "\udcff", "\x1b[2J", "https://example.com/m", None, 7, b"m", []):
        yield Case(f"load({ascii(path)[:20]})", partial(lambda folder, path: load(path), path=path))
    for name in (
        "os:system",
        "builtins:eval",
        "builtins:object",
        "evil:Evil",
        "evil",
        "evil:",
        ":",
        "subprocess:Popen",
        "nosuch",
        "",
        None,
        7,
        [],
        {},
        "torch:nn",
        "torch.nn:Module",
        "g100.foundations.detector:Detector",
        "sys:modules",
        "g100:load",
        "a" * 100_000,
        "\x1b[31m",
        "x\ny:z",
        "riad",
        "patchcore",
    ):
        yield Case(f"a card of algorithm {ascii(name)[:40]}", partial(of_algorithm, name=name))
    for how in (
        {"device": "cuda:99"},
        {"device": "nosuch"},
        {"device": 7},
        {"device": None},
        {"device": ""},
        {"device": "meta"},
        {"algorithm": "riad"},
        {"algorithm": "os:system"},
        {"algorithm": "nosuch"},
        {"algorithm": 7},
        {"algorithm": object},
        {"algorithm": "evil:x"},
        {"device": [1]},
    ):
        yield Case(f"load with {how}", partial(loaded_wrongly, **how))
    for part in (".", "model.json", "model.safetensors"):
        yield Case(f"a model without rights, {part}", partial(denied, part=part), word="m")
    for one, other in (("patchcore", "riad"), ("riad", "semi-ort"), ("mean-picture", "riad"), ("semi-ort", "patchcore")):
        yield Case(f"{one}'s card, {other}'s tensors", partial(mixed, one=one, other=other))
    for what, raw in list(HEADERS.items())[::3]:
        yield Case(f"a checkpoint: {what}", partial(checkpoint, make=data(raw)), word="c.ckpt")
    for what, make in {
        "a pickle": data(evil_pickle),
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "missing": lambda p: None,
        "a terabyte": sparse_file,
    }.items():
        yield Case(f"a checkpoint: {what}", partial(checkpoint, make=make), word="c.ckpt", seconds=10)
    for door in (read_card, read_model):
        yield Case(f"{door.__name__} of nothing", partial(doors, door=door), word="none")


def cases() -> Iterator[Case]:
    yield from cards()
    yield from tensors()
    yield from bytes_()
    yield from files()
    yield from others()
