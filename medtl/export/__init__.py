"""Results as DICOM objects of the patient and study that the images came from."""
