"Pictures that are padded: what the network says of the padding is in no map, no score, no metric and no memory."

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from g100.algorithms.patchcore import PatchCore
from g100.experiments.experiment import evidence_of, pixel_metrics, write_picture
from g100.foundations.detector import Scoring, load, worst_seen
from g100.foundations.lessons import Judge, Lessons, Options, judged
from g100.foundations.maps import full_size
from g100.foundations.pictures import ImageSet
from g100.foundations.sources import as_image_set
from g100.foundations.views import View, batches, content
from tests.toys import MeanPicture, line_of

pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*", "ignore:.*RANDOM weights.*")
SIZES = [(20, 60), (20, 60), (24, 60), (60, 20), (40, 40), (24, 60)]


def noisy(sizes, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(128, 20, (*size, 3)).clip(0, 255).astype(np.uint8) for size in sizes]


class Loud(nn.Module):
    "Says the mean of the colours, and a hundred wherever it was told that padding is."

    def __init__(self, view: View, size: tuple[int, int]):
        super().__init__()
        self.loud = torch.full(view.shape, 100.0)
        self.loud[content(view, size)] = 0.0

    def forward(self, x):
        return x.mean(1) + self.loud


@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_the_padding_is_not_heard(sigma):
    "The map is that of the picture alone, to the bit where nothing is smoothed, mirrored at its borders where it is."
    view, images = View((32, 40), fit="pad"), noisy([(20, 60)] * 5)
    judge = Judge(Loud(view, (20, 60)), Scoring(view, sigma=sigma, image_score="mean"))
    found = list(judged(judge, as_image_set(images), torch.device("cpu"), 2))
    maps, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    assert maps.shape == (5, 13, 40)
    alone = full_size(torch.stack([View((13, 40)).image(image).mean(0) for image in images]), (13, 40), sigma)
    np.testing.assert_allclose(maps, alone, atol=1e-5)
    np.testing.assert_allclose(scores, maps.mean((1, 2)), rtol=1e-5)
    assert judge.scoring.frame((20, 60)) == View((13, 40))


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_pictures_of_all_shapes_keep_their_order(batch_size, tmp_path):
    detector = MeanPicture(image_size=32, framing="pad", sigma=1, batch_size=batch_size).fit(noisy(SIZES * 4))
    images = noisy(SIZES, seed=1)
    images[3][20:40, 5:15] = 255
    found = detector.inspect(images)
    assert found.names == as_image_set(images).names
    assert [a.shape for a in found.map] == [detector.frame(size).shape for size in SIZES]
    assert [m.shape for m in found.mask] == [a.shape for a in found.map]
    np.testing.assert_allclose(found.score, [a.max() for a in found.map], rtol=1e-6)
    one = [detector.inspect([image]) for image in images]
    np.testing.assert_allclose(found.score, np.concatenate([each.score for each in one]), rtol=1e-5)
    assert np.argmax(found.score) == 3
    again = load(detector.save(tmp_path / "model")).inspect(images)
    np.testing.assert_array_equal(again.score, found.score)
    file = write_picture(tmp_path, images[3], "3", found.map[3], found.mask[3], detector)
    assert file.exists()


def test_metrics_are_those_of_the_whole_picture():
    detector = MeanPicture(image_size=48, framing="pad", sigma=1).fit(noisy(SIZES * 4))
    images, masks = noisy(SIZES * 2, seed=1), []
    for i, image in enumerate(images):
        masks.append(np.zeros(image.shape[:2], bool))
        if i % 2:
            image[:6, :6], masks[-1][:6, :6] = 255, True  # in the corner, next to the padding
    labels = [i % 2 for i in range(len(images))]
    test = ImageSet(images, [f"{i}" for i in range(len(images))], labels, ["x"] * len(images), masks)
    row, _ = pixel_metrics(test, detector.inspect(test), detector)
    assert row["regions"] == 6 and row["regions_lost"] == 0 and row["aupro"] > 0.9 and row["pixel_auroc"] > 0.95


def test_the_memory_holds_patches_of_pictures_alone():
    detector = PatchCore(backbone="resnet18", weights="random", image_size=64, framing="pad", coreset_ratio=1.0)
    images = noisy(SIZES)
    model = detector.build((64, 64))
    view = View(64, fit="pad")
    lessons = Lessons(as_image_set(images), detector.scoring(), 4, Options(torch.device("cpu")))
    with torch.no_grad():
        detector.learn(model.eval(), lessons)
        patches = model.patches(torch.stack([view.image(image) for image in images]))
    seen = lessons.seen(tuple(patches.shape[1:3]))
    expected = patches[seen]
    assert 0 < len(expected) < patches.shape[:3].numel() and seen[4].all() and not seen[0].all()
    assert len(model.bank) == len(expected)
    a, b = (rows[np.lexsort(rows.T)] for rows in (model.bank.numpy(), expected.numpy()))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_without_padding_everything_is_seen():
    lessons = Lessons(as_image_set(noisy(SIZES)), Scoring(View(32)), 4, Options(torch.device("cpu")))
    assert lessons.seen((4, 4)).all() and lessons.seen((4, 4)).shape == (6, 4, 4)


