"""Flags of images that say where a fact comes from and need nothing done."""

from __future__ import annotations

from collections.abc import Mapping

HARMLESS: Mapping[str, str] = {
    "spacing_from_imager": "the pixel size is that of the detector, as is usual of radiographs",
    "spacing_from_scanner": "the pixel size is that of the film scanner",
    "spacing_converted_to_mm": "the voxel size was stated in another unit",
    "reduced_resolution": "decoded with fewer pixels, which are still more than the network takes",
    "alpha_dropped": "its transparency was left out",
    "cmyk_converted": "print colours were made RGB",
    "pixel_padding": "the empty border was set below the darkest value",
}
"""Flag -> what it means, in words for a reader who has never seen it.

A flag that is not here may need somebody to look at the image.
"""
