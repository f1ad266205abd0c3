"Files that come from somewhere else: what is opened, what is refused before anything is allocated, and in which words."

import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from g100.foundations import pictures as gp
from g100.foundations.pictures import ImageSet, read_image
from g100.foundations.sources import as_image_set, file_at, readable
from tests.toys import line_of

RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
GREY, DEEP = COLOUR[..., 0], COLOUR[..., 1].astype(np.uint16) * 255
LARGE = [  # format, and how its bytes are made to promise many pixels
    ("png", (131072, 131072)), ("jpg", (65500, 65500)), ("bmp", (131072, 131072)), ("tif", (131072, 131072)),
    ("webp", (12000, 12000)), ("webp", (65535, 65535)),
]  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    return tmp_path / "x.png"


# ---- what is opened


def variants():
    "Files of every format, mode and compression that Pillow writes, by name."
    yield from (("rgb.png", COLOUR, {}), ("grey.png", GREY, {}), ("deep.png", DEEP, {}), ("bit.png", GREY > 99, {}))
    yield from (("rgb.jpg", COLOUR, {}), ("grey.jpg", GREY, {}), ("progressive.jpg", COLOUR, {"progressive": True}))
    yield from (("rgb.bmp", COLOUR, {}), ("grey.bmp", GREY, {}), ("bit.bmp", GREY > 99, {}))
    yield from (("lossy.webp", COLOUR, {}), ("lossless.webp", COLOUR, {"lossless": True}))
    for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"rgb-{how}.tif", COLOUR, {"compression": how}
    yield from (("deep.tif", DEEP, {}), ("deep-lzw.tif", DEEP, {"compression": "tiff_lzw"}), ("bit.tif", GREY > 99, {}),
                ("group4.tif", GREY > 99, {"compression": "group4"}))  # fmt: skip
    yield from (("alpha.png", np.dstack([COLOUR, GREY]), {}), ("alpha.webp", np.dstack([COLOUR, GREY]), {}))


def test_every_format_is_decoded_as_pillow_decodes_it(tmp_path):
    paths = []
    for name, array, options in variants():
        Image.fromarray(array).save(tmp_path / name, **options)
        paths.append(tmp_path / name)
    cmyk, palette = Image.fromarray(COLOUR).convert("CMYK"), Image.fromarray(COLOUR).quantize(9)
    for name, image, options in (("cmyk.jpg", cmyk, {}), ("cmyk.tif", cmyk, {}), ("palette.png", palette, {"transparency": 1})):
        image.save(tmp_path / name, **options)
        paths.append(tmp_path / name)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read_image, paths * 5))
    for path, got in zip(paths * 5, found, strict=True):
        with Image.open(path) as im:
            assert (got == gp.to_rgb(ImageOps.exif_transpose(im))).all(), path.name
            assert gp.image_size(path) == got.shape[:2]


