"What may be given where a detector wants pictures and labels, and what is refused, each in one line."

import array
import inspect
import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from g100.foundations.detector import ALGORITHMS, algorithm
from g100.foundations.pictures import ImageSet, labels_of, read_image
from g100.foundations.sources import as_image_set
from tests.toys import MeanPicture, line_of, pictures, spotted

pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*")
RNG = np.random.default_rng(7)
A, B = RNG.integers(0, 256, (2, 9, 14, 3), dtype=np.uint8)  # two pictures in colour
C = RNG.integers(0, 256, (11, 6, 3), dtype=np.uint8)  # one of another size
G = RNG.integers(0, 256, (9, 14), dtype=np.uint8)  # a grey one
AB = np.stack([A, B])
FLOAT = (A / 255).astype(np.float32)
first = torch.from_numpy(AB).permute(0, 3, 1, 2)  # (N, 3, H, W)


def grey(x):
    return np.repeat(np.asarray(x)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("in") / "new"
    for name, x in (("part2.png", A), ("part10.png", B), ("deep/part1.png", C), ("notes.txt", None)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(root / name) if x is not None else (root / name).touch()
    return root


def given_as(X, *wanted, names=None, channels="rgb"):
    "X is read as the pictures wanted, to the bit and in their type, in this order."
    got = as_image_set(X, channels=channels)
    assert len(got) == len(wanted) and set(got.labels) == {-1}
    assert got.names == tuple(names or (f"{i:06d}" for i in range(len(wanted))))
    for x, y in zip(got, wanted, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape and (x == y).all()
    return got


# ---- arrays and tensors


@pytest.mark.parametrize("X, wanted", [
    (A, [A]), (G, [grey(G)]), (G[..., None], [grey(G)]), (G[None], [grey(G)]),
    (AB, [A, B]), (np.moveaxis(AB, 3, 1), [A, B]), (AB[..., :1], [grey(A[..., 0]), grey(B[..., 0])]),
    (np.moveaxis(AB[..., :1], 3, 1), [grey(A[..., 0]), grey(B[..., 0])]), (np.stack([G] * 2), [grey(G)] * 2),
    (np.stack([G] * 5), [grey(G)] * 5), (A[None].transpose(0, 3, 1, 2), [A]), (G[None, ..., None], [grey(G)]),
    (np.stack([G] * 3)[..., None], [grey(G)] * 3), (np.asfortranarray(AB), [A, B]), (AB[::-1], [B, A]),
    (AB.astype(np.uint16) * 257, [A, B]), (AB.astype(">u2") * 257, [A, B]), (G.astype(np.uint16) * 257, [grey(G)]),
    (AB / 255, [FLOAT, (B / 255).astype(np.float32)]), (A.astype(">f4") / 255, [FLOAT]),
    (FLOAT.astype(np.float16), [FLOAT.astype(np.float16).astype(np.float32)]), (G / 255, [grey((G / 255).astype(np.float32))]),
    (np.moveaxis(A / 255, 2, 0)[None], [FLOAT]), (np.stack([G] * 2) / 255, [grey((G / 255).astype(np.float32))] * 2),
    (first, [A, B]), (first.double() / 255, [FLOAT, (B / 255).astype(np.float32)]), (torch.from_numpy(A), [A]),
    (first.to(torch.uint16) * 257, [A, B]), ((first.float() / 255).requires_grad_(), [FLOAT, (B / 255).astype(np.float32)]),
    (torch.from_numpy(FLOAT).bfloat16(), [torch.from_numpy(FLOAT).bfloat16().float().numpy()]),
    (Image.fromarray(A), [A]), (Image.fromarray(G), [grey(G)]),
])  # fmt: skip
def test_one_array(X, wanted):
    given_as(X, *wanted)


def test_arrays_are_shared_and_not_copied():
    grays, floats = np.stack([G] * 4), np.moveaxis(AB / np.float32(255), 3, 1)
    for X in (A, AB, grays, floats, [A, G], first, list(first), FLOAT):
        memory = X if isinstance(X, np.ndarray) else None
        for order in ("rgb", "bgr"):
            for image in as_image_set(X, channels=order).images:
                assert memory is None or np.shares_memory(image, memory)
    assert as_image_set(grays).images[0].strides[2] == 0, "a grey picture is kept once, not three times"


SIDES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8])


def one(shape, x):
    "An independent reading of one picture: all that Eq. 1 lets pass, by enumeration."
    if len(shape) == 2:
        return np.stack([x] * 3, axis=2)
    if len(shape) != 3:
        return None
    fits = [axis for axis, other in ((0, 2), (2, 0)) if shape[axis] in (1, 3) and shape[other] >= 5]
    if not fits:
        return None
    planes = [x.take(c, axis=fits[0]) for c in range(shape[fits[0]])]
    return np.stack(planes * (3 // len(planes)), axis=2)


def read_plainly(x):
    "The pictures of an array that stands alone, or None where it is to be refused."
    if x.size == 0 or x.dtype.kind not in "uf" or x.dtype.itemsize > 2 and x.dtype.kind == "u":
        return None
    if x.dtype == np.uint16:
        x = np.rint(x / 257).astype(np.uint8)
    elif x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not (x.min() >= 0 and x.max() <= 1):
            return None
    if x.ndim == 3 and x.shape[0] == 3:
        return None
    if x.ndim == 4 or x.ndim == 3 and x.shape[2] >= 5:
        found = [one(picture.shape, picture) for picture in x]
    else:
        found = [one(x.shape, x)]
    return None if any(picture is None for picture in found) else found


@settings(deadline=None, max_examples=250)
@given(st.lists(SIDES, max_size=5), st.sampled_from(["u1", "u2", "f2", "f4", "f8", "i8", "u4", "b1", "c8"]),
       st.sampled_from([1, 1, 1, 1.001, -1, np.nan, np.inf, 1e300]), st.integers(0, 9), st.booleans())  # fmt: skip
def test_any_array_is_read_as_documented_or_refused_in_one_line(shape, kind, scale, seed, as_tensor):
    x = np.random.default_rng(seed).random(shape)
    with np.errstate(all="ignore"):
        x = x * scale if kind[0] == "f" else x * (65535 if kind == "u2" else 255)
        x = np.asarray(x).astype(kind)
    X = torch.from_numpy(x) if as_tensor and kind not in ("u2", "u4") else x
    if (wanted := read_plainly(x)) is None:
        line_of(as_image_set, X)
    else:
        given_as(X, *wanted)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(SIDES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_list_of_arrays_is_read_item_by_item_or_refused(shapes):
    arrays = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in enumerate(shapes)]
    wanted = [one(a.shape, a) if a.size else None for a in arrays]
    if any(w is None for w in wanted):
        i = next(i for i, w in enumerate(wanted) if w is None)
        assert line_of(as_image_set, arrays).startswith(f"picture {i:06d} has shape")
    else:
        given_as(arrays, *wanted)


# ---- the order of colours


def test_frames_of_opencv(folder):
    frame = cv2.imread(str(folder / "part2.png"))
    assert (frame == A[..., ::-1]).all()
    given_as(frame, A, channels="bgr")
    given_as(np.stack([frame, frame]), A, A, channels="bgr")
    given_as(np.moveaxis(frame, 2, 0)[None], A, channels="bgr")
    given_as([torch.from_numpy(frame).permute(2, 0, 1), G], A, grey(G), channels="bgr")
    given_as(frame / 255, FLOAT, channels="bgr")
    for X in (folder / "part2.png", Image.fromarray(A)):
        assert (as_image_set(X, channels="bgr")[0] == A).all(), "files and PIL images know their colours"
    assert "did you mean 'bgr'" in line_of(as_image_set, frame, "BGR")
    assert "an ImageSet is RGB" in line_of(as_image_set, as_image_set(A), "bgr")


def test_detectors_are_told_the_order_of_colours():
    X = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    X[..., 0] //= 4
    settings, frames = {"image_size": 16, "sigma": 1.0}, X[..., ::-1]
    rgb, bgr = MeanPicture(**settings).fit(X), MeanPicture(**settings).fit(frames, channels="bgr")
    assert torch.equal(rgb.mean_, bgr.mean_) and rgb.threshold_ == bgr.threshold_
    score = rgb.inspect(X).score
    np.testing.assert_array_equal(bgr.inspect(frames, channels="bgr").score, score)
    np.testing.assert_array_equal(bgr.inspect(frames[3], channels="bgr").score, score[3:4])
    parts = list(bgr.inspect_batches(frames, channels="bgr"))
    np.testing.assert_array_equal(np.concatenate([part.score for part in parts]), score)
    np.testing.assert_array_equal(bgr.score_samples(as_image_set(frames, channels="bgr")), -score)
    assert (bgr.inspect(frames).score > score).all(), "which is why it has to be said"
    bgr.recalibrate(frames[:20], channels="bgr")
    assert bgr.threshold_ == rgb.recalibrate(X[:20]).threshold_


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_detector_takes_the_same(name):
    cls = algorithm(name)
    methods = [getattr(cls, m) for m in ("fit", "partial_fit", "recalibrate", "inspect", "inspect_batches") if hasattr(cls, m)]
    for method in methods:
        assert inspect.signature(method).parameters["channels"].default == "rgb", method


# ---- files


def test_files_folders_and_patterns(folder, monkeypatch):
    paths, names = [folder / "part2.png", folder / "part10.png"], ["part2.png", "part10.png"]
    listings = [paths, tuple(map(str, paths)), np.array(paths), np.array([str(p) for p in paths]), iter(paths)]
    listings += [np.array([str(p) for p in paths], dtype=object), folder / "*.png", str(folder / "part*"), str(folder / "*")]
    for X in listings:
        given_as(X, A, B, names=names)
    given_as(str(folder / "**" / "*.png"), C, A, B, names=["deep/part1.png", *names])
    given_as(str(folder / "part[0-9].png"), A, names=["part2.png"])
    given_as(folder, C, A, B, names=["deep/part1.png", *names])
    monkeypatch.setenv("HOME", str(folder.parent))
    for X in ("~/new/part2.png", ["~/new/part2.png"], "~/new/part?.png"):
        given_as(X, A, names=["part2.png"])
    assert all(str(image).endswith(".png") for image in as_image_set(folder).images), "nothing is read"
    assert "fits the pattern" in line_of(as_image_set, str(folder / "*.bmp"))
    assert "fits the pattern" in line_of(as_image_set, folder / "no*.txt")
    for X in (str(folder / "absent.png"), "x" * 9000, "no\0where"):
        assert "there is no file and no folder" in line_of(as_image_set, X)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    for name, x in (("a[1].png", A), ("a1.png", B)):
        Image.fromarray(x).save(tmp_path / name)
    given_as(tmp_path / "a[1].png", A, names=["a[1].png"])
    given_as([tmp_path / "a[1].png"], A, names=["a[1].png"])


# ---- lists, iterators and whatever can be gone through


class Column:
    "What a pandas Series is, as far as it matters here."

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)


def test_mixtures(folder):
    path = folder / "part2.png"
    items = [path, C, Image.fromarray(B), G, first[1], Image.fromarray(G), str(path), first[0].float() / 255]
    wanted = [A, C, B, grey(G), B, grey(G), A, FLOAT]
    made = np.empty(len(items), dtype=object)
    made[:] = items
    for X in (items, tuple(items), iter(items), (x for x in items), made, Column(items), list(items).__iter__()):
        given_as(X, *wanted)
    given_as(Column([path]), A, names=["part2.png"])


def test_an_iterator_is_gone_through_once_and_may_reuse_its_memory():
    def camera():
        buffer = np.empty_like(A)
        for x in AB:
            buffer[:] = x
            yield buffer

    def tensors():
        buffer = torch.empty_like(first[0])
        for x in first:
            yield buffer.copy_(x)

    images = given_as(camera(), A, B)
    assert (images[0] == A).all() and len(images[::-1]) == 2
    given_as(tensors(), A, B)
    given_as(camera(), A[..., ::-1], B[..., ::-1], channels="bgr")
    assert "holds no pictures" in line_of(as_image_set, iter(()))


def test_pil_images_go_the_road_of_files(tmp_path):
    deep = Image.fromarray(G.astype(np.uint16) * 200)
    clear = Image.fromarray(np.dstack([A, G]))
    palette = Image.fromarray(A).quantize(7)
    turned, exif = Image.fromarray(A), Image.Exif()
    exif[0x0112] = 6
    for i, (image, options) in enumerate([(deep, {}), (clear, {}), (palette, {"transparency": 2}), (turned, {"exif": exif}),
                                          (Image.fromarray(G > 99), {}), (Image.fromarray(G).convert("LA"), {})]):  # fmt: skip
        file = tmp_path / f"{i}.png"
        image.save(file, **options)
        with Image.open(file) as opened:
            given_as(opened, read_image(file))
        given_as([Image.open(file)], read_image(file))
    assert "floating-point" in line_of(as_image_set, Image.fromarray(FLOAT[..., 0]))
    closed = Image.open(file)
    closed.close()
    assert line_of(as_image_set, [A, closed]).startswith("picture 000001, a PIL image, cannot be read: ")


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __getitem__(self, i):
        return self.rows[i]


class Counted(Rows):
    def __len__(self):
        return len(self.rows)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(first[0], 1), (first[1], 0)])


