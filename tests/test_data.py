"g100.data: files to arrays, layouts, errors of one line, the content hash, views and batches."

import os
import shutil
import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_erosion
from torchvision.transforms.v2 import functional as tv

from g100.foundations import pictures as data as gd
from g100.foundations.layouts import DataSet, load_data
from g100.foundations.pictures import ImageSet, as_image_set, read_image, read_mask, readable
from g100.foundations.views import View, batches
from tests.toys import line_of

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
few = settings(deadline=None, max_examples=40)


def save(path, array=GREY, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def tree(root, masks=True):
    "MVTec's layout: train/good 5, test/good 2, test/crack 2, test/dent 1."
    for part, kind, n in (("train", "good", 5), ("test", "good", 2), ("test", "crack", 2), ("test", "dent", 1)):
        for i in range(n):
            save(root / part / kind / f"{i:03d}.png", RNG.integers(0, 256, (12, 17), dtype=np.uint8))
            if masks and kind != "good":
                mask = np.zeros((12, 17), np.uint8)
                mask[3:5, 2:9] = 255
                save(root / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return root


# ---- files


def coloured():
    picture = np.dstack([GREY, GREY // 2, 255 - GREY])
    return picture, Image.fromarray(picture)


@pytest.mark.parametrize("kind", ["jpg", "JPEG", "bmp", "tif", "TIFF", "webp", "PNG"])
def test_every_extension_is_read_and_listed(tmp_path, kind):
    save(tmp_path / f"a.{kind}", np.full((8, 8), 77, np.uint8))
    assert gd.image_files(tmp_path) == [tmp_path / f"a.{kind}"]
    got = read_image(tmp_path / f"a.{kind}")
    assert got.dtype == np.uint8 and got.shape == (8, 8, 3) and np.abs(got.astype(int) - 77).max() <= 1


def test_modes_arrive_equal(tmp_path):
    rgb, picture = coloured()
    opaque = np.dstack([rgb, np.full_like(GREY, 255)])
    for name, image in {"rgb": picture, "rgba": Image.fromarray(opaque)}.items():
        image.save(tmp_path / f"{name}.png")
        assert (read_image(tmp_path / f"{name}.png") == rgb).all(), name
    for name, image in {"grey": Image.fromarray(GREY), "palette": Image.fromarray(GREY).convert("P"),
                        "la": Image.fromarray(GREY).convert("LA"),
                        "deep": Image.fromarray(GREY.astype(np.uint16) * 257)}.items():  # fmt: skip
        image.save(tmp_path / f"{name}.png")
        assert (read_image(tmp_path / f"{name}.png") == GREY[..., None]).all(), name
    Image.fromarray(GREY > 127).save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png") == np.where(GREY > 127, 255, 0)[..., None]).all()


def test_sixteen_bits_are_scaled_by_the_format_for_every_value():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert (gd.to_rgb(Image.fromarray(every))[..., 0] == np.rint(every / 257)).all()
    with pytest.raises(ValueError, match="beyond 16 bits"):
        gd.to_rgb(Image.fromarray(np.full((2, 2), 70000, np.int32)))


def test_one_hot_pixel_changes_one_pixel(tmp_path):
    deep = RNG.integers(0, 3000, (9, 9)).astype(np.uint16)
    hot = deep.copy()
    hot[4, 4] = 65535
    a, b = (read_image(save(tmp_path / f"{i}.png", x)) for i, x in enumerate((deep, hot)))
    assert (a != b).any(2).sum() == 1


@few
@given(st.integers(0, 255), st.integers(0, 255))
def test_transparency_is_laid_over_black(colour, alpha):
    picture = Image.new("RGBA", (1, 1), (colour, 0, 255, alpha))
    got = gd.to_rgb(picture)[0, 0].astype(float)
    assert np.abs(got - np.array([colour, 0, 255]) * alpha / 255).max() <= 1


def test_palette_transparency_and_what_lies_below_it_is_not_seen(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=1)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_exif_orientation_is_carried_out(tmp_path):
    image = Image.fromarray(np.repeat(np.array([[0, 255], [0, 255], [0, 255]], np.uint8), 8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    got = read_image(tmp_path / "a.png")
    assert got.shape == (16, 24, 3) and gd.image_size(tmp_path / "a.png") == (16, 24)
    assert got[:8].max() == 0 and got[8:].min() == 255


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_named(tmp_path, kind):
    path = save(tmp_path / f"a.{kind}", RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in line_of(read_image, path)


def test_empty_absent_and_senseless_files_are_named(tmp_path):
    (tmp_path / "zero.png").touch()
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "dir.png").mkdir()
    save(tmp_path / "float.tif", GREY.astype(np.float32))
    for name, why in (("zero.png", "empty"), ("words.png", "no image"), ("no.png", "no such file"), ("dir.png", ""),
                      ("float.tif", "floating-point")):  # fmt: skip
        line = line_of(read_image, tmp_path / name)
        assert name in line and why in line
    assert "words.png" in line_of(gd.image_size, tmp_path / "words.png")


def test_masks(tmp_path):
    values = np.array([[0, 1, 127, 128, 255]], np.uint8)
    assert read_mask(save(tmp_path / "a.png", values)).tolist() == [[False, False, False, True, True]]
    deep = np.array([[0, 32767, 32768, 65535]], np.uint16)
    assert read_mask(save(tmp_path / "b.png", deep)).tolist() == [[False, False, True, True]]
    assert read_mask(save(tmp_path / "c.png", values > 0)).tolist() == [[False, True, True, True, True]]
    assert "largest value is 1 of 255" in line_of(read_mask, save(tmp_path / "d.png", values // 128))
    assert not read_mask(save(tmp_path / "e.png", 0 * values)).any()


# ---- image sets


def some_set(n=7):
    arrays = [RNG.integers(0, 256, (5, 6 + i, 3), dtype=np.uint8) for i in range(n)]
    return ImageSet(arrays, [f"{i}.png" for i in range(n)], [i % 2 for i in range(n)],
                    ["good", "bad"] * (n // 2) + ["good"] * (n % 2), [None] * n)  # fmt: skip


def test_indexing_follows_numpy():
    images = some_set()
    assert len(images) == 7 and images[3] is images.images[3] and images[-1] is images.images[-1]
    numbers = np.arange(7)
    for which in (slice(1, 5, 2), [4, 0], np.array([2, 2])[:1], images.labels == 1, np.zeros(7, bool), []):
        part = images[which]
        assert isinstance(part, ImageSet) and part.names == tuple(f"{i}.png" for i in numbers[which])
        assert (part.labels == images.labels[which]).all() and len(part.masks) == len(part)
    assert set(images.normals.defects) == {"good"} and len(images.normals) == 4
    with pytest.raises(AttributeError):
        images.names = ()


def test_columns_must_agree_and_names_be_unique():
    assert "length" in line_of(ImageSet, [GREY], ["a", "b"], [0], ["good"], [None])
    assert "'a'" in line_of(ImageSet, [GREY] * 2, ["a", "a"], [0, 0], ["good"] * 2, [None] * 2)


def test_a_hundred_thousand_paths_are_cheap():
    names = [f"{i}.png" for i in range(100_000)]
    start = time.perf_counter()
    images = ImageSet(names, names, np.zeros(100_000), ["good"] * 100_000, [None] * 100_000)
    assert len(images[::2].normals) == 50_000 and time.perf_counter() - start < 3


def test_mask_of_good_unknown_and_wrong(tmp_path):
    images = load_data(f"mvtec:{tree(tmp_path / 'a')}").test
    assert images.has_masks and images.defects == ("crack", "crack", "dent", "good", "good")
    assert images.mask(0).sum() == 14 and not images.mask(4).any() and images.mask(4).shape == (12, 17)
    bare = load_data(f"folder:{tree(tmp_path / 'b', masks=False)}").test
    assert not bare.has_masks and bare.mask(0) is None and not bare.mask(4).any()
    save(tmp_path / "a/ground_truth/crack/001_mask.png", np.zeros((17, 12), np.uint8))
    line = line_of(images.mask, 1)
    assert "001_mask.png" in line and "17 x 12" in line and "12 x 17" in line
    arrays = ImageSet([np.zeros((3, 4, 3), np.uint8)], ["a"], [1], ["bad"], [np.ones((4, 3), bool)])
    assert "4 x 3" in line_of(arrays.mask, 0)


# ---- the content hash


def test_hash_knows_content_and_nothing_else(tmp_path):
    root = tree(tmp_path / "a")
    first = load_data(f"mvtec:{root}").sha256
    assert len(first) == 64
    shutil.copytree(root, tmp_path / "deeper/b")
    os.utime(tmp_path / "deeper/b/train/good/000.png", (1, 1))
    assert load_data(f"mvtec:{tmp_path / 'deeper/b'}").sha256 == first
    assert load_data(f"folder:{root}").sha256 == first
    seen = {first}

    def changed(work):
        here = tmp_path / f"c{len(seen)}"
        shutil.copytree(root, here)
        work(here)
        value = load_data(f"mvtec:{here}").sha256
        assert value not in seen
        seen.add(value)

    def append(path):
        path.write_bytes(path.read_bytes() + b"\0")

    changed(lambda r: append(r / "train/good/000.png"))
    changed(lambda r: append(r / "test/crack/000.png"))
    changed(lambda r: append(r / "ground_truth/crack/000_mask.png"))
    changed(lambda r: (r / "train/good/000.png").rename(r / "train/good/new.png"))
    changed(lambda r: (r / "train/good/004.png").rename(r / "test/good/004.png"))
    changed(lambda r: [(r / part / "dent").rename(r / part / "bump") for part in ("test", "ground_truth")])


def test_hash_of_arrays_and_order():
    images = some_set()
    assert images.sha256 == images[::-1].sha256 != images[1:].sha256
    other = ImageSet(images.images, images.names, 1 - images.labels, images.defects, images.masks)
    assert other.sha256 != images.sha256
    assert gd.digest(np.zeros((2, 3), np.uint8)) != gd.digest(np.zeros((3, 2), np.uint8))


# ---- layouts


def test_order_is_natural_and_hidden_files_are_ignored(tmp_path):
    for name in ("b10.png", "b9.PNG", "a.jpg", "._b9.png", "notes.txt"):
        save(tmp_path / name) if "txt" not in name and not name.startswith(".") else (tmp_path / name).touch()
    save(tmp_path / ".hidden/x.png")
    assert [path.name for path in gd.image_files(tmp_path, deep=True)] == ["a.jpg", "b9.PNG", "b10.png"]


@few
@given(st.lists(st.text(max_size=8)))
def test_natural_order_is_total(names):
    once = sorted(names, key=gd.natural)
    assert sorted(reversed(names), key=gd.natural) == once
    for a in names:
        assert gd.natural(a) == gd.natural(a) and (gd.natural(f"t{2}") < gd.natural(f"t{10}"))


def test_mvtec(tmp_path):
    data = load_data(f"mvtec:{tree(tmp_path / 'bottle')}")
    assert isinstance(data, DataSet) and (data.name, data.category) == ("mvtec", "bottle")
    assert data.train.names == tuple(f"train/good/{i:03d}.png" for i in range(5)) and not data.train.labels.any()
    assert data.test.labels.tolist() == [1, 1, 1, 0, 0]


def test_mvtec_errors(tmp_path):
    root = tree(tmp_path / "a")
    (root / "ground_truth/dent/000_mask.png").unlink()
    line = line_of(load_data, f"mvtec:{root}")
    assert "test/dent/000.png" in line and "ground_truth/dent/000_mask.png" in line
    assert load_data(f"folder:{root}").test.has_masks is False
    shutil.rmtree(root / "train/good")
    for layout in ("mvtec", "folder"):
        assert "no normal images" in line_of(load_data, f"{layout}:{root}")
    (root / "train/good").mkdir()
    assert "no normal images" in line_of(load_data, f"mvtec:{root}")
    (tmp_path / "file").touch()
    assert "no folder" in line_of(load_data, f"mvtec:{tmp_path / 'absent'}")
    assert "not a folder" in line_of(load_data, f"folder:{tmp_path / 'file'}")
    save(tmp_path / "b/train/good/0.png")
    assert "test" in line_of(load_data, f"mvtec:{tmp_path / 'b'}")
    (tmp_path / "b/test/good").mkdir(parents=True)
    assert "no images" in line_of(load_data, f"mvtec:{tmp_path / 'b'}")


def test_folder_masks_of_other_types(tmp_path):
    root = tree(tmp_path / "a", masks=False)
    save(root / "ground_truth/crack/000.bmp", np.full((12, 17), 255, np.uint8))
    test = load_data(f"folder:{root}").test
    assert test.mask(0).all() and test.mask(1) is None and not test.has_masks


@pytest.mark.parametrize("nested", [False, True])
def test_folder_of_good_pictures(tmp_path, nested):
    for i in range(10):
        save(tmp_path / "d" / (f"line{i % 2}/x{i}.png" if nested else f"x{i}.png"))
    a, b = (load_data(f"folder:{tmp_path / 'd'}", seed) for seed in (0, 0))
    assert len(a.test) == 2 and len(a.train) == 8 and a.test.names == b.test.names
    assert not set(a.train.names) & set(a.test.names) and not a.test.labels.any()
    assert len({load_data(f"folder:{tmp_path / 'd'}", seed).test.names for seed in range(8)}) > 1


def test_folder_errors(tmp_path):
    assert "holds no images" in line_of(load_data, f"folder:{tmp_path}")
    save(tmp_path / "one/a.png")
    assert "single" in line_of(load_data, f"folder:{tmp_path / 'one'}")
    save(tmp_path / "mixed/good/a.png")
    save(tmp_path / "mixed/broken/a.png")
    assert "broken" in line_of(load_data, f"folder:{tmp_path / 'mixed'}")


def btad(root):
    "One product, the masks of another type than the pictures."
    for part, n in (("train/ok", 3), ("test/ok", 2), ("test/ko", 2)):
        for i in range(n):
            save(root / part / f"{i:04d}.bmp", GREY[:8, :8])
    for i in range(2):
        save(root / "ground_truth/ko" / f"{i:04d}.png", np.eye(8, dtype=np.uint8) * 255)
    return root


def test_btad(tmp_path):
    data = load_data(f"btad:{btad(tmp_path / '01')}")
    assert (data.name, data.category) == ("btad", "01") and not data.train.labels.any()
    assert data.train.names == tuple(f"train/ok/{i:04d}.bmp" for i in range(3))
    assert data.test.labels.tolist() == [0, 0, 1, 1] and data.test.defects == ("good", "good", "ko", "ko")
    assert data.test.has_masks and (data.test.mask(2) == np.eye(8, dtype=bool)).all() and not data.test.mask(0).any()


def test_btad_errors(tmp_path):
    root = btad(tmp_path / "01")
    (root / "ground_truth/ko/0001.png").unlink()
    assert "test/ko/0001.bmp" in line_of(load_data, f"btad:{root}")
    for file in (root / "train/ok").iterdir():
        file.unlink()
    assert "train/ok holds no images" in line_of(load_data, f"btad:{root}")
    (root / "train/ok").rmdir()
    assert "no folder" in line_of(load_data, f"btad:{root}")


def visa(root):
    "Two objects of which one is read; masks hold the numbers of defects."
    lines = ["object,split,label,image,mask", "candle,train,normal,candle/Data/Images/Normal/0.JPG,"]
    for i, (split, label) in enumerate((("train", "normal"), ("test", "anomaly"), ("train", "normal"), ("test", "normal"))):
        image = f"pcb1/Data/Images/{label.capitalize()}/{i}.JPG"
        mask = f"pcb1/Data/Masks/Anomaly/{i}.png" if label == "anomaly" else ""
        save(root / image, GREY[:8, :8])
        if mask:
            save(root / mask, np.diag(np.arange(8, dtype=np.uint8)))
        lines.append(f"pcb1,{split},{label},{image},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines))
    return root


def test_visa(tmp_path):
    data = load_data(f"visa:{visa(tmp_path / 'VisA')}:pcb1")
    assert (data.name, data.category, len(data.train), data.train.labels.any()) == ("visa", "pcb1", 2, False)
    assert data.test.labels.tolist() == [1, 0] and data.test.defects == ("anomaly", "good") and data.test.has_masks
    assert np.diag(data.test.mask(0)).tolist() == [False] + [True] * 7, "every number above 0 is a defect"
    before = data.sha256
    (tmp_path / "VisA").rename(tmp_path / "moved")
    assert load_data(f"visa:{tmp_path / 'moved'}:pcb1").sha256 == before
    save(tmp_path / "moved/pcb1/Data/Masks/Anomaly/1.png", np.diag(np.full(8, 1, np.uint8)))
    assert load_data(f"visa:{tmp_path / 'moved'}:pcb1").sha256 != before, "the hash knows the masks"


def test_visa_errors(tmp_path):
    root = visa(tmp_path / "VisA")
    assert "did you mean 'pcb1'" in line_of(load_data, f"visa:{root}:pcb")
    assert "candle, pcb1" in line_of(load_data, f"visa:{root}")
    assert "candle/Data/Images/Normal/0.JPG" in line_of(load_data, f"visa:{root}:candle")
    (root / "pcb1/Data/Masks/Anomaly/1.png").unlink()
    assert "Anomaly/1.JPG or its mask" in line_of(load_data, f"visa:{root}:pcb1")
    (root / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    assert "1cls.csv: not VisA's table" in line_of(load_data, f"visa:{root}:pcb1")
    assert "no folder" in line_of(load_data, f"visa:{tmp_path / 'absent'}:pcb1")


def test_specs(tmp_path):
    assert "did you mean 'mvtec'" in line_of(load_data, "mvtek:x")
    assert "elpv:mono or elpv:poly" in line_of(load_data, "elpv")
    assert "mono" in line_of(load_data, "elpv:nomo")
    assert "mvtec:DIR" in line_of(load_data, "mvtec:")
    assert f"folder:{tmp_path}" in line_of(load_data, str(tmp_path))
    assert {spec.partition(":")[0] for spec in gd.SPECS} == set(gd.LAYOUTS)


def test_elpv_absent(monkeypatch):
    monkeypatch.setattr(gd, "find_spec", lambda name: None)
    assert 'pip install "g100[demo]"' in line_of(load_data, "elpv:mono")


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="package elpv-dataset is not installed")
@pytest.mark.parametrize(("kind", "good", "bad"), [("mono", 588, 313), ("poly", 920, 402)])
def test_elpv(kind, good, bad):
    sets = [load_data(f"elpv:{kind}", seed) for seed in range(4)]
    for data in sets:
        assert len(data.train) == int(0.6 * good) and (data.test.labels == 0).sum() == good - len(data.train)
        assert (data.test.labels == 1).sum() == bad and not data.train.labels.any()
        assert not set(data.train.names) & set(data.test.names)
    assert len({data.sha256 for data in sets}) == 4 and sets[0].sha256 == load_data(f"elpv:{kind}").sha256
    assert sets[0].train[0].shape == (300, 300, 3) and sets[0].test.has_masks is False


# ---- anything


def test_what_is_a_picture(tmp_path):
    save(tmp_path / "s/x/a.png")
    save(tmp_path / "s/b.png")
    stack = RNG.random((2, 3, 5, 4))
    assert as_image_set(tmp_path / "s").names == ("b.png", "x/a.png")
    assert as_image_set(str(tmp_path / "s/b.png")).names == ("b.png",)
    assert as_image_set([tmp_path / "s/b.png", str(tmp_path / "s/x/a.png")]).names == ("b.png", "x/a.png")
    assert (as_image_set(torch.tensor(stack))[1] == np.moveaxis(stack[1], 0, 2).astype(np.float32)).all()
    assert (as_image_set(np.stack([GREY] * 2))[1] == GREY[..., None]).all()
    assert len(as_image_set(np.zeros((4, 5, 6, 3), np.uint8))) == 4
    assert len(as_image_set([np.zeros((5, 6, 3), np.uint8), np.zeros((7, 6, 3), np.float32)])) == 2
    images = some_set()
    assert as_image_set(images) is images and set(as_image_set(stack).labels) == {-1}


def test_what_is_not(tmp_path):
    stack = RNG.random((2, 3, 5, 4)).astype(np.float32)
    for value, word in ((np.nan, "NaN"), (np.inf, "NaN or Inf"), (1.5, "[0, 1]"), (-0.1, "[0, 1]")):
        wrong = stack.copy()
        wrong[1, 2, 3, 0] = value
        assert word in line_of(as_image_set, wrong) and "000001" in line_of(as_image_set, torch.tensor(wrong))
        image = ImageSet([np.moveaxis(wrong[1], 0, 2)], ["bad one"], [0], ["good"], [None])
        assert "bad one" in line_of(as_image_set, image)
    for shape, dtype in (((5, 4, 3), "u1"), ((2, 3, 5, 4), "u1"), ((2, 5, 4, 3), "f8"), ((2, 5), "f4"),
                         ((2, 3, 5, 4), "i8"), ((2, 3, 0, 4), "f4")):  # fmt: skip
        assert "shape" in line_of(as_image_set, np.zeros(shape, dtype))
    for wrong in ([], 7, None, [1, 2], np.zeros((0, 3, 5, 4), np.float32), {"a": 1}):
        line_of(as_image_set, wrong)
    assert "absent.png" in line_of(as_image_set, [tmp_path / "absent.png"])
    assert "holds no images" in line_of(as_image_set, tmp_path)
    assert "whole data set" in line_of(as_image_set, tree(tmp_path / "a"))
    save(tmp_path / "b.png")
    assert "'b.png' stands twice" in line_of(as_image_set, [tmp_path / "b.png"] * 2)


def test_readable(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "3.png").write_bytes(b"")
    fine, lines = readable(as_image_set(tmp_path))
    assert fine.names == ("0.png", "2.png") and len(lines) == 2 and "1.png" in lines[0] and "3.png" in lines[1]


# ---- views


@few
@given(st.integers(4, 90), st.integers(4, 90), st.integers(3, 40), st.integers(0, 20))
def test_view_is_torchvisions_resize_and_crop(H, W, size, more):
    picture = np.random.default_rng(H * W).integers(0, 256, (H, W, 3), dtype=np.uint8)
    x = torch.from_numpy(picture).permute(2, 0, 1) / 255
    theirs = tv.center_crop(tv.resize(x, [size + more], antialias=True), [size, size])
    ours = View(size, size + more).image(picture)
    assert ours.shape == (3, size, size) and ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-5)
    straight = tv.resize(x, [size, size + 1], antialias=True)
    assert torch.allclose(View((size, size + 1)).image(picture), straight, atol=1e-5)
    assert ours.min() >= 0 and ours.max() <= 1


@few
@given(st.integers(20, 90), st.integers(20, 90), st.integers(8, 30), st.integers(0, 12))
def test_back_returns_positions(H, W, size, more):
    "A picture of its own coordinates returns to where it was, and the more exactly away from the borders."
    view = View(size, size + more)
    rows, columns = np.mgrid[:H, :W]
    place = np.stack([(rows + 0.5) / H, (columns + 0.5) / W, 0 * rows], 2).astype(np.float32)
    seen = view.image(place)
    cell = min(H, W) / (size + more)
    for channel, side in ((0, H), (1, W)):
        back = view.back(seen[channel], (H, W))
        assert back.shape == (H, W) and back.dtype == np.float32
        gap = np.abs(back - place[..., channel]) * side
        assert np.nanmax(gap) <= 0.75 * max(cell, 1) + 0.5
        inner = binary_erosion(np.isfinite(back), np.ones((3, 3)), iterations=int(2 * cell) + 2)
        assert gap[inner].max(initial=0) <= 0.25 * max(cell, 1) + 0.1


def test_back_is_nan_just_outside_the_crop():
    view = View(50, 100)
    back = view.back(np.ones((50, 50)), (100, 200))
    inside = np.zeros((100, 200), bool)
    inside[25:75, 75:125] = True
    assert (np.isfinite(back) == inside).all() and (back[inside] == 1).all()
    assert np.isfinite(View(50).back(np.ones((50, 50)), (100, 200))).all()
    assert "shape" in line_of(view.back, np.ones((10, 10)), (100, 200))


@few
@given(st.integers(1, 60), st.integers(1, 60))
def test_masks_take_the_value_under_the_centre(n, N):
    from fractions import Fraction

    exact = [int((Fraction(i) + Fraction(1, 2)) * N / n) for i in range(n)]
    assert gd.nearest(n, N).tolist() == exact
    mask = np.random.default_rng(n * N).random((N, N)) > 0.5
    assert (View(n).mask(mask) == mask[np.ix_(exact, exact)]).all()


def test_mask_and_picture_are_cut_alike():
    mask = np.zeros((60, 140), bool)
    mask[20:44, 60:100] = True
    view = View(32, 48)
    picture = view.image(np.repeat(mask[..., None], 3, 2).astype(np.float32))[0].numpy() > 0.5
    assert (picture != view.mask(mask)).mean() < 0.05 and view.mask(mask).any()


def test_views_that_make_no_sense():
    assert "larger than resize" in line_of(View, 256, 224)
    assert "larger than resize" in line_of(View, (100, 230), 224)
    for size, resize in ((0, None), ((3, 4, 5), None), (2.5, None), ("a", None), (8, 0), ((8, -1), None)):
        line_of(View, size, resize)
    assert View(7).shape == (7, 7) and View([7, 8]).shape == (7, 8) and View((7, 8)) == View([7, 8])
    hash(View([7, 8]))


def test_read_only_arrays_and_strides_pass_without_a_warning(recwarn):
    picture = np.broadcast_to(np.uint8(7), (9, 9, 3))
    assert View(4).image(picture).max() == pytest.approx(7 / 255) and not recwarn.list
    assert View(4).image(np.zeros((9, 9, 3), np.uint8)[::-1, ::2]).max() == 0


# ---- batches


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_batches_keep_the_order(size):
    images, view = some_set(), View(4)
    got = list(batches(images, view, size))
    assert all(len(b) == size for b in got[:-1]) and len(torch.cat(got)) == 7
    assert torch.equal(torch.cat(got), torch.stack([view.image(images[i]) for i in range(7)]))


def test_only_a_few_are_ahead_and_threads_end():
    lock, running, done, before = threading.Lock(), [0], [0], threading.active_count()

    def work(i):
        with lock:
            running[0] += 1
        time.sleep(0.001 * (i % 3))
        return i

    for i in gd.ahead(work, range(60), depth=5):
        assert running[0] - i <= 5 + 1
        done[0] += 1
        if i == 30:
            break
    time.sleep(0.1)
    assert running[0] < 60 and threading.active_count() <= before + gd.WORKERS
    assert list(gd.ahead(lambda i: i * i, range(9), depth=0)) == [i * i for i in range(9)]


def test_batches_name_the_broken_picture_and_show_progress(tmp_path, capsys):
    for i in range(5):
        save(tmp_path / f"{i}.png")
    assert len(list(batches(as_image_set(tmp_path), View(8), 2, "scoring"))) == 3
    assert "scoring" in capsys.readouterr().err
    (tmp_path / "3.png").write_bytes(b"")
    assert "3.png" in line_of(list, batches(as_image_set(tmp_path), View(8), 2))
    assert capsys.readouterr().err == ""
    line_of(list, batches(some_set(), View(8), 0))
