"""The exact diagonal empirical Fisher of a timm VisionTransformer or Eva: one small rule a layer type (rules.py).

Imports backend. Start with diagonal.py.
"""

from .diagonal import diagonal_fisher

__all__ = ["diagonal_fisher"]
