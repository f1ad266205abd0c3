"""Industrial visual anomaly detection: find what is wrong in a picture after having seen only good ones."""

__version__ = "0.1.0"

_HOME = {
    "G100Error": "foundations.errors",
    "ImageSet": "foundations.pictures",
    "as_image_set": "foundations.pictures",
    "load_data": "foundations.layouts",
    "Detector": "foundations.detector",
    "Inspection": "foundations.detector",
    "load": "foundations.detector",
    "RIAD": "algorithms.riad",
    "FAVAE": "algorithms.favae",
    "KDAD": "algorithms.kdad",
    "FCDD": "algorithms.fcdd",
    "PatchCore": "algorithms.patchcore",
    "SemiOrthogonal": "algorithms.semiorth",
    "run_experiment": "experiments.experiment",
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
