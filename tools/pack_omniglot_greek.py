"""Pack the Greek letters of Omniglot into the sheet that is bundled as the dataset ``omniglot-greek``.

A row for each letter, a column for each drawer, 105 x 105 px and one bit a pixel. Reads the dataset
``omniglot-small``, so the two archives must be under HEADSTART_DATA, or are downloaded.

    python tools/pack_omniglot_greek.py        writes src/headstart/data/readers/omniglot-greek.png
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.readers.load import load
from headstart.data.stores import ArrayImages

TARGET = Path(__file__).parents[1] / "src/headstart/data/readers/omniglot-greek.png"


def main() -> None:
    data = load("omniglot-small")
    greek = data.subset(np.char.startswith(data.labels, "Greek/"))
    assert greek.groups is not None and isinstance(greek.images, ArrayImages)
    drawn = greek.images.pixels[np.lexsort((greek.groups, greek.labels)), :, :, 0]
    n_letters, n_drawers = len(set(greek.labels.tolist())), len(set(greek.groups.tolist()))
    side = drawn.shape[-1]
    tiles = drawn.reshape(n_letters, n_drawers, side, side)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(n_letters * side, n_drawers * side)
    packed = io.BytesIO()
    Image.fromarray(sheet).convert("1", dither=Image.Dither.NONE).save(packed, "png", optimize=True)
    TARGET.write_bytes(packed.getvalue())
    print(f"{TARGET.name}: {n_letters} letters by {n_drawers} people, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
