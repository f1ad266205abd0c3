"""Data sets on disk: trees that lack a part or have one too many, tables that lie, links that lead out, what is left out."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from g100.foundations import layouts
from g100.foundations.layouts import DataSet, load_data
from g100.foundations.sources import as_image_set
from tests.attacks.cases import Case, heard, quiet, unprivileged
from tests.toys import mvtec_folder, pictures, spotted


def tree(folder: Path) -> Path:
    return mvtec_folder(folder / "part", good=6, bad=3, size=16)


def flat(folder: Path, n: int = 6) -> Path:
    root = folder / "part"
    root.mkdir()
    for i, image in enumerate(pictures(n, 16)):
        Image.fromarray(image).save(root / f"{i}.png")
    return root


def btad(folder: Path) -> Path:
    root = tree(folder)
    for old, new in (
        ("train/good", "train/ok"),
        ("test/good", "test/ok"),
        ("test/spot", "test/ko"),
        ("ground_truth/spot", "ground_truth/ko"),
    ):
        (root / old).rename(root / new)
    return root


HEAD = "object,split,label,image,mask"


def visa(folder: Path) -> Path:
    root, (bad, masks) = folder / "part", spotted(3, 16)
    rows, sets = [HEAD], {"train": pictures(6, 16), "test": pictures(3, 16, 2)}
    for name in ("good", "bad", "masks", "split_csv"):
        (root / name).mkdir(parents=True)
    for split, images in sets.items():
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / "good" / f"{split}{i}.png")
            rows.append(f"nut,{split},normal,good/{split}{i}.png,")
    for i, (image, mask) in enumerate(zip(bad, masks, strict=True)):
        Image.fromarray(image).save(root / "bad" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{i}.png")
        rows.append(f"nut,test,anomaly,bad/{i}.png,masks/{i}.png")
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    return root


MAKE = {"mvtec": tree, "folder": tree, "btad": btad, "visa": visa, "flat": flat}


def whole(found: DataSet, train: int = 6, test: int = 6) -> None:
    "All pictures and masks of a data set can be read, and its hash taken."
    assert (len(found.train), len(found.test)) == (train, test), (len(found.train), len(found.test))
    for part in (found.train, found.test):
        for i in range(len(part)):
            assert part[i].shape == (16, 16, 3)
            part.mask(i)
    assert len(found.sha256) == 64


def loaded(
    folder: Path, kind: str, change: Callable[[Path], object] | None = None, train: int = 6, test: int = 6, says: tuple = ()
) -> None:
    "A data set after a change; with `says`, a warning must hold these words, and else there must be none."
    root = MAKE[kind](folder)
    if change:
        change(root)
    spec = f"{'folder' if kind == 'flat' else kind}:{root}{':nut' if kind == 'visa' else ''}"
    with heard(*says) if says else quiet():
        found = load_data(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole(found, *((5, 1) if kind == "flat" and (train, test) == (6, 6) else (train, test)))


def asked(folder: Path, spec: str) -> None:
    "A spec, {} being a data set of MVTec's tree."
    load_data(spec.replace("{}", str(tree(folder))))


def without(*parts: str) -> Callable[[Path], None]:
    "A change: these files and folders go."
    return lambda root: [shutil.rmtree(root / p) if (root / p).is_dir() else (root / p).unlink() for p in parts]


def emptied(part: str) -> Callable[[Path], None]:
    return lambda root: [p.unlink() for p in (root / part).iterdir()]


def written(part: str, data: bytes | str = b"x") -> Callable[[Path], None]:
    "A change: a file is there, or another one, or more in it."

    def change(root: Path) -> None:
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def piped(part: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / part).unlink(missing_ok=True)
        os.mkfifo(root / part)

    return change


def linked(part: str, target: str, copy: str | None = None) -> Callable[[Path], None]:
    "A change: a link to `target`, beside the root; `copy`, of the root, is what lies there."

    def change(root: Path) -> None:
        place = root.parent / target
        if copy and (root / copy).is_dir():
            shutil.copytree(root / copy, place)
        elif copy:
            shutil.copy(root / copy, place)
        if (root / part).exists():
            without(part)(root)
        (root / part).parent.mkdir(exist_ok=True)
        (root / part).symlink_to(place)

    return change


def rows(*lines: str | bytes, head: str = HEAD) -> Callable[[Path], None]:
    "A change: VisA's table ends with other lines."

    def change(root: Path) -> None:
        file = root / "split_csv" / "1cls.csv"
        old = file.read_bytes().splitlines()[1:]
        file.write_bytes(b"\n".join([head.encode(), *old, *(x if isinstance(x, bytes) else x.encode() for x in lines)]) + b"\n")

    return change


def denied(folder: Path, kind: str, part: str, says: tuple = ()) -> None:
    "A part that this user may not read: refused, or said."
    root = MAKE[kind](folder)
    (root / part).chmod(0)
    try:
        with unprivileged(), heard(*says) if says else quiet():
            load_data(f"{'folder' if kind == 'flat' else kind}:{root}{':nut' if kind == 'visa' else ''}")
    finally:
        (root / part).chmod(0o755)


def result_inside(folder: Path, marks: tuple[str, ...], door: str) -> None:
    "Pictures of an earlier result inside a folder of pictures do not become data without a word."
    root = flat(folder)
    (root / "out" / "pictures").mkdir(parents=True)
    for mark in marks:
        (root / "out" / mark).write_text("{}")
    shutil.copy(root / "0.png", root / "out" / "pictures" / "0.png")
    with heard("out", "result"):
        found = load_data(f"folder:{root}").train if door == "folder" else as_image_set(root)
    assert not any("out/" in name for name in found.names)


def result_itself(folder: Path, part: str) -> None:
    "A result, or the overlays in it, named as data: refused, or said."
    root = flat(folder)
    (root / ".g100").write_text("{}")
    (root / "pictures").mkdir()
    for i in range(3):
        shutil.copy(root / f"{i}.png", root / "pictures")
    with heard("overlays"):
        load_data(f"folder:{root / part}")


def elpv(folder: Path, table: bytes) -> None:
    root = folder / "data"
    root.mkdir()
    (root / "images").mkdir()
    for i, image in enumerate(pictures(12, 16)):
        Image.fromarray(image).save(root / "images" / f"{i}.png")
    (root / "labels.csv").write_bytes(table)
    with mock.patch.object(layouts, "elpv_folder", lambda: root):
        found = load_data("elpv:mono")
    assert len(found.train) and len(found.test)


def elpv_rows(change: Callable[[list[bytes]], object] = lambda lines: None) -> bytes:
    lines = [b"images/%d.png %.1f mono" % (i, i % 2) for i in range(12)]
    change(lines)
    return b"\n".join(lines)


def replace(*new: bytes) -> bytes:
    return elpv_rows(lambda lines: lines.__setitem__(slice(3, 3 + len(new)), new))


def specs() -> Iterator[Case]:
    for spec in (
        "",
        ":",
        "mvtec",
        "mvtec:",
        "mvtec: ",
        "nosuch:{}",
        "{}",
        "MVTEC:{}",
        "mvtec:{}/none",
        "mvtec:{}/train/good/000.png",
        "visa:{}",
        "visa:{}:",
        "visa::nut",
        "visa:{}:nut:nut",
        "elpv:",
        "elpv:none",
        "elpv:mono:poly",
        "btad:{}",
        "folder:",
        "folder:/dev/null",
        "folder:/proc/self/mem",
        "folder:~nosuchuser",
        "mvtec:~nosuchuser/x",
        "mvtec:a\0b",
        "mvtec:\n",
        "mvtec:" + "a" * 5000,
        "folder:\udcff",
        "mvtec:\x1b[31m",
        "visa:~nosuchuser:nut",
        "btad:~nosuchuser",
    ):
        yield Case(f"spec {ascii(spec[:40])}", partial(asked, spec=spec))
    for spec in (None, 7, b"mvtec:x", ["mvtec:x"], Path("mvtec:none"), float("nan"), {}):
        yield Case(f"spec {spec!r}", partial(lambda folder, spec: load_data(spec), spec=spec))


def trees() -> Iterator[Case]:
    for kind in MAKE:
        yield Case(f"{kind} as it should be", partial(loaded, kind=kind), "right")
    for what, kind, change in (
        ("no train", "mvtec", without("train")),
        ("no train/good", "mvtec", without("train/good")),
        ("no test", "mvtec", without("test")),
        ("no pictures to learn", "mvtec", emptied("train/good")),
        ("no masks", "mvtec", without("ground_truth")),
        ("a mask missing", "mvtec", without("ground_truth/spot/000_mask.png")),
        ("no train/good, folder", "folder", without("train/good")),
        ("no pictures, folder", "folder", emptied("train/good")),
        ("no pictures, flat", "flat", without(*(f"{i}.png" for i in range(6)))),
        ("one picture, flat", "flat", without(*(f"{i}.png" for i in range(5)))),
        ("no train/ok", "btad", without("train/ok")),
        ("no test/ko", "btad", without("test/ko")),
        ("no test/ok", "btad", without("test/ok")),
        ("a mask missing, btad", "btad", without("ground_truth/ko/000_mask.png")),
        ("no masks, btad", "btad", without("ground_truth")),
        ("no table", "visa", without("split_csv")),
        ("a folder as table", "visa", lambda r: (without("split_csv/1cls.csv")(r), (r / "split_csv/1cls.csv").mkdir())),
        ("a pipe as table", "visa", piped("split_csv/1cls.csv")),
        ("a picture missing, visa", "visa", without("good/train0.png")),
        ("a mask missing, visa", "visa", without("masks/0.png")),
        (
            "a mask that is a folder",
            "mvtec",
            lambda r: (without("ground_truth/spot/000_mask.png")(r), (r / "ground_truth/spot/000_mask.png").mkdir()),
        ),
        ("a pipe as mask", "mvtec", piped("ground_truth/spot/000_mask.png")),
        ("a pipe as picture", "mvtec", piped("train/good/000.png")),
        ("a broken picture", "mvtec", written("train/good/000.png")),
        ("a broken mask", "mvtec", written("ground_truth/spot/000_mask.png")),
        ("a file as test", "mvtec", lambda r: (without("test")(r), (r / "test").touch())),
        ("a file as train/good", "mvtec", lambda r: (without("train/good")(r), (r / "train/good").touch())),
    ):
        yield Case(f"{what} in {kind}", partial(loaded, kind=kind, change=change), seconds=10)
    for kind, other in ((k, o) for k in ("mvtec", "btad", "visa") for o in MAKE if o != k and {k, o} != {"mvtec", "folder"}):
        yield Case(
            f"{other} read as {kind}",
            partial(
                lambda folder, kind, other: load_data(
                    f"{kind}:{MAKE[other](folder)}:nut" if kind == "visa" else f"{kind}:{MAKE[other](folder)}"
                ),
                kind=kind,
                other=other,
            ),
        )
    for name in (
        "good",
        "ok",
        "OK",
        "normal",
        "defect",
        "defects",
        "bad",
        "ng",
        "NG",
        "ko",
        "anomaly",
        "anomalous",
        "abnormal",
        "broken",
        "fail",
    ):
        beside = "ok" if name == "defect" else "defect"
        change = partial(beside_one_another, name, beside)
        yield Case(f"{name}/ beside {beside}/", partial(loaded, kind="flat", change=change), word=name)


def beside_one_another(first: str, second: str, root: Path) -> None:
    for name in (first, second):
        (root / name).mkdir()
        shutil.copy(root / "0.png", root / name / f"{name}.png")


def tables() -> Iterator[Case]:
    for what, change in (
        ("a row that leads up", rows("nut,train,normal,../../x.png,")),
        ("an absolute path", rows("nut,train,normal,/etc/passwd,")),
        ("a mask that leads up", rows("nut,test,anomaly,bad/0.png,../x.png")),
        ("an absolute mask", rows("nut,test,anomaly,bad/0.png,/etc/passwd")),
        ("a split of its own", rows("nut,validation,normal,good/train0.png,")),
        ("no split", rows("nut,,normal,good/train0.png,")),
        ("a row too short", rows("nut,train")),
        ("a row too long", rows("nut,train,normal,good/train0.png,,,,")),
        ("a picture twice", rows("nut,train,normal,good/train0.png,")),
        ("no picture", rows("nut,train,normal,,")),
        ("the root as picture", rows("nut,train,normal,.,")),
        ("a NUL", rows("nut,train,normal,a\0b.png,")),
        ("no UTF-8", rows(b"nut,train,normal,\xff\xfe.png,")),
        ("another head", rows(head="a,b,c,d,e")),
        ("no head", rows(head="")),
        ("an open quote", rows('nut,train,normal,"good/train0.png,')),
        ("a field of 200,000 letters", rows("nut,train,normal," + "a" * 200_000 + ",")),
        ("nothing but a head", lambda root: (root / "split_csv/1cls.csv").write_text(HEAD)),
        ("nothing", written("split_csv/1cls.csv", b"")),
        ("noise", written("split_csv/1cls.csv", np.random.default_rng(0).bytes(4000))),
        ("a picture that is a link out", linked("good/train0.png", "x.png", "good/train1.png")),
        ("a folder that is a link out", linked("bad", "elsewhere", "bad")),
        ("a mask that is a link out", linked("masks/0.png", "x.png", "masks/1.png")),
        ("a picture that is a folder", rows("nut,train,normal,good,")),
        ("labels of its own without a mask", rows("nut,test,odd,good/train0.png,")),
        ("UTF-16", lambda root: (root / "split_csv/1cls.csv").write_text(HEAD, encoding="utf-16")),
        (
            "no pictures to learn",
            lambda root: (root / "split_csv/1cls.csv").write_text(f"{HEAD}\nnut,test,normal,good/test0.png,\n"),
        ),
        (
            "no pictures to judge",
            lambda root: (root / "split_csv/1cls.csv").write_text(f"{HEAD}\nnut,train,normal,good/train0.png,\n"),
        ),
    ):
        yield Case(f"visa: {what}", partial(loaded, kind="visa", change=change), "clear")
    yield Case(
        "visa: a mark of byte order",
        partial(
            loaded,
            kind="visa",
            change=lambda root: (root / "split_csv/1cls.csv").write_bytes(
                b"\xef\xbb\xbf" + (root / "split_csv/1cls.csv").read_bytes()
            ),
        ),
        "right",
    )
    yield Case(
        "visa: lines of Windows",
        partial(
            loaded,
            kind="visa",
            change=lambda root: (root / "split_csv/1cls.csv").write_bytes(
                (root / "split_csv/1cls.csv").read_bytes().replace(b"\n", b"\r\n")
            ),
        ),
        "right",
    )
    yield Case("elpv: as it should be", partial(elpv, table=elpv_rows()), "right")
    for what, table in (
        ("a row too short", replace(b"images/3.png")),
        ("a row too long", replace(b"images/3.png 0 mono x y")),
        ("words for numbers", replace(b"images/3.png good mono")),
        ("nan", replace(b"images/3.png nan mono")),
        ("no UTF-8", replace(b"\xff\xfe 0 mono")),
        ("nothing", b""),
        ("noise", np.random.default_rng(0).bytes(4000)),
        ("a path that leads up", replace(b"../x.png 0 mono")),
        ("an absolute path", replace(b"/etc/passwd 0 mono")),
        ("a picture twice", replace(b"images/0.png 0.0 mono", b"images/0.png 0.0 mono", b"images/0.png 0.0 mono")),
        ("nothing good", elpv_rows().replace(b"0.0", b"1.0")),
        ("a probability of 7", replace(b"images/3.png 7 mono")),
    ):
        yield Case(f"elpv: {what}", partial(elpv, table=table), word="labels.csv")


def oddities() -> Iterator[Case]:
    "What is left out, or odd, is said."
    for what, kind, change, says, counts in (
        (
            "files of other endings",
            "flat",
            lambda r: [(r / n).touch() for n in ("a.heic", "b.txt", "c.heic")],
            ("3 files", ".heic", ".txt"),
            (5, 1),
        ),
        ("a file without an ending", "flat", written("notes"), ("1 file",), (5, 1)),
        ("a Windows thumbnail file", "mvtec", written("train/good/Thumbs.db"), ("1 file", ".db"), (6, 6)),
        ("a subfolder of train/good", "mvtec", written("train/good/more/9.png"), ("more",), (6, 6)),
        ("a linked folder", "flat", linked("more", "elsewhere", "."), ("more", "link"), (5, 1)),
        ("a linked folder in train/good", "mvtec", linked("train/good/more", "elsewhere", "test/good"), ("more",), (6, 6)),
        (
            "a mask without a picture",
            "mvtec",
            lambda r: shutil.copy(r / "ground_truth/spot/000_mask.png", r / "ground_truth/spot/777_mask.png"),
            ("777_mask.png",),
            (6, 6),
        ),
        (
            "masks of a defect that is not there",
            "mvtec",
            lambda r: shutil.copytree(r / "ground_truth/spot", r / "ground_truth/scratch"),
            ("scratch",),
            (6, 6),
        ),
        (
            "a mask without a picture, folder",
            "folder",
            lambda r: shutil.copy(r / "ground_truth/spot/000_mask.png", r / "ground_truth/spot/777.png"),
            ("777.png",),
            (6, 6),
        ),
        (
            "a mask without a picture, btad",
            "btad",
            lambda r: shutil.copy(r / "ground_truth/ko/000_mask.png", r / "ground_truth/ko/777.png"),
            ("777.png",),
            (6, 6),
        ),
        (
            "two pictures of one stem",
            "mvtec",
            lambda r: Image.open(r / "test/spot/000.png").save(r / "test/spot/000.bmp"),
            ("000.png", "000.bmp"),
            (6, 7),
        ),
        (
            "a picture beside the folders of test",
            "mvtec",
            lambda r: shutil.copy(r / "test/good/000.png", r / "test/9.png"),
            ("9.png",),
            (6, 6),
        ),
    ):
        yield Case(
            f"{what} in {kind} said",
            partial(loaded, kind=kind, change=change, says=says, train=counts[0], test=counts[1]),
            "right",
        )
    for what, kind, change in (
        ("a hidden file", "flat", written(".DS_Store")),
        ("a hidden folder", "flat", written(".cache/9.png")),
        ("a readme beside train", "mvtec", written("readme.txt")),
        ("a link to a picture", "flat", linked("0.png", "x.png", "1.png")),
    ):
        yield Case(f"{what} in {kind} not worth a word", partial(loaded, kind=kind, change=change), "right")
    for marks in ((".g100",), ("metrics.json",), ("verdicts.csv",)):
        for door in ("folder", "set"):
            yield Case(f"a result with {marks[0]} inside, {door}", partial(result_inside, marks=marks, door=door), "right")
    yield Case("a result as data", partial(result_itself, part="."), word="result of g100")
    yield Case("overlays as data", partial(result_itself, part="pictures"), "right")
    yield Case("a folder without rights, flat", partial(denied, kind="flat", part="."), word="part")
    yield Case("train/good without rights", partial(denied, kind="mvtec", part="train/good"), word="good")
    yield Case("test without rights", partial(denied, kind="mvtec", part="test"), word="test")
    yield Case("a table without rights", partial(denied, kind="visa", part="split_csv"), word="1cls.csv")
    yield Case("a defect without rights", partial(denied, kind="folder", part="test/spot"), word="spot")
    yield Case(
        "a folder that is a link to itself",
        partial(loaded, kind="flat", change=lambda root: (root / "me").symlink_to(root), says=("me", "link")),
        "right",
    )
    yield Case(
        "a deep tree",
        partial(loaded, kind="flat", change=lambda root: (root / "/".join("d" * 400)).mkdir(parents=True)),
        "right",
    )


def cases() -> Iterator[Case]:
    yield from specs()
    yield from trees()
    yield from tables()
    yield from oddities()
