"""Search for a better recipe: trials are judged on validation, the winner is tested once.

A space file names recipe keys and what they may be:

    finetune.weight_decay: [0.0, 0.01, 0.1]
    finetune.stages.2.lr.base: {low: 1e-5, high: 1e-3, log: true}
    finetune.stages.0.epochs: {low: 2, high: 8, step: 2}

A grid needs lists, or ranges with a step. The split and all seeds are the recipe's own in every
trial. Several workers may search in one folder: optuna's journal is what they share.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtl.errors import RunError
from medtl.recipe.schema import Recipe
from medtl.run.build import build_manifest, build_task
from medtl.run.check import read_recipe
from medtl.run.files import portable, refuse_existing
from medtl.storage.atomic import write_json, write_text
from medtl.storage.yaml import dump_yaml, load_yaml
from medtl.studies.conditions import fix_plan
from medtl.studies.engine import RunOne, attempt, try_lock
from medtl.studies.judgement import markdown_table
from medtl.studies.rows import compared, my_turn
from medtl.studies.single import SingleRun, shared_images

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

Method = Literal["grid", "random", "bayes"]
Value = str | float | int | bool | None

RANGE_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Search:
    """The trials of a search.

    Attributes:
        space: Recipe key -> list of choices, or range; see `read_space`.
        method: All combinations, random draws, or Bayesian (tree-structured Parzen estimators).
        trials: How many; a grid ends earlier when it is used up.
    """

    space: Mapping[str, Any]
    method: Method
    trials: int

    def __post_init__(self) -> None:
        """Refuse ranges that a grid cannot walk."""
        endless = [k for k, d in self.space.items() if isinstance(d, dict) and "step" not in d]
        if self.method == "grid" and endless:
            raise RunError(
                f"a grid needs a list, or a step, for {endless[0]}", fix="Or search at random"
            )

    @property
    def size(self) -> int:
        """Number of trials that there will be."""
        if self.method != "grid":
            return self.trials
        return min(self.trials, math.prod(len(choices) for choices in self._grid().values()))

    def ask(self, study: optuna.Study, seed: int) -> optuna.Trial:
        """Return the next trial, the same whichever worker asks, and when."""
        from optuna.samplers import RandomSampler, TPESampler

        number = len(study.get_trials(deepcopy=False))
        drawn_by = TPESampler if self.method == "bayes" else RandomSampler
        study.sampler = drawn_by(seed=seed + number)
        if self.method == "grid":
            # Its own GridSampler works inside Study.optimize only, which cannot resume a trial.
            grid = self._grid()
            point = next(itertools.islice(itertools.product(*grid.values()), number, None))
            study.enqueue_trial(dict(zip(grid, point, strict=True)))
        return study.ask(self._distributions())

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The distribution that every key is drawn from."""
        from optuna import distributions as drawn

        found: dict[str, drawn.BaseDistribution] = {}
        for key, domain in (self._grid() if self.method == "grid" else self.space).items():
            if isinstance(domain, dict):
                whole = isinstance(domain["low"], int) and isinstance(domain["high"], int)
                found[key] = (drawn.IntDistribution if whole else drawn.FloatDistribution)(**domain)
            else:
                found[key] = drawn.CategoricalDistribution(domain)
        return found

    def _grid(self) -> dict[str, list[Value]]:
        """Key -> every value that it takes in a grid."""
        return {
            key: _steps(domain) if isinstance(domain, dict) else list(domain)
            for key, domain in self.space.items()
        }


