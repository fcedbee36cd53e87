"""From real-world units to what the network sees: intensity, geometry, safe augmentation."""
