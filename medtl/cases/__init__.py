"""Who is in a study: manifests, labels, splits, leaks, pseudonyms, predictions."""
