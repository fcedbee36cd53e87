"""A run's network in the layouts of others: a MONAI bundle, and a folder for Hugging Face."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import torch

from medtl import __version__
from medtl.networks.backbones import is_classifier
from medtl.run.edge.graph import Scored
from medtl.run.edge.papers import STATUS, write_contract, write_papers
from medtl.run.files import refuse_existing
from medtl.storage.atomic import write_json, write_text
from medtl.storage.yaml import dump_yaml

if TYPE_CHECKING:
    from medtl.prediction.sink import TrainedModel
    from medtl.run.folder import Run

Layout = Literal["monai", "hugging-face"]


def export_layout(run: Run, out: Path, layout: Layout) -> Path:
    """Write a run in another layout; return its folder.

    Args:
        run: Trained and evaluated.
        out: A new folder.
        layout: Whose.

    Raises:
        RunError: When the folder is not free, or the run was not evaluated.
    """
    refuse_existing(out, resume=False)
    metrics, trained = run.metrics, run.trained
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".layout-", dir=out.parent) as temporary:
        folder = Path(temporary) / "folder"
        folder.mkdir()
        LAYOUTS[layout](trained, run, folder)
        write_papers(trained, run, folder, metrics)
        if out.is_dir():
            out.rmdir()
        shutil.move(folder, out)
    return out


def _write_bundle(trained: TrainedModel[Any, Any], run: Run, folder: Path) -> None:
    """The network as TorchScript, with a configuration that MONAI reads.

    Reference:
        MONAI bundle specification (docs.monai.io, "MONAI Bundle Specification").
    """
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    scored = Scored(trained).eval()
    example = scored.example(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that stay as they are
        traced: Any = torch.jit.trace(scored, example)  # type: ignore[no-untyped-call]
        outputs = scored(*example)
    traced.save(str(folder / "models" / "model.ts"))
    write_contract(trained, run, folder, scored.told)
    write_json(folder / "configs" / "inference.json", _inference(scored.told, example))
    metadata = _metadata(trained, run, example[0], outputs)
    write_json(folder / "configs" / "metadata.json", metadata)
    write_text(folder / "docs" / "README.md", _readme(run, "Run it: see medtl's docs/edge.md."))


def _inference(told: Mapping[str, Any], example: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """The configuration: network, preprocessing, windows, and a command that prints scores."""
    windows = told["windows"]
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    after: dict[str, Any] = {"_target_": "Identity"}
    if windows is not None:
        inferer = {
            "_target_": "SlidingWindowInferer",
            "roi_size": windows["patch"],
            "overlap": windows["overlap"],
            "mode": "gaussian",
        }
        after = {"_target_": "Activations", told["decode"]: True}
    numbers = f"$torch.zeros(1, {example[1].shape[1]})" if len(example) > 1 else None
    called = "network=@network_def" + (", inputs=@inputs" if numbers else "")
    return {
        "imports": ["$import functools", "$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "images": [],
        **({"inputs": numbers} if numbers else {}),
        "network_def": {
            "_target_": "torch.jit.load",
            "f": "$@bundle_root + '/models/model.ts'",
            "map_location": "@device",
        },
        "preprocessing": {
            "_target_": "medtl.prediction.portable.Preparation",
            "folder": "@bundle_root",
        },
        "inferer": inferer,
        "postprocessing": after,
        "score": {
            "_target_": "Compose",
            "transforms": [
                "@preprocessing",
                "$lambda image: torch.as_tensor(image)[None]",
                f"$functools.partial(@inferer, {called})",
                "$lambda scores: scores[0].detach()",
                "@postprocessing",
            ],
        },
        "run": ["$print(*map(@score, @images), sep='\\n')"],
    }


def _metadata(
    trained: TrainedModel[Any, Any], run: Run, image: torch.Tensor, outputs: torch.Tensor
) -> dict[str, Any]:
    """What a bundle says of itself."""
    study = run.stored_recipe.get("study") or {}
    labels = {str(number): name for number, name in enumerate(trained.task.labels)}

    def tensor(array: torch.Tensor, kind: str, meaning: Mapping[str, str]) -> dict[str, Any]:
        return {
            "type": kind,
            "format": kind,
            "modality": run.stored_recipe["image"].get("modality", ""),
            "num_channels": array.shape[1],
            "spatial_shape": list(array.shape[2:]),
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": outputs.ndim > 2,
            "channel_def": dict(meaning),
        }

    channels = {str(number): "image" for number in range(image.shape[1])}
    return {
        "version": __version__,
        "changelog": {__version__: "exported by medtl"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medtl": __version__},
        "name": str(study.get("title") or run.path.name),
        "task": str(study.get("question") or ""),
        "description": f"Trained by medtl. {STATUS}",
        "authors": str(study.get("authors") or "not stated"),
        "copyright": "see LICENSE.md",
        "intended_use": str(study.get("intended_use") or "not stated"),
        "network_data_format": {
            "inputs": {"image": tensor(image, "image", channels)},
            "outputs": {"pred": tensor(outputs, "probabilities", labels)},
        },
    }


def _write_hub(trained: TrainedModel[Any, Any], run: Run, folder: Path) -> None:
    """`config.json`, `model.safetensors` and `README.md` with the Hub's front matter."""
    write_contract(trained, run, folder, Scored(trained).told)
    network = _as_timm(trained)
    if network is None:
        shutil.copy(run.files.best, folder / "model.safetensors")
        write_json(folder / "config.json", {"library": "medtl", "recipe": trained.meta["recipe"]})
    else:
        from timm.models import save_for_hf

        preprocessor: Any = trained.reader.require_images()
        size = (preprocessor.channels, *preprocessor.grid_shape)
        named = {"label_names": list(trained.task.labels)}
        seen = {"input_size": size, "mean": preprocessor.mean, "std": preprocessor.std}
        save_for_hf(
            network, str(folder), model_config=named, data_config=seen, safe_serialization=True
        )
    study = run.stored_recipe.get("study") or {}
    front = {
        "license": "other",
        "license_name": "see-license",
        "license_link": "LICENSE.md",
        "library_name": "medtl" if network is None else "timm",
        "pipeline_tag": "image-classification" if trained.task.encode is None else
        "image-segmentation",
        "tags": ["medical", "research-only", *(["synthetic"] if study.get("synthetic") else [])],
    }  # fmt: skip
    loads = (
        'timm.create_model("local-dir:FOLDER", pretrained=True) loads it; its outputs are logits.'
        if network is not None
        else "medtl.run.trained.load_trained(FOLDER / 'model.safetensors') loads it."
    )
    write_text(folder / "README.md", f"---\n{dump_yaml(front)}---\n\n{_readme(run, loads)}")


