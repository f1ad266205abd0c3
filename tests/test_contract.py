"""What every detector promises, asked of all six; the tests of one algorithm ask only what is its own."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from g100.foundations.checkpoint import read_checkpoint
from g100.foundations.detector import ALGORITHMS, algorithm, load, name_of
from g100.foundations.errors import G100Error
from g100.foundations.lessons import split
from g100.foundations.maps import image_score
from g100.foundations.sources import as_image_set
from tests.toys import judged_twice, line_of, pictures, spotted

TINY = {
    "riad": {"image_size": 32, "ks": (4, 8), "width": 4, "depth": 2, "shuffle": 2, "epochs": 8, "train_batch": 6},
    "favae": {"image_size": 32, "width": 4, "z": 8, "levels": (1, 2), "epochs": 24, "train_batch": 6},
    "kdad": {"image_size": 32, "width": 4, "levels": (1, 2, 3), "epochs": 10, "train_batch": 6},
    "fcdd": {"image_size": 64, "levels": (2, 3), "epochs": 2, "train_batch": 8},
    "patchcore": {"backbone": "resnet18", "weights": "random", "image_size": 64, "coreset_ratio": 0.1},
    "semi-ort": {"backbone": "resnet18", "weights": "random", "image_size": 64, "k": 20},
}
TRAINED = ("riad", "favae", "kdad", "fcdd")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*false-positive rate.*", "ignore:.*RANDOM weights.*", "ignore:.*pictures teach covariances.*"
)


def tiny(name: str, **parameters):
    "A detector that is fitted in a moment."
    return algorithm(name)(**{"sigma": 1.0, "batch_size": 8} | TINY[name] | parameters)


def short(name: str, **parameters):
    "The same, trained as little as can be."
    return tiny(name, **({"epochs": 1} if name in TRAINED else {}), **parameters)


def for_each(*names):
    "Tests of one algorithm run in one process, so that its detector is fitted once."
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"contract {name}")) for name in names]


@pytest.fixture(scope="module", params=for_each(*TINY))
def fitted(request):
    return tiny(request.param).fit(pictures(40, 64))


each = pytest.mark.parametrize("name", for_each(*TINY))
each_trained = pytest.mark.parametrize("name", for_each(*TRAINED))


def test_all_six_are_asked():
    assert set(TINY) == {name for name, where in ALGORITHMS.items() if where.startswith("g100.")}


@pytest.mark.parametrize("name", TINY)
def test_paper_sets_what_its_table_of_sources_lists(name):
    cls = algorithm(name)
    table = sys.modules[cls.__module__].RECIPE
    assert cls.paper.__func__(dict) == {parameter: value for parameter, (value, _) in table.items()}
    whose = re.compile(r"(paper|official code|unofficial ports?|ours)($|[,:; ])")
    assert all(whose.match(source) for _, source in table.values())
    if name in ("riad", "favae"):  # their papers' bodies were not readable, and there is no official code
        assert not any(source.startswith(("paper", "official")) for _, source in table.values())
    made = cls.paper()
    made.check()
    assert made.calibration == "cross", "all good pictures teach"


def test_repeated_scoring_is_bit_identical(fitted):
    x = spotted(12, 64)[0]
    judged_twice(fitted, x)


def test_a_score_does_not_depend_on_the_other_pictures(fitted):
    x = spotted(12, 64)[0]
    np.testing.assert_allclose(fitted.inspect(x[7:8]).score, fitted.inspect(x).score[7:8], rtol=1e-3)


def test_defects_score_higher_than_good_pictures(fitted):
    good, bad = fitted.inspect(pictures(20, 64, seed=7)).score, fitted.inspect(spotted(20, 64)[0]).score
    assert bad.min() > good.max()


def test_normalised_verdicts_are_the_same_on_the_scale_of_held_out_good_maps(fitted, tmp_path):
    "The score of the normalised map is the normalised score; the extremes are those of the pictures that calibrated."
    x = np.concatenate([pictures(20, 64, seed=7), spotted(20, 64)[0]])
    plain, scaled = fitted.inspect(x), fitted.inspect(x).normalised()
    low, high = fitted.calibration_.map_range
    if fitted.calibration_.method == "split":
        held = fitted.inspect(split(as_image_set(pictures(40, 64)), fitted.calibration, fitted.seed)[1])
        assert (low, high) == pytest.approx((held.map.min(), held.map.max()), rel=1e-5)
        again = held.normalised().map
        assert again.min() == pytest.approx(0, abs=1e-4) and again.max() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(scaled.map, (plain.map.astype(float) - low) / (high - low), rtol=1e-4, atol=1e-5)
    of_the_map = image_score(torch.from_numpy(scaled.map), fitted.image_score)
    np.testing.assert_allclose(scaled.score, of_the_map, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scaled.is_anomalous, plain.is_anomalous)
    np.testing.assert_array_equal(scaled.score > np.float32(scaled.calibration.threshold), plain.is_anomalous)
    np.testing.assert_array_equal(scaled.mask, plain.mask)
    np.testing.assert_array_equal(np.argsort(scaled.score), np.argsort(plain.score))
    assert plain.is_anomalous.any() and not plain.is_anomalous.all()
    loaded = load(fitted.save(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(loaded.inspect(x).normalised().map, scaled.map)


def test_saved_detector_judges_to_the_bit(fitted, tmp_path):
    again, x = load(fitted.save(tmp_path / "model"), device="cpu"), spotted(6, 64)[0]
    np.testing.assert_array_equal(again.inspect(x).map, fitted.inspect(x).map)
    np.testing.assert_array_equal(again.inspect(x).score, fitted.inspect(x).score)
    assert again.get_params() == fitted.get_params() and again.counts_ == fitted.counts_
    assert again.fitted_.notes == fitted.fitted_.notes and again.calibration_.target_fpr == fitted.calibration_.target_fpr
    assert (name_of(type(fitted)) in TRAINED) == (getattr(again, "stopped_", None) == "epochs")


def test_all_that_was_learnt_is_in_the_state_dict(fitted):
    "No buffer is left out of what is saved, and the module's constructor makes nothing but structure."
    for module in fitted.model_.modules():
        kept_otherwise = type(module).get_extra_state is not torch.nn.Module.get_extra_state
        assert kept_otherwise or not module._non_persistent_buffers_set
    with torch.device("meta"):
        bare = fitted.build(fitted.view_.shape)
    assert {t.device.type for t in [*bare.parameters(), *bare.buffers()]} == {"meta"}
    assert set(bare.state_dict()) == set(fitted.model_.state_dict())


@pytest.mark.parametrize("whole", [False, True], ids=["model", "judge"])
def test_it_can_be_exported_with_any_number_of_pictures(fitted, whole):
    module = fitted.fitted_.judge if whole else fitted.model_
    x = torch.from_numpy(pictures(5, 64, seed=3)).permute(0, 3, 1, 2) / 255
    x = torch.nn.functional.interpolate(x, fitted.view_.shape)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (x[:2],), dynamic_shapes=({0: batch},)).module()
    for n in (1, 3, 5):
        mine, theirs = module(x[:n]), program(x[:n])
        mine, theirs = ([found] if torch.is_tensor(found) else list(found) for found in (mine, theirs))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.detach().abs().max()))


@pytest.mark.filterwarnings("ignore:.*at fit and is.*")
def test_parameters_set_after_the_fit_move_no_verdict(fitted):
    x = spotted(4, 64)[0]
    before, parameters = fitted.inspect(x), fitted.get_params()
    fitted.set_params(sigma=0.0, image_score="mean", opening=9, target_fpr=0.5, seed=77, image_size=32)
    after = fitted.inspect(x)
    fitted.set_params(**parameters)
    np.testing.assert_array_equal(before.score, after.score)
    np.testing.assert_array_equal(before.mask, after.mask)


@pytest.mark.parametrize("y, wrong", [
    ([0] * 11 + [1], "abnormal"), ([1] * 11 + [-1], "abnormal"), ([1] * 12, "may mean abnormal"), ([2] * 12, "2"),
    ([0.7] * 12, "0.7"), ([float("nan")] * 12, "nan"), (["bad"] * 12, "bad"), ([0] * 11, "11"), ([[0]] * 12, "y[0]"),
])  # fmt: skip
@pytest.mark.parametrize("name", [name for name in TINY if name != "fcdd"])
def test_y_is_read_one_way(name, y, wrong):
    assert wrong in line_of(tiny(name).fit, pictures(12, 64), y)


def test_fcdd_reads_y_as_the_others_do_and_learns_from_it():
    for y in ([0] * 22 + [1] * 2, [1] * 22 + [-1] * 2):
        assert short("fcdd").fit(pictures(24, 64), y).counts_["labelled_abnormal"] == 2
    for y in ([1] * 12, [2] * 12, [0.7] * 12, ["bad"] * 12, [0] * 11):
        line_of(short("fcdd").fit, pictures(12, 64), y)


@each
def test_same_seed_same_detector_and_global_randomness_is_left_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (short(name, seed=seed).fit(pictures(24, 64)) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    mine, same, other = (d.fitted_.tensors() for d in (a, b, c))
    assert all(torch.equal(mine[key], same[key]) for key in mine) and a.threshold_ == b.threshold_
    assert any(not torch.equal(mine[key], other[key]) for key in mine if mine[key].shape == other[key].shape)


@each
def test_pictures_that_are_not_square(name):
    detector = short(name, image_size=(64, 96)).fit(pictures(24, 64))
    assert detector.inspect(pictures(2, 48)).map.shape == (2, 64, 96)


@each
def test_parameters_are_plain_json(name):
    parameters = algorithm(name)().get_params()
    plain = json.loads(json.dumps(parameters))
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()} == parameters


# --- the trained ones ---


@each_trained
def test_training_lowers_the_validation_loss(name):
    history = tiny(name).fit(pictures(40, 64)).history_
    assert history[-1]["validation"] < history[0]["validation"] and len(history) == TINY[name]["epochs"]


PROGRAM = """
import sys, torch
from g100.foundations import loop
from tests.test_contract import cut_off
torch.set_num_threads(1)
loop.train.__kwdefaults__["every"] = 0
cut_off(sys.argv[1], sys.argv[2])
"""


def cut_off(name: str, checkpoint=None):
    "A training that takes some seconds, and goes on where it was cut off."
    return tiny(name, epochs=4 * TINY[name]["epochs"]).fit(pictures(30, 64), checkpoint=checkpoint, resume=bool(checkpoint))


@each_trained
def test_killed_and_resumed_fit_judges_as_one_that_was_not(name, tmp_path):
    cut, deadline = tmp_path / "cut", time.monotonic() + 120
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, name, cut])
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.01)
        if cut.exists() and read_checkpoint(cut)[1]["state"]["epoch"] >= 2:
            running.send_signal(signal.SIGKILL)
            break
    assert running.wait() == -signal.SIGKILL
    assert read_checkpoint(cut)[1]["state"]["epoch"] < 4 * TINY[name]["epochs"]
    x = spotted(5, 64)[0]
    np.testing.assert_array_equal(cut_off(name, str(cut)).score_samples(x), cut_off(name).score_samples(x))


@each_trained
def test_corrupted_checkpoint_is_named(name, tmp_path):
    (tmp_path / "c").write_bytes(b"half a checkpoint")
    with pytest.raises(G100Error, match=f"checkpoint {tmp_path / 'c'}"):
        short(name).fit(pictures(24, 64), checkpoint=tmp_path / "c", resume=True)


SHAPING = {
    "riad": [{"ks": (4,)}, {"gms_weight": 0.5}, {"n": 4}],
    "favae": [{"kl_weight": 0.5}, {"standardise": False}, {"weights": "random"}],
    "kdad": [{"value_weight": 0.1}, {"normalise": False}, {"weights": "random"}],
    "fcdd": [{"kind": "scar"}, {"supervision": "label"}, {"start": "random"}, {"abnormal": 0.5}, {"weights": "random"}],
}
ONLY_READING = {"kdad": [{"method": "plain", "smoothgrad_n": 3}]}


@each_trained
def test_a_checkpoint_is_continued_only_by_the_training_it_belongs_to(name, tmp_path):
    def again(**changed):
        return short(name, **changed).fit(pictures(24, 64), checkpoint=tmp_path / "c", resume=True)

    again()
    for changed in ({"sigma": 3.0, "image_score": "mean", "target_fpr": 0.3}, *ONLY_READING.get(name, [])):
        again(**changed)
    for changed in (*SHAPING[name], {"flip": "h"}, {"seed": 5}):
        with pytest.raises(G100Error, match="belongs to another run"):
            again(**changed)


@pytest.mark.parametrize("name", [name for name in TINY if name != "riad"])  # which has no network but its own
def test_random_weights_are_drawn_by_the_seed(name):
    def drawn(seed):
        detector = tiny(name, weights="random", seed=seed)
        return detector.build(detector.scoring().view.shape).state_dict().items()

    weights = [{key: value for key, value in drawn(seed) if ".net." in key and value.dim() == 4} for seed in (0, 0, 1)]
    assert weights[0] and all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert all(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())


@each_trained
def test_a_budget_of_no_time_trains_a_step_and_says_so(name):
    detector = short(name, max_minutes=1e-9).fit(pictures(24, 64))
    assert detector.stopped_ in ("minutes", "epochs") and np.isfinite(detector.history_[0]["loss"])
