"""The shape of the code, held by tests: who may import whom, what loads when, how long things are.

Each rule is a function from the root of a package to its faults, and each has a negative control on
a toy package that breaks it. A module or package that is not there yet breaks nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

MEDTL = Path(__file__).parents[1] / "medtl"

LAYERS = (
    ("types", "errors"),
    ("storage",),
    ("io", "preprocess", "networks", "losses", "metrics"),
    ("cases", "tasks", "recipe"),
    ("data",),
    ("training",),
    ("prediction", "report", "export"),
    ("evaluation",),
    ("run",),
    ("studies", "demo"),
    ("cli",),
)
"""From the ground up: a part imports only from the layers before its own. docs/architecture.md."""

SEES_THE_RECIPE = ("__init__", "recipe", "run", "studies", "demo", "cli")
"""Everything else takes the values that a recipe is made of, never the whole of it."""

TORCH_FREE = (
    *("types", "errors", "storage", "io", "metrics", "cases", "recipe", "evaluation", "report"),
    *("export", "cli", "tasks", "run/check", "run/clinical", "run/evaluate", "run/files"),
    *("run/folder", "run/predict", "run/edge/choice", "prediction/portable"),
)
"""They answer before torch could have been loaded, or where it is not installed."""

NEVER_AT_TOP = frozenset(
    (
        *("accelerate", "albumentations", "highdicom", "matplotlib", "mlflow", "monai", "optuna"),
        *("playwright", "segmentation_models_pytorch", "sklearn", "statsmodels", "tensorboard"),
        *("timm", "torchvision"),
    )
)
"""Libraries that take a second or more to import: inside the function that needs them."""

CALLS_HOME = {
    "albumentations": "NO_ALBUMENTATIONS_UPDATE",
    "mlflow": "MLFLOW_DISABLE_TELEMETRY",
}
"""Library -> the environment variable that stops it (docs/decisions/0005-no-network.md)."""

SAYS_NOTHING = frozenset({"utils", "helpers", "manager", "common"})
AT_THE_ROOT = {"__init__.py", "types.py", "errors.py"}
MAX_LAYERS = 12
MAX_FILES_IN_A_FOLDER = 15
MAX_FILE_LINES = 600
MAX_BODY_LINES = 60

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module below `root` as (path for messages, syntax tree)."""
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root).as_posix(), parsed(path.read_text(encoding="utf-8"))


parsed = cache(ast.parse)
"""Most rules read every file of the package: each text is parsed once."""


@pytest.fixture(scope="module", autouse=True)
def _trees_are_forgotten() -> Iterator[None]:
    """Millions of nodes would slow every garbage collection of the tests after these."""
    yield
    parsed.cache_clear()
    imported.cache_clear()


def part_of(path: str) -> str:
    """The word in `LAYERS` that a module belongs to ("io/dicom/image.py" -> "io")."""
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


@cache
def imported(tree: ast.AST, path: str, package: str) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of each import in `tree`, lazy and relative ones too."""
    return tuple(imports_of(tree, path, package))


def imports_of(tree: ast.AST, path: str, package: str) -> Iterator[tuple[int, str]]:
    """As `imported`, one after another."""
    folder = [package, *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif is_import_by_name(node) and isinstance(node.args[0], ast.Constant):
            yield node.lineno, str(node.args[0].value)


def is_import_by_name(node: ast.AST) -> bool:
    """Whether `node` is `import_module(...)` or `__import__(...)`."""
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in {"import_module", "__import__"}


def parts_imported(tree: ast.AST, path: str, root: Path) -> Iterator[tuple[int, str]]:
    """(line, part) of each import of the package's own parts."""
    seen = set()
    for line, name in imported(tree, path, root.name):
        words = name.split(".")
        if words[0] == root.name and len(words) > 1 and (line, words[1]) not in seen:
            seen.add((line, words[1]))
            if (root / words[1]).exists() or (root / f"{words[1]}.py").exists():
                yield line, words[1]


def upward_imports(root: Path) -> list[str]:
    """Imports that go up or sideways, and parts that have no layer."""
    level = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    faults = []
    for path, tree in modules(root):
        here = part_of(path)
        if here == "__init__":
            continue  # the public face, which loads what is asked for: eager_inits
        if here not in level:
            faults.append(
                f"{path}: no layer is known for {here!r}; add it to LAYERS and to the docs"
            )
        else:
            faults += [
                f"{path}:{line} ({here}) imports {part}"
                for line, part in parts_imported(tree, path, root)
                if part != here and level.get(part, len(LAYERS)) >= level[here]
            ]
    return faults


