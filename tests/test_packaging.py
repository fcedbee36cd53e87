"""What is installed and shipped: pins, the torch pair, licences, the wheel, the Makefile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

Distribution = Callable[[str], metadata.Distribution]


def pins() -> dict[str, str]:
    """Canonical name -> exact version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in stated)}


def stated_requirements() -> list[Requirement]:
    """Every requirement of pyproject.toml, extras included, one extra's need of another not."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [line for group in (PROJECT["dependencies"], *extras) for line in group]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "medtl"]


def needed_to_use() -> list[str]:
    """The names that the core and the extras of [all] state."""
    extras = PROJECT["optional-dependencies"]
    parts = ("train", "volumes", "search", "export")
    lines = [*PROJECT["dependencies"], *(line for part in parts for line in extras[part])]
    return [name for line in lines if (name := Requirement(line).name) != "medtl"]


@pytest.mark.parametrize("requirement", stated_requirements(), ids=lambda r: r.name)
def test_pin_lies_in_the_range(requirement: Requirement) -> None:
    pinned = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned), f"{requirement} but {pinned} in constraints.txt"


def test_everything_installed_for_use_is_pinned() -> None:
    stated = needed_to_use()
    found = {name for one in stated for name in (one, *closure(one, metadata.distribution))}
    assert {canonicalize_name(name) for name in found} <= set(pins())


def closure(name: str, distribution: Distribution) -> list[str]:
    """Canonical names of everything that `name` needs, itself left out, extras not followed."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        for line in distribution(waiting.pop()).requires or []:
            needed = Requirement(line)
            key = canonicalize_name(needed.name)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if wanted and key not in found:
                found[key] = None
                waiting.append(key)
    return list(found)


def gpl_among(name: str, distribution: Distribution) -> list[str]:
    """What `name` needs that states the GPL or AGPL (the LGPL allows linking) as its licence."""
    faults = []
    for needed in closure(name, distribution):
        stated = distribution(needed).metadata
        licence = [
            stated.get("License-Expression") or (stated.get("License") or "").partition("\n")[0],
            *(line for line in stated.get_all("Classifier") or [] if line.startswith("License")),
        ]
        if any(re.search(r"(?<!L)GPL|(?<!Lesser )General Public", text) for text in licence):
            faults.append(f"{needed}: {licence}")
    return faults


def test_no_gpl_library_is_needed(tmp_path: Path) -> None:
    ours = "\n".join(f"Requires-Dist: {name}" for name in needed_to_use())
    folder = tmp_path / "medtl-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: medtl\n{ours}\n")

    def distribution(name: str) -> metadata.Distribution:
        stated = metadata.Distribution.at(folder)
        return stated if name == "medtl" else metadata.distribution(name)

    assert "torch" in closure("medtl", distribution)
    assert gpl_among("medtl", distribution) == []


def test_gpl_two_steps_away_is_caught(tmp_path: Path) -> None:
    described = {
        "toy": "Requires-Dist: nice",
        "nice": "License-Expression: MIT\nRequires-Dist: copyleft\nRequires-Dist: linked",
        "copyleft": "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "linked": "License-Expression: LGPL-2.1-or-later",
    }
    for name, text in described.items():
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\n{text}\n")

    def distribution(name: str) -> metadata.Distribution:
        return metadata.Distribution.at(tmp_path / f"{name}-1.dist-info")

    (found,) = gpl_among("toy", distribution)
    assert found.startswith("copyleft")


def test_torch_and_torchvision_are_a_pair() -> None:
    (torch_for_torchvision,) = [
        Requirement(line)
        for line in metadata.requires("torchvision") or []
        if Requirement(line).name == "torch"
    ]
    assert torch_for_torchvision.specifier.contains(pins()["torch"])
    # A local build tag ("+cpu") on one and not on the other is the pair that breaks timm.
    builds = {metadata.version(name).partition("+")[2] for name in ("torch", "torchvision")}
    assert len(builds) == 1, builds


FORBIDDEN = {
    "an address of a package index": r"(index-url|find-links|registry)\s*[= ]\s*\S*(https?|file):",
    "a path of one machine": r"(?<![\w.~])/(?:root|home|Users|work)/[\w.]",
}
"""What no file of the project may hold, by the name it is reported under."""


def forbidden_in(text: str) -> list[str]:
    """The kinds of `FORBIDDEN` text that `text` holds."""
    return [kind for kind, pattern in FORBIDDEN.items() if re.search(pattern, text)]


def test_no_file_names_an_index_or_a_machine() -> None:
    ours = ("*.txt", "*.toml", "*.md", "*.yaml", "*.yml", "Makefile", ".ci/*", "medtl/**/*.py")
    paths = {path for pattern in ours for path in ROOT.glob(pattern)} | set(
        ROOT.glob("docs/**/*.md")
    )
    files = sorted(path for path in paths if path.is_file())
    found = {path.name: forbidden_in(path.read_text(encoding="utf-8")) for path in files}
    assert not {name: kinds for name, kinds in found.items() if kinds}


@pytest.mark.parametrize(
    "text",
    ["--extra-index-url https://example.org/simple", "see " + "/home" + "/ann/data"],
)
def test_forbidden_text_is_caught(text: str) -> None:
    assert forbidden_in(text)


@pytest.mark.parametrize("target", ["setup", "demo", "test", "test-all", "lint", "bench", "clean"])
def test_makefile_says_what_a_target_does(target: str) -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(rf"^{target} +\S", shown.stdout, re.MULTILINE)


def test_demo_refuses_a_folder_in_use_and_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        # -o: the environment this test runs in is taken as it is.
        ["make", "-o", ".venv/.setup-done", "demo", f"DEMO_OUT={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DEMO_ARGS=--resume" in done.stdout
    assert f"rm -r {tmp_path}" in done.stdout


def test_setup_without_a_new_enough_python_says_so(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2' && exit\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci" / "setup"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.defpath}", "PYTHON": "python3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "found Python 3.9.2; medtl needs Python 3.11 or newer" in done.stderr


def test_wheel_holds_the_package_and_its_data_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("medtl", "pyproject.toml", "LICENSE", "README.md", "tests"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, source)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True)

    (wheel,) = tmp_path.glob("medtl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    files = {path for path in (ROOT / "medtl").rglob("*") if path.is_file()}
    ours = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("/licenses/LICENSE") for name in names)

    where = subprocess.run(
        [sys.executable, "-c", "import medtl; print(medtl.__file__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(tmp_path / "installed")


@pytest.mark.slow
def test_torch_torchvision_and_timm_import_together() -> None:
    subprocess.run([sys.executable, "-c", "import torch, torchvision, timm"], check=True)
