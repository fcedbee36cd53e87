"""Commands for many machines: work in shares, their merging, scripts for SLURM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import (
    MaybeRecipe,
    Overrides,
    RecipeFile,
    RunFolder,
    Splits,
    listed,
    spread,
    there,
)
from medtl.errors import MedtlError

if TYPE_CHECKING:
    from medtl.run.spread.jobs import Job


@dataclass(frozen=True)
class Shares:
    """How work is spread over machines."""

    shard: Annotated[
        str, typer.Option(help="do one share, 2/4; then `medtl merge OUT` once all are done")
    ] = ""
    dask: Annotated[
        str, typer.Option(help="do all shares on a Dask cluster: its address, or local")
    ] = ""
    shares: Annotated[int, typer.Option(min=0, help="--dask: how many; 0: four a thread")] = 0

    @property
    def are_asked(self) -> bool:
        """Whether anything is stated.

        Raises:
            MedtlError: When two ways are.
        """
        if self.shard and self.dask:
            raise MedtlError("--shard and --dask are two ways", fix="State one of them")
        return bool(self.shard or self.dask)


def refuse_table(out: Path, stated: Shares) -> None:
    """Refuse a table that exists; one made of shares may be made of them again.

    Raises:
        RunError: As `medtl.run.predict.check_destination`.
    """
    from medtl.run.predict import check_destination
    from medtl.storage.parts import Parts

    check_destination(out, again=stated.are_asked and Parts(out).folder.is_dir())


def do_in_shares(job: Job, stated: Shares) -> None:
    """Do what was asked for of a job, and say what came of it."""
    from medtl.run.spread.jobs import do_share
    from medtl.storage.parts import WHOLE, Parts, Share

    with bars() as shown:
        if stated.dask:
            from medtl.run.spread.cluster import on_cluster

            lines = on_cluster(job, stated.dask, shares=stated.shares, progress=shown.progress)
        elif stated.shard:
            share = Share.parse(stated.shard)
            is_new = do_share(job, share, shown.progress)
            state = "done" if is_new else "there already"
            lines = [f"Share {share} {state}: {Parts(Path(job.out)).folder}"]
            lines += [f"When all are done: medtl merge {job.out}"]
        else:
            lines = job.finish([job.do(WHOLE, shown.progress)])
    typer.echo("\n".join(lines))


@spread
def decode(
    recipe: RecipeFile,
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="new table of what was read: CSV or Parquet")],
    shares: Shares,
) -> None:
    """Decode a recipe's images into the cache, so that every run of them starts at once."""
    refuse_table(out, shares)
    from medtl.run.spread.jobs import DecodeJob

    changes = tuple(overrides or ())
    do_in_shares(DecodeJob(str(recipe.absolute()), str(out.absolute()), changes), shares)


@spread
def features(
    run: RunFolder,
    data: Annotated[
        Path, typer.Argument(callback=there, help="manifest, folder of images, or one image")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="new table, CSV or Parquet")],
    splits: Splits = "",
    shares: Shares,
) -> None:
    """Write what a run's network makes of each image before its last layer."""
    refuse_table(out, shares)
    from medtl.run.spread.jobs import FeaturesJob

    run_path, images, table = (str(path.absolute()) for path in (run, data, out))
    do_in_shares(FeaturesJob(run_path, images, table, listed(splits)), shares)


def merge(
    out: Annotated[Path, typer.Argument(help="the --out that the shares were given")],
) -> None:
    """Make one file of all shares, after each of them was checked by its hash."""
    from medtl.run.spread.jobs import merge as merged

    typer.echo("\n".join(merged(out)))


def slurm(
    recipe: MaybeRecipe = None,
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option("--out", help="run folder, study folder, or table of predictions")
    ] = Path("runs/slurm"),
    folds: Annotated[
        int, typer.Option(min=0, max=20, help="a cross-validation, its folds as an array")
    ] = 0,
    predict: Annotated[
        Path | None, typer.Option(help="predict these images with the run in --run, in shares")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="--predict: the finished run")] = None,
    shares: Annotated[int, typer.Option(min=1, help="--predict: number of jobs")] = 8,
    hours: Annotated[int, typer.Option(min=1, help="of each job")] = 24,
    cpus: Annotated[int, typer.Option(min=1, help="of each job")] = 8,
    memory: Annotated[int, typer.Option(min=1, help="GB of each job")] = 32,
    gpus: Annotated[int, typer.Option(min=0, help="of each job")] = 1,
    partition: Annotated[str, typer.Option(help="queue of the cluster")] = "",
) -> None:
    """Print a script that submits SLURM jobs: medtl slurm RECIPE > jobs.sh; bash jobs.sh.

    With --predict it needs no recipe: medtl slurm --predict DATA --run RUN --out TABLE.
    """
    from medtl.run.spread.slurm import Resources, kfold_script, predict_script, run_script

    asked = Resources(hours, cpus, memory, gpus, partition)
    changes = list(overrides or ())
    if predict is not None:
        if run is None:
            raise MedtlError("no run to predict with", fix="State --run RUN beside --predict DATA")
        if recipe is not None:
            raise MedtlError(
                f"predictions need no recipe, and {recipe} is stated",
                fix="Leave it out: the run in --run has its own",
            )
        text = predict_script(run, predict, out, shares, asked)
    elif recipe is None:
        raise MedtlError("no recipe to run", fix="State a recipe, or --predict DATA --run RUN")
    elif folds:
        text = kfold_script(recipe, out, folds, changes, asked)
    else:
        text = run_script(recipe, out, changes, asked)
    typer.echo(text, nl=False)
