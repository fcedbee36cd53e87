"""A PDF as a DICOM object of the source's study: Encapsulated PDF Storage (PS3.3 A.45.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from medtl.errors import MedtlError
from medtl.export.identity import RESEARCH_ONLY, Algorithm, identifiers, stamp
from medtl.export.source import made_from, reference

MOST_BYTES = 200 << 20
"""Larger documents belong on a file server."""


def encapsulated_pdf(
    pdf: bytes, source: Dataset, algorithm: Algorithm, *, title: str = "medtl report"
) -> Dataset:
    """Return a PDF as a DICOM object of the source's patient and study.

    Args:
        pdf: The file's bytes.
        source: Header of an image of the study.
        algorithm: What made the results in the document.
        title: Shown by viewers.

    Raises:
        MedtlError: When the bytes are no PDF, or more than `MOST_BYTES`.
        ImageError: When the source's header cannot be used.
    """
    if not pdf.startswith(b"%PDF-") or len(pdf) > MOST_BYTES:
        raise MedtlError("the document is no PDF", expected=f"a PDF of at most {MOST_BYTES} bytes")
    import highdicom

    with made_from("source image"):
        document = highdicom.SOPClass(
            study_instance_uid=source.StudyInstanceUID,
            sop_class_uid=EncapsulatedPDFStorage,
            modality="DOC",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **identifiers("PDF", source, algorithm, pdf),
        )
        document.copy_patient_and_study_information(source)
        document.ConversionType = "WSD"
        document.AcquisitionDateTime = ""
        document.BurnedInAnnotation = "YES"  # a report may name whom it is about
        document.DocumentTitle = f"{title}. {RESEARCH_ONLY}"
        document.ConceptNameCodeSequence = []
        document.VerificationFlag = "UNVERIFIED"
        document.SourceInstanceSequence = [reference(source)]
        document.MIMETypeOfEncapsulatedDocument = "application/pdf"
        document.EncapsulatedDocumentLength = len(pdf)
        document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
        return stamp(document, algorithm)
