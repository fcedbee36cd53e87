"""How long one waits for a prediction: `medtl predict` beside a script that uses onnxruntime.

    python -m benchmarks.waiting EXPORTED IMAGES

EXPORTED is a folder of `medtl export --onnx` of a classifier, IMAGES a folder of PNG files. The
script does what a careful user writes for it: a list in, a table with scores, decisions and hashes
of the pixels out. It knows no DICOM, no odd pixels and no likeness to the training images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measured import cost_of, medtl

ROUNDS = 3

SCRIPT = """\
import hashlib, sys
import numpy as np, onnxruntime, pandas as pd
from PIL import Image
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
channels, rows, columns = given.shape[1:]
table, scores, hashes = pd.read_csv(sys.argv[2]), [], []
for path in table["image"]:
    pixels = np.asarray(Image.open(path).convert("L"))
    hashes.append(hashlib.sha256(pixels.tobytes()).hexdigest())
    small = np.asarray(Image.fromarray(pixels).resize((columns, rows)), np.float32) / 255
    batch = np.repeat(small[None, None], channels, axis=1)
    scores.append(float(session.run(None, {given.name: batch})[0].ravel()[0]))
table = table.assign(y_score=scores, decision=np.array(scores) >= 0.5, content_sha256=hashes)
table.to_csv(sys.argv[3], index=False)
"""


def main() -> None:
    """Predict one image and all of them, both ways in turn; print processor seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exported", type=Path)
    parser.add_argument("images", type=Path)
    asked = parser.parse_args()
    files = sorted(asked.images.resolve().glob("*.png"))
    with TemporaryDirectory() as folder:
        for part in (files[:1], files):
            listed = Path(folder, "list.csv")
            listed.write_text("\n".join(["image", *map(str, part)]) + "\n")
            ours, theirs = list[float](), list[float]()
            for turn in range(ROUNDS):
                out = Path(folder, f"{len(part)}_{turn}.csv")
                data = part[0] if len(part) == 1 else asked.images
                ours.append(medtl("predict", asked.exported, data, "--out", out).cpu_s)
                script = [sys.executable, "-c", SCRIPT, asked.exported / "model.onnx", listed]
                theirs.append(cost_of([*map(str, script), str(Path(folder, "own.csv"))]).cpu_s)
            ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
            print(
                f"{len(part)} images: medtl {median(ours):.2f} s, script {median(theirs):.2f} s, "
                f"{ratio:.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
