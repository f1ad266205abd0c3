"""Builds the wheel of `g100-runtime`: the modules of g100 that judge with an exported model, for machines without torch.

    python runtime/build.py [FOLDER]      (default: dist)

The files are those of g100 itself, all that `import g100.runtime` imports; version and engines are those of settings.ini.
"""

import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOADED = """
import sys, g100.runtime
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "g100"), sep="\\n")
"""
NEEDED = ("numpy", "opencv-python-headless", "pillow")
PROJECT = """[build-system]
requires = ["setuptools>=70.1"]
build-backend = "setuptools.build_meta"

[project]
name = "g100-runtime"
version = "{version}"
description = "Judges pictures with a model that g100 exported; needs no torch. Not beside g100, which holds all of it."
requires-python = ">={python}"
license = "Apache-2.0"
dependencies = {dependencies}

[project.optional-dependencies]
onnx = {onnx}
openvino = {openvino}

[tool.setuptools]
packages = ["g100", "g100.foundations"]

[tool.setuptools.package-data]
g100 = ["py.typed"]
"""


def chosen(project, key: str, names: tuple[str, ...]) -> str:
    "The requirements of a line of settings.ini that are among these names, as TOML."
    return "[{}]".format(", ".join(f'"{r}"' for r in project[key].split() if r.partition(">")[0] in names))


def written(project) -> str:
    "pyproject.toml."
    return PROJECT.format(version=project["version"], python=project["min_python"],
                          dependencies=chosen(project, "requirements", NEEDED),
                          onnx=chosen(project, "onnx_requirements", ("onnxruntime",)),
                          openvino=chosen(project, "openvino_requirements", ("openvino",)))  # fmt: skip


def main(out: str = "dist") -> None:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    found = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for file in [*map(Path, found.stdout.split("\n")[:-1]), ROOT / "g100" / "py.typed"]:
            copy = tree / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        (tree / "pyproject.toml").write_text(written(config["DEFAULT"]))
        shutil.copy(ROOT / "LICENSE", tree)
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", Path(out).resolve(), tree]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
