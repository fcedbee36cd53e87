"""Each kind of object from plain arguments: what it says, whose it is, that it is valid."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from export_example import ALGORITHM, NAMES, faults, write_ct, write_radiograph
from pydicom import dcmread
from pydicom.dataset import Dataset

pytest.importorskip("highdicom")

from medtl.errors import ImageError, MedtlError, PredictionsError, RunError
from medtl.export.codes import _findings, finding_code, label_code, structure_code
from medtl.export.document import encapsulated_pdf
from medtl.export.identity import RESEARCH_ONLY, stable_uid, write_object
from medtl.export.objects import mask_on
from medtl.export.pictures import read_picture, secondary_capture
from medtl.export.segments import on_series, segmentation
from medtl.export.source import made_from, read_source
from medtl.export.structured_report import Finding, Segmented, structured_report, volume_report
from medtl.io.masks import write_mask
from medtl.types import Image

FINDINGS = (Finding("pneumonia", 0.8312345678901, 0.4), Finding("흉수", 0.1, 0.3))
PICTURE = np.random.default_rng(0).integers(0, 255, (100, 80, 3)).astype(np.uint8)
PDF = b"%PDF-1.4\n%%EOF"


@pytest.fixture
def source(tmp_path):
    return read_source(write_radiograph(tmp_path / "source.dcm", 0))


def every_kind(source: Dataset) -> dict[str, Dataset]:
    mask = np.zeros((40, 48), np.uint8)
    mask[5:20, 5:30] = 1
    return {
        "SR": structured_report(FINDINGS, [source], ALGORITHM),
        "SEG": segmentation([mask], [source], ALGORITHM, labels={1: "Lung"}),
        "SC": secondary_capture(PICTURE, source, ALGORITHM, caption="pneumonia 0.83"),
        "PDF": encapsulated_pdf(PDF, source, ALGORITHM),
    }


def items(dataset: Dataset):
    """Every content item of a report, at any depth."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def named(report: Dataset, meaning: str) -> list[Dataset]:
    return [i for i in items(report) if i.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def scores_of(report: Dataset) -> list[Dataset]:
    return [i for i in items(report) if i.ConceptNameCodeSequence[0].CodeValue == "SCORE"]


@pytest.mark.parametrize("number", range(3))
def test_every_object_is_of_the_patient_and_study_of_the_source(tmp_path, number):
    source = read_source(write_radiograph(tmp_path / "s.dcm", number))
    for kind, made in every_kind(source).items():
        write_object(made, tmp_path / f"{kind}.dcm")
        found = dcmread(tmp_path / f"{kind}.dcm")
        assert found.PatientName == NAMES[number], kind
        for name in ("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"):
            assert found[name].value == source[name].value, (kind, name)
        for name in ("AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName"):
            assert found[name].value == source[name].value, (kind, name)
        assert found.SeriesInstanceUID != source.SeriesInstanceUID
        assert found.SOPInstanceUID != source.SOPInstanceUID
        assert found.Manufacturer == "medtl"
        assert "research use only" in found.SeriesDescription


@pytest.mark.parametrize("kind", ["SR", "SEG", "SC", "PDF"])
def test_an_independent_validator_finds_no_error(source, tmp_path, kind):
    write_object(every_kind(source)[kind], tmp_path / "made.dcm")
    assert faults(tmp_path / "made.dcm") == []


def test_the_validator_sees_errors(source, tmp_path):
    """Negative control: an object without a required element."""
    made = every_kind(source)["SC"]
    del made.ConversionType
    write_object(made, tmp_path / "made.dcm")
    assert any("ConversionType" in fault for fault in faults(tmp_path / "made.dcm"))


def test_the_same_results_are_the_same_bytes(source, tmp_path):
    for number in (1, 2):
        for kind, made in every_kind(source).items():
            write_object(made, tmp_path / f"{kind}{number}.dcm")
    for kind in ("SR", "SEG", "SC", "PDF"):
        first, second = ((tmp_path / f"{kind}{n}.dcm").read_bytes() for n in (1, 2))
        assert first == second, kind


def test_other_results_have_other_uids(source):
    def uid_of(*findings: Finding, algorithm=ALGORITHM) -> str:
        return structured_report(findings, [source], algorithm).SOPInstanceUID

    same = uid_of(FINDINGS[0])
    assert uid_of(FINDINGS[0]) == same
    assert uid_of(replace(FINDINGS[0], score=0.8)) != same
    assert uid_of(replace(FINDINGS[0], threshold=0.5)) != same
    assert uid_of(FINDINGS[0], algorithm=replace(ALGORITHM, model_sha256="c" * 64)) != same


def test_words_of_a_uid_are_kept_apart():
    assert stable_uid("ab", "c") != stable_uid("a", "bc")
    assert stable_uid("a").startswith("1.2.826.0.1.3680043.8.498.")
    assert len(stable_uid("a")) <= 64


def test_a_report_says_score_threshold_decision_and_model(source):
    report = every_kind(source)["SR"]
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    states = report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag
    assert states == ("PARTIAL", "UNVERIFIED", "PRELIMINARY")
    assert named(report, "Probability") == []  # a score is none unless it was recalibrated
    values = [i.MeasuredValueSequence[0] for i in scores_of(report)]
    assert [v.FloatingPointValue for v in values] == [0.831, 0.1]
    assert [str(v.NumericValue) for v in values] == ["0.831", "0.1"]
    assert values[0].MeasurementUnitsCodeSequence[0].CodeValue == "1"
    thresholds = named(report, "Threshold frozen before the test")
    assert [t.MeasuredValueSequence[0].FloatingPointValue for t in thresholds] == [0.4, 0.3]
    decisions = named(report, "Decision at the frozen threshold")
    assert [d.ConceptCodeSequence[0].CodeMeaning for d in decisions] == ["Positive", "Negative"]
    found = [f.ConceptCodeSequence[0].CodeMeaning for f in named(report, "Finding")]
    assert found == ["Pneumonia"]  # what is absent is no finding
    presence = {
        i.ConceptNameCodeSequence[0].CodeMeaning: i.ConceptCodeSequence[0]
        for i in items(report)
        if i.ValueType == "CODE" and i.ConceptCodeSequence[0].CodeMeaning in ("Present", "Absent")
    }
    assert {name: (c.CodeValue, c.CodingSchemeDesignator) for name, c in presence.items()} == {
        "Pneumonia": ("52101004", "SCT"), "흉수": ("272519000", "SCT"),
    }  # fmt: skip
    assert {i.TextValue for i in named(report, "Algorithm Name")} == {"test_resnet"}
    assert {i.TextValue for i in named(report, "Algorithm Version")} == {"0.1.0"}
    parameters = {i.TextValue for i in named(report, "Algorithm Parameters")}
    assert {f"recipe SHA-256 {'a' * 64}", RESEARCH_ONLY} <= parameters
    referenced = [i for i in items(report) if i.ValueType == "IMAGE"]
    uids = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in referenced}
    assert uids == {source.SOPInstanceUID}


