"""Logit-adjusted cross-entropy at tau = 1: the balanced softmax, n_k exp(z_k) over the sum of all of them."""

import numpy as np


def loss(scores, target, counts):
    total = 0.0
    for z, t in zip(scores, target):
        mass = counts * np.exp(z)
        total -= sum(t[k] * np.log(mass[k] / mass.sum()) for k in range(len(z)))
    return total / len(scores)
