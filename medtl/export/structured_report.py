"""Scores and decisions as a Structured Report: TID 1500 in a Comprehensive 3D SR document.

The document is preliminary, partial and unverified, as what no physician has read must be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from medtl.errors import PredictionsError
from medtl.export.codes import label_code, own_code, own_scheme
from medtl.export.identity import (
    MANUFACTURER,
    RESEARCH_ONLY,
    Algorithm,
    identifiers,
    stable_uid,
    stamp,
)
from medtl.export.source import made_from

if TYPE_CHECKING:
    from highdicom.sr import Measurement, MeasurementsAndQualitativeEvaluations

MONTHS = "_months"
"""End of the label of a score that is an age in months (`bone_age_months`)."""


@dataclass(frozen=True)
class Finding:
    """One score of a model about one image.

    Attributes:
        label: The finding, or the quantity ("bone_age_months").
        score: A probability in [0, 1], or months.
        threshold: The frozen threshold: positive if and only if score >= it; None without one.
    """

    label: str
    score: float
    threshold: float | None = None


def structured_report(
    findings: Sequence[Finding],
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    *,
    frame: int | None = None,
) -> Dataset:
    """Return the report of one image, or of one series, as a DICOM object.

    Args:
        findings: One measurement group each.
        sources: Headers of the image, or of all images of the series (`source.read_source`).
        algorithm: What made the scores.
        frame: Number from 0 of the one frame that was read, None for the whole image.

    Raises:
        PredictionsError: Without findings, or when a score is not a finite number.
        ImageError: When the source's header cannot be used.

    Reference:
        PS3.16 TID 1500, TID 1501; PS3.3 A.35.13.
    """
    if not findings or not all(math.isfinite(finding.score) for finding in findings):
        raise PredictionsError(
            "there is no score to report", expected="a finite number for every finding"
        )
    from highdicom import sr
    from pydicom.sr.codedict import codes

    content = json.dumps([[astuple(finding) for finding in findings], frame]).encode()
    with made_from("source image"):
        device = sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=stable_uid("device", algorithm.recipe_sha256, algorithm.model_sha256),
                name=MANUFACTURER,
                manufacturer_name=MANUFACTURER,
                model_name=algorithm.name,
                serial_number=algorithm.model_sha256[:16] or None,
            ),
        )
        measured = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=device),
            procedure_reported=codes.SCT.ImagingProcedure,
            imaging_measurements=[_group(one, sources, algorithm, frame) for one in findings],
        )
        report = sr.Comprehensive3DSR(
            evidence=list(sources),
            content=measured,
            coding_schemes=own_scheme(),
            **identifiers("SR", sources[0], algorithm, content),
        )
        return stamp(report, algorithm)


def _group(
    finding: Finding, sources: Sequence[Dataset], algorithm: Algorithm, frame: int | None
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501: a finding, its score, the threshold and the decision."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    frames = None if frame is None else [frame + 1]
    intended = sr.QualitativeEvaluation(
        own_code("INTENDED_USE", "Intended use"), own_code("RESEARCH_ONLY", RESEARCH_ONLY)
    )
    evaluations = [intended]
    if finding.threshold is not None:
        is_positive = finding.score >= finding.threshold
        decision = sr.QualitativeEvaluation(
            own_code("DECISION", "Decision at the frozen threshold"),
            codes.SCT.Positive if is_positive else codes.SCT.Negative,
        )
        evaluations.insert(0, decision)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=stable_uid("finding", finding.label, sources[0].SOPInstanceUID),
            identifier=f"medtl {finding.label}",
        ),
        finding_type=label_code(finding.label),
        algorithm_id=sr.AlgorithmIdentification(
            name=algorithm.name,
            version=algorithm.version,
            manufacturer=MANUFACTURER,
            parameters=[
                f"recipe SHA-256 {algorithm.recipe_sha256}",
                f"model SHA-256 {algorithm.model_sha256 or 'not known'}",
                RESEARCH_ONLY,
            ],
        ),
        measurements=_measurements(finding),
        qualitative_evaluations=evaluations,
        source_images=[
            sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID, frames)
            for one in sources
        ],
    )


def _measurements(finding: Finding) -> list[Measurement]:
    """The score and, when it is a finite number, the threshold, in the unit of the score."""
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes

    if finding.label.endswith(MONTHS):
        name = label_code(finding.label.removesuffix(MONTHS).replace("_", " "))
        unit = codes.UCUM.Month
    else:
        name, unit = codes.DCM.Probability, codes.UCUM.NoUnits
    found = [Measurement(name=name, value=float(finding.score), unit=unit)]
    if finding.threshold is not None and math.isfinite(finding.threshold):
        threshold = own_code("THRESHOLD", "Threshold frozen before the test")
        found.append(Measurement(name=threshold, value=float(finding.threshold), unit=unit))
    return found
