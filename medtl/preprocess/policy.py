"""The transforms that a recipe may have, and the range that each draws from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medtl.errors import MedtlError
from medtl.preprocess.safety import kind_of, parameter_of, possible_of, safety, transform_names

Range = tuple[float, float]
Asked = Mapping[str, Mapping[str, Sequence[float]]]
"""A recipe's wishes: transform -> {parameter: [low, high]}, or {} for the table's range."""


def policy_ranges(modality: str, transforms: Asked | None) -> dict[str, Range | None]:
    """Return each transform of a policy without faults with its range, None if it has no parameter.

    Args:
        modality: One of `safety.modality_names()`.
        transforms: What the recipe asks for; None takes the modality's SAFE transforms.

    >>> policy_ranges("hand", {"rotate": {}, "horizontal_flip": {}})
    {'rotate': (-20.0, 20.0), 'horizontal_flip': None}
    """
    if transforms is None:
        transforms = {name: {} for name in _own(modality)}
    return {name: _chosen_range(name, modality, asked) for name, asked in transforms.items()}


def policy_faults(
    modality: str,
    *,
    transforms: Asked | None = None,
    probability: float = 0.5,
    i_know: Sequence[str] = (),
) -> list[MedtlError]:
    """Return everything that is wrong with a policy, one error per fault.

    Args:
        modality: As for `augmenter`, like the rest.
        transforms: Name -> `{parameter: [low, high]}`, or None.
        probability: Of each part of the policy.
        i_know: Transforms exempt from refusal and limits.

    >>> faults = policy_faults("cxr", transforms={"rotate": {"degrees": [-90, 90]}})
    >>> [fault.found for fault in faults]
    ["-90 to 90 is beyond what 'rotate' may do"]
    """
    try:
        safety(transform_names()[0], modality)
    except MedtlError as error:
        return [error]
    faults = []
    if not 0 <= probability <= 1:
        faults.append(
            MedtlError(
                f"probability {probability:g}", expected="0 to 1", where="augment.probability"
            )
        )
    for name in i_know:
        faults += _unknown(name, "augment.i_know")
    for name, asked in (transforms or {}).items():
        faults += _transform_faults(name, modality, asked, name in i_know)
    return faults


def _unknown(name: str, where: str) -> list[MedtlError]:
    """The fault of a name that the table lacks."""
    try:
        kind_of(name)
    except MedtlError as error:
        return [MedtlError(error.found, expected=error.expected, where=where, fix=error.fix)]
    return []


def _transform_faults(
    name: str, modality: str, asked: Mapping[str, Sequence[float]], is_known: bool
) -> list[MedtlError]:
    """Everything wrong with one transform that a recipe asks for."""
    where = f"augment.transforms.{name}"
    if faults := _unknown(name, "augment.transforms"):
        return faults
    if kind_of(name) == "batch":
        found = f"{name!r} mixes cases, it does not change one picture"
        return [MedtlError(found, where=where, fix="Take it out")]
    verdict, parameter = safety(name, modality), parameter_of(name)
    faults = [
        MedtlError(f"unknown parameter {key!r}", expected=parameter or "no parameter", where=where)
        for key in asked
        if key != parameter
    ]
    if verdict.level == "UNSAFE" and not is_known:
        found = f"{name!r} is UNSAFE for {modality}: {verdict.reason}"
        faults.append(MedtlError(found, where=where, fix=_take_out_or_know(name)))
    if parameter in asked:
        limits = possible_of(name) if is_known else verdict.limits.get(parameter, possible_of(name))
        faults += _range_faults(asked[parameter], limits, f"{where}.{parameter}", name)
    elif parameter and not verdict.limits:
        found = f"the table has no {parameter} for {name!r} on {modality}"
        faults.append(MedtlError(found, where=where, fix=f"State {parameter}: [low, high]"))
    return faults


def _range_faults(asked: Any, limits: Range, where: str, name: str) -> list[MedtlError]:
    """Everything wrong with a range that a recipe states."""
    is_pair = isinstance(asked, list | tuple) and len(asked) == 2
    if not is_pair or not all(isinstance(value, int | float) for value in asked):
        return [MedtlError(f"got {asked!r}", expected="[low, high]", where=where)]
    low, high = asked
    if limits[0] <= low <= high <= limits[1]:
        return []
    found = f"{low:g} to {high:g} is beyond what {name!r} may do" if low <= high else f"got {asked}"
    expected = f"low <= high, within {limits[0]:g} to {limits[1]:g}"
    return [MedtlError(found, expected=expected, where=where, fix=_take_out_or_know(name))]


def _take_out_or_know(name: str) -> str:
    """Return the fix for a transform that is refused."""
    return f"Change or drop {name!r}, or add it to augment.i_know if you know it does no harm here"


def _own(modality: str) -> list[str]:
    """The SAFE transforms of a modality."""
    return [
        name
        for name in transform_names()
        if kind_of(name) != "batch" and safety(name, modality).level == "SAFE"
    ]


def _chosen_range(name: str, modality: str, asked: Mapping[str, Sequence[float]]) -> Range | None:
    """The stated range of a transform's parameter, else the table's; None without a parameter."""
    parameter = parameter_of(name)
    if not parameter:
        return None
    low, high = asked.get(parameter) or safety(name, modality).limits[parameter]
    return float(low), float(high)