def eager_inits(root: Path) -> list[str]:
    """`__init__` files that import parts of the package, but `errors`, while they are imported."""
    return [
        f"{path}:{line} imports {part}"
        for path, tree in modules(root)
        if path.endswith("__init__.py")
        for statement in at_import(tree.body)
        for line, part in parts_imported(statement, path, root)
        if part != "errors"
    ]


def stray_modules(root: Path) -> list[str]:
    """Modules at the root of the package that belong into a room."""
    return [path for path, _ in modules(root) if "/" not in path and path not in AT_THE_ROOT]


def crowded_folders(root: Path) -> list[str]:
    """Folders with more modules than one looks through."""
    held = Counter(path.rpartition("/")[0] for path in named_modules(root))
    return [f"{name}: {n} files" for name, n in held.items() if n > MAX_FILES_IN_A_FOLDER]


def named_modules(root: Path) -> list[str]:
    """The path of every module but the `__init__` files."""
    return [path for path, _ in modules(root) if not path.endswith("__init__.py")]


def names_given_twice(root: Path) -> list[str]:
    """Modules of one name in two folders."""
    paths = named_modules(root)
    count = Counter(path.rpartition("/")[2] for path in paths)
    return [path for path in paths if count[path.rpartition("/")[2]] > 1]


def circles(root: Path) -> list[str]:
    """Modules, and rooms, that import each other over any number of steps.

    An import for type checking or inside a function counts: who reads one must read the other.
    """
    dotted = {
        f"{root.name}/{path.removesuffix('.py')}".replace("/", "."): path
        for path in named_modules(root)
    }
    trees = dict(modules(root))
    among_modules = {
        name: {found for _, found in imported(trees[path], path, root.name) if found in dotted}
        for name, path in dotted.items()
    }
    among_rooms: dict[str, set[str]] = {}
    for path in dotted.values():
        parts = {part for _, part in parts_imported(trees[path], path, root)}
        among_rooms.setdefault(part_of(path), set()).update(parts)
    return [found for graph in (among_modules, among_rooms) for found in circles_in(graph)]


