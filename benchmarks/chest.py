"""The chest X-ray recipe on real films: with its caches, without them, and fastai's `fine_tune`.

    .tools/bench/bin/python -m benchmarks.chest PATH/manifest.csv --out FOLDER --seeds 3

Every side is a process of its own with one thread: its processor seconds hold imports, reading,
training and predicting the test films. Both tools get the same films, split, pixels a side, epochs
and bundled ImageNet weights; all else is what each does by itself. A side that is done stays done:
repeat the command after a stop. The table goes to `FOLDER/chest.md`, the figures to
`FOLDER/chest.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

RECIPE = Path(__file__).parents[1] / "pipelines" / "chest_xray.yaml"
HEAD_EPOCHS = 10
HEAD_STAGE = (
    f"finetune.stages=[{{name: head, train: head, epochs: {HEAD_EPOCHS}, lr: 3e-3, patience: 99}}]"
)
TWO_STAGES = (
    "finetune.stages=[{name: head, train: head, epochs: 6, lr: 3e-3}, "
    "{name: top, train: [head, 'last:2'], epochs: 14, lr: {head: 1e-3, base: 5e-4}, "
    "warmup_epochs: 1}]"
)
"""The recipe without the stage that trains all layers, in which nothing can be saved."""


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
        kind: What is trained: the recipe's "three stages", "two stages", or a "head".
        name: In the table; a side is compared with the first one of its kind.
        overrides: Of the recipe for medtl; None for fastai.
        reads_again: Images are decoded whenever they are asked for, too.
        finds_cache: It is run again with what the side named here has left in the cache.
    """

    kind: Literal["three stages", "two stages", "head"]
    name: str
    overrides: tuple[str, ...] | None
    reads_again: bool = False
    finds_cache: str = ""

    def folder(self, out: Path, seed: int) -> Path:
        """Where one seed of it works."""
        return out / f"{self.name.replace(',', '').replace(' ', '_')}_{seed}"


COMMON = (
    *("run.tensorboard=false", "run.seeds={augment: 0, split: 0}"),
    *("run.members=1", "finetune.mix=null"),
)
"""Of all sides: one split, augmented views that seeds share, one network that fastai can be too."""

OFF, ONE_VIEW = "run.cache_gb=0", "finetune.cached_views=1"
SIDES = (
    Side("three stages", "every cache off", (OFF,), reads_again=True),
    Side("three stages", "caches off", (OFF,)),
    Side("three stages", "caches on, one view", (ONE_VIEW,)),
    Side(
        "three stages", "caches on, one view, again", (ONE_VIEW,), finds_cache="caches on, one view"
    ),
    Side("three stages", "fastai fine_tune", None),
    Side("two stages", "two stages, every cache off", (TWO_STAGES, OFF), reads_again=True),
    Side("two stages", "two stages, caches off", (TWO_STAGES, OFF)),
    Side("two stages", "two stages, one view", (TWO_STAGES, ONE_VIEW)),
    Side("head", "head, caches off", (HEAD_STAGE, OFF)),
    Side("head", "head, one view", (HEAD_STAGE, ONE_VIEW)),
    Side("head", "head, three views", (HEAD_STAGE, "finetune.cached_views=3")),
    Side("head", "fastai, frozen", None),
)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fastai", nargs=3, help=argparse.SUPPRESS)  # seed, kind, file
    asked = parser.parse_args()
    if asked.fastai:
        seed, kind, file = asked.fastai
        fastai(asked.manifest.resolve(), int(seed), kind == "head", Path(file))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in range(asked.seeds):
        for side in SIDES:
            run_side(side, seed, asked.manifest.resolve(), asked.out.resolve())
        write_table(asked.out, seed + 1)


def run_side(side: Side, seed: int, manifest: Path, out: Path) -> None:
    """Run one side with one seed, unless it is done; note its processor seconds."""
    folder = side.folder(out, seed)
    done = folder / "cost.json"
    if done.is_file():
        return
    folder.mkdir(exist_ok=True)
    predictions = folder / "predictions.csv"
    if side.overrides is None:
        command = [sys.executable, "-m", "benchmarks.chest", str(manifest), "--out", str(out),
                   "--fastai", str(seed), side.kind, str(predictions)]  # fmt: skip
    else:
        run = folder / f"run_{os.getpid()}"
        medtl = [str(Path(sys.executable).with_name("medtl"))]
        program = [sys.executable, "-m", "benchmarks.undecoded"] if side.reads_again else medtl
        command = [*program, "run", str(RECIPE), f"data.manifest={manifest}", f"run.seed={seed}",
                   *COMMON, *side.overrides, "--out", str(run)]  # fmt: skip
        predictions = run / "predictions.csv"
    cache = out / f"cache_{side.finds_cache or side.name}_{seed}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    done.write_text(json.dumps({"seconds": round(spent, 1), "predictions": str(predictions)}))
    print(f"{side.name}, seed {seed}: {spent:.0f} s", flush=True)


