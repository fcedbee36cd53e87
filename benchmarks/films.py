"""A large set of films: what starting, being killed, coming again and predicting cost.

    python -m benchmarks.films --n 20000 --out FOLDER    # under 3 GB; delete FOLDER afterwards

FOLDER gets n small DICOM films and its own cache of decoded images. Printed are the bytes that each
process read, what a SIGKILL in the middle of decoding lost, and the most memory of `medtl predict`
of 1,000 films and of all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.measured import Cost, cost_of
from medtl.demo.dicom import Encoding, Label, Scanner, write_film
from medtl.storage.atomic import TEMPORARY_MARK

SIDE = 200
"""Rows and columns of a film: 80 kB of pixels."""

PER_FOLDER = 1000

SCANNER = Scanner(
    *("phantom", "north", "DX", SIDE, SIDE, 350.0, "ImagerPixelSpacing"),
    (Encoding(ExplicitVRLittleEndian, 12, slope=1.0),),
)

RECIPE = """\
study: {{question: "Is the square there?", intended_use: "None. SYNTHETIC.", synthetic: true}}
data: {{manifest: {manifest}.csv, target: [square], ids: pseudonymous}}
image: {{modality: cxr, size: 64}}
model: {{backbone: tf_efficientnet_lite0, weights: bundled}}
finetune: {{stages: [{{name: head, train: head, epochs: 2, lr: {rate}}}]}}
run: {{workers: 0}}
"""

TOLD = """\
import atexit, os
from pathlib import Path
def tell():
    Path(os.environ["BYTES_READ"]).write_text(Path("/proc/self/io").read_text().split()[1])
atexit.register(tell)
from medtl.cli.main import main
main()
"""
"""`medtl`, leaving how many bytes it read (Linux)."""


def write_films(folder: Path, n: int) -> None:
    """Write n films, half of them with a bright square, their manifests and the recipes."""
    if (folder / "films.csv").exists():
        return
    draw = np.random.default_rng(3)
    header, lines = "image,patient_id,split,square", list[str]()
    for number in range(n):
        place = Path(f"films/{number // PER_FOLDER:03d}")
        if number % PER_FOLDER == 0:
            (folder / place).mkdir(parents=True, exist_ok=True)
        film = draw.random((SIDE, SIDE), dtype=np.float32)
        row, column = draw.integers(20, SIDE - 60, 2)
        film[row : row + 40, column : column + 40] += number % 2
        image = f"{place}/{number:05d}.dcm"
        label = Label(f"p{number}", "F", 50, "PA", 1, f"films {number}")
        write_film(folder / image, film / 2, SCANNER, SCANNER.encodings[0], label)
        split = ("train", "train", "train", "val", "test")[number // 2 % 5]
        lines.append(f"{image},p{number:05d},{split},{number % 2}")
    for name, part in (("films", lines), ("small", lines[:300]), ("thousand", lines[:1000])):
        (folder / f"{name}.csv").write_text("\n".join([header, *part]) + "\n")
    for name, manifest, rate in (
        ("all", "films", 5e-3),
        ("other", "films", 1e-3),
        ("first", "small", 5e-3),
    ):
        (folder / f"{name}.yaml").write_text(RECIPE.format(manifest=manifest, rate=rate))


def medtl(folder: Path, *arguments: object) -> tuple[Cost, int]:
    """Run a command in the folder, with its own cache; return its cost and the bytes it read."""
    told = folder / "bytes.txt"
    os.environ["BYTES_READ"] = str(told)
    cost = cost_of([sys.executable, "-c", TOLD, *map(str, arguments)], cwd=folder)
    return cost, int(told.read_text())


def killed(folder: Path, after: Callable[[], bool], *arguments: object) -> float:
    """Run a command in the folder until something is so, kill it, return the seconds until then."""
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("medtl")), *map(str, arguments)]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while not after() and child.poll() is None:
        time.sleep(0.05)
    if child.poll() is not None:
        sys.exit(f"{arguments} ended before it was killed")
    child.send_signal(signal.SIGKILL)
    child.wait()
    return time.perf_counter() - started


def kept(cache: Path) -> int:
    """Images in the shards of a cache."""
    indexes = [path.read_text().partition("\n")[2] for path in cache.rglob("[!.]*.json")]
    return sum(len(json.loads(text)["entries"]) for text in indexes)


def main() -> None:
    """Make the films, run the commands, print what each cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20_000)
    asked = parser.parse_args()
    folder = asked.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_films(folder, asked.n)
    size = sum(path.stat().st_size for path in folder.rglob("*.dcm"))
    print(f"{asked.n:,} films, {size / 1e9:.2f} GB", flush=True)
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    killed(folder, lambda: kept(cache) >= asked.n // 4, "decode", "all.yaml", "--out", "read.csv")
    there, unfinished = kept(cache), len([*cache.rglob(f".{TEMPORARY_MARK}*")])
    print(f"killed while decoding: {there:,} images kept, {unfinished} shard lost", flush=True)
    for recipe in ("all", "other"):
        (folder / f"{recipe}.csv").unlink(missing_ok=True)
        cost, read = medtl(folder, "decode", f"{recipe}.yaml", "--out", f"{recipe}.csv")
        print(f"medtl decode {recipe}.yaml: {cost}, {read / 1e9:.2f} GB read", flush=True)
    log = folder / "run" / "log.txt"
    shutil.rmtree(log.parent, ignore_errors=True)
    seconds = killed(
        folder,
        lambda: log.exists() and "stage head" in log.read_text(),
        *("run", "other.yaml", "--out", "run"),
    )
    print(f"medtl run other.yaml: training after {seconds:.0f} s", flush=True)
    shutil.rmtree(folder / "first", ignore_errors=True)
    medtl(folder, "run", "first.yaml", "--out", "first")
    for manifest in ("thousand", "films"):
        new = folder / "new.csv"
        new.unlink(missing_ok=True)
        cost, _ = medtl(folder, "predict", "first", f"{manifest}.csv", "--out", new)
        print(f"medtl predict first {manifest}.csv: {cost}", flush=True)


if __name__ == "__main__":
    main()
