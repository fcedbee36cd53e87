"""What lies on the desk of somebody who reads a how-to page: the files that its commands name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tiny_study import write_tiny_study

HERE = Path(".")


def study() -> None:
    """Write `recipe.yaml` with its manifest and images."""
    write_tiny_study(HERE)


def finished_run() -> None:
    """Write a study, and train it to `runs/first`."""
    study()
    _train(HERE / "recipe.yaml", HERE / "runs" / "first")


def other_patients(folder: Path, name: str = "Lee") -> Path:
    """Write a study of other patients, whose images are no copies of the first one's."""
    recipe = write_tiny_study(folder)
    table = folder / "manifest.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("Kim-", f"{name}-"), "utf-8")
    for number, file in enumerate(sorted((folder / "images").glob("*.png"))):
        pixels = np.array(Image.open(file))
        pixels[0, :2] = 150 + len(name), 200 + number % 50
        Image.fromarray(pixels).save(file)
    return recipe


def _train(recipe: Path, out: Path, *changes: str) -> None:
    """Train without a report, which none of the pages asks of the desk."""
    from medtl.run.chain import run_study
    from medtl.run.check import read_recipe

    run_study(read_recipe(recipe, [*changes]), out)


def sheet_of_a_hospital() -> None:
    """Write `films/` with DICOM headers, `sheet.xlsx` whose key they hold, and a manifest."""
    from medtl.demo.chest import write_chest_study

    drawn = pd.read_csv(write_chest_study(HERE / "drawn", patients=14, workers=1))
    (HERE / "drawn" / "images").rename("films")
    names = [Path(name).stem for name in drawn["image"]]
    told = {"Accession number": names, "Pneumonia": drawn["nodule"].map({0: "no", 1: "yes"})}
    pd.DataFrame({**told, "view": drawn["view"]}).to_excel("sheet.xlsx", index=False)


def another_hospital() -> None:
    """A run, a manifest of other patients, and a table of what its model said of them."""
    finished_run()
    other_patients(HERE / "there")
    from typed import medtl

    medtl("predict", "runs/first", "there/manifest.csv", "--out", "there.csv")
    scores, told = pd.read_csv("there.csv"), pd.read_csv("there/manifest.csv")
    scores.assign(y_true=told["bright"].to_numpy()).to_csv("there.csv", index=False)


def marks_of_readers() -> None:
    """`marks.csv`: four readers of 40 cases, without and with a model."""
    rng = np.random.default_rng(0)
    rows = [
        (case, reader, modality, case % 2, round(3 + 2 * (case % 2 - 0.5) + rng.normal(), 1))
        for case in range(40)
        for reader in "ABCD"
        for modality in ("alone", "with model")
    ]
    names = ["case_id", "reader", "modality", "truth", "score"]
    pd.DataFrame(rows, columns=names).to_csv("marks.csv", index=False)


def run_and_tables() -> None:
    """A run, predictions that another tool made, and the images of two months."""
    finished_run()
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2
    cells = {"case_id": [f"c{n}" for n in range(60)], "patient_id": range(60), "y_true": truth}
    pd.DataFrame({**cells, "y_score": (0.5 * truth + rng.random(60) / 2).round(3)}).to_csv(
        "predictions.csv", index=False
    )
    other_patients(HERE / "march", "March")
    (HERE / "march" / "images").rename("images_of_march")
    other_patients(HERE / "april", "April")
    from typed import medtl

    medtl("predict", "runs/first", "april/images", "--out", "april.csv")


def secrets() -> None:
    """A run, and strings that must not be found in it."""
    finished_run()
    Path("strings.txt").write_text("Kim-1234\nHospital of Nowhere\n", encoding="utf-8")


def films_in_a_list() -> None:
    """A run, and `films.csv`, images of other patients without a label."""
    finished_run()
    other_patients(HERE / "others")
    table = pd.read_csv("others/manifest.csv")
    table["image"] = "others/" + table["image"]
    table[["image", "patient_id"]].to_csv("films.csv", index=False)