def fastai(manifest_path: Path, seed: int, is_head: bool, file: Path) -> None:
    """`vision_learner` as it comes on the films and the split of the recipe, bundled weights.

    Args:
        manifest_path: Of the films.
        seed: Of everything that is drawn.
        is_head: Ten epochs of the frozen network; else `fine_tune` with the epochs of the recipe.
        file: Where the test predictions go.
    """
    import pandas as pd
    import torch
    from fastai.vision import all as vision

    from medtl.networks.weights import WeightsSource, create_backbone
    from medtl.run.build import build_contract, build_manifest, build_task
    from medtl.run.check import read_recipe
    from medtl.run.prepare import split_cases

    recipe = read_recipe(RECIPE, [f"data.manifest={manifest_path}", *COMMON])
    manifest = build_manifest(recipe)
    task = build_task(recipe, manifest.cases)
    cases = split_cases(recipe, manifest, task).cases
    table = pd.DataFrame(
        {
            "case_id": [case.case_id for case in cases],
            "patient_id": [case.patient_id for case in cases],
            "split": [case.split for case in cases],
            "image": [str(case.image) for case in cases],
            "truth": task.truth_matrix(cases)[:, 0].astype(int),
        }
    )
    contract = build_contract(recipe)
    vision.set_seed(seed, reproducible=True)
    used = table[table["split"] != "test"]
    loaders = vision.ImageDataLoaders.from_df(
        used.assign(is_val=used["split"] == "val"),
        path="/",
        fn_col="image",
        label_col="truth",
        valid_col="is_val",
        bs=recipe.finetune.batch_size,
        num_workers=0,
        item_tfms=vision.Resize(recipe.image.size, "squish"),
        batch_tfms=[
            *vision.aug_transforms(),
            vision.Normalize.from_stats(contract.mean, contract.std, cuda=False),
        ],
        device=torch.device("cpu"),
    )
    backbone = recipe.model.backbone
    learner = vision.vision_learner(
        loaders, backbone, pretrained=False, normalize=False, metrics=vision.RocAucBinary()
    )
    weights, _ = create_backbone(backbone, WeightsSource("bundled"))
    learner.model[0].model.load_state_dict(weights.state_dict(), strict=True)
    epochs = [stage.epochs for stage in recipe.finetune.stages]
    with learner.no_bar():
        if is_head:
            learner.freeze()
            learner.fit_one_cycle(HEAD_EPOCHS)
        else:
            learner.fine_tune(sum(epochs[1:]), freeze_epochs=epochs[0])
        test = table[table["split"] == "test"]
        scores, _ = learner.get_preds(dl=loaders.test_dl(test))
    test = test.assign(label="pneumonia", y_true=test["truth"], y_score=scores[:, 1].numpy())
    test.drop(columns=["image", "truth"]).to_csv(file, index=False)


def write_table(out: Path, seeds: int) -> None:
    """Cost and test AUROC of every side, beside the first of its kind."""
    found = [figures(side, out, seed) for seed in range(seeds) for side in SIDES]
    (out / "chest.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = [
        "| side | seed | processor seconds | faster | test AUROC | less the first's |",
        "|---|--:|--:|--:|---|---|",
    ]
    for row in found:
        cells = [row["name"], row["seed"], f"{row['seconds']:.0f}", f"{row['faster']:.1f}x"]
        shown = [interval(row["auroc"]), interval(row["difference"], "+")]
        lines.append(f"| {' | '.join(map(str, [*cells, *shown]))} |")
    (out / "chest.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def figures(side: Side, out: Path, seed: int) -> dict[str, Any]:
    """What one side took and reached, and the first of its kind."""
    from medtl.evaluation.assemble import evaluate
    from medtl.metrics.comparison import paired_auroc

    first = next(other for other in SIDES if other.kind == side.kind)
    (seconds, table), (first_seconds, first_table) = (
        outcome(one, out, seed) for one in (side, first)
    )
    both = table.merge(first_table, on="case_id", suffixes=("", "_first"), validate="1:1")
    scores = both["y_score"], both["y_score_first"]
    difference = paired_auroc(both["y_true"], *scores, patients=both["patient_id"]).difference
    measures = evaluate(table).measures
    auroc = next(m for m in measures if m.name == "auroc" and m.subset == "all")
    return {
        **asdict(side),
        "seed": seed,
        "seconds": seconds,
        "faster": first_seconds / seconds,
        "auroc": {key: getattr(auroc, key) for key in ("value", "low", "high", "n", "n_patients")},
        "difference": {key: getattr(difference, key) for key in ("value", "low", "high")},
    }


def outcome(side: Side, out: Path, seed: int) -> tuple[float, pd.DataFrame]:
    """Processor seconds and test predictions of one side."""
    import pandas as pd

    cost = json.loads((side.folder(out, seed) / "cost.json").read_text("utf-8"))
    return cost["seconds"], pd.read_csv(cost["predictions"]).query("split == 'test'")


def interval(measure: dict[str, Any], sign: str = "") -> str:
    """A value and its 95 % interval."""
    value, low, high = (f"{measure[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    main()
