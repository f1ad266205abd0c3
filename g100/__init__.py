"""Industrial visual anomaly detection: find what is wrong in a picture after having seen only good ones."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for mypy and for completion; at run time the same names come from __getattr__
    from g100.algorithms.favae import FAVAE as FAVAE
    from g100.algorithms.fcdd import FCDD as FCDD
    from g100.algorithms.kdad import KDAD as KDAD
    from g100.algorithms.patchcore import PatchCore as PatchCore
    from g100.algorithms.riad import RIAD as RIAD
    from g100.algorithms.semiorth import SemiOrthogonal as SemiOrthogonal
    from g100.experiments.experiment import run_experiment as run_experiment
    from g100.experiments.watch import Monitor as Monitor
    from g100.experiments.watch import audit as audit
    from g100.foundations.detector import Detector as Detector
    from g100.foundations.detector import Inspection as Inspection
    from g100.foundations.detector import load as load
    from g100.foundations.detector import register as register
    from g100.foundations.errors import G100Error as G100Error
    from g100.foundations.layouts import load_data as load_data
    from g100.foundations.pictures import ImageSet as ImageSet
    from g100.foundations.sources import as_image_set as as_image_set

_HOME = {
    "G100Error": "foundations.errors",
    "ImageSet": "foundations.pictures",
    "as_image_set": "foundations.sources",
    "load_data": "foundations.layouts",
    "Detector": "foundations.detector",
    "Inspection": "foundations.detector",
    "load": "foundations.detector",
    "register": "foundations.detector",
    "RIAD": "algorithms.riad",
    "FAVAE": "algorithms.favae",
    "KDAD": "algorithms.kdad",
    "FCDD": "algorithms.fcdd",
    "PatchCore": "algorithms.patchcore",
    "SemiOrthogonal": "algorithms.semiorth",
    "run_experiment": "experiments.experiment",
    "audit": "experiments.watch",
    "Monitor": "experiments.watch",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    "Import a public name when it is first used, so that `import g100` costs nothing."
    if name not in _HOME:
        raise AttributeError(f"module 'g100' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"g100.{_HOME[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
