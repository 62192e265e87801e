"""Writes phone.heic: four colors as a phone stores a photograph that it took upright.

    pip install pillow-heif==1.8.1
    python tests/golden/make_phone_photo.py

The stored pixels are 16 x 32, height and width. Both the property of the image (irot) and EXIF say
that they are turned by a quarter to the right when they are shown.
"""

from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image

TURNED = 6

# pillow-heif writes the property only for images with an orientation that Pillow has not applied.
pillow_heif.as_plugin._get_orientation_for_encoder = lambda info: TURNED
pillow_heif.register_heif_opener()
pixels = np.zeros((16, 32, 3), np.uint8)
pixels[:8, :16], pixels[:8, 16:] = (220, 40, 30), (30, 200, 60)
pixels[8:, :16], pixels[8:, 16:] = (40, 60, 210), (240, 240, 240)
exif = Image.Exif()
exif[ExifTags.Base.Orientation] = TURNED
Image.fromarray(pixels).save(Path(__file__).parent / "phone.heic", quality=90, exif=exif)
