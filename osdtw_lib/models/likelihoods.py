"""Log-likelihoods with logit adjustment: of a task's classes, or of all, one signature for both.

A likelihood is called with logits (B, outputs) and labels, global class indices (B,) or a distribution over
the K classes (B, K), and returns the log-likelihood of each sample (B,). Training minimises minus its mean;
the Fisher squares its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from ..longtail import class_priors


@dataclass(frozen=True)
class _Likelihood:
    classes: torch.Tensor  # (K_t,) global class indices
    adjustment: torch.Tensor

    def to(self, device: torch.device | str):
        """The same, its constants where the logits will be, so that no call copies them."""
        return replace(self, classes=self.classes.to(device), adjustment=self.adjustment.to(device))


@dataclass(frozen=True)
class Bernoulli(_Likelihood):
    """Independent Bernoulli labels for a group of classes (section 4): an all-zero label says "the other group".

    Adjusted logits are s_k + tau * (log pi_k - log(1 - pi_k)); the log-likelihood is the sum over the classes.
    """

    adjustment: torch.Tensor  # (K_t,)

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        z = z + self.adjustment.to(z)
        target = _group_targets(self.classes, labels, z)
        return (target * z - F.softplus(z)).sum(-1)

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """What a class scores at inference: its raw logit (B, K_t)."""
        return logits


@dataclass(frozen=True)
class Categorical(_Likelihood):
    """A softmax over the group's classes and one outcome more, "the other group": labels exclude each other."""

    adjustment: torch.Tensor  # (K_t + 1,), the last for "the other group"

    @property
    def n_outputs(self) -> int:
        return len(self.adjustment)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        target = _group_targets(self.classes, labels, z)
        if len(self.adjustment) > len(self.classes):
            target = torch.cat([target, 1 - target.sum(-1, keepdim=True)], dim=-1)
        return (target * F.log_softmax(z + self.adjustment.to(z), dim=-1)).sum(-1)

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Raw log-odds of each class against "the other group": s_k - s_other (B, K_t)."""
        return logits[:, :-1] - logits[:, -1:] if len(self.adjustment) > len(self.classes) else logits


def task_likelihoods(kind: str, class_counts, groups: dict[str, np.ndarray], tau: float = 1.0) -> dict:
    """{"head": likelihood, "tail": likelihood}; kind "bernoulli" (the paper's) or "categorical".

    Priors are training-set frequencies over all N samples, also for a task's own classes.
    """
    priors = class_priors(class_counts)
    if kind == "bernoulli":
        return {task: bernoulli(classes, priors[classes], tau) for task, classes in groups.items()}
    if kind == "categorical":
        return {task: categorical(c, np.append(priors[c], 1 - priors[c].sum()), tau) for task, c in groups.items()}
    raise ValueError(f"likelihood is 'bernoulli' or 'categorical', got '{kind}'")


def bernoulli(classes, priors: np.ndarray, tau: float = 1.0) -> Bernoulli:
    """Each class for itself, adjusted by tau times the log-odds of its prior."""
    return Bernoulli(_long(classes), _float(tau * (np.log(priors) - np.log1p(-priors))))


def categorical(classes, priors: np.ndarray, tau: float = 1.0) -> Categorical:
    """A softmax, adjusted by tau times the log priors; one prior more than classes: the last is "the other group"."""
    return Categorical(_long(classes), _float(tau * np.log(priors)))


def _group_targets(classes: torch.Tensor, labels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Z_t (B, K_t): one-hot, or all zero where the label is of the other group."""
    classes = classes.to(like.device)
    if labels.ndim == 2:  # a distribution over all K classes
        return labels[:, classes].to(like)
    return (labels[:, None] == classes).to(like)


def _long(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.int64, device="cpu")  # wherever networks are being built


def _float(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32, device="cpu")
