"""Classes of image files by the exported model beside this script, which needs onnxruntime, numpy and Pillow alone.

python predict.py IMAGE...    prints file, class and probability, a line an image as it comes
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
HOW = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))
RESAMPLING = Image.Resampling[HOW["interpolation"].upper()]
NAMES = json.loads((HERE / "config.json").read_text(encoding="utf-8"))["class_names"]
MODEL = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])


def opened(file) -> Image.Image:
    """Upright, 8 bits, what is transparent on white, in the mode the network takes. Raises ValueError for what has no 8 bits."""
    with Image.open(file) as there:
        if there.format in HOW["formats_refused"]:
            raise ValueError(f"{there.format} is no format of pictures")
        image = ImageOps.exif_transpose(there)
    if image.mode[0] in "IF":  # 16 bits and more; of known range in a PNG without transparency
        if there.format != "PNG" or "transparency" in image.info:
            raise ValueError("more than 8 bits; save it with 8")
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(HOW["mode"])


def seen(file) -> np.ndarray:
    """An image file as the network sees it, float32 (1, channels, height, width): covered, cropped, normalised."""
    image, cover, (height, width) = opened(file), HOW["resize_to_cover"], HOW["crop"]
    ratio = min(image.height / cover[0], image.width / cover[1])
    image = image.resize((round(image.width / ratio), round(image.height / ratio)), RESAMPLING)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32).reshape(height, width, -1) / 255
    return ((pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])).transpose(2, 0, 1)[None]


def scores(file) -> np.ndarray:
    """(K,) in the order of class_names; their softmax is a probability under the prior that config.json names."""
    return np.asarray(MODEL.run(None, {"images": seen(file)})[0], float)[0]


def main(files: list[str]) -> int:
    bad = 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    for file in files:
        try:
            found = scores(file)
            odds = np.exp(found - found.max())
            print(file, NAMES[odds.argmax()], f"{1 / odds.sum():.4f}", sep="\t", flush=True)
        except BrokenPipeError:  # python predict.py ... | head
            os._exit(141)
        except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
            bad += 1
            print(f"{file}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr, flush=True)
    return 2 if bad else 0


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
