"""Places of the parts of a run: no other module spells the names of its files."""

from __future__ import annotations

from pathlib import Path

UNSEALED = frozenset({"checksums.json", ".lock", "log.txt", "tensorboard", "cache"})
"""Files and folders without a checksum: they may still grow, or hold no result."""


class RunFiles:
    """The paths of a run folder, whether or not something is there yet.

    Args:
        folder: The run folder. An evaluated table and an average of models leave a folder with
            some of the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.environment = folder / "environment.json"
        self.manifest = folder / "manifest.csv"
        self.cohort = folder / "cohort.json"
        self.quality = folder / "data_quality.json"
        self.history = folder / "history.csv"
        self.checkpoints = folder / "checkpoints"
        self.best = self.checkpoints / "best.safetensors"
        self.predictions = folder / "predictions.csv"
        self.overlaps = folder / "overlap.csv"
        self.metrics = folder / "metrics.json"
        self.gallery = folder / "gallery"
        self.gallery_list = self.gallery / "gallery.json"
        self.report = folder / "report.html"
        self.log = folder / "log.txt"
        self.lock = folder / ".lock"
        self.checksums = folder / "checksums.json"
        self.tensorboard = folder / "tensorboard"
        self.cache = folder / "cache"