def circles_in(graph: dict[str, set[str]]) -> Iterator[str]:
    """One circle of a graph after another, each opened when it has been told."""
    graph = {name: others - {name} for name, others in graph.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            first, second, *_ = error.args[1]
            yield " <- ".join(error.args[1])
            graph[second] -= {first}
        else:
            return


def recipe_seen_by_library(root: Path) -> list[str]:
    """Library code that imports the whole recipe, or its room from which that could be taken."""
    whole = tuple(f"{root.name}.recipe{end}" for end in ("", ".Recipe", ".schema", ".*"))
    found = {
        (path, line): f"{path}:{line} imports {name}"
        for path, tree in modules(root)
        if part_of(path) not in SEES_THE_RECIPE
        for line, name in imported(tree, path, root.name)
        if name in whole or name.startswith(f"{root.name}.recipe.schema.")
    }
    return list(found.values())


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, `if`, `try` and class bodies included."""
    for node in body:
        for_types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if for_types_only or isinstance(node, FunctionNode):
            continue
        inner = [
            child
            for field in ("body", "orelse", "finalbody", "handlers")
            for child in getattr(node, field, [])
        ]
        if inner:
            yield from at_import(inner)
        else:
            yield node


def heavy_at_top(root: Path) -> list[str]:
    """Heavy libraries imported while a module of the package is imported."""
    found = {
        f"{path}:{line} imports {name.partition('.')[0]} at module top"
        for path, tree in modules(root)
        for statement in at_import(tree.body)
        for line, name in imported(statement, path, root.name)
        if name.partition(".")[0] in NEVER_AT_TOP
    }
    return sorted(found)


def calls_home(root: Path) -> list[str]:
    """Modules that import a library which calls out by itself, and do not switch that off."""
    return [
        f"{path} imports {library} and does not set {switch}"
        for path, tree in modules(root)
        for library, switch in CALLS_HOME.items()
        if any(name.split(".")[0] == library for _, name in imported(tree, path, root.name))
        and switch not in (root / path).read_text(encoding="utf-8")
    ]


def prints(root: Path) -> list[str]:
    """Calls of `print` outside the command line."""
    return [
        f"{path}:{node.lineno} prints"
        for path, tree in modules(root)
        if part_of(path) != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def names_that_say_nothing(root: Path) -> list[str]:
    """Modules and packages called utils, helpers, manager or common."""
    return [
        path
        for path, _ in modules(root)
        if SAYS_NOTHING & {word.removesuffix(".py") for word in path.split("/")}
    ]


def too_long(root: Path) -> list[str]:
    """Files and function bodies (without the docstring) over the limits."""
    faults = []
    for path, tree in modules(root):
        lines = len((root / path).read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            faults.append(f"{path}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, FunctionNode) and body_lines(node) > MAX_BODY_LINES:
                faults.append(f"{path}:{node.lineno} {node.name}: body of {body_lines(node)} lines")
    return faults


def body_lines(function: FunctionNode) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def loads_torch(root: Path, parts: tuple[str, ...] = TORCH_FREE) -> list[str]:
    """Modules of `parts`, and the bare package, whose import brings torch in.

    They are imported one after another in one new interpreter, so a fault names the first module
    that does it and hides the ones after it.
    """
    names = [root.name]
    for path, _ in modules(root):
        if part_of(path) in parts or path.removesuffix(".py") in parts:
            dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            names.append(f"{root.name}.{dotted}")
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'{name} loads torch')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        cwd=root.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return [done.stderr.strip()] if done.returncode else []


RULES: tuple[Callable[[Path], list[str]], ...] = (
    upward_imports,
    eager_inits,
    stray_modules,
    crowded_folders,
    names_given_twice,
    circles,
    recipe_seen_by_library,
    heavy_at_top,
    calls_home,
    prints,
    names_that_say_nothing,
    too_long,
    loads_torch,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule: Callable[[Path], list[str]]) -> None:
    faults = rule(MEDTL)
    assert not faults, "\n" + "\n".join(faults)


CLEAN = {
    "__init__.py": "__version__ = '1'",
    "types.py": "Case = Image = None",
    "recipe/__init__.py": "Recipe = None",
    "recipe/schema.py": "from toy.types import Case",
    "io/__init__.py": "",
    "io/dicom.py": "from toy import __version__\nfrom toy.types import Image\nfrom . import nifti",
    "io/nifti.py": "",
    "metrics/__init__.py": "",
    "metrics/ranking.py": "def auroc():\n    import sklearn.metrics\n    return sklearn",
    "tasks/__init__.py": "",
    "tasks/classes.py": "from toy.metrics.ranking import auroc",
    "training/__init__.py": "import torch",
    "training/fit.py": "from toy import tasks",
    "run/__init__.py": "",
    "run/build.py": "from toy.recipe import Recipe\nfrom toy import training, tasks",
    "cli/__init__.py": "",
    "cli/main.py": "import toy.types\ndef main():\n    from toy.run import build\n    print(build)",
}
"""A toy package that keeps every rule; each control below breaks one thing in it."""


def toy(folder: Path, changed: dict[str, str]) -> Path:
    """Write the toy package with some modules changed or added, and return its root."""
    # A stand-in, so that the toy is fast to import.
    (folder / "torch.py").write_text("")
    for name, text in (CLEAN | changed).items():
        path = folder / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "toy"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_clean_toy_keeps(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert rule(toy(tmp_path, {})) == []


FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"

CONTROLS = [
    # An import up the order, in every form it can take.
    (upward_imports, "metrics/a.py", "import toy.training", "a.py:1 (metrics) imports training"),
    (upward_imports, "tasks/a.py", "def f():\n    from toy.training import x", "a.py:2 (tasks)"),
    (upward_imports, "tasks/a.py", "def f():\n    from ..training import x", "a.py:2 (tasks)"),
    (upward_imports, "tasks/a.py", "from .. import training", "a.py:1 (tasks) imports training"),
    (upward_imports, "tasks/a.py", "from toy import training", "a.py:1 (tasks) imports training"),
    (upward_imports, "tasks/a.py", "import_module('toy.cli')", "a.py:1 (tasks) imports cli"),
    (upward_imports, "types.py", "from toy.recipe import Recipe", "types.py:1 (types) imports"),
    (upward_imports, "metrics/a.py", "from toy.io import dicom", "a.py:1 (metrics) imports io"),
    (upward_imports, "stray.py", "", "no layer is known for 'stray'"),
    (eager_inits, "__init__.py", "from toy.types import Image", "__init__.py:1 imports types"),
    (eager_inits, "io/__init__.py", "from .dicom import read", "io/__init__.py:1 imports io"),
    (stray_modules, "words.py", "", "words.py"),
    (names_given_twice, "metrics/nifti.py", "", "io/nifti.py"),
    (circles, "io/nifti.py", "def f():\n    from toy.io import dicom", "toy.io.dicom <- toy.io"),
    (circles, "io/nifti.py", f"{FOR_TYPES}    from toy.io.dicom import D", "toy.io.dicom <- toy"),
    (circles, "metrics/a.py", "import toy.tasks", "metrics <- tasks <- metrics"),
    (
        recipe_seen_by_library,
        "training/loop.py",
        "def fit():\n    from toy.recipe import Recipe",
        "training/loop.py:2 imports toy.recipe",
    ),
    (
        recipe_seen_by_library,
        "training/loop.py",
        "from toy.recipe.schema import Recipe",
        "training/loop.py:1 imports toy.recipe.schema",
    ),
    (recipe_seen_by_library, "training/loop.py", "import toy.recipe.schema", "loop.py:1 imports"),
    (recipe_seen_by_library, "training/loop.py", "from toy import recipe", "loop.py:1 imports"),
    (heavy_at_top, "io/a.py", "import monai.losses", "a.py:1 imports monai at module top"),
    (heavy_at_top, "io/a.py", "from timm import create_model", "a.py:1 imports timm"),
    (heavy_at_top, "io/a.py", "try:\n    import timm\nexcept ImportError: ...", "a.py:2 imports"),
    (heavy_at_top, "io/a.py", "class C:\n    import matplotlib.pyplot", "a.py:2 imports"),
    (calls_home, "io/a.py", "def f():\n    import mlflow", "does not set MLFLOW_DISABLE_TELEMETRY"),
    (loads_torch, "metrics/ranking.py", "import torch", "toy.metrics.ranking loads torch"),
    (loads_torch, "cli/main.py", "import toy.training", "toy.cli.main loads torch"),
    (loads_torch, "__init__.py", "import torch", "toy loads torch"),
    (prints, "io/nifti.py", "def f():\n    print(1)", "io/nifti.py:2 prints"),
    (names_that_say_nothing, "io/utils.py", "", "io/utils.py"),
    (names_that_say_nothing, "tasks/helpers/shape.py", "", "tasks/helpers/shape.py"),
    (too_long, "io/a.py", "#\n" * 601, "io/a.py: 601 lines"),
    (too_long, "io/a.py", "def f():\n" + "    x = 1\n" * 61, "a.py:1 f: body of 61 lines"),
]


@pytest.mark.parametrize(("rule", "module", "text", "fault"), CONTROLS)
def test_broken_toy_is_caught(
    rule: Callable[[Path], list[str]], module: str, text: str, fault: str, tmp_path: Path
) -> None:
    found = rule(toy(tmp_path, {module: text}))
    assert found
    assert fault in found[0]


def test_crowd_is_caught(tmp_path: Path) -> None:
    files = {f"io/format_{number}.py": "" for number in range(MAX_FILES_IN_A_FOLDER - 1)}
    assert crowded_folders(toy(tmp_path, files)) == ["io: 16 files"]


def test_layers_can_be_counted_on_two_hands() -> None:
    assert len(LAYERS) <= MAX_LAYERS


def test_face_may_name_types_for_the_type_checker(tmp_path: Path) -> None:
    text = f"{FOR_TYPES}    from toy.types import Image\ndef __getattr__(name):\n    import toy.io"
    root = toy(tmp_path, {"__init__.py": text})
    assert not [fault for rule in RULES for fault in rule(root)]


def test_every_rule_has_a_control() -> None:
    assert {control[0] for control in CONTROLS} == set(RULES) - {crowded_folders}


def test_heavy_library_for_type_checking_only_is_allowed(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import timm"
    assert heavy_at_top(toy(tmp_path, {"io/a.py": text})) == []


def test_the_library_may_take_the_values_of_a_recipe(tmp_path: Path) -> None:
    text = "from toy.recipe.finetune import EarlyStopping"
    root = toy(tmp_path, {"training/loop.py": text, "recipe/finetune.py": "EarlyStopping = None"})
    assert recipe_seen_by_library(root) == []


def test_docstring_is_not_part_of_the_body(tmp_path: Path) -> None:
    text = 'def f():\n    """' + "\n" * MAX_BODY_LINES + '    """\n    return 1\n'
    assert too_long(toy(tmp_path, {"io/a.py": text})) == []
