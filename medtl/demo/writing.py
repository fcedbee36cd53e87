"""A synthetic study on disk: images patient by patient, the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtl.cases.manifest import write_manifest
from medtl.errors import RunError


def write_study(
    out: Path,
    patients: int,
    studies: Iterator[list[dict[str, str]]],
    sidecar: Mapping[str, Any],
    *,
    what: str = "images",
    megabytes: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write all phantoms and return the manifest.

    Args:
        out: Folder to write to; made, with `images/` in it, when it is missing.
        patients: Number of phantoms.
        studies: Writes the next phantom when asked for its rows of the manifest.
        sidecar: What the manifest's columns mean.
        what: What is written, for messages.
        megabytes: Room that it needs, for messages.
        progress: Called after each phantom with the number done and the number of all.

    Raises:
        RunError: No patient is asked for, or the folder cannot be written.
    """
    if patients < 1:
        raise RunError(f"{patients} patients are asked for", expected="1 or more", where="demo")
    rows = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for done, study in enumerate(studies, start=1):
            rows += study
            if progress:
                progress(done, patients)
    except OSError as error:
        raise RunError(
            f"the {what} cannot be written: {error.strerror or type(error).__name__}",
            where=out.name,
            fix=f"Check that the folder may be written and has {megabytes} MB of free space",
        ) from error
    manifest = out / "manifest.csv"
    write_manifest(rows, manifest, sidecar)
    return manifest
