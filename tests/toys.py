"""A small real detector, and small pictures, for tests that need a detector but no network."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from g100.foundations.detector import Detector, Inspection, register
from g100.foundations.errors import G100Error
from tests.notebooks import NBS, read


class Mean(nn.Module):
    "The absolute difference to the mean picture."

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, *size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean).abs().mean(1)


@register("mean-picture")
class MeanPicture(Detector):
    "How far a picture is from the mean of the good ones, at each pixel."

    def build(self, size):
        return Mean(size)

    def learn(self, model, lessons):
        model.mean.copy_(sum(x.sum(0) for x in lessons.batches("averaging")) / len(lessons.images))





def pictures(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    "n noisy grey pictures (n, size, size, 3), uint8."
    noise = np.random.default_rng(seed).normal(128, 10, (n, size, size, 1)).clip(0, 255)
    return noise.astype(np.uint8).repeat(3, axis=3)


def spotted(n: int, size: int = 32, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    "The same with a bright square in each, and the masks of the squares."
    found, masks = pictures(n, size, seed), np.zeros((n, size, size), bool)
    corners = np.random.default_rng(seed).integers(0, size - size // 4, (n, 2))
    for picture, mask, (r, c) in zip(found, masks, corners, strict=True):
        here = slice(r, r + size // 4), slice(c, c + size // 4)
        picture[here], mask[here] = 255, True
    return found, masks


def mvtec_folder(root: Path, good: int = 30, bad: int = 8, size: int = 32) -> Path:
    "A category folder in MVTec's layout, of made-up pictures."
    found, masks = spotted(bad, size)
    sets = {"train/good": pictures(good, size), "test/good": pictures(bad, size, seed=2), "test/spot": found}
    for name, images in sets.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:03d}.png")
    (root / "ground_truth" / "spot").mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "ground_truth" / "spot" / f"{i:03d}_mask.png")
    return root


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def judged_twice(detector: Detector, x: np.ndarray) -> Inspection:
    "The verdicts on pictures, which are to the bit those of a second look, whatever torch's global chance is."
    torch.manual_seed(1)
    first = detector.inspect(x)
    torch.manual_seed(2)
    again = detector.inspect(x)
    np.testing.assert_array_equal(first.map, again.map)
    np.testing.assert_array_equal(first.score, again.score)
    return first


def seventh() -> str:
    "The file that chapter 34 writes: an algorithm from outside."
    cells = [cell.source for cell in read(NBS / "3_experiments" / "40_your_own.ipynb").cells]
    return "\n".join(cell.partition("\n")[2] for cell in cells if cell.startswith("%%writefile"))


def line_of(work, *args) -> str:
    "The message of the G100Error that a call raises; it must be one line."
    with pytest.raises(G100Error) as caught:
        work(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    "A command has ended with code 2 and one line that holds these words."
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("g100: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in lines[0]