@pytest.mark.parametrize(
    ("score", "decision"), [(0.4, "Positive"), (0.3999999999, "Negative"), (1.0, "Positive")]
)
def test_a_score_at_the_threshold_is_positive(source, score, decision):
    report = structured_report([Finding("x", score, 0.4)], [source], ALGORITHM)
    item = named(report, "Decision at the frozen threshold")[0]
    assert item.ConceptCodeSequence[0].CodeMeaning == decision


@pytest.mark.parametrize(
    ("score", "threshold", "shown"),
    [(0.39996, 0.4, ["0.39996", "0.4"]), (0.8312345, 0.4123456, ["0.831", "0.412"]),
     (0.4, 0.4, ["0.4", "0.4"])],
)  # fmt: skip
def test_rounding_keeps_a_score_on_its_side_of_the_threshold(source, score, threshold, shown):
    report = structured_report([Finding("x", score, threshold)], [source], ALGORITHM)
    numbers = [*scores_of(report), *named(report, "Threshold frozen before the test")]
    assert [str(i.MeasuredValueSequence[0].NumericValue) for i in numbers] == shown


def test_a_recalibrated_score_is_a_probability(source):
    report = structured_report([Finding("x", 0.9, 0.4, 0.61234)], [source], ALGORITHM)
    (value,) = named(report, "Probability")
    assert str(value.MeasuredValueSequence[0].NumericValue) == "0.612"


