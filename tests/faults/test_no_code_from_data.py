"""No file can bring code in: the calls that would allow it are not in the source, and the libraries
are those without the known holes. Each test names the advisories that it keeps closed.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "medtl").rglob("*.py"))

FLOORS = {
    "torch": (2, 10),  # CVE-2025-32434, CVE-2026-24747: code by weights_only=True
    "pydicom": (3, 0, 2),  # CVE-2026-32711: paths of a DICOMDIR
    "pillow": (12, 2),  # CVE-2022-45198, CVE-2022-45199, CVE-2026-40192: bombs in rare formats
    "monai": (1, 6),  # GHSA-p8cm-mm2v-gwjm, GHSA-89gg-p5r5-q6r4, CVE-2025-58756
}
"""Package -> first version without the holes."""

FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load"),
    *("os.system", "os.popen", "tempfile.mktemp"),
}
"""They run what they are given, or race."""

FORBIDDEN_METHODS = {"extractall", "extract", "read_pickle", "to_pickle", "unpack_archive"}
"""GHSA-x6ww-pf9m-m73m (CVE-2025-58755), GHSA-9rg3-9pvr-6p27: archives that leave their folder."""

FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal", "pynetdicom"}
"""`pickle` is imported where its error is caught, where its reader is made to look nothing up,
and nowhere else. pynetdicom: issue 1086."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, dotted name, call) of every call in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    """The value of a keyword as source text."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_nothing_runs_what_it_reads() -> None:
    found = [(file, name) for file, name, _ in calls() if name in FORBIDDEN_CALLS]
    assert not found


def test_no_archive_is_unpacked() -> None:
    names = ((file, name.rpartition(".")) for file, name, _ in calls())
    found = [(file, n) for file, (owner, _, n) in names if owner and n in FORBIDDEN_METHODS]
    assert not found


def test_torch_loads_weights_only_and_never_tries_again() -> None:
    """CVE-2025-58756 (GHSA-6vm5-6jv9-rjpj); the fall-back of Stanza; nnU-Net 2681."""
    loads = [(file, call) for file, name, call in calls() if name == "torch.load"]
    assert [file for file, _ in loads] == ["medtl/networks/pretrained/weight_files.py"]
    assert keyword(loads[0][1], "weights_only") == "True"


def test_numpy_loads_no_objects() -> None:
    for _, name, call in calls():
        if name in ("np.load", "numpy.load", "np.save", "np.lib.format.open_memmap"):
            assert keyword(call, "allow_pickle") in (None, "False")


def test_no_shell_ever() -> None:
    for file, name, call in calls():
        if name.startswith("subprocess."):
            assert keyword(call, "shell") in (None, "False"), file


def test_modules_that_unpickle_are_not_imported() -> None:
    """MLflow: CVE-2024-37052 and its like."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {(path.name, n) for n in names if n.partition(".")[0] in FORBIDDEN_MODULES}
    assert found <= {("weight_files.py", "pickle"), ("pickled_module.py", "pickle")}


def test_the_reader_of_pickled_networks_looks_no_name_up() -> None:
    """Its `find_class` is its own and never asks that of `pickle`, which imports what is named."""
    tree = ast.parse((ROOT / "medtl/networks/pretrained/pickled_module.py").read_text("utf-8"))
    readers = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "_Unpickler"]
    own = {n.name for n in readers[0].body if isinstance(n, ast.FunctionDef)}
    assert {"find_class", "persistent_load"} <= own
    calls_in_it = [ast.unparse(n.func) for n in ast.walk(readers[0]) if isinstance(n, ast.Call)]
    assert "super().find_class" not in calls_in_it
    assert not {"getattr", "importlib.import_module"} & {*calls_in_it}


def test_no_configuration_reaches_a_parser_of_expressions() -> None:
    """MONAI's bundles evaluate texts that begin with a dollar."""
    for path in SOURCES:
        text = path.read_text("utf-8")
        assert "ConfigParser" not in text, path.name
        assert "monai.bundle" not in text, path.name


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_libraries_are_those_without_the_known_holes(package: str, floor: tuple[int, ...]) -> None:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", text)[: len(floor)])

    pinned = re.search(rf"(?m)^{package}==(\S+)", (ROOT / "constraints.txt").read_text())
    assert pinned is not None
    assert numbers(pinned[1]) >= floor
    assert numbers(metadata.version(package)) >= floor
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [text for text in project["dependencies"] if re.match(rf"{package}\b", text, re.I)]
    if asked:  # monai comes with the segmentation issue
        assert numbers(asked[0].partition("=")[2]) >= floor, asked


def test_the_checks_can_fail() -> None:
    """The negative control: each rule sees a line that breaks it."""
    tree = ast.parse("torch.load(x, weights_only=False); eval(y); archive.extractall(z)")
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in made} & FORBIDDEN_CALLS == {"eval"}
    assert keyword(made[0], "weights_only") == "False"
    assert made[2].func.attr in FORBIDDEN_METHODS  # type: ignore[attr-defined]
