"""OSDTW: Optimal Shared Depth and Task Weighting for Long-Tailed Recognition, as a runnable companion.

The modules in the order data passes through them: config, longtail, datasets, vit, losses, training,
masked_autoencoder, fisher, proxy, stages; artifacts and evaluation beside them; figures, explorer and
report show what they made.
"""

import os

# Threads that wait for each other by spinning make a shared machine crawl: with one other busy process on two
# cores, training ran at a twentieth of its speed. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"


def load_predictor(folder):
    """Load the trained two-branch predictor of one finished run; see `osdtw_lib.predictor.load_predictor`."""
    from .predictor import load_predictor as load

    return load(folder)