def test_without_a_threshold_nothing_is_said_of_presence(source, tmp_path):
    report = structured_report([Finding("mass", 0.9)], [source], ALGORITHM)
    said = [i.ConceptCodeSequence[0].CodeMeaning for i in items(report) if i.ValueType == "CODE"]
    assert not {"Present", "Absent", "Positive", "Negative"} & set(said)
    assert named(report, "Finding") == []
    write_object(report, tmp_path / "made.dcm")
    assert faults(tmp_path / "made.dcm") == []


@pytest.mark.parametrize(
    ("label", "stated", "code"),
    [("Pneumothorax", {}, ("SCT", "36118008")), ("pleural_effusion", {}, ("SCT", "60046008")),
     ("ptx", {"ptx": "SCT:36118008"}, ("SCT", "36118008")),
     ("ptx", {"ptx": "RADLEX:RID5352:Pneumothorax"}, ("RADLEX", "RID5352")),
     ("pneumothorax or so", {}, ("99MEDTL", label_code("pneumothorax or so").value))],
)  # fmt: skip
def test_a_finding_has_the_code_that_is_stated_or_known(label, stated, code):
    found = finding_code(label, stated)
    assert (found.scheme_designator, found.value) == code


def test_known_codes_mean_in_dicoms_own_dictionary_what_they_mean_here():
    from pydicom.sr._concepts_dict import concepts

    known = {
        (scheme, value): {meaning}
        for scheme in ("SCT", "DCM")
        for codes in concepts[scheme].values()
        for value, (meaning, _) in codes.items()
    }
    # SNOMED CT has more findings than DICOM's lists; each was found under this code in public maps.
    beyond = {"pneumonia", "atelectasis", "cardiomegaly", "consolidation", "emphysema", "fracture",
              "pulmonary fibrosis", "hiatal hernia", "pulmonary tuberculosis"}  # fmt: skip
    unknown = set()
    for name, code in _findings().items():
        if (meant := known.get((code["scheme"], code["value"]))) is None:
            unknown.add(name)
        else:
            assert code["meaning"] in meant, name
    assert unknown == beyond


@pytest.mark.parametrize(("word", "meaning"), [("effusion", "Effusion"), ("edema", "Edema")])
def test_a_word_that_names_no_organ_is_not_coded_as_one_of_the_chest(word, meaning):
    assert finding_code(word, {}).meaning == meaning


@pytest.mark.parametrize("code", ["36118008", "SCT:", ":36118008"])
def test_a_code_of_another_form_is_refused(code):
    with pytest.raises(RunError, match=r"data\.codes: the code of 'ptx'"):
        finding_code("ptx", {"ptx": code})


def test_volumes_refer_to_their_segmentation(tmp_path):
    import highdicom

    sources = [read_source(path) for path in write_ct(tmp_path / "ct")]
    mask = np.zeros((4, 12, 16), np.uint8)
    mask[1, 3:9, 4:9] = 1
    seg = segmentation([mask], sources, ALGORITHM, labels={1: "lung", 2: "tumour"})
    made = volume_report(
        [Segmented("lung", 1, 30 * 0.5 * 0.75 * 5), Segmented("tumour", 2, 0.0)],
        seg, sources, ALGORITHM,
    )  # fmt: skip
    write_object(made, tmp_path / "sr.dcm")
    assert faults(tmp_path / "sr.dcm") == []
    read = highdicom.sr.srread(tmp_path / "sr.dcm")
    groups = read.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    values = [v.MeasuredValueSequence[0] for v in named(made, "Volume")]
    assert [str(v.NumericValue) for v in values] == ["56.25", "0.0"]
    uid = seg.SOPInstanceUID
    images = [i.ReferencedSOPSequence[0] for i in items(made) if i.ValueType == "IMAGE"]
    refers = [image for image in images if image.ReferencedSOPInstanceUID == uid]
    assert [image.ReferencedSegmentNumber for image in refers] == [1, 2]
    assert [i.ConceptCodeSequence[0].CodeMeaning for i in named(made, "tumour")] == ["Absent"]


