"""Staged training: frozen layers computed once, against two ways that compute them every epoch.

Random pixels in memory and random weights: what is learned means nothing, what it costs does not
depend on it. Two numbers of images are timed, of the slow sides one epoch: a network costs
the same for every image, so the line through the two gives 500 images and 10 epochs (one epoch of
the last stage), with what is paid once (building, checkpoints) counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.table import Row, missing, seconds

IMAGES, VALIDATION, SIDE, BATCH, EPOCHS = 500, 8, 224, 32, 10
SMALL = 128
"""Pixels a side of the chest recipe."""

FEW, MORE = 32, 256
NOTE = f"random weights; from {FEW} and {MORE} images and one epoch of the others"

HEAD_TARGETS = {1: (15, 8), 3: (4, 2.5)}
"""Views -> ratio asked for over fastai's default and over a loop with a strict freeze."""

STAGES = {
    "resnet18": ("head,last:1", 2),
    "tf_efficientnet_lite0": ("head,last:2", 3),
    "densenet121": ("head,last:1", 8),
}
"""Network -> what trains in the last stage, ratio asked for."""


def rows() -> Iterator[Row]:
    """Yield the head stage, then the last stage."""
    import torch

    torch.set_num_threads(1)
    for name in ("resnet18", "densenet121"):
        yield from head_stage(name)
    for name in STAGES:
        yield last_stage(name)
    for name in ("tf_efficientnet_lite0", "resnet18"):
        yield all_layers(name)


def head_stage(name: str) -> Iterator[Row]:
    """Ten epochs of the head, from pixels to the end, building the cache included."""
    views = {
        k: extrapolated(lambda n, k=k: medtl(name, "head", n, views=k, epochs=EPOCHS), IMAGES)
        for k in HEAD_TARGETS
    }
    for place, (peer, work_of) in enumerate((("fastai default", fastai), ("torch, strict", plain))):
        fault = None
        try:
            theirs = extrapolated(lambda n, work_of=work_of: work_of(name, n), IMAGES * EPOCHS)
        except ImportError as error:
            fault = error
        for k, ours in views.items():
            what = f"head stage, {name}, {IMAGES} images, {EPOCHS} epochs, {k} view(s)"
            target = HEAD_TARGETS[k][place] if name == "resnet18" else 0
            if fault is not None:
                yield missing(what, peer, fault, target)
            else:
                yield Row(what, peer, ours, theirs, theirs / ours, target, NOTE)


def last_stage(name: str) -> Row:
    """One epoch of the last stage from the cache: the difference of two lengths of training."""
    train, target = STAGES[name]
    what = f"last stage, {name}, one epoch of {IMAGES} images from the cache"
    peer = "fastai default, same depth"
    try:
        theirs = extrapolated(lambda n: fastai(name, n, is_last=True), IMAGES)
    except ImportError as fault:
        return missing(what, peer, fault, target)
    short, long = (
        extrapolated(lambda n, e=e: medtl(name, train, n, views=1, epochs=e), IMAGES)
        for e in (6, 12)
    )
    ours = (long - short) / 6
    return Row(what, peer, ours, theirs, theirs / ours, target, NOTE)


def all_layers(name: str) -> Row:
    """One epoch of a stage that trains every layer, augmented, beside a loop on ready tensors."""
    loop = plain(name, MORE, is_all=True, side=SMALL)
    medtl(name, "all", FEW, epochs=1, side=SMALL)()  # imports and first allocations
    short, long = (seconds(medtl(name, "all", MORE, epochs=e, side=SMALL)) for e in (1, 3))
    loop()
    theirs, ours = seconds(loop), (long - short) / 2
    what = f"a stage of all layers, {name}, one epoch of {MORE} images of {SMALL} px"
    return Row(
        what,
        "torch, channels last, batch norm held",
        ours,
        theirs,
        theirs / ours,
        1 / 0.9,
        "random weights",
    )


def extrapolated(work_of: Callable[[int], Callable[[], object]], images: int) -> float:
    """Processor seconds for so many images, on the line through `FEW` and `MORE`."""
    work_of(FEW)()  # imports and first allocations
    few, more = (seconds(work_of(count)) for count in (FEW, MORE))
    each = (more - few) / (MORE - FEW)
    return max(few - FEW * each, 0.0) + images * each


