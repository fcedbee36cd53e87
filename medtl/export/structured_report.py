"""Scores and decisions as a Structured Report: TID 1500 in a Comprehensive 3D SR document.

A finding is said to be present or absent in code, by the frozen threshold. The output of the
network is a score; a probability stands beside it only where validation called for a recalibration.
The document is preliminary, partial and unverified, as what no physician has read must be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from medtl.errors import PredictionsError
from medtl.export.codes import finding_code, label_code, own_code, own_scheme, structure_code
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
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

NO_CODES: Mapping[str, str] = MappingProxyType({})

FEWEST_DIGITS = 3
"""Decimals of a score, more only where it would else change sides of the threshold."""

VOLUME_DIGITS = 4
"""Significant digits of a volume."""

MONTHS = "_months"
"""End of the label of a score that is an age in months (`bone_age_months`)."""


@dataclass(frozen=True)
class Finding:
    """One score of a model about one image.

    Attributes:
        label: The finding, or the quantity ("bone_age_months").
        score: Of the network, in [0, 1], or months.
        threshold: The frozen threshold: positive if and only if score >= it; None without one.
        probability: The recalibrated score in [0, 1], None where there is none.
    """

    label: str
    score: float
    threshold: float | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Segmented:
    """One structure of a Segmentation object.

    Attributes:
        label: The structure.
        number: Of the segment, from 1.
        volume_mm3: Of its voxels.
    """

    label: str
    number: int
    volume_mm3: float


def structured_report(
    findings: Sequence[Finding],
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    *,
    frame: int | None = None,
    codes: Mapping[str, str] = NO_CODES,
) -> Dataset:
    """Return the report of one image, or of one series, as a DICOM object.

    Args:
        findings: One measurement group each.
        sources: Headers of the image, or of all images of the series (`source.read_source`).
        algorithm: What made the scores.
        frame: Number from 0 of the one frame that was read, None for the whole image.
        codes: Label -> code, as `codes.finding_code` takes them.

    Raises:
        PredictionsError: Without findings, or when a score is not a finite number.
        RunError: When a stated code has another form.
        ImageError: When the source's header cannot be used.

    Reference:
        PS3.16 TID 1500, TID 1501; PS3.3 A.35.13.
    """
    if not findings or not all(math.isfinite(finding.score) for finding in findings):
        raise PredictionsError(
            "there is no score to report", expected="a finite number for every finding"
        )
    content = json.dumps([[astuple(one) for one in findings], frame, dict(codes)]).encode()
    named = [finding_code(finding.label, codes) for finding in findings]
    with made_from("source image"):
        groups = [
            _group(finding, code, sources, algorithm, frame)
            for finding, code in zip(findings, named, strict=True)
        ]
        return _document(groups, sources, algorithm, content)


def volume_report(
    structures: Sequence[Segmented],
    segmentation: Dataset,
    sources: Sequence[Dataset],
    algorithm: Algorithm,
) -> Dataset:
    """Return the volumes of structures as a DICOM object that refers to their Segmentation.

    Args:
        structures: With a volume each; those without voxels are said to be absent.
        segmentation: The object their voxels are in.
        sources: Headers of the images of the series.
        algorithm: What made the masks.

    Raises:
        ImageError: When the source's header cannot be used.

    Reference:
        PS3.16 TID 1411 (Volumetric ROI Measurements).
    """
    content = json.dumps([astuple(one) for one in structures]).encode()
    content += str(segmentation.SOPInstanceUID).encode()
    with made_from("source image"):
        groups = [_volume_group(one, segmentation, sources, algorithm) for one in structures]
        return _document(groups, sources, algorithm, content, segmentation)


def _document(
    groups: Sequence[Any],
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    content: bytes,
    segmentation: Dataset | None = None,
) -> Dataset:
    """The document around measurement groups."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

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
        imaging_measurements=list(groups),
    )
    report = sr.Comprehensive3DSR(
        evidence=[*sources, *([] if segmentation is None else [segmentation])],
        content=measured,
        coding_schemes=own_scheme(),
        **identifiers("SR", sources[0], algorithm, content),
    )
    return stamp(report, algorithm)


