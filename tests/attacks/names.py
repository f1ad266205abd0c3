"""Names that inject: of files and defects, in messages, warnings, HTML, tables and figures, and as paths of what is written."""

import csv
import io
import os
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import matplotlib
from PIL import Image

from g100.experiments.experiment import cell_text, overlay_name, run_experiment, text_of, write_results
from g100.foundations.detector import Detector
from g100.foundations.errors import G100Error, printable, remark, unknown
from g100.foundations.pictures import ImageSet
from tests.attacks.cases import Case, Debris, heard
from tests.toys import MeanPicture, mvtec_folder, pictures, spotted

NAMES = {
    "HTML": "<script>alert(1)</script>.png",
    "an image that runs": "<img src=x onerror=alert(1)>.png",
    "an attribute": '" onload="alert(1).png',
    "an apostrophe": "' onload='alert(1).png",
    "an entity": "&lt;b&gt;.png",
    "the end of a comment": "--><b>.png",
    "a formula": '=HYPERLINK("http://x").png',
    "a sum": "+1+1.png",
    "a difference": "-1+1.png",
    "a function": "@SUM(A1).png",
    "a tab": "\t=1.png",
    "a carriage return": "\r=1.png",
    "an apostrophe and a formula": "'=1.png",
    "a command": "=cmd|'|'!A1.png",
    "an escape": "\x1b[2J\x1b[31m.png",
    "a title of a window": "\x1b]0;pwned\x07.png",
    "a bell": "\a.png",
    "two lines": "a\nG100: all is well.png",
    "right to left": "\u202egnp.exe.png",
    "a mark of zero width": "a\u200bb.png",
    "no UTF-8": "\udcff\udcfe.png",
    "a backslash": "a\\nb.png",
    "two backslashes": "a\\\\x41.png",
    "a dollar": "$x^{.png",
    "mathematics": "$\\frac{1}{0}$.png",
    "TeX": "\\input{/etc/passwd}.png",
    "percent": "%s%n%d.png",
    "braces": "{0.__class__}.png",
    "Markdown": "[x](javascript:alert(1)).png",
    "a bar": "a|b|c.png",
    "quotes": 'a"b""c.png',
    "commas": "a,b;c.png",
    "Chinese": "缺陷 划痕.png",
    "an emoji": "😀👩‍🔬.png",
    "255 bytes": "x" * 251 + ".png",
    "255 bytes of JPEG": "x" * 251 + ".jpg",
    "255 bytes of three-byte letters": "缺" * 83 + "aa.png",
    "a space": " .png",
    "a null byte's escape": "%00.png",
    "a line separator": "a\u2028b.png",
    "a byte of C1": "a\x9b31mb.png",
}
PATHS = [
    "../x.png",
    "../../x.png",
    "/x.png",
    "/etc/x.png",
    "a/../../x.png",
    "//x.png",
    "./x.png",
    "~/x.png",
    "..",
    "/",
    ".",
    "x/",
    "C:/x.png",
    "a//b.png",
    "y" * 300 + ".png",
    "y" * 300 + "/a.png",
    "a\0b.png",
    "y/" * 100 + "a.png",
]


@lru_cache
def fitted() -> Detector:
    return MeanPicture(image_size=16, target_fpr=0.3).fit(pictures(12, 16))


def named_set(*names: str, defects: tuple = ()) -> ImageSet:
    images, masks = spotted(len(names), 16)
    return ImageSet(list(images), names, [1] * len(names), defects or ["x"] * len(names), list(masks))


def message(folder: Path, name: str) -> None:
    "In the line of an error and of a warning, however it was made."
    raise_later = [G100Error(f"cannot read {name}"), unknown("picture", name, ["a"]), unknown("picture", "a", [name])]
    for error in raise_later:
        assert str(error).isprintable()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        remark(f"{name} is odd")
    assert str(said[0].message).isprintable() and printable(printable(name)) == printable(name)
    raise raise_later[0]


def in_html(folder: Path, name: str) -> None:
    "In the page that a notebook shows of an inspection."
    shown = fitted().inspect(named_set(name))._repr_html_()
    shown.encode()
    text = re.sub(r'src="data:image/png;base64,[^"]*"', "", shown)
    assert set(re.findall(r"<\s*/?\s*([^\s>]*)", text)) <= {"p", "div", "figure", "img", "figcaption", "br", "b"}
    (attributes,) = re.findall(r"<img([^>]*)>", text)
    assert re.fullmatch(r'\s*alt="[^"]*"', attributes), attributes


