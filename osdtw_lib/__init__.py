"""OSDTW: Optimal Shared Depth and Task Weighting for Long-Tailed Recognition, as a runnable companion.

The rooms in the order data passes through them: config, data, models, training, fisher, proxy, stages; artifacts and
evaluation beside them; figures, explorer and report show what they made. Each says in its first lines what it holds.
"""

from .backend import threads

threads.prepare()  # every way in passes here, and before torch is loaded

__version__ = "0.2.0"


def load_predictor(folder, method="osdtw"):
    """Load the trained predictor of one finished run, or that of another row; see `osdtw_lib.inference.predictor`."""
    from .inference.predictor import load_predictor as load

    return load(folder, method)