def _made_by(algorithm: Algorithm) -> AlgorithmIdentification:
    """TID 4019: the model, its version, and what it was made with."""
    from highdicom import sr

    known = [f"backbone {algorithm.backbone}"] if algorithm.backbone else []
    known += [f"software {algorithm.software}"] if algorithm.software else []
    return sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        manufacturer=MANUFACTURER,
        parameters=[
            *known,
            f"recipe SHA-256 {algorithm.recipe_sha256}",
            f"model SHA-256 {algorithm.model_sha256 or 'not known'}",
            RESEARCH_ONLY,
        ],
    )


def _presence(code: CodedConcept, is_present: bool | None) -> list[QualitativeEvaluation]:
    """Whether a finding is there (CID 240), and what the statement may be used for."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    found = [
        sr.QualitativeEvaluation(
            own_code("INTENDED_USE", "Intended use"), own_code("RESEARCH_ONLY", RESEARCH_ONLY)
        )
    ]
    if is_present is not None:
        said = codes.SCT.Present if is_present else codes.SCT.Absent
        found.insert(0, sr.QualitativeEvaluation(code, said))
    return found


def _volume_group(
    structure: Segmented,
    segmentation: Dataset,
    sources: Sequence[Dataset],
    algorithm: Algorithm,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: a segment, its volume, and whether there is any."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    code = structure_code(structure.label)
    volume = float(f"{structure.volume_mm3:.{VOLUME_DIGITS}g}")
    is_present = structure.volume_mm3 > 0
    images = [sr.SourceImageForSegmentation(one.SOPClassUID, one.SOPInstanceUID) for one in sources]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=stable_uid("structure", structure.label, sources[0].SeriesInstanceUID),
            identifier=f"medtl {structure.label}",
        ),
        referenced_segment=sr.ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            structure.number,
            source_images=images,
        ),
        finding_type=code if is_present else None,
        algorithm_id=_made_by(algorithm),
        measurements=[
            sr.Measurement(name=codes.SCT.Volume, value=volume, unit=codes.UCUM.CubicMillimeter)
        ],
        qualitative_evaluations=_presence(code, is_present),
    )


def _group(
    finding: Finding,
    code: CodedConcept,
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    frame: int | None,
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501: whether a finding is there, its score, the threshold and the decision."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    frames = None if frame is None else [frame + 1]
    is_positive = None if finding.threshold is None else finding.score >= finding.threshold
    evaluations = _presence(code, is_positive)
    if is_positive is not None:
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
        # "Finding: effusion" would be read as one that is there.
        finding_type=code if is_positive else None,
        algorithm_id=_made_by(algorithm),
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
        name, unit = own_code("SCORE", f"Score for {finding.label}"[:64]), codes.UCUM.NoUnits
    score, limit = _rounded(finding)
    found = [Measurement(name=name, value=score, unit=unit)]
    if finding.probability is not None:
        value = round(finding.probability, FEWEST_DIGITS)
        found.append(Measurement(name=codes.DCM.Probability, value=value, unit=unit))
    if limit is not None and math.isfinite(limit):
        threshold = own_code("THRESHOLD", "Threshold frozen before the test")
        found.append(Measurement(name=threshold, value=limit, unit=unit))
    return found


def _rounded(finding: Finding) -> tuple[float, float | None]:
    """Score and threshold with as few digits as keep them on the right side of each other."""
    limit = finding.threshold
    if limit is None:
        return round(finding.score, FEWEST_DIGITS), None
    for digits in range(FEWEST_DIGITS, 15):
        score, shown = round(finding.score, digits), round(limit, digits)
        if (score >= shown) == (finding.score >= limit):
            return score, shown
    return finding.score, limit
