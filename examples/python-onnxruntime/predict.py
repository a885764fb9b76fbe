"""Name what is in pictures, with onnxruntime, numpy and Pillow alone.

    pip install onnxruntime numpy pillow
python predict.py picture.jpg ...
python predict.py --model other.onnx picture.jpg ...
python predict.py --check          the pictures beside this file answer as they should
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def pixels(path):
    """Decode a picture, upright, transparent parts on white: uint8 (height, width, 3)."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits
            grey = (np.asarray(image).astype(np.int64) + 128) // 257
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        if image.has_transparency_data:
            image = image.convert("LA") if image.mode == "La" else image
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))


class Model:
    """A graph that takes a picture of any size and does the rest inside."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        told = self.session.get_modelmeta().custom_metadata_map
        self.classes = json.loads(told["classes"])
        self.outputs = [one.name for one in self.session.get_outputs()]

    def __call__(self, path):
        """Name, probabilities, and novelty where the model has it (above 1: none of these)."""
        found = dict(zip(self.outputs, self.session.run(None, {"image": pixels(path)}), strict=True))
        probabilities = found["probabilities"].tolist()
        novelty = float(found["novelty"][0]) if "novelty" in found else None
        best = int(np.argmax(probabilities))
        name = "none of these" if novelty is not None and novelty > 1 else self.classes[best]
        return {"file": str(path), "name": name, "probabilities": probabilities, "novelty": novelty}


def check(model):
    """Compare with the answers the model gave before it was taken away."""
    told = json.loads((HERE / "check.json").read_text(encoding="utf-8"))
    for one in told["pictures"]:
        found = model(HERE / one["file"])
        off = max(abs(a - b) for a, b in zip(found["probabilities"], one["probabilities"], strict=True))
        if found["name"] != one["name"] or not off <= told["largest_difference"]:
            sys.exit(f"{one['file']}: {found['name']}, need {one['name']} (probabilities off by {off:.3g})")
    print(f"{len(told['pictures'])} pictures answer as they should")


def main():
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--model", default=HERE / "model.onnx")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    model = Model(asked.model)
    if asked.check:
        check(model)
    for path in asked.pictures:
        found = model(path)
        if asked.json:
            print(json.dumps(found))
        else:
            print(f"{path}\t{found['name']}\t{max(found['probabilities']):.3f}")


if __name__ == "__main__":
    main()