@pytest.mark.parametrize("rows", [
    [A, B], [(A, 1), (B, 0)], [[first[0], 1, "x"], [first[1], 0, "y"]], [{"x": A, "y": 1}, {"x": B, "y": 0}],
    [{"label": 1, "image": A}, {"label": 0, "image": Image.fromarray(B)}], [(Image.fromarray(A), A), (Image.fromarray(B), A)],
    [first[0].float() / 255, first[1].float() / 255], [(A.astype(np.uint16) * 257,), (B.astype(np.uint16) * 257,)],
])  # fmt: skip
def test_rows_of_a_dataset(rows):
    wanted = [FLOAT, (B / 255).astype(np.float32)] if getattr(rows[0], "dtype", None) == torch.float32 else [A, B]
    images = given_as(Counted(rows), *wanted)
    assert (images.labels == -1).all(), "labels in it are left there"
    given_as(DataLoader(Counted(rows), batch_size=None), *wanted)


def test_batches_of_a_loader():
    float_rows = TensorDataset(first.float() / 255, torch.tensor([1, 0]))
    floats = [FLOAT, (B / 255).astype(np.float32)]
    for size in (1, 2, 3):
        given_as(DataLoader(float_rows, batch_size=size), *floats)
        given_as(DataLoader(Counted([A, B]), batch_size=size), A, B)
        given_as(DataLoader(Counted([{"y": 1, "image": A}, {"y": 0, "image": B}]), batch_size=size), A, B)
        given_as(DataLoader(Stream(), batch_size=size), A, B)
    given_as(DataLoader(float_rows, batch_sampler=[[1], [0, 1]]), floats[1], *floats)
    given_as(Stream(), A, B)
    given_as(DataLoader(Counted([A[..., ::-1].copy(), B[..., ::-1].copy()]), batch_size=2), A, B, channels="bgr")
    for collate in (list, tuple, lambda rows: [x for x, _ in rows], lambda rows: None):
        pairs = DataLoader(Counted([(first[0], 1), (first[1], 0)]), batch_size=2, collate_fn=collate)
        assert "batch_size=None" in line_of(as_image_set, pairs)
    assert "batch_size=None" in line_of(as_image_set, DataLoader(Counted([G, G]), batch_size=2))


