"""medtl: staged transfer learning on medical images, from DICOM to a clinical report.

The names below are the public face. Each is loaded when it is first used, so that `import medtl`
costs next to nothing and the core works without torch (docs/python.md).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medtl.errors import extras_named

if TYPE_CHECKING:
    from medtl import losses, metrics, preprocess, report
    from medtl.cases.columns import Columns
    from medtl.cases.manifest import read_manifest
    from medtl.cases.predictions import read_predictions
    from medtl.errors import MedtlError
    from medtl.evaluation.arrays import evaluate_arrays as evaluate
    from medtl.evaluation.result import Evaluation
    from medtl.io.masks import read_mask
    from medtl.io.pairs import Mask
    from medtl.io.read import read_image
    from medtl.metrics.scores import CI
    from medtl.recipe.schema import Recipe
    from medtl.run.check import read_recipe
    from medtl.run.evaluate import TableOptions, evaluate_table, report_table
    from medtl.run.folder import Run
    from medtl.run.predicted import Predictions
    from medtl.run.study import Study
    from medtl.training.callbacks import StopTraining
    from medtl.types import Case, Image, Manifest, Measure, OperatingPoint

__all__ = [
    "CI",
    "Case",
    "Columns",
    "Evaluation",
    "Image",
    "Manifest",
    "Mask",
    "Measure",
    "MedtlError",
    "OperatingPoint",
    "Predictions",
    "Recipe",
    "Run",
    "StopTraining",
    "Study",
    "TableOptions",
    "__version__",
    "evaluate",
    "evaluate_table",
    "losses",
    "metrics",
    "preprocess",
    "read_image",
    "read_manifest",
    "read_mask",
    "read_predictions",
    "read_recipe",
    "report",
    "report_table",
]
__version__ = "0.1.0"


def lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package that loads names on use (PEP 562).

    Args:
        package: Its `__name__`.
        homes: Module below it -> the names it holds, parted by spaces; "a=b" is called a here and b
            there. "" holds the modules themselves.

    Example:
        >>> names, load, _ = lazily("medtl", {"types": "Image", "": "metrics"})
        >>> names, load("Image")
        (['Image', 'metrics'], <class 'medtl.types.Image'>)
    """
    place = {
        name: (module, there or name)
        for module, names in homes.items()
        for name, _, there in (entry.partition("=") for entry in names.split())
    }

    def load(name: str) -> Any:
        if name not in place:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        module, there = place[name]
        with extras_named():
            found = import_module(f"{package}.{module or name}")
        value = getattr(found, there) if module else found
        setattr(sys.modules[package], name, value)
        return value

    return sorted(place), load, lambda: sorted({*place, *vars(sys.modules[package])})


_names, __getattr__, __dir__ = lazily(
    __name__,
    {
        "": "losses metrics preprocess report",
        "cases.columns": "Columns",
        "cases.manifest": "read_manifest",
        "cases.predictions": "read_predictions",
        "errors": "MedtlError",
        "evaluation.arrays": "evaluate=evaluate_arrays",
        "evaluation.result": "Evaluation",
        "io.masks": "read_mask",
        "io.pairs": "Mask",
        "io.read": "read_image",
        "metrics.scores": "CI",
        "recipe.schema": "Recipe",
        "run.check": "read_recipe",
        "run.folder": "Run",
        "run.predicted": "Predictions",
        "run.study": "Study",
        "run.evaluate": "TableOptions evaluate_table report_table",
        "training.callbacks": "StopTraining",
        "types": "Case Image Manifest Measure OperatingPoint",
    },
)
