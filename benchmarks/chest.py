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
from typing import Any

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
        name: In the table.
        overrides: Of the recipe for medtl; None for fastai.
        is_head: Only a head on frozen layers is trained.
        reads_again: Images are decoded whenever they are asked for, too.
        finds_cache: It is run again with what the side named here has left in the cache.
    """

    name: str
    overrides: tuple[str, ...] | None
    is_head: bool = False
    reads_again: bool = False
    finds_cache: str = ""

    def folder(self, out: Path, seed: int) -> Path:
        """Where one seed of it works."""
        return out / f"{self.name.replace(',', '').replace(' ', '_')}_{seed}"


COMMON = ("run.tensorboard=false", "run.seeds={augment: 0, split: 0}")
"""Of all sides: one split, and augmented views that seeds share."""

OFF, ONE_VIEW = "run.cache_gb=0", "finetune.cached_views=1"
SIDES = (
    Side("every cache off", (OFF,), reads_again=True),
    Side("caches off", (OFF,)),
    Side("caches on, one view", (ONE_VIEW,)),
    Side("caches on, one view, again", (ONE_VIEW,), finds_cache="caches on, one view"),
    Side("fastai fine_tune", None),
    Side("two stages, caches off", (TWO_STAGES, OFF)),
    Side("two stages, one view", (TWO_STAGES, ONE_VIEW)),
    Side("head, caches off", (HEAD_STAGE, OFF), is_head=True),
    Side("head, one view", (HEAD_STAGE, ONE_VIEW), is_head=True),
    Side("head, three views", (HEAD_STAGE, "finetune.cached_views=3"), is_head=True),
    Side("fastai, frozen", None, is_head=True),
)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fastai", nargs=3, help=argparse.SUPPRESS)  # seed, epochs, file
    asked = parser.parse_args()
    if asked.fastai:
        seed, frozen, file = asked.fastai
        fastai(asked.manifest.resolve(), int(seed), frozen == "head", Path(file))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in range(asked.seeds):
        for side in SIDES:
            run_side(side, seed, asked.manifest.resolve(), asked.out.resolve())
    write_table(asked.out, asked.seeds)


def run_side(side: Side, seed: int, manifest: Path, out: Path) -> None:
    """Run one side with one seed, unless it is done; note its processor seconds."""
    folder = side.folder(out, seed)
    done = folder / "cost.json"
    if done.is_file():
        return
    folder.mkdir(exist_ok=True)
    predictions = folder / "predictions.csv"
    if side.overrides is None:
        part = "head" if side.is_head else "all"
        command = [sys.executable, "-m", "benchmarks.chest", str(manifest), "--out", str(out),
                   "--fastai", str(seed), part, str(predictions)]  # fmt: skip
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

    from medtl.build import build_contract, build_manifest, build_task
    from medtl.check import read_recipe
    from medtl.networks.weights import WeightsSource, create_backbone
    from medtl.prepared import split_cases

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
    """Processor seconds and test AUROC of every side, its ratio to the first of its kind."""
    found = [figures(side, out, seeds) for side in SIDES]
    (out / "chest.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = ["| side | processor seconds | test AUROC, 95 % interval, each seed |", "|---|--:|---|"]
    for row in found:
        shown = ", ".join(
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in row["auroc"]
        )
        spent = ", ".join(f"{s:.0f}" for s in row["seconds"])
        lines.append(f"| {row['name']} | {spent} | {shown} |")
    text = "\n".join(lines) + "\n"
    (out / "chest.md").write_text(text, encoding="utf-8")
    print(text)


def figures(side: Side, out: Path, seeds: int) -> dict[str, Any]:
    """What one side took and reached."""
    import pandas as pd

    from medtl.metrics.evaluate import evaluate

    files = [side.folder(out, seed) / "cost.json" for seed in range(seeds)]
    costs = [json.loads(file.read_text("utf-8")) for file in files]
    measures = []
    for cost in costs:
        table = pd.read_csv(cost["predictions"]).query("split == 'test'")
        test = [m for m in evaluate(table).measures if m.name == "auroc" and m.subset == "all"]
        measures.append({key: getattr(test[0], key) for key in ("value", "low", "high", "n")})
    return {**asdict(side), "seconds": [cost["seconds"] for cost in costs], "auroc": measures}


if __name__ == "__main__":
    main()
