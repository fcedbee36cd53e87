"""`medtl plan-size`: how many patients a study needs, from what its authors expect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from medtl.errors import MedtlError


@dataclass(frozen=True)
class Expected:
    """What the authors of a study expect and how sure they want to be; each part is optional."""

    sensitivity: Annotated[float | None, typer.Option(help="expected, 0 to 1")] = None
    specificity: Annotated[float | None, typer.Option(help="expected, 0 to 1")] = None
    auroc: Annotated[float | None, typer.Option(help="expected, 0.5 to 1")] = None
    prevalence: Annotated[
        float | None, typer.Option(help="share of the study's patients with the finding")
    ] = None
    half_width: Annotated[
        float, typer.Option(help="of the interval of sensitivity and specificity")
    ] = 0.05
    width: Annotated[float, typer.Option(help="of the whole interval of the AUROC")] = 0.1
    assurance: Annotated[
        float, typer.Option(help="certainty of a promised sensitivity or specificity")
    ] = 0.90
    oe_width: Annotated[
        float | None, typer.Option(help="of the whole interval of observed over expected")
    ] = None
    lp_mean: Annotated[
        float | None, typer.Option(help="mean of the model's logits there, for the slope")
    ] = None
    lp_sd: Annotated[float | None, typer.Option(help="their standard deviation")] = None
    slope_width: Annotated[
        float, typer.Option(help="of the whole interval of the calibration slope")
    ] = 0.2
    act_at: Annotated[
        float | None, typer.Option(help="probability from which one acts, for net benefit")
    ] = None
    benefit_width: Annotated[
        float, typer.Option(help="of the whole interval of the standardised net benefit")
    ] = 0.2
    images_per_patient: Annotated[float, typer.Option(help="mean number")] = 1.0
    icc: Annotated[
        float | None, typer.Option(help="how alike two images of a patient are, 0 to 1")
    ] = None


def describe_size(expected: Expected) -> Iterator[str]:
    """Yield the number of patients that each part of what is expected asks for.

    Args:
        expected: What the authors state.

    Raises:
        MedtlError: When nothing that can be planned is stated, several images of a patient without
            their likeness, or a value lies outside its range.
    """
    if expected.images_per_patient > 1 and expected.icc is None:
        raise MedtlError(
            "patients have several images, and nothing says how alike these are",
            fix="State --icc; 1 counts patients alone, 0 takes images for patients",
        )
    needs = [*_class_needs(expected), *_whole_needs(expected)]
    if not needs:
        raise MedtlError(
            "nothing that is expected is stated",
            fix="For example --sensitivity 0.90 --specificity 0.80 --auroc 0.85 --prevalence 0.10",
        )
    for need in needs:
        whole = (
            "" if need.share in (None, 1) else f"; {_counted(expected, need, whole=True)} in all"
        )
        yield f"{need.aim}: {_counted(expected, need)} {need.whose}".rstrip() + whole
    most = max(needs, key=lambda need: need.number / (need.share or 1))
    if most.share is not None:
        yield f"All of it: {_counted(expected, most, whole=True)}"


@dataclass(frozen=True)
class Need:
    """What one aim asks for.

    Attributes:
        aim: In words.
        number: Patients that it takes.
        whose: Which patients, "" for all.
        share: Of them among all patients; None where nobody has said it.
        by_image: Whether it counts images, of which a patient's are alike.
    """

    aim: str
    number: int
    whose: str = ""
    share: float | None = 1.0
    by_image: bool = True


def _class_needs(expected: Expected) -> Iterator[Need]:
    """What sensitivity and specificity ask for."""
    from medtl.metrics.planning.sample_size import patients_for_promise, patients_for_share

    pi, sure = expected.prevalence, expected.assurance
    of_class = {
        "sensitivity": (expected.sensitivity, "with the finding", pi),
        "specificity": (expected.specificity, "without the finding", pi and 1 - pi),
    }
    for name, (aim, whose, share) in of_class.items():
        if aim is None:
            continue
        known = f"{name} {aim:g} known to +-{100 * expected.half_width:g} points"
        if not 0 < aim < 1:
            raise MedtlError(f"a {name} of {aim:g}", expected="a share between 0 and 1, 0.90")
        yield Need(known, patients_for_share(aim, expected.half_width), whose, share)
        promised = f"{name} {aim:g} promised with {sure:.0%} certainty (to choose the threshold by)"
        yield Need(promised, patients_for_promise(aim, sure), whose, share, by_image=False)


def _whole_needs(expected: Expected) -> Iterator[Need]:
    """What AUROC, calibration and net benefit ask for, in patients of the stated prevalence."""
    from medtl.metrics.planning import sample_size

    pi, auroc, width = expected.prevalence, expected.auroc, expected.width
    if pi is None and (auroc, expected.act_at, expected.oe_width) != (None, None, None):
        raise MedtlError("AUROC, O/E and net benefit depend on it", fix="State --prevalence")
    if auroc is not None and pi is not None:
        aim = f"AUROC {auroc:g}, interval {width:g} wide"
        number = sample_size.patients_for_auroc(auroc, pi, width)
        yield Need(f"{aim} (Hanley-McNeil)", number)
        yield Need(f"{aim} (Riley)", sample_size.patients_for_c_statistic(auroc, pi, width))
    if expected.oe_width is not None and pi is not None:
        number = sample_size.patients_for_observed_over_expected(pi, expected.oe_width)
        yield Need(f"observed over expected, interval {expected.oe_width:g} wide", number)
    if expected.lp_mean is not None and expected.lp_sd is not None:
        logits, width = (expected.lp_mean, expected.lp_sd), expected.slope_width
        number = sample_size.patients_for_calibration_slope(*logits, width)
        yield Need(f"calibration slope, interval {width:g} wide", number)
    if expected.act_at is not None and pi is not None:
        if expected.sensitivity is None or expected.specificity is None:
            raise MedtlError(
                "net benefit depends on both", fix="State --sensitivity, --specificity"
            )
        shares, width = (expected.sensitivity, expected.specificity), expected.benefit_width
        number = sample_size.patients_for_net_benefit(*shares, pi, expected.act_at, width)
        yield Need(f"net benefit at {expected.act_at:g}, interval {width:g} wide", number)


def _counted(expected: Expected, need: Need, *, whole: bool = False) -> str:
    """A number of patients, or of images and patients where these have several."""
    from medtl.metrics.planning.sample_size import with_design_effect

    number = math.ceil(need.number / (need.share or 1) - 1e-9) if whole else need.number
    if expected.icc is None or not need.by_image:
        return f"{number:,} patients"
    images = with_design_effect(number, expected.images_per_patient, expected.icc)
    patients = math.ceil(images / expected.images_per_patient - 1e-9)
    return f"{images:,} images of {patients:,} patients"