def test_a_threshold_that_flags_nobody_is_a_decision_without_a_number(source):
    report = structured_report([Finding("x", 0.9, float("inf"))], [source], ALGORITHM)
    assert named(report, "Threshold frozen before the test") == []
    item = named(report, "Decision at the frozen threshold")[0]
    assert item.ConceptCodeSequence[0].CodeMeaning == "Negative"


def test_bone_age_is_in_months_without_a_decision(source):
    report = structured_report([Finding("bone_age_months", 131.5)], [source], ALGORITHM)
    value = named(report, "bone age")[0].MeasuredValueSequence[0]
    assert value.FloatingPointValue == 131.5
    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "mo"
    assert named(report, "Decision at the frozen threshold") == []
    assert named(report, "Probability") == []


def test_a_frame_is_counted_from_one(source):
    report = structured_report([Finding("x", 0.5)], [source], ALGORITHM, frame=2)
    image = next(i for i in items(report) if i.ValueType == "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 3


@pytest.mark.parametrize("findings", [[], [Finding("x", float("nan"))]])
def test_a_report_without_a_score_is_refused(source, findings):
    with pytest.raises(PredictionsError, match="no score to report"):
        structured_report(findings, [source], ALGORITHM)


def test_equal_names_have_equal_codes():
    assert label_code("pneumonia").value == label_code(" pneumonia").value
    assert label_code("pneumonia").value != label_code("Pneumonia").value
    assert len(label_code("x" * 100).meaning) == 64
    assert label_code("").meaning == "finding"
    assert (structure_code("hippocampus").value, structure_code("tumor").scheme_designator) == (
        "5366008",
        "99MEDTL",
    )


def test_a_mask_comes_back_in_place(tmp_path):
    import highdicom

    paths = write_ct(tmp_path / "ct")
    sources = [read_source(path) for path in paths]
    mask = np.zeros((4, 12, 16), np.uint8)
    mask[1, 3:9, 4:9], mask[2, 5:7, 1:15] = 5, 9
    made = segmentation([mask], sources, ALGORITHM, labels={5: "Lung", 9: "종양", 11: "absent"})
    write_object(made, tmp_path / "seg.dcm")
    assert faults(tmp_path / "seg.dcm") == []
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert found.segmentation_type == highdicom.seg.SegmentationTypeValues.BINARY
    pixels = found.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in sources],
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(pixels, np.select([mask == 5, mask == 9], [1, 2]))
    described = [(s.SegmentLabel, s.SegmentAlgorithmType) for s in found.SegmentSequence]
    assert described == [("Lung", "AUTOMATIC"), ("종양", "AUTOMATIC"), ("absent", "AUTOMATIC")]
    lung = found.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (lung.CodeValue, lung.CodingSchemeDesignator) == ("39607008", "SCT")
    method = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert method.AlgorithmName == "test_resnet"


def test_structures_may_overlap(source, tmp_path):
    import highdicom

    whole, core = np.zeros((2, 40, 48), np.uint8)
    whole[5:20, 5:30], core[10:15, 10:35] = 1, 2
    made = segmentation([whole, core], [source], ALGORITHM, labels={1: "whole", 2: "core"})
    write_object(made, tmp_path / "seg.dcm")
    assert faults(tmp_path / "seg.dcm") == []
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    pixels = found.get_pixels_by_source_instance([source.SOPInstanceUID])
    np.testing.assert_array_equal(pixels[0], np.stack([whole == 1, core == 2], axis=-1))