def _as_timm(trained: TrainedModel[Any, Any]) -> Any:
    """A classifier as the timm network that it is, None where it is something else."""
    model = trained.model
    if not is_classifier(model) or trained.task.inputs.width or trained.meta.get("removed"):
        return None
    if trained.recipe.model.reuse_until or not isinstance(model.head.linear, torch.nn.Linear):
        return None
    import timm

    preprocessor: Any = trained.reader.require_images()
    network: Any = timm.create_model(
        trained.recipe.model.backbone,
        num_classes=model.head.linear.out_features,
        in_chans=preprocessor.channels,
    )
    own = {**model.backbone.state_dict()}
    name = network.default_cfg.get("classifier")
    if not isinstance(name, str):
        return None
    own |= {f"{name}.{key}": tensor for key, tensor in model.head.linear.state_dict().items()}
    theirs = network.state_dict()
    if own.keys() != theirs.keys() or any(own[k].shape != theirs[k].shape for k in own):
        return None
    network.load_state_dict(own)
    return network


def _readme(run: Run, loads: str) -> str:
    """The card of the run below how it is loaded."""
    card = run.path / "model_card.md"
    text = card.read_text("utf-8") if card.is_file() else f"# {run.path.name}\n\n{STATUS}\n"
    how = "contract.json holds the preprocessing; medtl.prediction.portable.Preparation does it."
    return f"{text}\n## How it is loaded\n\n{loads} {how}\n"


LAYOUTS: dict[Layout, Callable[..., None]] = {"monai": _write_bundle, "hugging-face": _write_hub}
