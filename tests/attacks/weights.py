"""Files of weights for a backbone: pickles, forged and foreign ones, tensors that do not fit, and texts that name no source."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file

from g100.foundations import features
from g100.foundations.features import Backbone
from tests.attacks.cases import Case, evil_pickle, unprivileged
from tests.attacks.models import HEADERS, sparse_file, torch_pickle
from tests.toys import pictures


@lru_cache
def good() -> dict[str, torch.Tensor]:
    "The weights that the network of these cases needs."
    return {key: t.clone() for key, t in Backbone("lite0", (1,), "random").net.state_dict().items()}


def seen(backbone: Backbone) -> None:
    "The network sees something finite."
    (found,) = backbone(torch.from_numpy(pictures(2, 32) / np.float32(255)).permute(0, 3, 1, 2))
    assert found.isfinite().all()


def made(folder: Path, make: Callable[[Path], object], name: str = "w.safetensors") -> None:
    make(folder / name)
    seen(Backbone("lite0", (1,), folder / name))


def tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        kept = {key: t.clone() for key, t in good().items()}
        change(kept)
        save_file({key: t.contiguous() for key, t in kept.items()}, path)

    return make


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return tensors(lambda kept: kept.update({key: change(t) for key, t in kept.items()}))


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return tensors(lambda kept: kept.update({min(kept): change(kept[min(kept)])}))


RIGHT = {
    "as they are": tensors(lambda kept: None),
    "with more": tensors(lambda kept: kept.update(more=torch.ones(3))),
    "wrapped": tensors(lambda kept: [kept.update({f"module.{key}": kept.pop(key)}) for key in list(kept)]),
    "float64": each(lambda t: t.double()),
    "float16": each(lambda t: t.half() if t.is_floating_point() else t),
}
WRONG = {
    "nothing": tensors(dict.clear),
    "one missing": tensors(lambda kept: kept.pop(min(kept))),
    "one of another shape": first(lambda t: t[None]),
    "one empty": first(lambda t: t[:0]),
    "nan": first(lambda t: t * float("nan")),
    "inf": first(lambda t: t + float("inf")),
    "all of them in one row": each(lambda t: t.flatten() if t.ndim > 1 else t[None]),
    "complex": first(lambda t: t.to(torch.complex64)),
    "bool": first(lambda t: t > 0),
    "whole numbers": first(lambda t: t.long()),
    "truncated": lambda p: (tensors(lambda kept: None)(p), p.write_bytes(p.read_bytes()[:-9])),
    "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(999)),
    "a pickle": lambda p: p.write_bytes(evil_pickle()),
    "torch's pickle": torch_pickle,
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "missing": lambda p: None,
    "a link to nothing": lambda p: p.symlink_to("nowhere"),
    "a device": lambda p: p.symlink_to("/dev/zero"),
    "a terabyte": sparse_file,
    "a link to itself": lambda p: p.symlink_to(p.name),
}


def named(folder: Path, weights, backbone="lite0", levels=(1,)) -> None:
    seen(Backbone(backbone, levels, weights))


def denied(folder: Path) -> None:
    tensors(lambda kept: None)(folder / "w.safetensors")
    (folder / "w.safetensors").chmod(0)
    with unprivileged():
        Backbone("lite0", (1,), folder / "w.safetensors")


def of_package(folder: Path, data: Callable[[], bytes] | None) -> None:
    "The file of the embedded weights is another one."
    place = folder / "models"
    place.mkdir()
    if data:
        (place / "efficientnet-lite0-57934424.pth").write_bytes(data())
    with mock.patch.object(features, "find_spec", lambda name: mock.Mock(origin=str(folder / "__init__.py"))):
        Backbone("lite0", (1,), "embedded")


def offline(folder: Path, backbone: str) -> None:
    import huggingface_hub as hub

    with (
        mock.patch.object(hub.constants, "HF_HUB_OFFLINE", True),
        mock.patch.object(hub.constants, "HF_HUB_CACHE", str(folder)),
    ):
        Backbone(backbone, (1,), "pretrained")


def cases() -> Iterator[Case]:
    for what, make in RIGHT.items():
        yield Case(f"weights {what}", partial(made, make=make), "right")
    for what, make in WRONG.items():
        yield Case(
            f"weights {what}",
            partial(made, make=make),
            "either" if what == "whole numbers" else "clear",
            word="w.safetensors",
            seconds=10,
        )
    for what, raw in HEADERS.items():
        if what != "a name twice":
            yield Case(
                f"weights with a header of {what}",
                partial(made, make=partial(lambda path, raw: path.write_bytes(raw), raw=raw)),
                word="w.safetensors",
            )
    for name in ("w.pth", "w.pt", "w.bin", "w.pkl", "w.ckpt", "w.npz", "w.SAFETENSORS.pth", "w.h5", "w.onnx"):
        yield Case(f"a pickle named {name}", partial(made, make=lambda p: p.write_bytes(evil_pickle()), name=name), word=name)
        yield Case(f"torch's pickle named {name}", partial(made, make=torch_pickle, name=name), word=name)
    for weights in (
        "",
        "nosuch",
        "Embedded",
        None,
        7,
        b"random",
        [],
        float("nan"),
        {},
        {"x": torch.ones(1)},
        {"x": "y"},
        {1: 2},
        Path("."),
        Path("none.safetensors"),
        "~nosuchuser/w.safetensors",
        "a\0.safetensors",
        "a" * 5000 + ".safetensors",
        "\x1b[31m",
        "\udcff.safetensors",
        "https://example.com/w.safetensors",
        np.ones(3),
        torch.ones(3),
        ("random",),
    ):
        yield Case(f"weights={ascii(weights)[:40]}", partial(named, weights=weights))
    for backbone in (
        "",
        "nosuch",
        None,
        7,
        "resnet18 ",
        "RESNET18",
        "../x",
        "hf-hub:none/none",
        "hf_hub:none/none",
        "local-dir:.",
        "os.system",
        "lite0\0",
        [],
        b"lite0",
        "timm/resnet18",
        "\x1b[31m",
        "a" * 5000,
    ):
        yield Case(f"backbone={ascii(backbone)[:40]}", partial(named, weights="random", backbone=backbone))
    for levels in (
        (),
        (99,),
        (2, 1),
        (1, 1),
        (-1,),
        ("1",),
        (1.5,),
        (None,),
        None,
        "12",
        99,
        (True,),
        ((1,),),
        float("nan"),
        (10**30,),
    ):
        yield Case(f"levels={levels!r}", partial(named, weights="random", levels=levels))
    yield Case("weights without rights", denied, word="w.safetensors")
    for what, make in {"missing": None, "empty": bytes, "a pickle": evil_pickle}.items():
        yield Case(f"the embedded file is {what}", partial(of_package, data=make), word="efficientnet-lite0")
    yield Case("embedded of another network", partial(named, weights="embedded", backbone="resnet18"), word="embedded")
    for backbone in ("lite0", "resnet18"):
        yield Case(
            f"pretrained {backbone} without a net",
            partial(offline, backbone=backbone),
            word="pretrained",
            seconds=60,
            slow=True,
        )