@pytest.mark.parametrize(
    ("mask", "labels", "message"),
    [
        (np.ones((40, 47), int), {1: "lung"}, r"the mask is 1 x 40 x 47 .*expected 1 single-frame"),
        (np.ones((2, 40, 48), int), {1: "lung"}, "the mask is 2 x 40 x 48"),
        (np.zeros((40, 48), int), {1: "lung"}, "shows no structure"),
        (np.full((40, 48), 7), {1: "lung"}, r"holds the values \[7\]"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(source, mask, labels, message):
    with pytest.raises(ImageError, match=message):
        segmentation([mask], [source], ALGORITHM, labels=labels)


def test_a_mask_of_many_frames_is_refused(source):
    source.NumberOfFrames = 3
    with pytest.raises(ImageError, match="single-frame"):
        segmentation([np.ones((40, 48), int)], [source], ALGORITHM, labels={1: "lung"})


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_volume_mask_finds_its_slices_whatever_its_axes(tmp_path, axes, flipped):
    """The same mask in any order and direction of NIfTI axes is the same mask on the slices."""
    paths = write_ct(tmp_path / "ct")
    sources = [read_source(path) for path in paths]
    wanted = np.random.default_rng(0).integers(0, 3, (4, 12, 16))
    # In the order (column, row, slice) the voxels of the series step by 0.75, 0.5 and 5 mm.
    volume = np.transpose(wanted, (2, 1, 0))
    affine = np.diag([-0.75, -0.5, 5.0, 1.0])
    affine[:3, 3] = [10.0, 20.0, 0.0]
    volume, affine = np.transpose(volume, axes), affine[:, [*axes, 3]]
    for axis in flipped:
        affine[:, 3] += affine[:, axis] * (volume.shape[axis] - 1)
        affine[:, axis] *= -1
        volume = np.flip(volume, axis)
    np.testing.assert_array_equal(on_series(volume, affine, sources), wanted)
    np.testing.assert_array_equal(on_series(volume, affine, sources[::-1]), wanted[::-1])


def test_a_volumemask_on_another_grid_is_refused(tmp_path):
    sources = [read_source(path) for path in write_ct(tmp_path / "ct")]
    affine = np.diag([-0.75, -0.5, 5.0, 1.0])
    affine[:3, 3] = [10.0, 20.0, 0.0]
    shifted = affine.copy()
    shifted[0, 3] += 0.3
    with pytest.raises(ImageError, match="lies elsewhere"):
        on_series(np.ones((16, 12, 4), int), shifted, sources)
    with pytest.raises(ImageError, match="lies elsewhere"):
        on_series(np.ones((16, 12, 3), int), affine, sources)
    with pytest.raises(ImageError, match="a mask of 2 axes with an affine"):
        on_series(np.ones((16, 12), int), affine, sources)
    with pytest.raises(ImageError, match="the mask has 960 voxels"):
        on_series(np.ones((16, 12, 5), int), affine, sources)
    with pytest.raises(ImageError, match="the mask has 768 voxels"):
        on_series(np.ones((16, 12, 4), int), affine, [*sources[:3], sources[0]])
    del sources[0].PixelSpacing
    with pytest.raises(ImageError, match="a source image has no PixelSpacing"):
        on_series(np.ones((16, 12, 4), int), affine, sources)


def test_a_mask_that_a_run_drew_in_white_is_its_label_one(tmp_path, source):
    image = Image(np.zeros((1, source.Rows, source.Columns), np.float32))
    drawn = np.zeros((source.Rows, source.Columns), np.uint8)
    drawn[2:5, 3:9] = 1
    write_mask(tmp_path / "m.png", drawn, like=image)
    mask = mask_on(tmp_path / "m.png", [source], {1: "lung"})
    np.testing.assert_array_equal(mask, drawn)
    made = segmentation([mask], [source], ALGORITHM, labels={1: "lung"})
    np.testing.assert_array_equal(made.pixel_array.reshape(drawn.shape), drawn)
    with pytest.raises(ImageError, match="unknown label 1 in the mask"):  # negative control
        mask_on(tmp_path / "m.png", [source], {2: "lung"})


def test_a_picture_keeps_its_pixels_and_gets_a_caption(source):
    made = secondary_capture(PICTURE, source, ALGORITHM, caption="pneumonia 0.83")
    factor = made.Columns // 80
    assert factor >= 6
    drawn = made.pixel_array
    np.testing.assert_array_equal(drawn[: 100 * factor : factor, ::factor], PICTURE)
    below = drawn[100 * factor :]
    assert below.max() == 255  # the words
    assert made.DerivationDescription == f"pneumonia 0.83. {RESEARCH_ONLY}"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert made.PatientOrientation == ["L", "F"]


@pytest.mark.parametrize("picture", [PICTURE[..., 0], PICTURE / 255.0, PICTURE[..., :2]])
def test_a_picture_of_another_form_is_refused(source, picture):
    with pytest.raises(ImageError, match="another form"):
        secondary_capture(picture, source, ALGORITHM, caption="x")


def test_a_picture_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    for name in ("x.png", "y.png"):
        with pytest.raises(ImageError, match=f"{name}: the key picture cannot be read"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("pdf", [PDF, PDF + b"\n"])
def test_a_document_comes_back_byte_for_byte(source, pdf):
    made = encapsulated_pdf(pdf, source, ALGORITHM, title="Report")
    assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength] == pdf
    assert len(made.EncapsulatedDocument) % 2 == 0
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert made.DocumentTitle == f"Report. {RESEARCH_ONLY}"


def test_a_document_that_is_no_pdf_is_refused(source):
    with pytest.raises(MedtlError, match="is no PDF"):
        encapsulated_pdf(b"<html>", source, ALGORITHM)


def test_what_a_source_lacks_is_empty_not_missing(tmp_path):
    bare = {"PatientSex": None, "PatientName": None, "StudyID": None, "PatientOrientation": None}
    source = read_source(write_radiograph(tmp_path / "s.dcm", 0, **bare))
    for kind, made in every_kind(source).items():
        write_object(made, tmp_path / f"{kind}.dcm")
        assert faults(tmp_path / f"{kind}.dcm") == [], kind
        assert dcmread(tmp_path / f"{kind}.dcm").PatientName == ""


def test_a_sex_that_is_no_code_is_left_out(tmp_path):
    assert read_source(write_radiograph(tmp_path / "s.dcm", 0, PatientSex="X")).PatientSex == ""


def test_a_source_that_nothing_can_point_at_is_refused(tmp_path):
    path = write_radiograph(tmp_path / "s.dcm", 0, StudyInstanceUID=None, SeriesInstanceUID=None)
    with pytest.raises(ImageError, match=r"^s.dcm: the file has no Series.*, StudyInstanceUID"):
        read_source(path)


def test_an_element_that_cannot_be_parsed_is_not_quoted(tmp_path, monkeypatch, caplog):
    path = write_radiograph(tmp_path / "s.dcm", 0, InstanceNumber=123456)
    path.write_bytes(path.read_bytes().replace(b"123456", b"CANARY"))
    read_source(path)  # pydicom warns of what is no number, and quotes it

    def fail(_self: Dataset) -> None:
        raise ValueError("CANARY")

    monkeypatch.setattr(Dataset, "iterall", fail)
    with pytest.raises(ImageError, match=r"s.dcm: an element .* cannot be parsed \(Value") as error:
        read_source(path)
    assert "CANARY" not in str(error.value) + caplog.text
    assert error.value.__cause__ is None


def test_nothing_of_a_header_is_logged_or_quoted(tmp_path, caplog):
    """highdicom logs names that it finds odd, and quotes values in its errors."""
    source = read_source(write_radiograph(tmp_path / "s.dcm", 0, PatientName="CANARY"))
    with caplog.at_level(logging.DEBUG):
        assert every_kind(source)["SR"].PatientName == "CANARY"
        source.SOPClassUID = "1.2.3.4"
        with pytest.raises(ImageError) as error:
            every_kind(source)
    assert "no result can be made from the header" in str(error.value)
    assert "CANARY" not in str(error.value) + caplog.text
    assert error.value.__cause__ is None


def test_own_errors_pass_unchanged():
    with pytest.raises(ImageError, match="mine"), made_from("x"):
        raise ImageError("mine")
