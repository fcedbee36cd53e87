"""What was asked about the learning itself: checks before a training, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtl.report.language.numbers import number
from medtl.report.language.texts import plain

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Checked:
    """One check before the training.

    Attributes:
        name: Of the check.
        state: "passed", "failed" or "none".
        text: What was tried and seen.
        advice: One suggestion where it failed.
    """

    name: str
    state: str
    text: str
    advice: str


def checks(sanity: Row | None) -> list[Checked]:
    """Return the checks of a sanity.json in the language of the block; [] without any.

    Args:
        sanity: Content of sanity.json.

    Example:
        >>> facts = {"start": 0.7, "end": 0.05, "steps": 20, "images": 16}
        >>> done = {"checks": [{"name": "one_batch", "passed": True, "facts": facts}]}
        >>> checks(done)[0].text
        'Overfits one batch: on 16 images the loss goes from 0.700 to 0.050 in 20 steps.'
    """
    found = []
    for check in (sanity or {}).get("checks", []):
        name, facts = check["name"], check["facts"]
        state = {True: "passed", False: "failed", None: "none"}[check["passed"]]
        if "reason" in facts:
            text = plain(
                "sanity.without", check=plain(f"sanity.{name}.name"), reason=plain(facts["reason"])
            )
        else:
            shown = {key: _shown(value) for key, value in facts.items()}
            text = f"{plain(f'sanity.{name}.name')}: {plain(f'sanity.{name}', **shown)}"
        advice = plain(f"sanity.{name}.failed") if state == "failed" else ""
        if state == "none" and "reason" not in facts:
            advice = plain("sanity.few_to_tell")
        found.append(Checked(name, state, text, advice))
    return found


def _shown(value: object) -> str:
    """A count as it is, any other number in three decimals."""
    known = number(value)
    return str(value) if isinstance(value, int) or known is None else f"{known:.3f}"
