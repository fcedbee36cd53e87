"""medtl: staged transfer learning on medical images, from DICOM to a clinical report."""

__version__ = "0.1.0"