def _steps(domain: Mapping[str, Any]) -> list[Value]:
    """The values of a range with a step, its high end included when it is hit."""
    low, high, step = domain["low"], domain["high"], domain["step"]
    return [low + k * step for k in range(math.floor((high - low) / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        trials: Number, parameters, state and validation value of every trial.
        objective: "val_loss" or "val_metric".
        best: Parameters of the winner; None while there is none.
        value: Its validation value.
        test: The winner's row, its only look at the test cases; None while trials are missing.
    """

    trials: tuple[Mapping[str, Any], ...]
    objective: str
    best: Mapping[str, Value] | None
    value: float | None
    test: Mapping[str, Any] | None


def read_space(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what a space file says: recipe key -> list of choices, or range.

    Args:
        path: The YAML file.

    Raises:
        RunError: For a file that is no space.
    """
    path = Path(path)
    space = load_yaml(path)
    if not space:
        raise RunError("there is nothing to search", where=path.name)
    for key, domain in space.items():
        if not _is_domain(domain):
            raise RunError(
                f"cannot read what {key} may be",
                expected="a list of single values, or {low: ..., high: ...} with log or step",
                where=path.name,
            )
    return space


def run_search(
    recipe: str | PathLike[str],
    search: Search,
    out: str | PathLike[str],
    *,
    overrides: Sequence[str] = (),
    single: SingleRun | None = None,
    resume: bool = False,
    on_trial: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> Found:
    """Try recipes, keep the one that validates best, and test that one, once.

    Args:
        recipe: The YAML file that the trials change.
        search: What is tried, and how.
        out: The study folder; trials go to `trials/N/`, the winner to `selected/`.
        overrides: Changes of the recipe in all trials.
        single: How a trial is run; what must be so is set here.
        resume: Go on with what is in the folder, or join the workers that are in it.
        on_trial: Told of every trial that this worker has ended.

    Raises:
        RunError: When the search in the folder is another one, or every trial has failed.
    """
    recipe, out = Path(recipe), Path(out)
    base = read_recipe(recipe, overrides)
    objective = _objective(base, search.space)
    refuse_existing(out, resume=resume)
    (out / "trials").mkdir(parents=True, exist_ok=True)
    fix_plan({**asdict(search), "objective": objective}, portable(base), out)
    study = _open_study(out, maximise=objective == "val_metric" and _larger_is_better(base))

    def recipe_of(parameters: Mapping[str, Value]) -> Recipe:
        changes = [f"{key}={json.dumps(value)}" for key, value in parameters.items()]
        return read_recipe(recipe, [*overrides, *changes])

    with shared_images(out) as images:
        one = replace(single or SingleRun(), images=images, own_split=False, tests=False)
        while (claimed := _claim_trial(study, search, base.run.seed, out)) is not None:
            number, parameters, lock = claimed
            with lock:
                value = _try_trial(partial(recipe_of, parameters), one, out, number, objective)
                _tell(study, out, number, value)
            on_trial({"number": number, "parameters": parameters, objective: value})
        return _finish(study, recipe_of, one, out, objective)


def _is_domain(domain: object) -> bool:
    """Tell whether it is a list of single values, or a range."""
    if isinstance(domain, list):
        return bool(domain) and all(isinstance(choice, Value) for choice in domain)
    if not isinstance(domain, dict) or not {"low", "high"} <= set(domain) <= RANGE_KEYS:
        return False
    return bool(domain["low"] < domain["high"]) and not {"log", "step"} <= set(domain)


def _objective(recipe: Recipe, space: Mapping[str, Any]) -> str:
    """The value that judges trials: the loss, or the statistic if the recipe watches that."""
    if recipe.finetune.early_stopping.monitor == "val_metric":
        return "val_metric"
    changed = [key for key in space if key.startswith("task.")]
    if changed:
        raise RunError(
            f"{changed[0]} changes the loss, so losses of trials cannot be compared",
            fix="Judge by the statistic: finetune.early_stopping.monitor=val_metric",
        )
    return "val_loss"


def _larger_is_better(recipe: Recipe) -> bool:
    """Tell whether the task's statistic improves upwards."""
    return build_task(recipe, build_manifest(recipe).cases).larger_is_better


def _open_study(out: Path, *, maximise: bool) -> optuna.Study:
    """The study that all workers share."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(out / "trials.journal"))
    with my_turn(out):
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="search",
            direction="maximize" if maximise else "minimize",
            load_if_exists=True,
        )


def _claim_trial(
    study: optuna.Study, search: Search, seed: int, out: Path
) -> tuple[int, Mapping[str, Value], ExitStack] | None:
    """A trial whose worker was killed, or a new one, locked; None when there are enough."""
    with my_turn(out):
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            lock = None if trial.state.is_finished() else try_lock(_folder(out, trial.number))
            if lock is not None:
                return trial.number, trial.params, lock
        if len(trials) >= search.size:
            return None
        asked = search.ask(study, seed)
        lock = try_lock(_folder(out, asked.number))
        assert lock is not None
        return asked.number, asked.params, lock


def _folder(out: Path, number: int) -> Path:
    """The run folder of a trial."""
    return out / "trials" / str(number)


def _try_trial(
    recipe: Callable[[], Recipe], one: RunOne, out: Path, number: int, objective: str
) -> float | None:
    """The validation value of one trial; None when it failed, which must not end the search."""
    row = attempt(lambda: one(recipe(), _folder(out, number)), f"trial {number}")
    value: float | None = row.get(objective)
    if value is None and row["status"] == "done":
        log.error("trial %d: too few validation cases for the statistic", number)
    return value


def _tell(study: optuna.Study, out: Path, number: int, value: float | None) -> None:
    """Write down how a trial ended."""
    from optuna.trial import TrialState

    with my_turn(out):
        study.tell(number, value, state=None if value is not None else TrialState.FAIL)


def _finish(
    study: optuna.Study,
    recipe_of: Callable[[Mapping[str, Value]], Recipe],
    one: SingleRun,
    out: Path,
    objective: str,
) -> Found:
    """Write the result; test the winner when no trial is missing and nobody has tested it yet."""
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.value is not None]
    if not done:
        raise RunError("every trial has failed", where=str(out), fix="See trials/0/log.txt")
    best = study.best_trial
    found = Found(
        trials=tuple(
            {"number": t.number, "state": t.state.name.lower(), "value": t.value, **t.params}
            for t in trials
        ),
        objective=objective,
        best=best.params,
        value=best.value,
        test=None,
    )
    recipe = recipe_of(best.params)
    write_text(out / "best_recipe.yaml", dump_yaml(portable(recipe).to_dict()))
    lock = try_lock(out / "selected")
    if lock is not None:
        with lock:
            if all(trial.state.is_finished() for trial in trials):
                found = replace(found, test=_test_once(recipe, one, out / "selected"))
    write_json(out / "search.json", {"schema": "medtl-search/1", **asdict(found)})
    write_text(out / "search.md", to_markdown(found))
    return found


def _test_once(recipe: Recipe, one: SingleRun, folder: Path) -> Mapping[str, Any]:
    """The row of the winner: the only run that predicts the test cases."""
    path = folder / "row.json"
    if not path.is_file():
        full = replace(one, tests=True, reports=True, keep_checkpoints=True)
        write_json(path, full(recipe, folder))
    row: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return row


def to_markdown(found: Found) -> str:
    """Return the result as Markdown, trials in their order."""
    keys = list(found.best or ())
    cells = [
        [
            str(trial["number"]),
            *(_short(trial.get(key)) for key in keys),
            trial["state"] if trial["value"] is None else f"{trial['value']:.4f}",
        ]
        for trial in found.trials
    ]
    lines = [f"{len(found.trials)} trials, judged by {found.objective}.", ""]
    lines += markdown_table(f"r{'l' * len(keys)}r", ("trial", *keys, found.objective), cells)
    winner = ", ".join(f"{key} = {_short(value)}" for key, value in (found.best or {}).items())
    lines += ["", f"Best: {winner}; {found.objective} {found.value:.4f}."]
    if found.test is None:
        lines.append("The test cases have not been looked at: trials are missing.")
    else:
        shown = [f"{name} {found.test[name]:.3f}" for name in compared(found.test)]
        lines.append(f"On the test cases, once: {', '.join(shown)}. Report: selected/report.html.")
        lines.append("The validation value of the winner is optimistic: it was selected by it.")
    return "\n".join(lines) + "\n"


def _short(value: Value) -> str:
    """A parameter in a table cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
