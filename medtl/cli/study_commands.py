"""`medtl study ...`: the commands that run a recipe several times and compare."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import Out, Overrides, RecipeFile, Repeats, Work, spread, there

if TYPE_CHECKING:
    from medtl.studies.conditions import Plan

study_app = typer.Typer(help="Several runs of one recipe, compared.", no_args_is_help=True)


def sanity(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="folder of the run to be, whose report will say it"),
    ] = None,
) -> None:
    """Try a recipe on its own images before it is trained, in minutes; 1 when a check fails."""
    from tempfile import TemporaryDirectory

    from medtl.report.page.learned import checks
    from medtl.run.check import read_recipe
    from medtl.run.files import RunFiles
    from medtl.storage.atomic import read_json
    from medtl.studies.learned.sanity import run_sanity

    checked = read_recipe(recipe, overrides or [])
    with bars() as shown, TemporaryDirectory() as folder:
        place = out or Path(folder)
        run_sanity(checked, place, progress=shown.progress)
        found = checks(read_json(RunFiles(place).sanity))
    for one in found:
        typer.echo(f"{one.state:>8}  {one.text} {one.advice}".rstrip())
    if any(one.state == "failed" for one in found):
        raise typer.Exit(1)


@study_app.command()
@spread
def kfold(
    work: Work,
    folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    baseline: Annotated[
        Literal["frozen", "none"],
        typer.Option(help="a linear model on frozen features in the same folds"),
    ] = "frozen",
    average: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="keep the test patients apart, validate by fold, average the models"
        ),
    ] = False,
    fold: Annotated[
        int | None,
        typer.Option(min=0, help="train this one alone, as a job of its own; then all, --resume"),
    ] = None,
) -> None:
    """Cross-validate a recipe by patient, beside a baseline in the same folds."""
    checked = work.check()
    from medtl.studies import ensemble, kfold

    if fold is not None:
        with bars() as shown:
            one = kfold.run_one_fold(
                checked,
                work.out,
                fold,
                folds=folds,
                apart=average,
                progress=shown.progress,
                callbacks=[shown.watcher()],
            )
        typer.echo(f"Fold {fold}: {one.path}")
        return
    with bars() as shown:
        run = kfold.ensemble_kfold if average else partial(kfold.run_kfold, baseline=baseline)
        found = run(
            checked,
            work.out,
            folds=folds,
            resume=work.resume,
            progress=shown.progress,
            callbacks=[shown.watcher()],
        )
    table = (
        ensemble.to_markdown(found)
        if isinstance(found, ensemble.Ensemble)
        else kfold.to_markdown(found, folds)
    )
    typer.echo(table)


@study_app.command()
@spread
def shortcuts(
    work: Work,
    folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    from_random: Annotated[
        str,
        typer.Option(help="steps from random weights, in multiples of the recipe's; 0 for none"),
    ] = "1,2",
    controls: Annotated[
        str, typer.Option(help="some of them, by their names in shortcuts.json; all by default")
    ] = "",
) -> None:
    """Ask what a thumbnail, the header, random weights reach in the folds of a recipe."""
    factors = numbers(from_random, "--from-random")
    if any(factor % 1 for factor in factors):
        raise typer.BadParameter(f"{from_random!r}; give whole numbers: --from-random 1,2")
    checked = work.check()
    from medtl.studies.learned.controls import CONTROLS
    from medtl.studies.learned.shortcuts import FROM_RANDOM, run_shortcuts

    with bars() as shown:
        run_shortcuts(
            checked,
            work.out,
            folds=folds,
            beside=[
                *([name.strip() for name in controls.split(",")] if controls else CONTROLS),
                *(f"{FROM_RANDOM}{factor:g}" for factor in factors if factor),
            ],
            resume=work.resume,
            progress=shown.progress,
            callbacks=[shown.watcher()],
        )
    typer.echo((work.out / "shortcuts.md").read_text("utf-8"))


@study_app.command("learning-curve")
@spread
def learning_curve(
    work: Work,
    repeats: Repeats,
    shares: Annotated[str, typer.Option(help="of the training patients")] = "0.1,0.25,0.5,0.75,1",
    more: Annotated[int, typer.Option(min=1, help="patients more, whose gain is asked")] = 200,
    frozen: Annotated[
        bool, typer.Option(help="a linear model on frozen features beside the network")
    ] = True,
) -> None:
    """Ask whether more patients would help: nested shares of the training patients."""
    checked = work.check()
    from medtl.studies.learned.training_shares import curve_plan, frozen_curve, summarise_curve

    _run_study(work, repeats, curve_plan(checked, numbers(shares, "--shares"), repeats.number))
    summarise_curve(work.out, more=more, frozen=frozen_curve(checked, work.out) if frozen else None)
    typer.echo((work.out / "learning_curve.md").read_text("utf-8"))


@study_app.command()
@spread
def seeds(
    work: Work,
    repeats: Repeats,
    vary: Annotated[
        str, typer.Option(help="what a seed decides; without split, all seeds share one split")
    ] = "split,init,order,augment",
) -> None:
    """Repeat a recipe with several seeds: mean and spread of its test figures."""
    work.check()
    from medtl.studies.conditions import seeds_plan

    _run_study(work, repeats, seeds_plan(repeats.number, vary=vary.split(",")))


@study_app.command()
@spread
def conditions(
    work: Work,
    repeats: Repeats,
    plan: Annotated[Path, typer.Option(callback=there, help="YAML file of conditions or factors")],
) -> None:
    """Compare the conditions of a plan file, or the cells of a factorial one, paired by seed."""
    work.check()
    from medtl.studies.conditions import read_plan

    _run_study(work, repeats, read_plan(plan, seeds=repeats.number))


@study_app.command("zero-gamma")
@spread
def zero_gamma(
    work: Work,
    repeats: Repeats,
    plan: Annotated[
        Path | None,
        typer.Option(callback=there, help="other conditions than the sixteen of the recipe"),
    ] = None,
) -> None:
    """Ask whether selective zero-gamma and warm-up help: sixteen conditions, paired by seed."""
    checked = work.check()
    from medtl.studies.ablation import zero_gamma_plan
    from medtl.studies.conditions import read_plan

    number = repeats.number
    stated = read_plan(plan, seeds=number) if plan else zero_gamma_plan(checked, range(number))
    _run_study(work, repeats, stated)


def numbers(text: str, option: str) -> list[float]:
    """The numbers of an option that lists them, at least 0."""
    try:
        listed = [float(number) for number in text.split(",")]
    except ValueError:
        listed = [-1.0]
    if min(listed) < 0:
        raise typer.BadParameter(f"{text!r}; give numbers: {option} 1,2")
    return listed


def _run_study(work: Work, repeats: Repeats, plan: Plan) -> None:
    """Run a plan, one line for every run that ends, then the table."""
    from medtl.studies.engine import run_conditions
    from medtl.studies.single import SingleRun
    from medtl.studies.summary import to_markdown

    with bars() as shown:
        summary = run_conditions(
            work.recipe,
            plan,
            work.out,
            overrides=work.changes,
            resume=work.resume,
            single=SingleRun(
                keep_checkpoints=repeats.keep_checkpoints,
                reports=repeats.reports,
                progress=shown.progress,
                callbacks=[shown.watcher(epochs=False)],
            ),
            on_row=lambda row: shown.run_ended(row, len(plan.pairs)),
        )
    typer.echo(to_markdown(summary))
    typer.echo(f"Study: {work.out / 'summary.md'}")


@study_app.command()
@spread
def search(
    work: Work,
    space: Annotated[
        Path, typer.Option(callback=there, help="YAML file: recipe key -> choices or range")
    ],
    method: Annotated[Literal["grid", "random", "bayes"], typer.Option()] = "bayes",
    trials: Annotated[int, typer.Option(min=1)] = 30,
) -> None:
    """Search for a better recipe by validation; only the winner is tested, once."""
    work.check()
    from medtl.studies.search import Search, read_space, run_search, to_markdown
    from medtl.studies.single import SingleRun

    wanted = Search(read_space(space), method, trials)
    with bars() as shown:
        found = run_search(
            work.recipe,
            wanted,
            work.out,
            overrides=work.changes,
            single=SingleRun(progress=shown.progress, callbacks=[shown.watcher(epochs=False)]),
            resume=work.resume,
            on_trial=lambda _: shown.advance("Trials", wanted.size),
        )
    typer.echo(to_markdown(found))
    typer.echo(f"Best recipe: {work.out / 'best_recipe.yaml'}")


@study_app.command()
def forgetting(
    start: Annotated[Path, typer.Argument(callback=there, help="the earlier run")],
    tuned: Annotated[Path, typer.Argument(callback=there, help="the run that went on from it")],
    data: Annotated[
        Path, typer.Argument(callback=there, help="the manifest of one of them, or another one")
    ],
    out: Out,
) -> None:
    """Ask whether tuning cost what the start network could: both on the same test cases."""
    from medtl.run.folder import Run
    from medtl.studies.learned.forgetting import forgetting_guard, forgetting_markdown

    with bars() as shown:
        found = forgetting_guard(Run(start), Run(tuned), data, out, progress=shown.progress)
    typer.echo(forgetting_markdown(found))


StudyName = Annotated[str, typer.Argument(help="a study folder, or FOLDER:CONDITION")]


@study_app.command()
def compare(
    first: StudyName,
    second: StudyName,
    measure: Annotated[str, typer.Option(help="a column of the rows, auroc@site=north")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write too")] = None,
) -> None:
    """Compare two studies, or two conditions of one, paired by seed or fold."""
    from medtl.storage.atomic import write_json
    from medtl.studies.compare import compare_studies, to_markdown

    comparison = compare_studies(first, second, measure=measure or None)
    if out is not None:
        write_json(out, comparison.to_json())
    typer.echo(to_markdown(comparison))


@study_app.command()
def ensemble(
    study: Annotated[
        Path, typer.Argument(callback=there, help="a study folder whose seeds share one split")
    ],
    condition: Annotated[str | None, typer.Option(help="default: the reference")] = None,
) -> None:
    """Average the models of a study's seeds, beside each of them alone."""
    from medtl.studies.ensemble import ensemble_study, to_markdown

    found = ensemble_study(study, condition=condition)
    typer.echo(to_markdown(found))
    typer.echo(f"Ensemble: {found.folder}")


@study_app.command()
def summary(
    study: Annotated[Path, typer.Argument(callback=there, help="a study folder, finished or not")],
    measure: Annotated[str, typer.Option(help="a column of the rows, auroc@site=north")] = "",
) -> None:
    """Sum up again what a study has found so far, for any measure of its rows."""
    from medtl.studies.summary import summarise_study, to_markdown

    typer.echo(to_markdown(summarise_study(study, measure=measure or None)))
