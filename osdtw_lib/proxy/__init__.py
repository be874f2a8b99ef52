"""The theorem as a search over (C, w_A): Eq. (18) on every parameter (exact.py), in bins for sliders
(binned.py), its bias measured instead of expanded (measured_bias.py).

Imports models, evaluation and below. Start with exact.py; Eq. (18)'s two sums are in sums.py.
"""

from .exact import Proxy

__all__ = ["Proxy"]