def test_labels_in_a_dataset_teach_nothing():
    good, (bad, _) = pictures(40, 16), spotted(5, 16)
    rows = [(x, 1) for x in good]
    plain = MeanPicture(image_size=16, sigma=1.0).fit(good)
    fitted = MeanPicture(image_size=16, sigma=1.0).fit(Counted(rows))
    assert torch.equal(plain.mean_, fitted.mean_) and plain.threshold_ == fitted.threshold_
    np.testing.assert_array_equal(fitted.inspect(DataLoader(TensorDataset(torch.from_numpy(bad)))).score,
                                  plain.inspect(bad).score)  # fmt: skip
    assert "labelled abnormal" in line_of(MeanPicture(image_size=16).fit, Counted(rows), [0] * 39 + [1])


# ---- what is refused


RGBA, NAN = np.dstack([A, G]), np.where(AB == AB[0, 0, 0, 0], np.nan, AB / 255)
REFUSED = [  # what is given for X, and what is said of it
    (None, "X of type NoneType is not understood; expected a folder"), (7, "X of type int is not"), (b"x.png", "of type bytes"),
    (object(), "of type object"), ({"x": A}, "of type dict"), ({"new/a.png"}, "of type set"),
    ([], "X holds no pictures; expected"), (np.zeros((0, 9, 9, 3), np.uint8), "X holds no pictures"),
    (np.array([]), "X has shape (0,)"), (np.zeros((0, 0)), "picture 000000 has shape (0, 0, 3)"),
    ([1, 2], "picture 000000 is of type int; expected a path"), ([A, None], "picture 000001 is of type NoneType"),
    ([[A, B]], "picture 000000 is of type list"), ([(A, 0)], "picture 000000 is of type tuple"),
    (zip([A], [0], strict=True), "picture 000000 is of type tuple"), ([np.float64(1)], "is of type float64"),
    (np.array("a.png"), "expected one row of paths"), (np.array([["a.png"]]), "has shape (1, 1); expected one row of paths"),
    (np.array([A, None], dtype=object), "picture 000001 is of type NoneType"), (np.array([b"a.png"]), "X has shape (1,)"),
    (np.zeros(9), "X has shape (9,); expected a picture (H, W)"), (np.zeros((1, 2, 9, 9, 3)), "X has shape (1, 2, 9, 9, 3)"),
    (np.moveaxis(A, 2, 0), "one picture in colour, or three grey ones? Give x[None] for the one, x[..., None] for the three"),
    (first[0].float() / 255, "X has shape (3, 9, 14): one picture in colour"), (A[:3], "X has shape (3, 14, 3)"),
    (RGBA, "(9, 14, 4): colours are 3, or 1 for grey; leave a transparency out, as x[..., :3]"),
    (np.stack([RGBA] * 2), "picture 000000 has shape (9, 14, 4)"), (np.moveaxis(RGBA, 2, 0)[None], "(4, 9, 14): colours"),
    (A[..., :2], "(9, 14, 2): colours"), (AB[:, :3], "000000 has shape (3, 14, 3): its colours may stand at either end"),
    ([AB], "picture 000000 has shape (2, 9, 14, 3): one picture is (H, W), (H, W, 3) or (3, H, W)"),
    ([np.stack([G] * 5)], "picture 000000 has shape (5, 9, 14): one picture is"),
    ([A, C > 5], "picture 000001 has dtype bool; expected uint8, uint16 or float in [0, 1] (255 * x.astype(np.uint8) is"),
    (A.astype(int), "picture 000000 has dtype int64; expected uint8"), (A.astype(np.int16), "has dtype int16"),
    (torch.from_numpy(AB).long(), "has dtype int64"), (A.astype(complex), "has dtype complex128"),
    (AB.astype(float), "picture 000000 has values from 0 to 255; float pictures must lie in [0, 1] (where 255 is white,"),
    ([A, FLOAT - 0.1], "picture 000001 has values from -0.1 to 0.9"), (NAN, "picture 000000 holds NaN or Inf"),
    (np.full((9, 9), 1e300), "picture 000000 holds NaN or Inf"), (torch.eye(9).to_sparse(), "torch.sparse_coo on cpu"),
    (torch.empty(9, 9, device="meta"), "on meta is no picture"), (["absent.png"], "there is no image absent.png"),
    ([A, "absent.png"], "there is no image absent.png"), (Rows([A]), "X, a Rows, has no length"),
    (Counted([]), "X holds no pictures"), (Counted([(), ()]), "picture 000000 is of type tuple"),
    (Counted([{}]), "picture 000000 is of type NoneType"), (Counted([(1, A)]), "picture 000000 is of type int"),
    (ImageSet([A[..., :1]], ["a"], [0], ["good"], [None]), "picture a has shape (9, 14, 1)"),
]  # fmt: skip
REFUSED_Y = [  # what is given for y with two pictures, and what is said of it
    ([0], "y has shape (1,) for 2 pictures"), (np.zeros((2, 1)), "y has shape (2, 1)"), (torch.zeros(3), "y has shape (3,)"),
    ("01", "y of type str"), (0, "y of type int"), ({0: 1, 1: 0}, "y of type dict"), (iter([0, 1]), "y of type list_iterator"),
    ([0, 2], "y[1] is 2 (000001); give 0 (good)"), ([0, -1], "y[1] is -1 (000001)"), ([0, None], "y[1] is None"),
    (["good", "bad"], "y[0] is 'good'"), ([np.nan, 0], "y[0] is nan"), ([G, G], "y[0] is array"),
    ([1, 1], "y holds nothing but 1 (2 times)"), ([0, 1], "1 of 2 are labelled abnormal, the first is 000001"),
    (array.array("b", [1, -1]), "1 of 2 are labelled abnormal"),
]  # fmt: skip


