"Packaging: every fact comes from settings.ini, nbdev's own file, so that each has one home."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
words = lambda key: cfg[key].split()  # noqa: E731

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    python_requires=f">={cfg['min_python']}",
    packages=["llmlab", "llmlab.chapters"],
    package_dir={"llmlab.chapters": "nbs"},  # the chapters travel with the library
    package_data={
        "llmlab": ["static/*", "data/*", "data/*/*"],
        "llmlab.chapters": ["*.ipynb", "workshop/*.ipynb", "results/*.json"],
    },
    install_requires=words("requirements"),
    extras_require={
        "course": words("course_requirements"),
        "tensorflow": words("tensorflow_requirements"),
        "dev": words("course_requirements") + words("tensorflow_requirements") + words("dev_requirements"),
    },
    entry_points={"console_scripts": ["llmlab=llmlab.lab:main"]},
    zip_safe=False,
)
