"Packaging: every fact comes from settings.ini, nbdev's own file, so that each has one home."

import atexit
import os
import re
import shutil
import tarfile
import tempfile
from configparser import ConfigParser
from gzip import GzipFile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


# --- what the package says of itself
# ----------------------------------------------------------------------------------


def lines(key: str) -> list[str]:
    "One entry of settings.ini that holds a requirement on each line."
    return [line.strip() for line in cfg[key].splitlines() if line.strip()]


def minors() -> list[str]:
    "The versions of Python that llmlab is made for: 3.11, 3.12, …"
    first, last = (int(cfg[key].split(".")[1]) for key in ("min_python", "max_python"))
    return [f"3.{minor}" for minor in range(first, last + 1)]


def description() -> str:
    "README.md for PyPI, which has none of our files: links to them lead to this version in the repository."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tag = f"v{cfg['version']}"
    pictures = rf"\g<1>{cfg['git_url']}/raw/{tag}/\g<2>"
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)([^)]+)", pictures, text)
    return re.sub(
        r"(?<!!)(\[[^]]*\]\()(?![a-z]+:|#)([^)]+)", rf"\g<1>{cfg['git_url']}/blob/{tag}/\g<2>", text
    )


# --- equal sources give equal files
# -----------------------------------------------------------------------------------


class ReproducibleSdist(sdist):
    "A source archive in which nothing depends on who packed it, where, or (with SOURCE_DATE_EPOCH) when."

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(
            base_dir, [name for name in files if not os.path.isabs(name)]
        )  # not from scratch

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.mtime = int(epoch or member.mtime)
            return member

        name = f"{base_name}.tar.gz"
        with (
            open(name, "wb") as file,
            GzipFile("", "wb", fileobj=file, mtime=int(epoch or 0)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=plain)
        return name


class ReproducibleBuild(build_py):
    "Files that all may read, whatever the checkout's umask was; without nbdev's index, which git ignores."

    def find_package_modules(self, package, package_dir):
        return [
            module for module in super().find_package_modules(package, package_dir) if module[1] != "_modidx"
        ]

    def run(self):
        super().run()
        if not self.editable_mode:
            for path in Path(self.build_lib).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)


os.umask(0o022)
scratch = tempfile.mkdtemp(
    prefix="llmlab-build-"
)  # build/ and *.egg-info of an earlier build must not get into this
atexit.register(shutil.rmtree, scratch, ignore_errors=True)

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=description(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    project_urls={
        "Homepage": cfg["doc_host"] + cfg["doc_baseurl"],
        "Source": cfg["git_url"],
        "Issues": f"{cfg['git_url']}/issues",
        "Changes": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md",
    },
    license_expression=cfg["license_expression"],
    license_files=["LICENSE", "LICENSE-PROSE", "llmlab/static/VENDORED.txt"],
    keywords=cfg["keywords"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: {minor}" for minor in minors()),
        "Topic :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=f">={cfg['min_python']}",
    packages=[*find_packages(include=["llmlab", "llmlab.*"]), "llmlab.chapters"],
    package_dir={"llmlab.chapters": "nbs"},  # the chapters travel with the library
    package_data={
        "llmlab": ["static/**/*", "data/**/*"],
        "llmlab.chapters": [
            "*.ipynb",
            "AGENTS.md",
            "workshop/*.ipynb",
            "results/*.json",
            "results/gpu/*.json",
        ],
    },
    install_requires=lines("requirements"),
    extras_require={
        "course": lines("course_requirements"),
        "colab": lines("colab_requirements"),
        "tensorflow": lines("tensorflow_requirements"),
        "dev": sorted(
            {*lines("course_requirements"), *lines("tensorflow_requirements"), *lines("dev_requirements")}
        ),
    },
    entry_points={"console_scripts": ["llmlab=llmlab.course.lab:main"]},
    options={"build": {"build_base": scratch}, "egg_info": {"egg_base": scratch}},
    cmdclass={"sdist": ReproducibleSdist, "build_py": ReproducibleBuild},
    zip_safe=False,
)
