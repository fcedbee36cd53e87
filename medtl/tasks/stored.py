"""The task that a checkpoint holds, in the form of this version or of an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from medtl.tasks.classes import Classes
from medtl.tasks.findings import Findings
from medtl.tasks.protocols import Task
from medtl.tasks.regression import BONE_AGE, Quantity, Regression
from medtl.tasks.structures import Structures

if TYPE_CHECKING:
    from torch import Tensor


def read_task(stored: Mapping[str, Any], criterion: Callable[..., Tensor] | None = None) -> Task:
    """Return the task of a checkpoint.

    Args:
        stored: What `Task.to_dict` wrote, of this version or an earlier one, from JSON.
        criterion: The loss of the recipe that the checkpoint holds; where nothing is trained or
            decoded, none is needed.

    Example:
        >>> read_task({"kind": "classes", "column": "view", "labels": ["AP", "PA"]}).labels
        ('AP', 'PA')
    """
    kind = KINDS[stored["kind"]]
    known = {one.name for one in fields(kind) if one.init}
    told = {key: _tuples(value) for key, value in _renamed(stored).items() if key in known}
    task: Task = kind(**told, **({} if criterion is None else {"criterion": criterion}))
    return task


KINDS: Mapping[str, type[Any]] = {
    "findings": Findings,
    "classes": Classes,
    "structures": Structures,
    "regression": Regression,
    "bone_age": Regression,
}
"""Kind of task in a checkpoint -> its class."""


def _renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task under the names they have now.

    Checkpoints of the kind bone_age are older than other quantities: their fields end in months.
    """
    if "quantity" in stored:
        return {**stored, "quantity": Quantity(**_tuples(dict(stored["quantity"])))}
    if "mean_months" not in stored:
        return dict(stored)
    told = {key.removesuffix("_months"): value for key, value in stored.items()}
    return {**told, "quantity": BONE_AGE, "class_width": told["class"]}


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that a task is made of."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
