"""Import timm and torchvision: quickly, and also where torch is a CPU build and torchvision a build for another torch.

There torchvision looks for two operators nobody registered and fails at import. Declaring them is enough for
its transforms and data sets, and so for timm; it is done only where the import fails.

Both ask torch's compiler one thing each while they are imported, which loads all of it: more than half of what importing them
takes. Here they are answered when they are called, by models that this project has none of.
"""

import contextlib
import functools
import sys
from types import ModuleType

import torch

COMPILER = "torch._dynamo"


@contextlib.contextmanager
def _compiler_asked_later():
    """Inside, torch.compiler.disable and torch._dynamo.utils.is_compile_supported load nothing until what they gave is called."""
    if COMPILER in sys.modules:
        yield
        return
    disable, stand_in = torch.compiler.disable, ModuleType(f"{COMPILER}.utils")

    def disabled_later(function=None, *arguments, **options):
        if function is None:
            return functools.partial(disabled_later, **options)
        disabled = functools.cache(lambda: disable(function, *arguments, **options))
        return functools.wraps(function)(lambda *a, **o: disabled()(*a, **o))

    def is_compile_supported(device: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return is_compile_supported(device)

    stand_in.is_compile_supported = is_compile_supported
    torch.compiler.disable, sys.modules[stand_in.__name__] = disabled_later, stand_in
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(stand_in.__name__) is stand_in:
            del sys.modules[stand_in.__name__]


with _compiler_asked_later():
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

    import timm
    import torchvision.transforms.v2

__all__ = ["timm", "torchvision"]