def test_a_crop_is_the_same_by_both_names():
    good, images = noisy([(30, 50)] * 24), noisy([(30, 50)] * 3, seed=1)
    one, other = (MeanPicture(image_size=24, sigma=1, **how).fit(good) for how in ({"framing": "crop"}, {"resize": 24}))
    np.testing.assert_array_equal(one.inspect(images).map, other.inspect(images).map)
    assert np.isnan(one.frame((30, 50)).back(one.inspect(images).map[0], (30, 50))).any()


@pytest.mark.parametrize("parameters, words", [
    ({"framing": "pads"}, ("framing", "did you mean 'pad'")),
    ({"framing": "pad", "tile": 32}, ("framing='pad'", "tile=32", "leave framing out")),
    ({"framing": "crop", "tile": 32}, ("framing='crop'", "tile=32")),
    ({"framing": "pad", "resize": 300}, ("framing='pad'", "resize=300", "leave resize out")),
    ({"framing": "pad", "image_score": "reweighted"}, ("reweighted", "padding", "top_percent")),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(parameters, words):
    said = line_of(lambda: PatchCore(**parameters).check())
    assert all(word in said for word in words)


def test_cross_calibration_leaves_padding_out_too():
    how = {"backbone": "resnet18", "weights": "random", "image_size": 64, "coreset_ratio": 0.2, "calibration": "cross"}
    images = noisy(SIZES * 3)
    detector = PatchCore(**how, framing="pad").fit(images)
    seen = Lessons(as_image_set(images), detector.scoring(), 4, Options(torch.device("cpu"))).seen((8, 8))
    assert len(detector.bank_) == round(0.2 * int(seen.sum())) < 0.2 * seen.numel()
    assert len(detector.calibration_scores_) == len(images)
    square = noisy([(64, 64)] * 12)  # nothing to pad: the same as without
    one, other = (PatchCore(**how, framing=name).fit(square) for name in ("pad", "stretch"))
    np.testing.assert_allclose(one.calibration_scores_, other.calibration_scores_, rtol=1e-5)


def smooth(size: tuple[int, int], seed: int) -> np.ndarray:
    "A picture whose colour says where one is: red from left to right, green from top to bottom; a little noise in blue."
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    return (255 * np.stack([x, y, np.random.default_rng(seed).uniform(0, 0.1, size)], axis=2)).astype(np.uint8)


class Mirror(MeanPicture):
    "Says of a place the colours that its network is given there, and shows what that is given."

    def evidence(self, X, at):
        seen = next(batches(as_image_set(X), self.fitted_.scoring.view, 1))[0].permute(1, 2, 0).numpy()
        self.asked = seen[tuple(int(n * N) for n, N in zip(at, seen.shape, strict=False))]
        return {"said": "", "seen": {"as the network sees it": seen}}


@pytest.mark.parametrize("framing", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(120, 360), (320, 160), (200, 200)])
def test_evidence_is_of_one_place_whatever_the_frame(framing, size, tmp_path):
    "The place that an algorithm is asked about is that of the map, and both crops show it."
    detector = Mirror(image_size=160, framing=framing, sigma=0, calibration=0.3)
    detector.fit([smooth(size, seed) for seed in range(8)])
    y, x = 0.4 * size[0], 0.55 * size[1]
    image = smooth(size, 9)
    image[int(y) - 3 : int(y) + 3, int(x) - 3 : int(x) + 3, 2] = 255
    told = evidence_of(detector, detector.inspect([image]).map[0], image, tmp_path, 0)
    np.testing.assert_allclose(detector.asked[:2], (0.55, 0.4), atol=0.03)
    own, seen = (Image.open(tmp_path / "page" / file).convert("RGB") for _, file in told["pictures"])
    own, seen = (np.array(crop.resize((20, 20), Image.Resampling.BOX)).astype(float) for crop in (own, seen))
    assert np.abs(seen - own)[..., :2].mean() < 4, "of 255, as a JPEG shows them; a tenth of the picture away is 25"
    np.testing.assert_allclose(own.mean((0, 1))[:2] / 255, (0.55, 0.4), atol=0.03)


def test_the_good_patch_of_a_padded_picture_is_where_it_was():
    "Each picture is among those remembered, so that its own patch is the nearest."
    images = noisy(SIZES)
    detector = PatchCore(backbone="resnet18", weights="random", image_size=64, framing="pad", coreset_ratio=1.0, opening=1)
    detector.fit(images)
    for i, map in enumerate(detector.inspect(images).map):
        at = worst_seen(detector.fitted_.scoring, map, images[i].shape[:2])
        told = detector.evidence([images[i]], at)
        seen = Lessons(as_image_set([images[i]]), detector.scoring(), 4, Options(torch.device("cpu"))).seen((8, 8))[0]
        if seen[tuple(int(8 * n) for n in at)]:  # else padding prevails in its cell
            assert told["name"] == as_image_set(images).names[i] and np.abs(np.subtract(told["place"], at)).max() <= 1 / 16
