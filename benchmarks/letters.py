"""A made-up set that is harder than digits: distorted letters, to try rankings on.

    python benchmarks/letters.py FOLDER [--images 150] [--seed 0]

Writes FOLDER/CLASS/NUMBER.png, 32 x 32 pixels: the 26 capital and the distinct small letters in the typefaces that come
with matplotlib, turned, slanted, scaled and moved at random, in random colours, with blots and noise.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijnqrt"
SIDE, SCALE = 32, 4  # drawn four times as large, then reduced


def typefaces() -> list[Path]:
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return sorted(path for path in fonts.glob("DejaVu*.ttf") if "Display" not in path.name) + sorted(
        fonts.glob("STIXGeneral*")
    )


def draw(letter: str, faces: list[Path], rng: np.random.Generator) -> Image.Image:
    side = SIDE * SCALE
    dark, light = rng.integers(0, 110, 3), rng.integers(130, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.5 else (light, dark)
    font = ImageFont.truetype(str(faces[rng.integers(len(faces))]), int(side * rng.uniform(0.45, 0.8)))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text((side / 2, side / 2), letter, font=font, fill=255, anchor="mm")
    angle, shear, stretch = rng.normal(0, 0.3), rng.normal(0, 0.25), rng.uniform(0.8, 1.25)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[stretch, shear], [0, 1 / stretch]])
    offset = side / 2 - matrix @ (side / 2 + rng.normal(0, 0.07 * side, 2))
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    mask = mask.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    for _ in range(rng.integers(0, 4)):  # blots
        x, y, radius = *rng.uniform(0, side, 2), side * rng.uniform(0.03, 0.12)
        ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(rng.integers(2)) * 255)
    share = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float)[..., None] / 255
    pixels = share * ink + (1 - share) * paper + rng.normal(0, rng.uniform(5, 45), (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=150, help="of each letter")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faces = typefaces()
    for number, letter in enumerate(LETTERS):
        folder = arguments.folder / f"{number:02}_{'small' if letter.islower() else 'capital'}_{letter}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng([arguments.seed, number])
        for image in range(arguments.images):
            draw(letter, faces, rng).save(folder / f"{image:03}.png")
    print(f"wrote {len(LETTERS)} classes of {arguments.images} images to {arguments.folder}, in {len(faces)} typefaces")


if __name__ == "__main__":
    main()
