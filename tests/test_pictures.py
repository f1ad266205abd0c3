"g100.foundations.pictures: files to arrays, masks, image sets, labels, the content hash."

import array
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g100.foundations import pictures as gp
from g100.foundations.pictures import ImageSet, labels_of, read_image, read_mask
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
    assert (gp.to_rgb(Image.fromarray(every))[..., 0] == np.rint(every / 257)).all()
    for beyond in (70000, -1):
        with pytest.raises(ValueError, match="beyond 16 bits"):
            gp.to_rgb(Image.fromarray(np.full((2, 2), beyond, np.int32)))


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
    got = gp.to_rgb(picture)[0, 0].astype(float)
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
    assert got.shape == (16, 24, 3) and gp.image_size(tmp_path / "a.png") == (16, 24)
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
    assert "words.png" in line_of(gp.image_size, tmp_path / "words.png")


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


# ---- the content hash


def test_hash_of_arrays_and_order():
    images = some_set()
    assert images.sha256 == images[::-1].sha256 != images[1:].sha256
    other = ImageSet(images.images, images.names, 1 - images.labels, images.defects, images.masks)
    assert other.sha256 != images.sha256
    assert gp.digest(np.zeros((2, 3), np.uint8)) != gp.digest(np.zeros((3, 2), np.uint8))


# ---- labels


FIT = [0, 1, -1, True, False, 0.0, 1.0, -1.0, np.int8(1), np.float32(0), np.bool_(True)]
VALUES = [*FIT, 2, 0.7, math.nan, None, "bad", "1", [1], 1j]


def said_by(y) -> list | int | str:
    "An independent reading, value by value: the labels, the place of the first value that fits nothing, or both ways."
    readings = {"field": {0: 0, 1: 1}, "scikit-learn": {1: 0, -1: 1}}
    for i, value in enumerate(y):
        number = int(value) if isinstance(value, (bool, int, float, np.generic)) and value in (-1, 0, 1) else None
        readings = {name: known for name, known in readings.items() if number in known}
        if not readings:
            return i
    found = [[known[int(value)] for value in y] for known in readings.values()]
    return found[0] if len(found) == 1 or not y else "both"


def unlabelled(n):
    return ImageSet([None] * n, [f"part{i}" for i in range(n)], [-1] * n, ["unknown"] * n, [None] * n)


@settings(deadline=None, max_examples=300)
@given(st.one_of(*(st.lists(st.sampled_from(pool), max_size=6) for pool in (FIT, VALUES, [0, 1], [1, -1], [1]))))
def test_labels_are_read_in_one_way_or_refused(y):
    images, wanted = unlabelled(len(y)), said_by(y)
    if isinstance(wanted, list):
        got = labels_of(images, y)
        assert got.dtype == np.int64 and got.shape == (len(y),) and got.tolist() == wanted
    elif wanted == "both":
        line = line_of(labels_of, images, y)
        assert "leave y out" in line and "0 for good" in line
    else:
        line = line_of(labels_of, images, y)
        value = y[wanted].item() if isinstance(y[wanted], np.generic) else y[wanted]
        assert line.startswith(f"y[{wanted}] is {value!r} (part{wanted});")


@few
@given(st.lists(st.booleans(), min_size=1, max_size=8).filter(lambda bad: not all(bad)), st.data())
def test_both_conventions_and_all_containers_say_the_same(bad, data):
    images, field = unlabelled(len(bad)), np.array(bad, int)
    numbers = [field, 1 - 2 * field] if any(bad) else [field]
    y = data.draw(st.sampled_from(numbers))
    kind = data.draw(st.sampled_from(["u1" if y is field else "i1", "i8", "f2", "f8", object]))
    kept = y.astype(kind)
    forms = [kept, list(kept), tuple(y.tolist()), torch.tensor(y), torch.tensor(y, dtype=torch.float16), list(torch.tensor(y)),
             array.array("b", y.tolist())]  # fmt: skip
    for form in [*forms, np.array(bad)]:
        assert labels_of(images, form).tolist() == field.tolist()


def test_labels_without_y_are_those_of_the_pictures():
    images = some_set(3)
    images.labels[1] = -1
    got = labels_of(images)
    assert got.tolist() == [0, -1, 0] and got.dtype == np.int64
    got[0] = 1
    assert images.labels[0] == 0, "what is given out is no door to the set"
    assert labels_of(images, [0, 1, 0]).tolist() == [0, 1, 0], "y has the last word"


def test_all_abnormal_and_all_good_can_be_said():
    images = unlabelled(2)
    assert labels_of(images, [-1, -1]).tolist() == [1, 1] and labels_of(images, [0, 0]).tolist() == [0, 0]
    assert labels_of(unlabelled(0), []).shape == (0,)
    for y in ([1, 1], np.ones(2), [True, True], torch.ones(2)):
        assert "nothing but 1 (2 times)" in line_of(labels_of, images, y)


@pytest.mark.parametrize("y", [[0], [0, 1, 0], np.zeros((2, 1)), np.zeros((1, 2)), torch.zeros(2, 2), np.array(0), 0, "01",
                               b"01", {0: 1, 1: 0}, {0, 1}, iter([0, 1])])  # fmt: skip
def test_labels_of_another_form_are_refused(y):
    line = line_of(labels_of, unlabelled(2), y)
    assert line.startswith("y ") and ("for 2 pictures" in line or "2 in all" in line)


def test_pictures_passed_for_labels_are_named_in_one_short_line():
    masks = [np.zeros((3, 4)), np.zeros((3, 5))]
    for y in (masks, [[0, 1]] * 2, ["two\nlines", 0], [np.nan, 0]):
        line = line_of(labels_of, unlabelled(2), y)
        assert line.startswith("y[0] is ") and "(part0)" in line and len(line) < 250
    assert line_of(labels_of, unlabelled(3), [1, 0, -1]).startswith("y[2] is -1 (part2)")
    assert line_of(labels_of, unlabelled(3), [-1, 1, 0]).startswith("y[2] is 0 (part2)")
