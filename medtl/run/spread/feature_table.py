"""The numbers that a run's network makes of an image, before its last layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medtl.cases.paths import path_below
from medtl.data.reader import read_in_parts
from medtl.errors import RunError
from medtl.networks.backbones import is_classifier
from medtl.prediction.sink import PREDICT_BATCH, TrainedModel
from medtl.storage.parts import WHOLE, Part, Share
from medtl.training.runtime import Runtime
from medtl.types import Manifest, Progress, silent


def features_of(
    trained: TrainedModel[Any, Any],
    manifest: Manifest,
    share: Share = WHOLE,
    *,
    progress: Progress = silent,
) -> Part:
    """Return the pooled features of every image, one row each, float32.

    Args:
        trained: The best model of a run.
        manifest: All cases.
        share: Of them.
        progress: Told of reading and computing.

    Returns:
        Columns `case_id`, `patient_id`, `split`, `file` and `feature_0000` and so on; in the facts
        under `unread` the files that could not be read, with the cause.

    Raises:
        RunError: When the network is no single classifier.
    """
    import pandas as pd

    network = trained.model
    if not is_classifier(network):
        raise RunError(
            f"a {type(network).__name__.lower()} has no pooled features",
            expected="a run of one network that classifies or measures",
        )
    runtime, reader = Runtime(trained.device, trained.precision), trained.reader
    runtime.place(network).eval()
    standardise, by_id = reader.preprocessor.standardise, {c.case_id: c for c in manifest.cases}
    tables, unread, done = [], list[dict[str, str]](), 0
    for store, records in read_in_parts(
        manifest.cases, replace(reader, root=manifest.root), PREDICT_BATCH, share
    ):
        unread += [
            {"file": path_below(by_id[r.case_id].image, manifest.root), "cause": r.cause}
            for r in records
            if r.cause
        ]
        done += len(records)
        if store.case_ids:
            units = [standardise(store.unit(row)) for row in range(len(store.case_ids))]
            batch = runtime.to_device(torch.from_numpy(np.stack(units)))
            with torch.inference_mode(), runtime.autocast():
                pooled = network.features(batch).float().cpu().numpy()
            cases = [by_id[name] for name in store.case_ids]
            about = {
                "case_id": store.case_ids,
                "patient_id": [case.patient_id for case in cases],
                "split": [case.split for case in cases],
                "file": [path_below(case.image, manifest.root) for case in cases],
            }
            names = [f"feature_{number:04d}" for number in range(pooled.shape[1])]
            numbers = pd.DataFrame(pooled, columns=names)
            tables.append(pd.concat([pd.DataFrame(about), numbers], axis=1))
        progress("Features", done, len(manifest.cases) // share.of)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Part(table, {"unread": unread})
