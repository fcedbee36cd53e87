"""The core alone reads, evaluates and reports; what it lacks is said with the extra's name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_dicom import write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from portable_folder import film, write_folder
from table_examples import classification
from tiny_study import write_tiny_study

from medtl.errors import EXTRAS, InstallationError, extras_named

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

README = (ROOT / "README.md").read_text(encoding="utf-8")

Medtl = Callable[..., "subprocess.CompletedProcess[str]"]

HIDDEN = f"""
import sys
for library in {[name for names in EXTRAS.values() for name in names]}:
    sys.modules[library] = None
from medtl.cli.main import main
main()
"""
"""The command line as it is where none of the extras is installed."""


def run(command: list[str | Path], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with `pip install medtl` and nothing more."""
    return environment(tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with `pip install 'medtl[onnx]'` and nothing more."""
    return environment(tmp_path_factory.mktemp("onnx"), "[onnx]")


def environment(folder: Path, extra: str = "") -> Path:
    """Install medtl into a new environment, or skip where nothing can be installed."""
    python = folder / "venv" / "bin" / "python"
    usual = {"XDG_CACHE_HOME": str(Path.home() / ".cache")}  # of the installer, not of medtl
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    if Path(uv).is_file():
        run([uv, "venv", "--python", sys.executable, folder / "venv"], **usual)
        install = [uv, "pip", "install", "--python", python]
    else:
        run([sys.executable, "-m", "venv", folder / "venv"])
        install = [python, "-m", "pip", "install"]
    install += ["--constraint", ROOT / "constraints.txt"]
    if (probe := run([*install, "packaging"], **usual)).returncode:
        pytest.skip(f"nothing can be installed here: {probe.stderr.strip().splitlines()[-1:]}")
    done = run([*install, f"medtl{extra} @ {built_wheel(folder).as_uri()}"], **usual)
    assert done.returncode == 0, done.stderr
    return python


def built_wheel(folder: Path) -> Path:
    """Build the wheel, from what it is made of alone."""
    source = folder / "source"
    shutil.copytree(ROOT / "medtl", source / "medtl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True
    )
    (wheel,) = folder.glob("medtl-*.whl")
    return wheel


@pytest.fixture(scope="module")
def trains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the line of the README's first report, and no more."""
    (extra,) = re.findall(r"^pip install '\.(\[.+?\])'", README, re.MULTILINE)
    return environment(tmp_path_factory.mktemp("train"), extra)


@pytest.fixture(params=["hidden", pytest.param("installed", marks=pytest.mark.slow)])
def medtl(request: pytest.FixtureRequest, tmp_path: Path) -> Medtl:
    """Run the command line of the core alone, in `tmp_path`."""
    if request.param == "hidden":
        command = [sys.executable, "-c", HIDDEN]
        path = {"PYTHONPATH": str(ROOT)}
    else:
        command = [str(request.getfixturevalue("installed").with_name("medtl"))]
        path = {"PYTHONPATH": ""}

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return run([*command, *words], **path)

    return call


def test_the_core_evaluates_and_reports(medtl: Medtl, tmp_path: Path) -> None:
    table = classification(tmp_path / "study")
    done = medtl("evaluate", table, "--out", tmp_path / "metrics.json")
    assert "auroc" in done.stdout, done.stderr
    assert (tmp_path / "metrics.json").is_file()
    done = medtl("report", table, "--out", tmp_path / "report", "--language", "ko")
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_the_core_reads(medtl: Medtl, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number in range(3):
        pixels = np.full((8, 8), number, np.uint16)
        write(tmp_path / "films" / f"{number}.dcm", pixels, PatientID=str(number))
    done = medtl("manifest", "scan", tmp_path / "films")
    assert done.stdout.startswith("3 rows"), done.stderr
    done = medtl("manifest", "check", tmp_path / "films" / "manifest.csv")
    assert "3 images of 3 patients, no faults" in done.stdout, done.stderr


def test_the_core_says_what_training_needs(medtl: Medtl, tmp_path: Path) -> None:
    recipe = write_tiny_study(tmp_path / "study", patients=4)
    for words in (["run", recipe], ["demo"], ["study", "kfold", recipe]):
        done = medtl(*words, "--out", tmp_path / "out")
        assert done.returncode == 1
        assert done.stderr == "medtl: torch is not installed. Run pip install 'medtl[train]'.\n"
        assert not (tmp_path / "out").exists()


def test_the_core_says_what_its_parts_are(medtl: Medtl) -> None:
    done = medtl("doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  numpy \d", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_face_of_the_core(installed: Path, tmp_path: Path) -> None:
    """Every name loads; what trains says what it needs."""
    recipe = write_tiny_study(tmp_path / "study", patients=4)
    script = (
        "import medtl as mt\n"
        "for room in (mt, mt.metrics, mt.losses, mt.preprocess, mt.report):\n"
        "    for name in room.__all__: getattr(room, name)\n"
        "print(mt.evaluate([0, 1] * 9, range(18), ci=mt.CI(resamples=20)).auroc)\n"
        "try:\n"
        f"    mt.Study({str(recipe)!r}).fit({str(tmp_path / 'run')!r})\n"
        "except mt.MedtlError as error: print(error)\n"
    )
    done = run([installed, "-c", script], PYTHONPATH="")
    assert done.stdout.count("(hull of DeLong") == 1, done.stderr
    assert done.stdout.endswith("torch is not installed. Run pip install 'medtl[train]'.\n")


def test_a_missing_library_is_said_with_its_extra() -> None:
    found = r"monai is not installed.*'medtl\[volumes\]'"
    with pytest.raises(InstallationError, match=found), extras_named():
        raise ModuleNotFoundError(name="monai.networks")
    for other in (ModuleNotFoundError(name="nowhere"), ModuleNotFoundError(), ImportError("x")):
        with pytest.raises(type(other)) as caught, extras_named():
            raise other
        assert caught.value is other


def extras_of(name: str) -> set[str]:
    """Canonical names of the distributions of an extra, those of other extras in it followed."""
    found = set()
    for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
        if requirement.name == "medtl":
            found |= set().union(*map(extras_of, requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def test_every_extra_brings_the_libraries_it_is_named_for() -> None:
    brought_by: Mapping[str, list[str]] = metadata.packages_distributions()
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for extra, libraries in EXTRAS.items():
        known = [library for library in libraries if library in brought_by]
        assert known or extra in ("tracking", "s3")
        for library in known:
            names = {canonicalize_name(name) for name in brought_by[library]}
            assert names & extras_of(extra), f"{library} does not come with [{extra}]"
            assert not names & core


def test_the_readme_names_the_extras() -> None:
    parts = README.partition("\n## Parts\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `medtl\[(\w+)\]`", parts, re.MULTILINE))
    of_users = set(PROJECT["optional-dependencies"]) - {"bench", "docs", "dev", "dicom"}
    assert named == of_users
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert named - {"tracking", "s3", "all"} == everything.extras | {"onnx"}  # edge brings onnx


@pytest.mark.slow
def test_the_readmes_first_report_comes_out_of_a_wheel(trains: Path, tmp_path: Path) -> None:
    medtl = trains.with_name("medtl")
    at_home = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    assert run([medtl, "--version"], **at_home).stdout == f"medtl {PROJECT['version']}\n"
    (line,) = re.findall(r"^(medtl demo .+?)  +#", README, re.MULTILINE)
    words = line.split()[1:]
    out = tmp_path / words[-1]
    words[-1] = str(out)
    done = run([medtl, *words, "--patients", "16"], **at_home)
    assert done.returncode == 0, done.stderr
    (report,) = re.findall(r"first/(run/report\.html)", README)
    assert (out / report).stat().st_size > 100_000
    where = "import medtl; print(medtl.__file__)"
    assert str(trains.parents[1]) in run([trains, "-I", "-c", where], **at_home).stdout


def test_setup_installs_everything() -> None:
    assert extras_of("all") == set().union(
        *(
            extras_of(name)
            for name in (
                "train",
                "volumes",
                "keras",
                "search",
                "export",
                "edge",
                "cluster",
                "remote",
            )
        )
    )
    assert "extras=${1:-all,dev}" in (ROOT / ".ci" / "setup").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_exported_folder_predicts_in_an_environment_without_torch(
    with_onnx: Path, tmp_path: Path
) -> None:
    folder, films = write_folder(tmp_path / "edge"), tmp_path / "films"
    films.mkdir()
    for number, value in enumerate((20, 240)):
        write(films / f"{number}.dcm", film(value), Modality="DX")
    (films / "broken.dcm").write_bytes(b"DICM" * 40)
    asked = "import importlib.util as i; print([n for n in ('torch', 'cv2') if i.find_spec(n)])"
    assert run([with_onnx, "-c", asked], PYTHONPATH="").stdout == "[]\n"
    words = ["predict", folder, films, "--out", tmp_path / "out.csv"]
    done = run([with_onnx.with_name("medtl"), *words], PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv").set_index("file")
    assert table["decision"].to_dict() == {"0.dcm": 0, "1.dcm": 1}
    quality = json.loads((tmp_path / "out.quality.json").read_text())
    assert len(quality["quarantined"]) == 1
