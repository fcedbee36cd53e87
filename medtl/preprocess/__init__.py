"""From real-world units to what the network sees: intensity, geometry, safe augmentation."""

from medtl import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "augment": "Augmenter augmenter",
        "augment_volume": "VolumeAugmenter volume_augmenter",
        "geometry": "fit_to plan_fit resize unfit",
        "intensity": "clahe local_contrast min_max percentile_scale window z_score",
        "pipeline": "Preprocessor",
        "sheet": "contact_sheet",
        "volume": "VolumePreprocessor from_grid to_grid",
    },
)