@pytest.mark.parametrize("X, said", REFUSED, ids=itertools.count())
def test_what_is_refused_for_X(X, said):
    assert said in line_of(as_image_set, X)


@pytest.mark.parametrize("y, said", REFUSED_Y, ids=itertools.count())
def test_what_is_refused_for_y(y, said):
    assert said in line_of(MeanPicture(image_size=16).fit, AB, y)


def test_a_refused_X_leaves_a_detector_as_it_was():
    fitted = MeanPicture(image_size=16, sigma=1.0).fit(pictures(30, 16))
    before, threshold = fitted.mean_.clone(), fitted.threshold_
    for X, _ in REFUSED[:8]:
        line_of(fitted.fit, X)
        line_of(fitted.inspect, X)
    assert torch.equal(fitted.mean_, before) and fitted.threshold_ == threshold


def test_labels_may_come_in_any_container():
    images = as_image_set(AB)
    for y in ([0, 1], np.array([1, -1]), (False, True), torch.tensor([0.0, 1.0]), np.array([0, 1], dtype=object)):
        assert labels_of(images, y).tolist() == [0, 1]


# ---- scikit-learn's tools, over paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("paths")
    for i, x in enumerate(pictures(24, 16)):
        Image.fromarray(x).save(root / f"{i}.png")
    return np.array([str(root / f"{i}.png") for i in range(24)])


