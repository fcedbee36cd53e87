"""Options that several commands take, each stated once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from medtl.errors import MedtlError
from medtl.storage.tables import nearest

if TYPE_CHECKING:
    from medtl.recipe.schema import Recipe


def there(path: Path | None) -> Path | None:
    """Refuse a file or folder that is not there, before anything else is found wrong."""
    return refuse_missing(path, "file or folder")


def refuse_missing(path: Path | None, what: str) -> Path | None:
    """Return what is there; refuse what is not, with the nearest name that is."""
    if path is None or path.exists():
        return path
    near = nearest(path.name, os.listdir(path.parent) if path.parent.is_dir() else ())
    raise MedtlError(
        f"there is no such {what}",
        where=str(path),
        fix=f"Did you mean {path.with_name(near)}?" if near else "Check the path",
    )


def listed(text: str) -> tuple[str, ...]:
    """Return the names of a list "a,b,c", () for no text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _out(context: typer.Context, out: Path | None) -> Path:
    """Return the stated folder, or a new one that is named after the day and the recipe."""
    if out is not None:
        return out
    from medtl.run.files import fresh_folder, unfinished_runs

    recipe: Path = context.params["recipe"]
    command = "" if context.info_name in ("run", "train") else f"-{context.info_name}"
    name = (recipe.absolute().parent.name if recipe.stem == "recipe" else recipe.stem) + command
    if context.params["resume"]:
        begun = " or ".join(f"--out {path}" for path in unfinished_runs(name))
        raise MedtlError(
            "nothing says which run is to go on", fix=f"Name it: {begun or '--out FOLDER'}"
        )
    folder = fresh_folder(name)
    print(f"Folder of this run: {folder}")
    return folder


def _recipe(path: Path | None) -> Path | None:
    """Return a recipe that is there; of a folder, say which files in it may be meant."""
    if path is None:
        return None
    if path.is_dir():
        inside = " or ".join(str(file) for file in sorted(path.glob("*.y*ml"))[:3])
        raise MedtlError(
            "this is a folder",
            where=str(path),
            expected="a recipe, a YAML file",
            fix=f"Did you mean {inside}?" if inside else "Make one: medtl init DATA --out FOLDER",
        )
    return there(path)


RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="a YAML recipe", callback=_recipe)
]
MaybeRecipe = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE]", help="a YAML recipe", callback=_recipe)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="changes to the recipe")
]
Out = Annotated[Path, typer.Option("--out", help="folder to write to; it must not exist yet")]
Splits = Annotated[
    str, typer.Option(help="parts of the run's own manifest, train,val,test; default val,test")
]
Resume = Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")]
Language = Annotated[Literal["en", "ko"], typer.Option(help="of the report")]


NOT_STATED = cast(Path, None)
"""Of a folder for whose name the callback has a default."""


@dataclass(frozen=True)
class Work:
    """A recipe, its changes and the folder of its results."""

    recipe: RecipeFile
    overrides: Overrides = None
    resume: Resume = False
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="new folder to write to",
            callback=_out,
            show_default="runs/DATE-NAME",
        ),
    ] = NOT_STATED
    epochs: Annotated[
        int | None, typer.Option(min=1, help="at most so many in every stage, for a first try")
    ] = None

    @property
    def changes(self) -> list[str]:
        """What the command line changes of the recipe; what is written in full comes last."""
        epochs = [] if self.epochs is None else [f"finetune.stages.*.epochs={self.epochs}"]
        return [*epochs, *(self.overrides or [])]

    def check(self) -> Recipe:
        """Return the recipe after the first pass: all that can be said before torch is loaded."""
        from medtl.run.check import read_recipe
        from medtl.run.files import refuse_existing

        refuse_existing(self.out, resume=self.resume)
        return read_recipe(self.recipe, self.changes)


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
    acting: Annotated[
        str,
        typer.Option(
            help="lowest and highest probability at which somebody would act: 0.05,0.30; the range "
            "of the decision curves"
        ),
    ] = ""
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
    question: Annotated[str, typer.Option(help="the clinical question, for the report")] = ""
    margin: Annotated[
        list[str] | None,
        typer.Option(
            help="what --model may lose to another one and be no worse, fixed before the results: "
            "sensitivity=0.05; repeatable"
        ),
    ] = None

    def refuse_for_run(self) -> None:
        """Refuse to overlook what was stated: a run is evaluated by its own recipe."""
        stated = [name for name, value in vars(self).items() if value != getattr(Stated, name)]
        if stated:
            raise MedtlError(
                f"--{stated[0].replace('_', '-')} is for tables that some tool made",
                expected="a run as its recipe says",
                fix="Give the run's predictions.csv in place of its folder",
            )

    @property
    def for_evaluation(self) -> dict[str, Any]:
        """As `medtl.run.evaluate.TableOptions` takes it."""
        stated = vars(self) | {
            "strata": tuple(name for name in self.strata.split(",") if name),
            "threshold": _of_labels(self.threshold or [], "--threshold"),
            "prevalence": _of_labels(self.prevalence or [], "--prevalence"),
            "rule": self._rule(),
            "margins": self._margins(),
            "acting": _range(self.acting),
        }
        del stated["assurance"], stated["margin"]
        return stated

    def _margins(self) -> dict[str, float]:
        """Measure -> margin."""
        found = _of_labels(self.margin or [], "--margin")
        if isinstance(found, float):
            raise MedtlError(
                "a margin is stated without its measure",
                expected="one or more of sensitivity, specificity, auroc, mae_months, dice, ...",
                fix=f"State --margin sensitivity={found:g}",
            )
        return found or {}

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


def _range(text: str) -> tuple[float, float] | None:
    """The two ends that --acting states; None without it."""
    if not text:
        return None
    low, comma, high = text.partition(",")
    if not comma:
        raise MedtlError(
            f"--acting is {text!r}", expected="two probabilities", fix="State --acting 0.05,0.30"
        )
    return _number(low, "--acting"), _number(high, "--acting")


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


def _run(path: Path) -> Path | None:
    return refuse_missing(path, "folder, and so no best.safetensors")


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", callback=_run, help="a finished run folder")
]
