"""OSDTW: Optimal Shared Depth and Task Weighting for Long-Tailed Recognition, as a runnable companion.

The rooms in the order data passes through them: config, data, models, training, fisher, proxy, stages; artifacts and
evaluation beside them; figures, explorer and report show what they made. Each says in its first lines what it holds.
"""

import os

# Threads that wait for each other spin, and on a shared machine that stalls them all: with one other busy process on
# two cores training fell to a seventieth of its speed. A short spin keeps most of the speed of an idle machine. Read
# by OpenMP when torch is first imported; where OMP_WAIT_POLICY is set it is left alone.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

__version__ = "0.2.0"


def load_predictor(folder, method="osdtw"):
    """Load the trained predictor of one finished run, or that of another row; see `osdtw_lib.inference.predictor`."""
    from .inference.predictor import load_predictor as load

    return load(folder, method)