def in_table(folder: Path, name: str) -> None:
    "In a table that a spreadsheet opens: no formula, one line, and it can be had back."
    cell = cell_text(name)
    assert cell.isprintable() and cell[0] not in "=+-@\t\r" and text_of(cell) == name
    file = io.StringIO()
    csv.writer(file).writerow([cell])
    file.getvalue().encode()
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [[cell]]


def in_figures(folder: Path, name: str) -> None:
    "In the titles of figures, drawn."
    matplotlib.use("Agg")
    from g100.experiments.plots import plot_examples, plot_verdicts

    images = named_set(name, defects=(name,))
    verdicts = fitted().inspect(images)
    for figure in (plot_examples(images, 1), plot_verdicts(images, [0], verdicts, fitted()), verdicts.plot(0)):
        figure.savefig(io.BytesIO(), format="png", dpi=20)
        assert any(printable(name)[:20] in text.get_text() for text in figure.findobj(matplotlib.text.Text)), "cannot be found"
        matplotlib.pyplot.close(figure)


def as_files(folder: Path, name: str, defect: str = "spot") -> None:
    "A data set with a picture of that name, from the files to the table of scores."
    root = mvtec_folder(folder / "part", good=6, bad=2, size=16)
    bad = root / "test" / "spot"
    Image.open(bad / "000.png").save(Path(os.fsdecode(os.fsencode(bad) + b"/" + os.fsencode(name))), "PNG")
    if defect != "spot":
        bad.rename(root / "test" / defect)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = run_experiment("mean-picture", f"folder:{root}", parameters={"image_size": 16, "calibration": 0.3})
        out = write_results(done, folder / "out")
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        names = [text_of(line["name"]) for line in csv.DictReader(file)]
    assert f"test/{defect}/{name}" in names and names == list(done.data.test.names)
    for name in names:
        assert (out / "pictures" / overlay_name(name)).is_file()
    if strays := [path for path in folder.iterdir() if path.name not in ("part", "out")]:
        raise Debris(f"{strays} beside the result")
    assert all(line.isprintable() for line in done.remarks), done.remarks


def overlays(folder: Path, name: str) -> None:
    "An overlay is written inside its folder and nowhere else."
    from g100.experiments.experiment import write_picture

    images = named_set(name)
    verdicts = fitted().inspect(images)
    (folder / "a" / "pictures").mkdir(parents=True)
    file = write_picture(folder / "a" / "pictures", images[0], name, verdicts.map[0], verdicts.mask[0], fitted())
    assert file.is_file() and file.resolve().is_relative_to((folder / "a" / "pictures").resolve())


def distinct(folder: Path) -> None:
    names = [*NAMES.values(), *PATHS[:5], "a.png", "a.jpg", "a.jpg.png", "x" * 260 + "1.png", "x" * 260 + "2.png"]
    assert len({overlay_name(name) for name in names}) == len(names)


def said_of(folder: Path, name: str) -> None:
    "A broken picture, a folder of several pages and an ignored file of such names are said in one line."
    (folder / "d").mkdir()
    path = Path(os.fsdecode(os.fsencode(folder / "d") + b"/" + os.fsencode(name[:60] + ".txt")))
    path.touch()
    Image.fromarray(pictures(1, 9)[0]).save(folder / "d" / "0.png")
    from g100.foundations.sources import as_image_set

    with heard("1 file ignored"):
        as_image_set(folder / "d")


def cases() -> Iterator[Case]:
    for what, name in NAMES.items():
        yield Case(f"{what} in a message", partial(message, name=name))
        for where, work in (("HTML", in_html), ("a table", in_table), ("figures", in_figures), ("a data set", as_files)):
            if not (where == "a data set" and "/" in name):
                yield Case(f"{what} in {where}", partial(work, name=name), "right", slow=where == "figures")
    for defect in ("<b>", "=1", "$x^{", "\x1b[31m", "a\nb", "\udcff", "d" * 255, "good "):
        yield Case(f"a defect named {ascii(defect)[:20]}", partial(as_files, name="9.png", defect=defect), "right")
    for path in PATHS:
        yield Case(f"an overlay of {ascii(path)[:30]}, {len(path)} letters", partial(overlays, name=path), "right")
    yield Case("overlays of different pictures are different files", distinct, "right")
    for what in ("an escape", "two lines", "no UTF-8", "HTML"):
        yield Case(f"an ignored file named by {what}", partial(said_of, name=NAMES[what].replace("/", "")), "right")
