"""The manual's pictures, drawn from synthetic images and from the package's own numbers."""
