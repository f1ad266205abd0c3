"""Image files: cut, forged, renamed, enormous, of other kinds, and things that are no files."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from g100.foundations import pictures as gp
from g100.foundations.overlay import overlay
from g100.foundations.sources import as_image_set, readable
from g100.foundations.views import FITS, View
from tests.attacks.cases import Case, canary, chunk, evil_pickle, heard, refused, unprivileged

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 17, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8)[..., None].repeat(3, 2)
KINDS = {"png": {}, "jpg": {"quality": 95}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}


def encoded(kind: str, image=PICTURE, **options) -> bytes:
    file, form = io.BytesIO(), {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind.upper())
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **KINDS.get(kind, {}) | options)
    return file.getvalue()


DOORS: dict[str, Callable] = {
    "read": gp.read_image,
    "size": gp.image_size,
    "mask": gp.read_mask,
    "set": lambda path: as_image_set(path)[0],
    "skip": lambda path: refused_by_readable(path),
}


def refused_by_readable(path: Path) -> None:
    "Raises what `readable` says of a file; it must leave it out."
    images = gp.ImageSet([path], ["x"], [-1], ["unknown"], [None])
    fine, lines = readable(images)
    assert len(fine) + len(lines) == 1
    if lines:
        raise gp.G100Error(lines[0])


def bad(folder: Path, name: str, data: bytes, door: str = "read") -> None:
    "A file that must be refused."
    (folder / name).write_bytes(data)
    DOORS[door](folder / name)


def fine(folder: Path, name: str, data: bytes, wanted: np.ndarray, off: float = 0) -> None:
    "A file that must be read as `wanted`, uint8 (H, W, 3), each value at most `off` from it; and its size as well."
    (folder / name).write_bytes(data)
    got = gp.read_image(folder / name)
    assert got.dtype == np.uint8 and got.shape == wanted.shape, got.shape
    assert np.abs(got.astype(int) - wanted).max() <= off
    assert gp.image_size(folder / name) == wanted.shape[:2]


def either(folder: Path, name: str, data: bytes) -> None:
    "A damaged file: refused, or a picture whose size is what its header says."
    (folder / name).write_bytes(data)
    got = gp.read_image(folder / name)
    assert got.dtype == np.uint8 and got.shape == (*gp.image_size(folder / name), 3)


def damaged(kind: str) -> Iterator[Case]:
    "The ways in which a file of every format is no picture any more."
    shown = SMOOTH if kind == "jpg" else PICTURE  # JPEG keeps no noise
    data = encoded(kind, shown)
    cuts = {0: "empty", 1: "1 byte", 4: "4 bytes", 12: "12 bytes", 30: "30 bytes"}
    for n, what in cuts.items():
        for door in ("read", "size"):
            yield Case(f"{kind}, {what}, {door}", partial(bad, name=f"x.{kind}", data=data[:n], door=door), word=f"x.{kind}")
    for share in (0.3, 0.5, 0.7, 0.9):
        yield Case(
            f"{kind}, cut at {share}",
            partial(bad, name=f"x.{kind}", data=data[: int(share * len(data))]),
            "either" if kind == "tif" else "clear",
            word=f"x.{kind}",
        )
    for door in DOORS:
        yield Case(
            f"{kind}, noise, {door}",
            partial(bad, name=f"x.{kind}", data=np.random.default_rng(1).bytes(999), door=door),
            word=f"x.{kind}",
        )
    for what, part in (
        ("begins", slice(0, 8)),
        ("header", slice(16, 40)),
        ("middle", slice(len(data) // 2, len(data) // 2 + 9)),
        ("end", slice(len(data) - 9, len(data))),
    ):
        spoilt = bytearray(data)
        spoilt[part] = b"\xff" * len(spoilt[part])
        yield Case(f"{kind}, {what} with 0xff", partial(either, name=f"x.{kind}", data=bytes(spoilt)), "either", f"x.{kind}")
    yield Case(
        f"{kind}, more behind it",
        partial(fine, name=f"x.{kind}", data=data + b"<script>" * 99, wanted=shown, off=6 if kind == "jpg" else 0),
        "right",
    )
    yield Case(f"{kind}, a line before it", partial(bad, name=f"x.{kind}", data=b"\n" + data), word=f"x.{kind}")
    for other in KINDS:
        yield Case(
            f"{kind}, named .{other}",
            partial(fine, name=f"x.{other}", data=data, wanted=shown, off=6 if kind == "jpg" else 0),
            "right",
        )


def promising(kind: str, width: int, height: int) -> bytes:
    "A small picture whose header promises another size."
    data = bytearray(encoded(kind, compression=None) if kind == "tif" else encoded(kind))
    if kind == "png":
        data[16:24] = struct.pack(">2I", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">2H", height % 65536, width % 65536)
    elif kind == "bmp":
        data[18:26] = struct.pack("<2I", width % 2**32, height % 2**32)
    elif kind == "tif":
        start = struct.unpack("<I", data[4:8])[0]
        for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", data[start : start + 2])[0], 12):
            if (tag := struct.unpack("<H", data[entry : entry + 2])[0]) in (256, 257):
                data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    else:
        at = data.index(b"VP8L") + 9
        data[at : at + 4] = struct.pack("<I", (width - 1) % 2**14 | (height - 1) % 2**14 << 14)
    return bytes(data)


SIZES = {
    "png": [(2**17, 2**17), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 5), (5, 0), (0, 0), (30000, 2900)],
    "jpg": [(65500, 65500), (65500, 1), (0, 5), (5, 0), (30000, 2900)],
    "bmp": [(2**17, 2**17), (2**31 - 1, 2**31 - 1), (1, 2**31), (2**31, 1), (0, 5), (5, 0), (30000, 2900)],
    "tif": [(2**17, 2**17), (2**32 - 1, 2**32 - 1), (2**32 - 1, 1), (0, 5), (5, 0), (30000, 2900)],
    "webp": [(16384, 16384), (16384, 1), (9000, 9000)],
}


def promised() -> Iterator[Case]:
    "Headers that promise what the file does not hold: refused before it is allocated, or as cut off."
    for kind, sizes in SIZES.items():
        for size in sizes:
            for door in ("read", "set"):
                # libjpeg fills up what is missing where the file is otherwise whole; nobody can tell it from a grey part
                yield Case(
                    f"{kind} that promises {size[0]} x {size[1]}, {door}",
                    partial(bad, name=f"x.{kind}", data=promising(kind, *size), door=door),
                    "either" if kind == "jpg" else "clear",
                    f"x.{kind}",
                    slow=size == (30000, 2900),
                    memory=1000,
                )


def modes() -> Iterator[Case]:
    "What every mode of Pillow becomes."
    rgb = Image.fromarray(SMOOTH)
    grey = SMOOTH.max(axis=2)
    clear = Image.fromarray(np.dstack([SMOOTH, np.full(grey.shape, 255, np.uint8)]))
    hidden = Image.fromarray(np.dstack([SMOOTH, np.zeros(grey.shape, np.uint8)]))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    for name, image, kind, wanted, off in (
        ("L", rgb.convert("L"), "png", SMOOTH, 0),
        ("LA", clear.convert("LA"), "png", SMOOTH, 0),
        ("RGBA", clear, "png", SMOOTH, 0),
        ("RGBA, transparent", hidden, "png", 0 * SMOOTH, 0),
        ("P", rgb.convert("P"), "png", SMOOTH, 60),
        ("P, grey", rgb.convert("L").convert("P"), "png", SMOOTH, 0),
        ("I;16", deep, "png", SMOOTH, 0),
        ("I;16", deep, "tif", SMOOTH, 0),
        ("I", Image.fromarray(grey.astype(np.int32) * 257), "tif", SMOOTH, 0),
        ("CMYK", rgb.convert("CMYK"), "tif", SMOOTH, 2),
        ("1", Image.fromarray(grey > 20), "png", np.repeat((grey > 20)[..., None], 3, 2) * np.uint8(255), 0),
        ("1", Image.fromarray(grey > 20), "bmp", np.repeat((grey > 20)[..., None], 3, 2) * np.uint8(255), 0),
        ("L", rgb.convert("L"), "jpg", SMOOTH, 4),
        ("RGBA", clear, "webp", SMOOTH, 0),
        ("RGBA", clear, "tif", SMOOTH, 0),
    ):
        yield Case(
            f"mode {name} in {kind}",
            partial(fine, name=f"x.{kind}", data=encoded(kind, image), wanted=wanted, off=off),
            "right",
        )
    for name, array in (
        ("F", grey.astype(np.float32)),
        ("F, nan", np.full(grey.shape, np.nan, np.float32)),
        ("I, negative", -grey.astype(np.int32)),
        ("I, beyond 16 bits", grey.astype(np.int32) * 70000),
    ):
        yield Case(f"mode {name} in tif", partial(bad, name="x.tif", data=encoded("tif", Image.fromarray(array))), word="x.tif")


def turned(folder: Path, orientation: int, kind: str) -> None:
    "A photograph that its EXIF says is turned."
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SMOOTH).save(folder / f"x.{kind}", exif=exif, **KINDS[kind])
    turn = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }
    wanted = turn.get(orientation, lambda x: x)(SMOOTH)
    got = gp.read_image(folder / f"x.{kind}")
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).max() <= 6
    assert gp.image_size(folder / f"x.{kind}") == wanted.shape[:2]


def metadata() -> Iterator[Case]:
    "What stands beside the pixels."
    for orientation in range(10):
        yield Case(f"EXIF orientation {orientation}", partial(turned, orientation=orientation, kind="jpg"), "right")
    for kind in ("png", "webp", "tif"):
        yield Case(f"EXIF orientation 6 in {kind}", partial(turned, orientation=6, kind=kind), "right")
    for name, exif in (
        ("noise", np.random.default_rng(0).bytes(400)),
        ("only its name", b"Exif\0\0"),
        ("cut", b"Exif\0\0II*\0\x08\0\0"),
        ("a circle", b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0"),
        ("empty", b""),
    ):
        for kind in ("jpg", "png", "webp"):
            yield Case(
                f"EXIF that is {name} in {kind}",
                partial(fine, name=f"x.{kind}", data=encoded(kind, SMOOTH, exif=exif), wanted=SMOOTH, off=6),
                "either",
                f"x.{kind}",
            )
    plain = encoded("png")
    head, rest = plain[:33], plain[33:]
    bomb = zlib.compress(bytes(200 * 2**20), 9)
    extra = {
        "a text of 200 MB": chunk(b"zTXt", b"x\0\0" + bomb),
        "a profile of 200 MB": chunk(b"iCCP", b"x\0\0" + bomb),
        "a profile of noise": chunk(b"iCCP", b"x\0\0" + b"\xff" * 99),
        "an international text of 200 MB": chunk(b"iTXt", b"x\0\1\0\0\0" + bomb),
        "a gamma of 0": chunk(b"gAMA", bytes(4)),
        "a text that is HTML": chunk(b"tEXt", b"Comment\0<script>alert(1)</script>"),
        "a palette in colour": chunk(b"PLTE", bytes(9)),
        "a transparency of odd length": chunk(b"tRNS", b"\1"),
        "an unknown chunk": chunk(b"eVIL", bytes(99)),
        "20,000 texts": b"".join(chunk(b"tEXt", b"k%d\0" % i + b"v" * 40) for i in range(20000)),
        "frames that are none": chunk(b"acTL", struct.pack(">2I", 2**31 - 1, 0)),
        "a critical chunk": chunk(b"EVIL", bytes(9)),
    }
    for what, data in extra.items():
        yield Case(f"png with {what}", partial(fine, name="x.png", data=head + data + rest, wanted=PICTURE), "either", "x.png")
    wrong_sum = bytearray(plain)
    wrong_sum[-20] ^= 1
    yield Case("png with a wrong check sum", partial(bad, name="x.png", data=bytes(wrong_sum)), word="x.png")
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "__import__('os').system('true')")
    yield Case(
        "png with a text that is code", partial(fine, name="x.png", data=encoded("png", pnginfo=info), wanted=PICTURE), "right"
    )


def many(kind: str) -> bytes:
    options = {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)]}
    return encoded(kind, **options)


def said_to_be_several(folder: Path, kind: str) -> None:
    (folder / f"x.{kind}").write_bytes(many(kind))
    with heard("several pictures"):
        assert (gp.read_image(folder / f"x.{kind}") == PICTURE).all()


def tiff(entries: list[tuple], after: int = 0, more: bytes = b"") -> bytes:
    "A little-endian TIFF of one directory."
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", after) + more


def tiffs() -> Iterator[Case]:
    base = [
        (256, 4, 1, 4),
        (257, 4, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 4),
        (279, 4, 1, 16),
    ]

    def but(**changed: int) -> bytes:
        of = {
            "width": 256,
            "bits": 258,
            "compression": 259,
            "photometric": 262,
            "offset": 273,
            "samples": 277,
            "rows": 278,
            "bytes": 279,
        }
        new = {of[name]: value for name, value in changed.items()}
        return tiff([(tag, kind, n, new.get(tag, value)) for tag, kind, n, value in base])

    yield Case("tif by hand", partial(either, name="x.tif", data=tiff(base)), "either", "x.tif")
    for changed in (
        {"width": 0},
        {"bits": 0},
        {"bits": 65535},
        {"compression": 9999},
        {"compression": 7},
        {"compression": 5},
        {"photometric": 77},
        {"offset": 2**32 - 1},
        {"samples": 0},
        {"samples": 65535},
        {"rows": 0},
        {"rows": 2**32 - 1},
        {"bytes": 0},
        {"bytes": 2**32 - 1},
    ):
        yield Case(f"tif with {changed}", partial(either, name="x.tif", data=but(**changed)), "either", "x.tif")
    yield Case("tif whose directory follows itself", partial(either, name="x.tif", data=tiff(base, after=8)), "either", "x.tif")
    yield Case(
        "tif with 60,000 entries",
        partial(either, name="x.tif", data=tiff(base + [(60000, 4, 1, 1)] * 59000)),
        "either",
        "x.tif",
    )
    yield Case(
        "tif with an entry of 4 billion numbers",
        partial(either, name="x.tif", data=tiff([*base, (700, 4, 2**32 - 1, 8)])),
        "either",
        "x.tif",
    )
    yield Case("tif without entries", partial(bad, name="x.tif", data=tiff([])), word="x.tif")
    yield Case(
        "tif whose directory lies beyond the end", partial(bad, name="x.tif", data=b"II*\0\xff\xff\xff\x7f"), word="x.tif"
    )
    yield Case("BigTIFF of nothing", partial(bad, name="x.tif", data=b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"), word="x.tif")


def run_length_bomb(folder: Path) -> None:
    "A BMP by runs: few bytes, many pixels, below the limit; memory is that of the picture."
    runs = b"\xff\x01" * 40 + b"\0\0"
    header = struct.pack("<IiiHHIIiiII", 40, 9000, 9000, 1, 8, 1, len(runs) * 9000, 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    offset = 14 + len(header) + len(palette)
    (folder / "x.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", offset + 9000 * len(runs), 0, 0, offset) + header + palette + runs
    )
    gp.read_image(folder / "x.bmp")


def postscript() -> bytes:
    return (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({canary()}) (w) file closefile\n"
        "(%pipe%touch "
        f"{canary()}"
        ") (w) file closefile\nshowpage\n"
    ).encode()


def foreign(folder: Path, name: str, make: Callable[[], bytes], door: str = "read") -> None:
    bad(folder, name, make(), door)


def other_kinds() -> Iterator[Case]:
    "Files that some program would open, or run, under the names of pictures."
    texts = {
        "a script": lambda: f"#!/bin/sh\ntouch {canary()}\n".encode(),
        "Python": lambda: f"open({str(canary())!r}, 'w')\n".encode(),
        "HTML": lambda: b"<html><script>alert(1)</script></html>",
        "a pickle": evil_pickle,
        "PostScript": postscript,
        "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "XBM": lambda: b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = {0x00};",
        "a ZIP": lambda: b"PK\x03\x04" + bytes(99),
        "PDF": lambda: b"%PDF-1.4\n%EOF",
        "an OLE file": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "HEIC": lambda: b"\0\0\0\x18ftypheic" + bytes(99),
        "AVIF": lambda: b"\0\0\0\x18ftypavif" + bytes(99),
        "NumPy's": lambda: b"\x93NUMPY" + bytes(99),
        "an ELF": lambda: b"\x7fELF" + bytes(99),
        "WMF": lambda: b"\xd7\xcd\xc6\x9a" + bytes(99),
        "FITS": lambda: b"SIMPLE  =" + bytes(99),
        "a RIFF sound": lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(99),
    }
    for what, make in texts.items():
        for kind, door in (("png", "read"), ("jpg", "set"), ("tif", "mask")):
            yield Case(f"{what} as .{kind}", partial(foreign, name=f"x.{kind}", make=make, door=door), word=f"x.{kind}")
    for form in ("GIF", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000"):
        yield Case(f"{form} as .png", partial(foreign, name="x.png", make=partial(saved_as, form)), word="x.png")


def saved_as(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, form)
    return file.getvalue()


# ---- things that are no files


def no_file(folder: Path, make: Callable[[Path], None], door: str) -> None:
    make(folder / "x.png")
    DOORS[door](folder / "x.png")


def bound_socket(path: Path) -> None:
    os.chdir(path.parent)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(path.parent.parent / "here")


def link_circle(path: Path) -> None:
    path.symlink_to(path.name)


def unreadable(folder: Path, door: str) -> None:
    (folder / "x.png").write_bytes(encoded("png"))
    (folder / "x.png").chmod(0)
    folder.chmod(0o755)
    with unprivileged():
        DOORS[door](folder / "x.png")


def vanishing(folder: Path) -> None:
    "A file that is listed, and gone when it is read."
    (folder / "x.png").write_bytes(encoded("png"))
    images = as_image_set(folder)
    (folder / "x.png").unlink()
    images[0]


def no_files() -> Iterator[Case]:
    things = {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a link to nothing": lambda p: p.symlink_to("nowhere"),
        "a link to itself": link_circle,
        "a socket": bound_socket,
        "the terminal": lambda p: p.symlink_to("/dev/tty"),
        "this process's memory": lambda p: p.symlink_to("/proc/self/mem"),
        "a link to the passwords": lambda p: p.symlink_to("/etc/passwd"),
    }
    for what, make in things.items():
        for door in ("read", "set", "skip", "mask"):
            if (what, door) != ("a folder", "set"):
                yield Case(f"{what}, {door}", partial(no_file, make=make, door=door), word="x.png", seconds=10)
    for door in ("read", "set"):
        yield Case(f"a file without rights, {door}", partial(unreadable, door=door), word="x.png")
    yield Case("a file that vanishes", vanishing, word="x.png")
    for what, path in (
        ("no name", ""),
        ("a NUL", "a\0b.png"),
        ("5,000 letters", "a" * 5000 + ".png"),
        ("a missing file", "none.png"),
        ("another's home", "~nosuchuser/x.png"),
        ("a web address", "https://example.com/x.png"),
        ("a pattern", "*.png"),
        ("a broken pattern", "[.png"),
        ("a deep pattern", "**/*.png"),
        ("a surrogate", "\udcff.png"),
    ):
        for door in ("read", "set"):
            if not (path == "" and door == "set"):
                yield Case(
                    f"the path is {what}, {door}", partial(lambda folder, path, door: DOORS[door](path), path=path, door=door)
                )


NAMES = {
    "spaces": "a b  c.png",
    "a line break": "a\nb.png",
    "Chinese": "缺陷 划痕.png",
    "no UTF-8": b"\xff\xfe.png",
    "a minus": "-rf.png",
    "a tilde": "~x.png",
    "a dollar": "$HOME.png",
    "percent": "%s%n.png",
    "braces": "{x.__class__}.png",
    "255 bytes": "a" * 251 + ".png",
    "an escape": "\x1b[31mred.png",
    "a star": "a*.png",
    "brackets": "[a].png",
    "quotes": "'\"`.png",
    "capitals": "A.PNG",
    "two endings": "a.txt.png",
    "a bell": "\a.png",
    "right to left": "\u202egnp.exe.png",
    "a backslash": "a\\b.png",
}


def named(folder: Path, name: str | bytes) -> None:
    "A file of that name is found in its folder and read; and broken, it is named in one line."
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
    path.write_bytes(encoded("png"))
    images = as_image_set(folder)
    assert len(images) == 1 and (images[0] == PICTURE).all() and len(images.sha256) == 64
    assert (as_image_set([path])[0] == PICTURE).all()
    path.write_bytes(b"broken")
    assert (line := refused(lambda: as_image_set(folder)[0])).isprintable(), repr(line)


# ---- sizes


def long_and_thin(folder: Path, size: tuple[int, int], view: View) -> None:
    "A picture of extreme shape comes before the network as a small tensor, or is refused."
    x = view.image(np.zeros((*size, 3), np.uint8))
    assert x.shape == (3, *view.shape) and torch.isfinite(x).all()
    assert view.back(np.zeros(view.shape, np.float32), size).shape == size


def painted(folder: Path, size: tuple[int, int]) -> None:
    "The overlay of a large picture takes a few times its own memory and no more."
    image = np.zeros((*size, 3), np.uint8)
    map = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert overlay(image, map, map > 0.9, View(32), (0.0, 1.0)).shape == image.shape


def sizes() -> Iterator[Case]:
    for kind in KINDS:
        for shape in ((1, 1), (1, 500), (500, 1), (2, 3)):
            array = np.full((*shape, 3), 99, np.uint8)
            yield Case(
                f"{kind} of {shape}", partial(fine, name=f"x.{kind}", data=encoded(kind, array), wanted=array, off=3), "right"
            )
    for size in ((4000, 1), (1, 4000), (1, 20000), (3000, 2), (1, 1)):
        for fit in FITS:
            yield Case(f"a picture {size}, {fit}", partial(long_and_thin, size=size, view=View(32, fit=fit)), "either")
        yield Case(f"a picture {size}, resize", partial(long_and_thin, size=size, view=View(32, 36)), "either")
    yield Case("the overlay of 4000 x 6000", partial(painted, size=(4000, 6000)), "right", seconds=90, slow=True)
    yield Case("a BMP of runs", run_length_bomb, "either", "x.bmp", slow=True)


def cases() -> Iterator[Case]:
    for kind in KINDS:
        yield from damaged(kind)
    yield from promised()
    yield from modes()
    yield from metadata()
    for kind in ("tif", "png", "webp"):
        yield Case(f"{kind} of two pictures", partial(said_to_be_several, kind=kind), "right")
    yield from tiffs()
    yield from other_kinds()
    yield from no_files()
    for what, name in NAMES.items():
        yield Case(f"a name with {what}", partial(named, name=name), "right")
    yield from sizes()