def typical(detector, X, y=None):
    "A scoring by a callable: good pictures score low."
    return -float(detector.inspect(X).score.mean())


def test_grid_search_and_cross_validation_over_paths(paths):
    small, folds = MeanPicture(image_size=16), KFold(3)
    grid = {"sigma": [0.5, 3.0], "image_score": ["max", "mean"]}
    search = GridSearchCV(small, grid, scoring=typical, cv=folds, error_score="raise").fit(paths)
    wanted = {}
    for sigma, how in itertools.product(*grid.values()):
        made = [MeanPicture(image_size=16, sigma=sigma, image_score=how).fit(paths[a]) for a, _ in folds.split(paths)]
        wanted[sigma, how] = np.mean([typical(d, paths[b]) for d, (_, b) in zip(made, folds.split(paths), strict=True)])
    assert (search.best_params_["sigma"], search.best_params_["image_score"]) == max(wanted, key=wanted.get)
    np.testing.assert_allclose(sorted(search.cv_results_["mean_test_score"]), sorted(wanted.values()))
    assert search.predict(paths).shape == (24,)
    scores = [cross_val_score(small, X, y, scoring=typical, cv=folds, error_score="raise")
              for X, y in ((paths, np.zeros(24)), (list(paths), None), (pictures(24, 16), None))]  # fmt: skip
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_in_a_pipeline(paths):
    detector = MeanPicture(image_size=16, sigma=1.0)
    opened = FunctionTransformer(lambda X: [Image.open(path) for path in X])
    line = Pipeline([("open", opened), ("detect", detector)]).fit(paths)
    np.testing.assert_array_equal(line.predict(paths), MeanPicture(image_size=16, sigma=1.0).fit(paths).predict(paths))
    np.testing.assert_array_equal(line.decision_function(paths) < 0, line.predict(paths) == -1)
    assert line.fit_predict(paths).shape == (24,)