def weights_of_others() -> None:
    """A file of weights, a pickled network, and a table of embeddings with its sheet."""
    import timm
    import torch
    from safetensors.torch import save_file

    network = timm.create_model("densenet121", num_classes=18, in_chans=1)
    save_file(network.state_dict(), "found.safetensors")
    torch.save(torch.nn.Linear(4, 2), "pickled.pt")
    rng = np.random.default_rng(0)
    ids = [f"i{n:03d}" for n in range(60)]
    vectors = pd.DataFrame(rng.normal(size=(60, 8)), columns=[f"f{n}" for n in range(8)])
    vectors.assign(image_id=ids).to_parquet("vectors.parquet")
    told = {"image_id": ids, "patient_id": [f"p{n // 2}" for n in range(60)]}
    pd.DataFrame({**told, "effusion": [n // 2 % 2 for n in range(60)]}).to_csv(
        "sheet.csv", index=False
    )


def dicom_run() -> None:
    """A run of DICOM films, which lie in `films/`."""
    from medtl.demo.chest import write_chest_study

    write_chest_study(HERE, patients=24, workers=1)
    recipe = Path(__file__).with_name("desk_of_films.yaml")
    shutil.copy(recipe, "recipe.yaml")
    _train(HERE / "recipe.yaml", HERE / "runs" / "first")
    shutil.copytree("images", "films")
    shutil.copytree("images", "incoming")


def releases() -> None:
    """Folders as a Decathlon, an nnU-Net and a SIIM release have them, and a study of masks."""
    import nibabel

    def volumes(folder: str, names: Mapping[str, str]) -> None:
        for number, (image, label) in enumerate(names.items()):
            for path, top in ((image, 90), (label, 3)):
                values = np.arange(16 * 16 * 8).reshape(16, 16, 8) * (number + 1) % top
                there = HERE / folder / path
                there.parent.mkdir(parents=True, exist_ok=True)
                nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4)).to_filename(there)

    told: dict[str, object] = {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}
    pairs = {f"imagesTr/h{n}.nii.gz": f"labelsTr/h{n}.nii.gz" for n in range(4)}
    volumes("Task04_Hippocampus", pairs)
    listed = [{"image": f"./{image}", "label": f"./{label}"} for image, label in pairs.items()]
    decathlon = {**told, "name": "H", "modality": {"0": "MRI"}, "training": listed, "test": []}
    Path("Task04_Hippocampus/dataset.json").write_text(json.dumps(decathlon))

    volumes("Dataset004", {f"imagesTr/{n}_0000.nii.gz": f"labelsTr/{n}.nii.gz" for n in "abc"})
    names = {"background": 0, "anterior": 1, "posterior": 2}
    nnunet = {"channel_names": {"0": "T1"}, "labels": names, "file_ending": ".nii.gz"}
    Path("Dataset004/dataset.json").write_text(json.dumps(nnunet))
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    Path("Dataset004/splits_final.json").write_text(json.dumps(folds))

    uids = [f"1.2.276.{n}" for n in range(300, 306)]
    for uid in uids:
        film = HERE / "siim" / "dicom-images-train" / f"1.{uid}" / f"2.{uid}" / f"{uid}.dcm"
        film.parent.mkdir(parents=True)
        film.touch()
    rows = [f"{uid}, {'1000 3 1021 4' if uid == uids[0] else '-1'}" for uid in uids]
    Path("siim/train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *rows]))

    volumes(".", {f"images/v{n}.nii.gz": f"masks/v{n}.nii.gz" for n in range(3)})
    study = {"image": [f"images/v{n}.nii.gz" for n in range(3)], "patient_id": ["a", "b", "c"]}
    masks = [f"masks/v{n}.nii.gz" for n in range(3)]
    pd.DataFrame({**study, "mask": masks}).to_csv("manifest.csv", index=False)


def several_studies() -> None:
    """A study, cross-validations to compare, and runs of two hospitals one after the other."""
    from typed import medtl

    finished_run()
    for name, seed in (("kfold", 0), ("other_kfold", 1)):
        folds = ["study", "kfold", "recipe.yaml", f"run.seed={seed}", "data.split.seed=0"]
        medtl(*folds, "--folds", "2", "--baseline", "none", "--out", f"runs/{name}")
    for name in ("north", "south"):
        other_patients(HERE / name, name)
    _train(HERE / "north" / "recipe.yaml", HERE / "runs" / "north")
    weights = Path("runs/north/checkpoints/best.safetensors").resolve()
    start = f"model.weights={{source: file, path: {weights}}}"
    _train(HERE / "south" / "recipe.yaml", HERE / "runs" / "south", start)
    judged = {"image": "images/001_0.png", "target": "bright", "cell": "1", "verdict": "wrong"}
    pd.DataFrame([{**judged, "new_label": "0"}]).to_csv("audit_judged.csv", index=False)


DESKS: Mapping[str, Callable[[], None]] = {
    "bone-age": study,
    "clinic": dicom_run,
    "edge": finished_run,
    "export": dicom_run,
    "learning": films_in_a_list,
    "many-machines": films_in_a_list,
    "other-hospitals": another_hospital,
    "own-data": sheet_of_a_hospital,
    "predictions-from-elsewhere": lambda: None,
    "privacy": secrets,
    "readers": marks_of_readers,
    "report": run_and_tables,
    "segmentation": study,
    "segmentation-data": releases,
    "speed": study,
    "stress": finished_run,
    "studies": several_studies,
    "weights": weights_of_others,
}
"""Page -> what lies there before its first block."""
