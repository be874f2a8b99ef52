"""The exact diagonal empirical Fisher of any timm VisionTransformer: one small rule a layer type (rules.py).

Imports backend. Start with diagonal.py.
"""

from .diagonal import diagonal_fisher

__all__ = ["diagonal_fisher"]
