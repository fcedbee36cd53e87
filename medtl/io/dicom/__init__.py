"""DICOM in: files, headers, pixels, series, segmentations, DICOMweb."""