def medtl(
    name: str, train: str, count: int, *, epochs: int, views: int = 1, side: int = SIDE
) -> Callable[[], object]:
    """A whole stage through the trainer, augmented by the chest policy, with an empty cache."""
    import torch

    from medtl.networks.backbones import build_classifier
    from medtl.networks.weights import WeightsSource
    from medtl.preprocess.augment import augmenter
    from medtl.run.kinds import UnitAugment
    from medtl.tasks.findings import Findings
    from medtl.training.fit import fit
    from medtl.training.options import ActivationCache, Options, Training
    from medtl.training.runtime import Runtime
    from medtl.types import Stage

    stage = Stage("it", train, epochs, {"head": 1e-3, "base": 1e-4}, patience=epochs + 1)
    augment = UnitAugment(augmenter("cxr"))

    def work() -> object:
        torch.manual_seed(0)
        model, _ = build_classifier(name, outputs=1, weights=WeightsSource("none"))
        with TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            cache.mkdir()
            training = Training(
                model=model,
                task=Findings(labels=("it",)),
                train=samples(count, augment, side),
                val=samples(VALIDATION, None, side),
                can_watch=False,
                options=Options(batch_size=BATCH),
                runtime=Runtime("cpu"),
                folder=Path(folder),
                cache=ActivationCache(cache, views),
            )
            return fit(training, [stage])

    return work


def samples(count: int, augment: Any, side: int = SIDE) -> Any:
    """Random pictures with a random label, as a study has them after decoding."""
    from medtl.data.batches import Samples
    from medtl.preprocess.pipeline import Preprocessor

    rng = np.random.default_rng(count)
    return Samples(
        store=pictures(rng, count, side),
        rows=np.arange(count),
        targets=(rng.random((count, 1)) < 0.5).astype(np.float32),
        inputs=np.zeros((count, 0), np.float32),
        standardise=Preprocessor(size=side).standardise,
        augment=augment,
        seed=0,
    )


def pictures(rng: np.random.Generator, count: int, side: int, file: Path | None = None) -> Any:
    """A store of random pictures, in memory or in a file."""
    from medtl.data.store import ImageStore, RowWriter

    writer = RowWriter(np.uint16, file)
    for _ in range(count):
        writer.append(rng.integers(0, 65536, (1, side, side), dtype=np.uint16))
    return ImageStore(tuple(map(str, range(count))), writer.rows())


def tensors(count: int, side: int = SIDE) -> tuple[Any, Any]:
    """Random standardised pictures and labels, already in memory: the others read no pixels."""
    import torch

    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 3, side, side, generator=generator)
    return images, (torch.rand(count, 1, generator=generator) < 0.5).float()


def plain(name: str, count: int, *, is_all: bool = False, side: int = SIDE) -> Callable[[], object]:
    """One epoch of a loop as in a tutorial: network in eval mode, the head or all of it trained."""
    import timm
    import torch

    images, labels = tensors(count, side)

    def work() -> object:
        model = timm.create_model(name, num_classes=1).eval().requires_grad_(is_all)
        if is_all:  # as a careful loop would have it: twice as fast for depthwise convolutions
            model = model.to(memory_format=torch.channels_last)
        trained = model if is_all else model.get_classifier().requires_grad_(True)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
        loss = torch.tensor(0.0)
        for start in range(0, count, BATCH):
            part = slice(start, start + BATCH)
            given = images[part]
            if is_all:
                given = given.contiguous(memory_format=torch.channels_last)
            output = model(given)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(output, labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return work


def fastai(name: str, count: int, *, is_last: bool = False) -> Callable[[], object]:
    """One epoch of `vision_learner` as it comes: frozen to the head, batch norm in training.

    Args:
        name: Of the network.
        count: Images.
        is_last: Thaw the last stage too, the same layers as medtl's.
    """
    import torch
    from fastai.vision import all as vision

    images, labels = tensors(count)
    data = list(zip(images, labels, strict=True))
    loaders = vision.DataLoaders.from_dsets(
        data, data[:VALIDATION], bs=BATCH, num_workers=0, device=torch.device("cpu")
    )
    arch = name if name.startswith("tf_") else getattr(vision, name)

    def split(model: Any) -> list[Any]:
        body, last = list(model[0].parameters()), set(map(id, _last_stage(model, name)))
        parts = [p for p in body if id(p) not in last], [p for p in body if id(p) in last]
        return [*parts, list(model[1].parameters())]

    def work() -> object:
        learner = vision.vision_learner(
            loaders,
            arch,
            n_out=1,
            normalize=False,
            pretrained=False,
            loss_func=vision.BCEWithLogitsLossFlat(),
            splitter=split if is_last else None,
        )
        learner.freeze_to(-2 if is_last else -1)
        with learner.no_bar(), learner.no_logging():
            learner.fit(1, 1e-3)
        return learner.recorder

    return work


def _last_stage(model: Any, name: str) -> list[Any]:
    """Parameters of the layers that medtl's last stage trains, in fastai's copy of the network."""
    if name == "resnet18":
        modules = [model[0][7]]
    elif name == "densenet121":
        modules = [model[0][0].denseblock4, model[0][0].norm5]
    else:
        net = model[0].model
        modules = [*net.blocks[-2:], net.conv_head, net.bn2]
    return [parameter for module in modules for parameter in module.parameters()]
