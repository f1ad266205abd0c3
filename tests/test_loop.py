"""The loop: seeded, validated, resumed to the bit after SIGKILL, stopped by nan, equal in one and in two processes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from g100.foundations.checkpoint import read_checkpoint
from g100.foundations.detector import load, register
from g100.foundations.errors import G100Error
from g100.foundations.lessons import generator
from g100.foundations.loop import Objective, TrainedDetector, accelerator_for, plot_history, train
from g100.foundations.recipe import SCHEDULES, Pictures, Recipe, flips
from g100.foundations.sources import as_image_set
from g100.foundations.store import write_tensors
from g100.foundations.views import View
from tests.toys import line_of, pictures, spotted

pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*")


def network(seed: int = 0, norm: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout2d(0.1) if norm else nn.Identity(), nn.Conv2d(6, 3, 3, padding=1))


def noisy_loss(model, x, random):
    noise = 0.1 * torch.randn(x.shape, generator=random).to(x.device)
    return (model(x + noise) - x).square().mean()


def plain_loss(model, x, random):
    return (model(x) - x).square().mean()


def stack(n: int = 20, seed: int = 0, gigabytes: float = 1.0) -> Pictures:
    return Pictures(as_image_set(pictures(n, 16, seed)), View(16), gigabytes)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


RECIPE = Recipe(epochs=4, batch_size=6, learning_rate=1e-2)


# --- randomness, pictures, flips, recipe ---


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(0, 10**6))
def test_generator_is_a_function_of_its_arguments(seed, count):
    draw = lambda *a: torch.rand(4, generator=generator(*a)).tolist()  # noqa: E731
    assert draw(seed, "step", count) == draw(seed, "step", count)
    others = [draw(seed + 1, "step", count), draw(seed, "order", count), draw(seed, "step", count + 1)]
    assert draw(seed, "step", count) not in others


def test_pictures_in_memory_and_from_files_are_the_same():
    order = np.random.default_rng(0).permutation(20)
    kept, decoded = stack(), stack(gigabytes=0)
    assert kept.kept is not None and decoded.kept is None
    for a, b in zip(kept.batches(6, order), decoded.batches(6, order), strict=True):
        assert torch.equal(a, b)
    a, b = network(), network()
    train(a, noisy_loss, kept, RECIPE), train(b, noisy_loss, decoded, RECIPE)
    assert torch.equal(weights(a), weights(b))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["", "h", "v", "hv"]), st.integers(0, 1000))
def test_flips_only_flip(axes, seed):
    x = torch.rand(7, 3, 5, 4, generator=torch.Generator().manual_seed(seed))
    allowed = {"": [x], "h": [x, x.flip(3)], "v": [x, x.flip(2)], "hv": [x, x.flip(3), x.flip(2), x.flip(2, 3)]}[axes]
    for i, picture in enumerate(flips(axes)(x, generator(seed, "step", 0))):
        assert any(torch.equal(picture, y[i]) for y in allowed)


def test_schedules_begin_at_one_and_never_rise():
    for f in SCHEDULES.values():
        values = [f(p) for p in np.linspace(0, 1, 301)]
        assert values[0] == 1 and all(b <= a for a, b in zip(values, values[1:], strict=False)) and values[-1] >= 0
    assert SCHEDULES["step"](249 / 300) == 1 and SCHEDULES["step"](250 / 300) == 0.1


@pytest.mark.parametrize("wrong", [
    {"schedule": "cosinus"}, {"optimizer": "adan"}, {"epochs": 0}, {"patience": 0}, {"learning_rate": -1.0},
    {"mixed_precision": "fp16"}, {"max_minutes": 0.0},
])  # fmt: skip
def test_wrong_recipe_is_named(wrong):
    with pytest.raises(G100Error, match=next(iter(wrong))):
        Recipe(**wrong)


# --- the loop against the same loop by hand ---


def test_the_loop_is_gradient_descent():
    "The same weights from a loop written out here, with torch alone."
    recipe, data = Recipe(epochs=3, batch_size=6, learning_rate=1e-2, weight_decay=1e-4), stack()
    model, by_hand, step = network(norm=False), network(norm=False), 0
    train(model, noisy_loss, data, recipe)
    optimizer, x = torch.optim.Adam(by_hand.parameters(), weight_decay=1e-4), torch.cat(list(stack().batches(20)))
    for epoch in range(3):
        order = torch.randperm(20, generator=generator(0, "order", epoch))
        for rows in order[:18].split(6):
            optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / 9))
            optimizer.zero_grad()
            noisy_loss(by_hand, x[rows], generator(0, "step", step)).backward()
            optimizer.step()
            step += 1
    assert torch.equal(weights(model), weights(by_hand))


def test_same_seed_same_weights_and_the_callers_randomness_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    results = []
    for _ in range(2):
        model = network()
        torch.manual_seed(5)
        train(model, noisy_loss, stack(), RECIPE)
        assert torch.equal(torch.rand(3), expected)
        results.append(weights(model))
    other = network()
    train(other, noisy_loss, stack(), Recipe(**asdict(RECIPE) | {"seed": 1}))
    assert torch.equal(*results) and not torch.equal(results[0], weights(other))


def test_fewer_pictures_than_a_batch():
    state = train(network(), noisy_loss, stack(4), RECIPE)
    assert state.epoch == state.step == 4


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_lowers_the_loss(optimizer):
    recipe = Recipe(epochs=15, batch_size=5, learning_rate=3e-2, optimizer=optimizer, clip=1.0)
    history = train(network(norm=False), plain_loss, stack(), recipe).history
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and len(history) == 15


def test_bf16_trains_and_leaves_the_model_in_full_precision():
    model = network(norm=False)
    train(model, plain_loss, stack(), Recipe(epochs=2, batch_size=6, mixed_precision="bf16"))
    assert model(torch.rand(1, 3, 16, 16)).dtype == torch.float32 and "forward" not in vars(model)
    assert accelerator_for(torch.device("cpu"), "no").mixed_precision == "no"


# --- validation ---


def test_validation_draws_are_fixed_and_in_evaluation_mode():
    seen = []

    def check(model, x, random):
        seen.append((torch.rand(2, generator=random).tolist(), model.training, torch.is_grad_enabled()))
        return plain_loss(model, x, random)

    train(network(), noisy_loss, stack(), RECIPE, validation=stack(9, 1), validation_loss=check)
    assert len(seen) == 8 and seen[0::2] == seen[:1] * 4 and seen[1::2] == seen[1:2] * 4 and seen[0][0] != seen[1][0]
    assert not seen[0][1] and not seen[0][2]


def test_the_best_weights_are_kept_and_patience_ends():
    losses = iter([0.5, 0.3, 0.4, 0.35, 0.2, 0.1])
    at = []

    def check(model, x, random):
        at.append(weights(model).clone())
        return torch.tensor(next(losses))

    model = network()
    recipe = Recipe(epochs=6, batch_size=6, patience=2)
    state = train(model, noisy_loss, stack(), recipe, validation=stack(4, 1), validation_loss=check)
    assert (state.epoch, state.best_epoch, state.stopped) == (4, 2, "patience")
    assert torch.equal(weights(model), at[1]) and not model.training


def test_time_budget_ends_the_run_and_the_cosine():
    def slow(model, x, random):
        time.sleep(0.01)
        return plain_loss(model, x, random)

    state = train(network(), slow, stack(), Recipe(epochs=10**6, batch_size=6, max_minutes=0.01))
    assert state.stopped == "minutes" and 0.5 < state.seconds < 5
    assert state.history[-1]["learning_rate"] < 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_budget_of_no_time_still_takes_a_step(schedule):
    "It taught nothing and said: loss nan."
    model, recipe = network(norm=False), Recipe(epochs=5, batch_size=6, max_minutes=1e-9, schedule=schedule)
    before = weights(model)
    state = train(model, plain_loss, stack(), recipe)
    assert state.stopped == "minutes" and state.step == 1 and math.isfinite(state.history[0]["loss"])
    assert state.history[0]["learning_rate"] == recipe.learning_rate and not torch.equal(before, weights(model))


# --- checkpoints ---


class Cut(Exception):
    pass


def cut_at(step):
    count = iter(range(step))

    def loss(model, x, random):
        if next(count, None) is None:
            raise Cut
        return noisy_loss(model, x, random)

    return loss


@pytest.mark.parametrize("step", [3, 7, 11])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_continued_run_has_the_weights_of_the_uninterrupted_one(tmp_path, step, optimizer):
    recipe, check = Recipe(**asdict(RECIPE) | {"optimizer": optimizer}), stack(5, 1)
    straight, continued = network(), network(seed=9)
    whole = train(straight, noisy_loss, stack(), recipe, validation=check)
    with pytest.raises(Cut):
        train(network(), cut_at(step), stack(), recipe, validation=check, validation_loss=noisy_loss,
              checkpoint=tmp_path / "c", every=0)  # fmt: skip
    rest = train(continued, noisy_loss, stack(), recipe, validation=check, checkpoint=tmp_path / "c", resume=True)
    assert torch.equal(weights(straight), weights(continued))
    same = ("epoch", "loss", "validation", "learning_rate")
    assert [[row[c] for c in same] for row in whole.history] == [[row[c] for c in same] for row in rest.history]


def test_a_finished_run_is_taken_from_its_checkpoint(tmp_path):
    first, second = network(), network(seed=3)
    train(first, noisy_loss, stack(), RECIPE, validation=stack(5, 1), checkpoint=tmp_path / "c")
    state = train(second, cut_at(0), stack(), RECIPE, validation=stack(5, 1), checkpoint=tmp_path / "c", resume=True)
    assert state.stopped == "epochs" and torch.equal(weights(first), weights(second))


KILLED = """
import sys, time, torch
from tests.test_loop import *
torch.set_num_threads(1)
file, pause = sys.argv[1], float(sys.argv[2])
def loss(model, x, random):
    time.sleep(pause)
    return noisy_loss(model, x, random)
