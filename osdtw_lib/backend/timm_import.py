"""Import timm, also where torch is a CPU build and torchvision a build for another torch.

There torchvision looks for two operators nobody registered and fails at import. Declaring them is enough for
its transforms and data sets, and so for timm; it is done only where the import fails.
"""

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declared = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

import timm  # noqa: E402
import torchvision.transforms.v2  # noqa: E402

__all__ = ["timm", "torchvision"]
