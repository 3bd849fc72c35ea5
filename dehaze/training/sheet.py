"""Sheets of sample photographs: what the network makes of the same few at each validation."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from dehaze.io.files import write_whole

HEIGHT, TITLE, GAP = 224, 18, 4  # px


def make_sheet(rows: Sequence[Mapping[str, Tensor]]) -> Image.Image:
    """Lay out photographs in rows, each a mapping from a column's name to an image [1,C,H,W] in [0,1].

    Columns have the order in which they appear first; where a row lacks one, the place stays empty.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    pictures = [{name: _picture(image) for name, image in row.items()} for row in rows]
    widths = {name: max(row[name].width for row in pictures if name in row) for name in names}
    size = sum(widths.values()) + GAP * (len(names) - 1), TITLE + len(rows) * (HEIGHT + GAP) - GAP
    sheet = Image.new("RGB", size, "white")
    left = 0
    for name in names:
        ImageDraw.Draw(sheet).text((left + 2, 3), name, fill="black")
        for number, row in enumerate(pictures):
            if name in row:
                sheet.paste(row[name], (left, TITLE + number * (HEIGHT + GAP)))
        left += widths[name] + GAP
    return sheet


def write_sheet(rows: Sequence[Mapping[str, Tensor]], path: Path) -> None:
    """Write the sheet of `make_sheet` as PNG. Raises OutputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    make_sheet(rows).save(file, "png")
    write_whole(path, file.getvalue())


def _picture(image: Tensor) -> Image.Image:
    height, width = image.shape[-2:]
    size = (HEIGHT, max(1, round(width * HEIGHT / height)))
    small = F.interpolate(image.float().cpu(), size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    pixels = (small.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().numpy()
    return Image.fromarray(pixels)