model = network()
train(model, loss, stack(), Recipe(epochs=30, batch_size=6, learning_rate=1e-2), validation=stack(5, 1),
      validation_loss=noisy_loss, checkpoint=file, resume=True, every=0)
torch.save(weights(model), file + ".weights")
"""


@pytest.mark.slow
def test_killed_by_the_system_and_continued(tmp_path):
    "SIGKILL in the middle, twice; then to the end: the weights are those of a run that nobody killed."
    program = [sys.executable, "-c", KILLED]
    subprocess.run([*program, str(tmp_path / "whole"), "0"], check=True)
    file, epochs = tmp_path / "cut", [0]
    for _ in range(2):
        running = subprocess.Popen([*program, str(file), "0.03"])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.02)
            if file.exists() and (done := read_checkpoint(file)[1]["state"]["epoch"]) >= epochs[-1] + 3:
                break
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        epochs.append(read_checkpoint(file)[1]["state"]["epoch"])
        assert done <= epochs[-1] < 30
    subprocess.run([*program, str(file), "0"], check=True)
    assert torch.equal(torch.load(tmp_path / "cut.weights"), torch.load(tmp_path / "whole.weights"))


def test_damaged_checkpoint_is_named(tmp_path):
    file = tmp_path / "c"
    train(network(), noisy_loss, stack(), RECIPE, checkpoint=file)
    good = file.read_bytes()
    for bad in (good[:-8], good[:50], b"", good[:-8] + bytes([7]) * 8, b"\0" * 100):
        file.write_bytes(bad)
        with pytest.raises(G100Error, match=f"checkpoint {file}.*delete it"):
            read_checkpoint(file)
    write_tensors(file, {"w": torch.ones(1)}, {"kind": "a model"})
    assert "a file of another kind" in line_of(read_checkpoint, file)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    def again(recipe=RECIPE, data=None, model=None):
        return train(model or network(), noisy_loss, data or stack(), recipe, checkpoint=tmp_path / "c", resume=True)

    again()
    again(Recipe(**asdict(RECIPE) | {"learning_rate": 1e-5, "patience": 3}))
    with pytest.raises(G100Error, match="epochs was 4, now 5"):
        again(Recipe(**asdict(RECIPE) | {"epochs": 5}))
    with pytest.raises(G100Error, match="pictures was"):
        again(data=stack(seed=1))
    with pytest.raises(G100Error, match="network was"):
        again(model=nn.Conv2d(3, 3, 1))


def test_what_the_caller_adds_to_the_fingerprint_counts(tmp_path):
    def again(**more):
        return train(network(), noisy_loss, stack(), RECIPE, checkpoint=tmp_path / "c", resume=True, fingerprint=more)

    again(loss="noisy", sides=(4, 8))
    again(loss="noisy", sides=(4, 8))
    for more in ({"loss": "noisy", "sides": (4, 16)}, {"loss": "plain", "sides": (4, 8)}, {"loss": "noisy"}):
        assert "belongs to another run" in line_of(lambda more=more: again(**more))


def test_existing_checkpoint_is_not_overwritten(tmp_path):
    (tmp_path / "c").write_text("precious")
    with pytest.raises(G100Error, match="resume=True"):
        train(network(), noisy_loss, stack(), RECIPE, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").read_text() == "precious"
    with pytest.raises(G100Error, match="checkpoint=FILE"):
        train(network(), noisy_loss, stack(), RECIPE, resume=True)


# --- nan ---


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_stops_with_the_last_good_checkpoint(tmp_path, bad):
    calls = []

    def loss(model, x, random):
        calls.append(1)
        return noisy_loss(model, x, random) * (bad if len(calls) == 8 else 1)

    with pytest.raises(G100Error, match=r"step 8.*after epoch 2.*learning_rate") as error:
        train(network(), loss, stack(), RECIPE, checkpoint=tmp_path / "c", every=0)
    assert "\n" not in str(error.value)
    tensors, card = read_checkpoint(tmp_path / "c")
    assert card["state"]["epoch"] == 2 and all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_weights_that_become_nan_are_not_stored(tmp_path):
    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            return slope * math.nan

    def loss(model, x, random):
        return Spoilt.apply(plain_loss(model, x, random))

    with pytest.raises(G100Error, match="no checkpoint was written"):
        train(network(norm=False), loss, stack(6), RECIPE, checkpoint=tmp_path / "c", every=0)


# --- several processes ---

TWO = """
import sys, torch
from tests.test_loop import *
torch.set_num_threads(1)
model = network(norm=False)
state = train(model, plain_loss, stack(), Recipe(epochs=3, batch_size=6, learning_rate=1e-2), validation=stack(5, 1))
import accelerate
if accelerate.PartialState().is_main_process:
    torch.save((accelerate.PartialState().num_processes, weights(model), state.history[-1]["validation"]), sys.argv[1])
