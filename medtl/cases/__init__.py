"""The cases of a study: manifests, labels, splits, leaks, pseudonyms, predictions."""
