"""The page of augmentation: each transform with its verdict for each modality, and a picture."""

from __future__ import annotations

from manual.figures.transforms import pictured
from manual.markdown import table
from medtl.preprocess.safety import (
    Verdict,
    kind_of,
    modality_names,
    parameter_of,
    safety,
    transform_names,
)

HEAD = """# What augmentation may do

The table by which a recipe's augmentation is allowed or refused, from
`medtl/preprocess/safety.yaml`. **SAFE** is part of the modality's own list, **CAUTION** is done
when a recipe asks for it, **UNSAFE** is refused unless the recipe names it in `augment.i_know`.
Ranges are those that a parameter is drawn from; lengths and areas are fractions of the picture,
intensities fractions of [0, 1].

"""

MARKS = {"SAFE": "✓", "CAUTION": "(✓)", "UNSAFE": "✗"}
"""Level -> its mark in the overview."""


def augmentation_page() -> str:
    """Return the page: an overview, and a section for each transform."""
    overview = table(("transform", *modality_names()), map(_marks, transform_names()))
    legend = "✓ SAFE, (✓) CAUTION, ✗ UNSAFE\n\n"
    return HEAD + legend + overview + "".join(_section(name) for name in transform_names())


def _marks(name: str) -> tuple[str, ...]:
    """A transform's row of the overview."""
    link = f"[{_words(name)}](#{name.replace('_', '-')})"
    return link, *(MARKS[safety(name, modality).level] for modality in modality_names())


def _section(name: str) -> str:
    """One transform: its kind and its verdicts."""
    what = f"Parameter: {parameter_of(name)}." if parameter_of(name) else "Without a parameter."
    rows = ((m, *_verdict(safety(name, m))) for m in modality_names())
    verdicts = table(("modality", "verdict", "range", "why"), rows)
    anchor = name.replace("_", "-")
    head = f"\n## {_words(name)} {{#{anchor}}}\n\n`{name}`, {kind_of(name)}. {what}\n\n"
    return head + _picture(name) + verdicts


def _picture(name: str) -> str:
    """The picture that `make gallery` drew, nothing where a transform is not of one image."""
    if not (modality := pictured(name)):
        return ""
    verdict = safety(name, modality)
    ends = " and ".join(f"{end:g}" for end in verdict.limits.get(parameter_of(name), ()))
    after = f"with {parameter_of(name)} {ends}" if ends else "after it"
    refused = " It is refused." if verdict.level == "UNSAFE" else ""
    caption = f"A synthetic {modality} image as it was, and {after}.{refused}"
    return f"![{caption}](../images/augmentation/{name}.jpg)\n\n*{caption}*\n\n"


def _verdict(of: Verdict) -> tuple[str, str, str]:
    """Level, range and reason."""
    ranges = (f"{low:g} to {high:g}" for low, high in of.limits.values())
    return of.level, ", ".join(ranges), of.reason


def _words(name: str) -> str:
    """The name of a transform in words."""
    return name.replace("_", " ")