"""


def test_two_processes_give_the_weights_of_one(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*launch, str(tmp_path / "two.py"), str(tmp_path / "w")], check=True, env=env)
    processes, two, loss = torch.load(tmp_path / "w")
    model = network(norm=False)
    recipe = Recipe(epochs=3, batch_size=6, learning_rate=1e-2)
    state = train(model, plain_loss, stack(), recipe, validation=stack(5, 1))
    assert processes == 2
    torch.testing.assert_close(two, weights(model), atol=1e-5, rtol=0)
    assert loss == pytest.approx(state.history[-1]["validation"], rel=1e-3)


DRAWS = """
import json, sys, torch
from pathlib import Path
from tests.test_loop import *
torch.set_num_threads(1)
drawn = []
def loss(model, x, random):
    drawn.append(torch.rand(3, generator=random).tolist())
    return plain_loss(model, x, random)
train(network(norm=False), loss, stack(), Recipe(epochs=1, batch_size=6), augment=flips("h"))
import accelerate
Path(f"{sys.argv[1]}.{accelerate.PartialState().process_index}").write_text(json.dumps(drawn))
"""


def test_two_processes_draw_noise_of_their_own(tmp_path):
    (tmp_path / "two.py").write_text(DRAWS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*launch, str(tmp_path / "two.py"), str(tmp_path / "w")], check=True, env=env)
    first, second = (json.loads((tmp_path / f"w.{rank}").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 3 and all(a != b for a, b in zip(first, second, strict=True))


def test_batch_normalisation_breaks_the_mean_of_gradients():
    "What the text says: without it the mean of two halves' gradients is the whole's, with it it is not."
    x = next(stack(8).batches(8)).double()
    for norm in (False, True):
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU()).double()
        slopes = [torch.autograd.grad(model(part).square().mean(), model[0].weight)[0] for part in (x, x[0::2], x[1::2])]
        apart = ((slopes[1] + slopes[2]) / 2 - slopes[0]).norm() / slopes[0].norm()
        assert (apart > 1e-3) == norm


# --- the detector ---


class Copy(nn.Module):
    "What a network that learns to copy cannot copy."

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))

    def forward(self, x):
        return (self.net(x) - x).abs().mean(1)


@register("copier")
class Copier(TrainedDetector):
    "A toy."

    def build(self, size):
        return Copy()

    def objective(self, model, lessons):
        lessons.notes["names"] = list(lessons.pictures.names)
        return Objective(model.net, plain_loss)


SMALL = {"image_size": 16, "sigma": 0}


def test_detector_trains_and_travels_with_its_history(tmp_path):
    detector = Copier(**SMALL, epochs=3).fit(pictures(20), checkpoint=tmp_path / "c")
    again = load(detector.save(tmp_path / "m"), device="cpu")
    assert again.history_ == detector.history_ and len(again.history_) == 3 and again.stopped_ == "epochs"
    np.testing.assert_array_equal(again.score_samples(pictures(5)), detector.score_samples(pictures(5)))
    resumed = Copier(**detector.get_params()).fit(pictures(20), checkpoint=str(tmp_path / "c"), resume=True)
    np.testing.assert_array_equal(resumed.score_samples(pictures(5)), detector.score_samples(pictures(5)))
    json.dumps(detector.history_)


def test_resume_knows_whose_checkpoint_it_is(tmp_path):
    Copier(**SMALL, epochs=2).fit(pictures(20), checkpoint=tmp_path / "c")

    def again(**changed):
        return Copier(**SMALL | {"epochs": 2} | changed).fit(pictures(20), checkpoint=tmp_path / "c", resume=True)

    for changed in ({"sigma": 3.0, "image_score": "mean", "target_fpr": 0.3, "opening": 1}, {"learning_rate": 1e-5}):
        again(**changed)
    for changed in ({"flip": "h"}, {"train_batch": 5}, {"seed": 1}, {"validation": 0.3}, {"calibration": 0.4}):
        said = line_of(lambda changed=changed: again(**changed))
        assert "belongs to another run" in said
    assert "pictures was" in line_of(lambda: Copier(**SMALL, epochs=2).fit(pictures(20, seed=4), checkpoint=tmp_path / "c",
                                                                          resume=True))  # fmt: skip


def test_a_validation_loss_that_overflows_is_a_gap_in_a_history_that_can_be_saved():
    "Batch norm's averages can lag behind its batches: one epoch's loss was infinite, and a whole fit could not be saved."
    epochs = []

    def check(model, x, random):
        epochs.append(len(epochs))
        return noisy_loss(model, x, random) + (math.inf if len(epochs) == 2 else 0)

    state = train(network(), noisy_loss, stack(), Recipe(epochs=4, batch_size=6), validation=stack(2, 1), validation_loss=check)
    assert [row["validation"] is None for row in state.history] == [False, True, False, False]
    assert state.best_epoch != 2 and math.isfinite(state.best)
    json.dumps(state.history, allow_nan=False)
    figure, axis = plt.subplots()
    plot_history(axis, state.history)
    plt.close(figure)


def test_detector_without_validation():
    detector = Copier(**SMALL, epochs=2, validation=0).fit(pictures(12))
    assert [row["validation"] for row in detector.history_] == [None, None]


def test_crops_that_validate_are_of_pictures_that_do_not_teach(monkeypatch):
    from g100.foundations import loop

    given = []
    monkeypatch.setattr(loop, "Pictures", lambda images, *rest: given.append(images) or Pictures(images, *rest))
    detector = Copier(image_size=16, tile=16, overlap=8, epochs=1, validation=0.25).fit(list(pictures(30, 32)))
    teach, check = ({name.partition("@")[0] for name in images.names} for images in given)
    assert not teach & check and len(teach) == 18 and len(check) == 6 == detector.counts_["validation"]
    assert len(given[1]) == 6 * 9, "of each picture all crops"


def test_a_refit_whose_loss_becomes_nan_leaves_the_old_detector():
    detector = Copier(**SMALL, epochs=2).fit(pictures(20))
    x, record = spotted(4)[0], detector.fitted_
    before = detector.score_samples(x)
    with pytest.raises(G100Error, match="training stopped"):
        detector.set_params(learning_rate=1e30, epochs=30).fit(pictures(20, seed=3))
    assert detector.fitted_ is record
    np.testing.assert_array_equal(detector.set_params(learning_rate=1e-3, epochs=2).score_samples(x), before)


@pytest.mark.parametrize("wrong", [{"flip": "x"}, {"validation": 1.0}, {"epochs": 0}, {"schedule": "x"}])
def test_wrong_training_parameter_is_named(wrong):
    with pytest.raises(G100Error, match=next(iter(wrong))):
        Copier(image_size=16, **wrong).fit(pictures(12))


@pytest.mark.parametrize("pictures, batch, steps, epochs", [
    (10, 4, 7, 4), (10, 4, 8, 4), (3, 8, 5, 5), (100, 8, 2, 1), (397, 8, 2000, 41),
])  # fmt: skip
def test_steps_make_the_epochs_where_none_are_named(pictures, batch, steps, epochs):
    from g100 import KDAD, RIAD

    found = RIAD(steps=steps, train_batch=batch).recipe(pictures).epochs
    assert found == epochs and abs(found * max(1, pictures // batch) - steps) <= max(1, pictures // batch)
    assert RIAD(epochs=3, steps=steps).recipe(pictures).epochs == 3
    assert KDAD(steps=steps).recipe(pictures).epochs == KDAD().epochs
