"""Options that several commands take, each stated once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from medtl.errors import MedtlError

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="changes to the recipe")
]
Out = Annotated[Path, typer.Option("--out", help="folder to write to; it must not exist yet")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A recipe, its changes and the folder of its results."""

    recipe: RecipeFile
    overrides: Overrides = None
    out: Out
    resume: Resume = False

    @property
    def changes(self) -> list[str]:
        """What the command line changes of the recipe."""
        return self.overrides or []


@dataclass(frozen=True)
class Repeats:
    """How often a study repeats a condition, and what it keeps."""

    number: Annotated[
        int, typer.Option("--seeds", min=1, help="runs of every condition: 0, 1, ...")
    ] = 5
    keep_checkpoints: Annotated[bool, typer.Option(help="keep the best model of every run")] = False
    reports: Annotated[bool, typer.Option(help="draw the gallery and report of every run")] = False


@dataclass(frozen=True)
class Stated:
    """What a user says of a table that some tool made."""

    threshold: Annotated[
        list[str] | None,
        typer.Option(help="fixed before the test set was seen: 0.5, or LABEL=0.3; repeatable"),
    ] = None
    rule: Annotated[
        str,
        typer.Option(
            help="how to choose it on rows of split val: sensitivity=0.90, specificity=0.90, f1, "
            "youden, net_benefit=0.1, cost_ratio=10; youden without one"
        ),
    ] = ""
    assurance: Annotated[
        float | None,
        typer.Option(help="certainty that new patients reach the share of the rule; default 0.9"),
    ] = None
    prevalence: Annotated[
        list[str] | None,
        typer.Option(help="where it will be used: 0.1, or LABEL=0.01; repeatable"),
    ] = None
    strata: Annotated[
        str, typer.Option(help="columns to break results by, a,b,c; default age, sex, view, ...")
    ] = ""
    one_image_per_patient: Annotated[
        bool, typer.Option("--one-image-per-patient", help="the table has no patient_id column")
    ] = False
    model: Annotated[str, typer.Option(help="the one to report, of several in the table")] = ""
    kind: Annotated[
        Literal["classification", "regression", "segmentation"] | None,
        typer.Option(help="of study; found from the table when not stated"),
    ] = None
    unit: Annotated[str, typer.Option(help='of a regression: "%", ml, ...')] = ""
    exam: Annotated[str, typer.Option(help="column of the exam; several images of one")] = ""
    combine: Annotated[
        Literal["max", "mean", "noisy_or"] | None,
        typer.Option(help="how the scores of an exam's images become one"),
    ] = None

    @property
    def for_evaluation(self) -> dict[str, Any]:
        """As `medtl.run.evaluate.TableOptions` takes it."""
        stated = vars(self) | {
            "strata": tuple(name for name in self.strata.split(",") if name),
            "threshold": _of_labels(self.threshold or [], "--threshold"),
            "prevalence": _of_labels(self.prevalence or [], "--prevalence"),
            "rule": self._rule(),
        }
        del stated["assurance"]
        return stated

    def _rule(self) -> dict[str, float | bool] | None:
        """The rule with its number and its assurance."""
        name, _, number = self.rule.partition("=")
        promised = {} if self.assurance is None else {"assurance": self.assurance}
        if not name:
            if promised:
                raise MedtlError(
                    "an assurance is stated without a rule", fix="Add --rule sensitivity=0.90"
                )
            return None
        return {name.strip(): _number(number, "--rule") if number else True, **promised}


def _of_labels(given: list[str], option: str) -> float | dict[str, float] | None:
    """One number for all labels, or one for each that is named; None where none is given."""
    pairs = [text.rpartition("=") for text in given]
    numbers = {label.strip(): _number(number, option) for label, _, number in pairs}
    if len(given) > 1 and ("" in numbers or len(numbers) < len(given)):
        raise MedtlError(
            f"{option} is given {len(given)} times",
            expected="one number for all labels, or each label once",
            fix=f"State {option} LABEL=NUMBER for each label",
        )
    return numbers.pop("") if "" in numbers else numbers or None


def _number(text: str, option: str) -> float:
    """The number that an option states."""
    try:
        return float(text)
    except ValueError:
        raise MedtlError(
            f"{option} is {text!r}", expected="a number", fix=f"State {option} NAME=0.5"
        ) from None


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, for each of its arguments that is a dataclass, an option per field."""
    stated = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: p.annotation for name, p in stated.items() if is_dataclass(p.annotation)
    }
    options = []
    for name, parameter in stated.items():
        if name not in groups:
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            options.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=hints[field.name],
                )
            )

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    called.__annotations__ = {option.name: option.annotation for option in options}
    return called