def test_the_name_does_not_matter_and_the_format_does(tmp_path):
    image = Image.fromarray(COLOUR)
    for form in gp.FORMATS:
        image.save(tmp_path / "x.png", format=form)
        assert np.abs(read_image(tmp_path / "x.png").astype(int) - COLOUR).mean() < 60
    for form in ("GIF", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF"):
        try:
            image.save(tmp_path / "y.png", format=form)
        except OSError:
            continue  # a build of Pillow that cannot write it
        for read in (read_image, gp.image_size, gp.read_mask):
            line = line_of(read, tmp_path / "y.png")
            assert "y.png" in line and "PNG, JPEG, BMP, TIFF, WEBP" in line, form


def test_a_drawing_starts_no_interpreter(tmp_path, monkeypatch):
    started = []

    def interpreter(*args, **options):
        started.append(args)
        return Image.new("RGB", (9, 9)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", interpreter)
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    Image.open(path).load()
    assert len(started) == 1, "Pillow alone would start it"
    for read in (read_image, gp.image_size, gp.read_mask):
        assert "no image of a kind that is read" in line_of(read, path)
    for read in (gp.NumberedMask(path).read, gp.Crop(path, 0, 0, (2, 2)).read, lambda: as_image_set(path)[0]):
        assert "no image of a kind that is read" in line_of(read)
    assert len(started) == 1


# ---- what is a file


def in_time(work, *args) -> str:
    "The one line with which a call refuses, and not a wait for ever."
    said = []
    thread = threading.Thread(target=lambda: said.append(line_of(work, *args)), daemon=True)
    thread.start()
    thread.join(20)
    assert said, "still waiting, or not refused"
    return said[0]


def test_pipes_devices_sockets_and_folders_are_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    os.chdir("in")
    os.mkfifo("pipe.png")
    os.symlink("/dev/zero", "device.png")
    os.symlink("pipe.png", "link.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.png")
    os.mkdir("folder.png")
    kinds = {"pipe.png": "pipe", "device.png": "device", "link.png": "pipe", "socket.png": "socket", "folder.png": "folder"}
    for name, kind in kinds.items():
        for work in (read_image, gp.image_size, gp.read_mask, gp.digest, file_at):
            assert f"{name}: it is a {kind} and not a file" in in_time(work, name)
        assert f"{name}: it is a {kind} and not a file" in in_time(as_image_set, [name])
        if kind != "folder":
            assert f"a {kind} and not a file" in in_time(as_image_set, name)
    server.close()
    images = as_image_set(tmp_path / "in")
    assert set(images.names) == set(kinds) - {"folder.png"}, "listing opens nothing"
    fine, lines = readable(images)
    assert not len(fine) and len(lines) == 4
    assert "not a file" in in_time(lambda: images.sha256)


# ---- how large


def forged(path, size):
    "A small picture at `path` whose header promises `size` (W, H)."
    width, height = size
    image = Image.fromarray(COLOUR)
    more = {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]} if path.suffix == ".webp" else {}
    image.save(path, **more)
    data = bytearray(path.read_bytes())
    if path.suffix == ".png":
        data[16:24] = struct.pack(">2I", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif path.suffix == ".jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">2H", height, width)
    elif path.suffix == ".bmp":
        data[18:26] = struct.pack("<2i", width, height)
    elif path.suffix == ".webp":
        assert data[12:16] == b"VP8X"
        data[24:27], data[27:30] = ((n - 1).to_bytes(3, "little") for n in size)
    else:
        start = struct.unpack("<I", data[4:8])[0]
        for i in range(struct.unpack("<H", data[start : start + 2])[0]):
            entry = start + 2 + 12 * i
            if (tag := struct.unpack("<H", data[entry : entry + 2])[0]) in (256, 257):
                data[entry + 2 : entry + 12] = struct.pack("<HIi", 4, 1, width if tag == 256 else height)
    path.write_bytes(data)
    return path


def test_headers_that_promise_too_much_cost_nothing(tmp_path):
    "In a process of its own, whose largest memory is that of small pictures."
    files = [forged(tmp_path / f"{i}.{kind}", size) for i, (kind, size) in enumerate(LARGE)]
    code = f"""
import resource, warnings
from g100.foundations.errors import G100Error
from g100.foundations.pictures import ImageSet, image_size, read_image
warnings.simplefilter("error")
read_image({str(tmp_path / "small.png")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in {[str(file) for file in files]!r}:
    for read in (read_image, image_size, ImageSet([file], ["x"], [0], ["good"], [None]).mask):
        try:
            read(0 if read.__name__ == "mask" else file)
        except G100Error as error:
            print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    Image.fromarray(COLOUR).save(tmp_path / "small.png")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, grown = done.stdout.splitlines()
    assert len(lines) == 3 * len(files) and int(grown) < 64 * 1024, done.stdout
    for i, line in enumerate(lines):
        _, (width, height) = LARGE[i // 3]
        assert f"{i // 3}.{LARGE[i // 3][0]}: " in line and "G100_MAX_PIXELS" in line
        assert f"{height} x {width} pixels" in line or f"({height * width} pixels)" in line


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "tif", "webp"])
def test_the_limit_is_moved_by_the_environment(tmp_path, monkeypatch, form):
    path = tmp_path / f"a.{form}"
    Image.fromarray(COLOUR).save(path)
    monkeypatch.setenv("G100_MAX_PIXELS", str(12 * 17 - 1))
    for read in (read_image, gp.image_size, gp.read_mask):
        line = line_of(read, path)
        assert f"{path}: 12 x 17 pixels are more than 203; " in line and line.endswith("G100_MAX_PIXELS to 204")
    monkeypatch.setenv("G100_MAX_PIXELS", str(12 * 17))
    assert read_image(path).shape == COLOUR.shape


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "tif", "webp"])
def test_pillows_own_limit_neither_warns_nor_refuses(tmp_path, monkeypatch, form):
    path = tmp_path / f"a.{form}"
    Image.fromarray(COLOUR).save(path)
    assert gp.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 204 pixels are more than twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    monkeypatch.setattr(gp, "MAX_PIXELS", 100)
    monkeypatch.setenv("G100_MAX_PIXELS", "204")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == COLOUR.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(path).shape == COLOUR.shape and Image.MAX_IMAGE_PIXELS is None, "who has lifted it keeps it lifted"


@pytest.mark.parametrize("told", ["", "many", "-1", "0", "1e9", "1.5", "²"])
def test_a_limit_that_is_none(picture, monkeypatch, told):
    monkeypatch.setenv("G100_MAX_PIXELS", told)
    assert line_of(read_image, picture) == f"G100_MAX_PIXELS={told!r}: wants a whole number of pixels, such as 89000000"


# ---- several pictures in one file


def heard_of(work, *args):
    "What a call gives, and its warnings, each text once."
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = work(*args)
    return found, sorted({str(w.message) for w in heard})


@pytest.mark.parametrize("form, options", [
    ("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("png", {}), ("webp", {"lossless": True}),
])  # fmt: skip
def test_further_pictures_in_a_file_are_said_once_for_a_folder(tmp_path, form, options):
    image, other = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    for name in ("a/1", "a/2", "b/1", "c/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        more = {} if name == "c/1" else {"save_all": True, "append_images": [other]}
        image.save(tmp_path / f"{name}.{form}", **options, **more)
    found, heard = heard_of(lambda: [x for x in as_image_set(tmp_path)])
    assert all((x == COLOUR).all() for x in found)
    assert heard == [f"{tmp_path / name}: some of its files hold several pictures (pages or frames); only the first is read"
                     for name in "ab"]  # fmt: skip


def test_the_preview_in_a_photograph_is_not_meant(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, format="MPO", save_all=True, append_images=[Image.fromarray(COLOUR[::2, ::2])])
    with Image.open(path) as im:
        assert im.format == "MPO" and im.n_frames == 2
        wanted = np.array(im.convert("RGB"))
    found, heard = heard_of(read_image, path)
    assert (found == wanted).all() and heard == []


# ---- masks that mark nothing


def test_an_empty_mask_of_an_abnormal_picture_is_said(tmp_path):
    empty, some = np.zeros(GREY.shape, bool), GREY > 128
    Image.fromarray(empty).save(tmp_path / "empty.png")
    images = ImageSet([COLOUR] * 5, "abcde", [1, 1, 1, 0, 1], ["x"] * 5, [empty, tmp_path / "empty.png", some, empty, None])
    for i, name in enumerate("ab"):
        found, heard = heard_of(images.mask, i)
        assert not found.any() and len(heard) == 1
        assert heard[0].startswith(f"the mask of {name} (") and "marks nothing, though the picture is abnormal" in heard[0]
    assert "empty.png" in heard[0]
    for i in (2, 3, 4):
        assert heard_of(images.mask, i)[1] == []
