"""Installs what `settings.ini` describes; the report templates of `nbs/reports` travel as `g100.reports`."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
project = config["DEFAULT"]
names = ("report", "train", "demo", "cluster", "lite2", "onnx", "openvino", "lab", "docs", "dev")
extras = {name: project[f"{name}_requirements"].split() for name in names}
extras["demo"] += extras["report"]
extras["dev"] += extras["docs"]
for name in ("lab", "dev"):  # whoever runs the chapters or the tests needs all that g100 can do
    extras[name] += sum((extras[other] for other in ("demo", "train", "cluster", "lite2", "onnx", "openvino")), [])

setup(
    name=project["lib_name"],
    version=project["version"],
    description=project["description"],
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=project["author"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=project["keywords"],
    python_requires=f">={project['min_python']}",
    packages=find_packages(include=["g100", "g100.*"]) + ["g100.reports"],
    package_dir={"g100.reports": "nbs/reports"},
    package_data={"g100": ["*.mplstyle", "py.typed", "*/page.js", "*/page.css"], "g100.reports": ["*.ipynb"]},
    install_requires=project["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": ["g100 = g100.experiments.cli:main"]},
)
