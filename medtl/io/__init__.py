"""Files in: images of any supported format, manifests, splits and leak checks."""
