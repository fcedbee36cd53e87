"""From what people have (folders, sheets, DICOM trees, releases) to the rows of a manifest."""
