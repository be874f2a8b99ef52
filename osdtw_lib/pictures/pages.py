"""Pages with pictures inside them: they open without a network, and from any place."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
from PIL import Image

from ..report.page import page_script, style, template

SIDE = 64  # pixels of a picture's longer side, at most


def file_of(page: int) -> str:
    return f"page_{page:04d}.html"


def picture(pixels: np.ndarray) -> str:
    """uint8 (H, W, C) -> a data address; PNG of a small grey image, else JPEG."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    kind = "png" if image.mode == "L" and max(image.size) <= SIDE // 2 else "jpeg"
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def page(number: int, last: int, sections: list[dict]) -> str:
    """sections: a dictionary a class, about and rows, as stage.py makes them."""
    before, after = (file_of(n) if 1 <= n <= last else None for n in (number - 1, number + 1))
    return template("pictures").render(
        sections=sections, number=number, last=last, before=before, after=after, side=SIDE, style=style()
    )


def overview(classes: pd.DataFrame) -> str:
    """classes: a line each, with its page; a table that sorts by any column."""
    lines = [line | {"link": f"{file_of(line['page'])}#class{line['number']}"} for line in classes.to_dict("records")]
    return template("classes").render(classes=lines, style=style(), page_js=page_script())
