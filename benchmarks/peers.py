"""The plain pass, this project's Fisher and other ways to the mean squared score of every parameter."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from osdtw_lib.fisher.diagonal import diagonal_fisher

PLAIN, OURS = "plain forward + backward", "diagonal_fisher"
Batches = list[tuple[Tensor, Tensor]]
Likelihood = Callable[[Tensor, Tensor], Tensor]
warnings.filterwarnings("ignore", message="Full backward hook is firing")  # the peers' hooks at the first layer


def scores(model: Callable, images: Tensor, labels: Tensor, likelihood: Likelihood, precision: str) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(images)
    return likelihood(logits, labels)


# Every method: a function of (model, likelihood, precision) that does what comes before any pass and returns
# run(batches), the pass; run gives the mean square of the scores for each tensor the method supports.


def plain(model: nn.Module, likelihood: Likelihood, precision: str):
    def run(batches: Batches) -> dict[str, Tensor]:
        for images, labels in batches:
            scores(model, images, labels, likelihood, precision).sum().backward()
            model.zero_grad(set_to_none=True)
        return {}

    return run


def ours(model: nn.Module, likelihood: Likelihood, precision: str):
    return lambda batches: diagonal_fisher(model, batches, likelihood, precision=precision)


def one_sample_at_a_time(model: nn.Module, likelihood: Likelihood, precision: str):
    def run(batches: Batches) -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for images, labels in batches:
            for i in range(len(labels)):
                scores(model, images[i : i + 1], labels[i : i + 1], likelihood, precision).sum().backward()
                for name, p in model.named_parameters():
                    sums[name].addcmul_(p.grad, p.grad)
                model.zero_grad(set_to_none=True)
        return mean(sums, batches)

    return run


def vmap_of_grad(model: nn.Module, likelihood: Likelihood, precision: str):
    without_fused_attention(model)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    budget = 16e9 if next(model.parameters()).is_cuda else 1e9  # bytes for the gradients of a chunk's samples
    chunk = max(1, int(budget / sum(4 * p.numel() for p in parameters.values())))

    def one(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return scores(lambda x: functional_call(model, values, (x,)), image[None], label[None], likelihood, precision)[0]

    per_sample = vmap(grad(one), in_dims=(None, 0, 0))

    def run(batches: Batches) -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for images, labels in batches:
            for some, their in zip(images.split(chunk), labels.split(chunk)):
                add_squares(sums, per_sample(parameters, some, their))
        return mean(sums, batches)

    return run


def opacus(model: nn.Module, likelihood: Likelihood, precision: str):
    """Raw parameters (position embedding, class token) send the whole network through torch.func."""
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(without_fused_attention(model), batch_first=True, loss_reduction="sum")
    wrapped.train()  # it looks at nothing in evaluation mode; there is no dropout to be switched on
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def run(batches: Batches) -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in chosen.items()}
        for images, labels in batches:
            scores(wrapped, images, labels, likelihood, precision).sum().backward()
            add_squares(sums, {name: p.grad_sample for name, p in chosen.items()})
            for p in chosen.values():
                p.grad = p.grad_sample = None
        return mean(sums, batches)

    return run


def opacus_layers_only(model: nn.Module, likelihood: Likelihood, precision: str):
    for name, p in model.named_parameters():
        p.requires_grad_(name not in ("pos_embed", "cls_token"))
    return opacus(model, likelihood, precision)


def backpack(model: nn.Module, likelihood: Likelihood, precision: str):
    """Linear layers alone: there is no rule for LayerNorm or raw parameters."""
    from backpack import backpack as extended
    from backpack import extend
    from backpack.extensions import SumGradSquared

    model.requires_grad_(False)
    chosen = {}
    for path, module in model.named_modules():
        if type(module) is nn.Linear:
            extend(module.requires_grad_())
            chosen |= {f"{path}.{name}": p for name, p in module.named_parameters()}

    def run(batches: Batches) -> dict[str, Tensor]:
        sums = {name: torch.zeros_like(p) for name, p in chosen.items()}
        for images, labels in batches:
            with extended(SumGradSquared()):
                scores(model, images, labels, likelihood, precision).sum().backward()
            for name, p in chosen.items():
                sums[name] += p.sum_grad_squared
                p.grad = None
                del p.sum_grad_squared
        return mean(sums, batches)

    return run


METHODS = {  # name: (function, packages it needs)
    OURS: (ours, ()),
    "one sample at a time": (one_sample_at_a_time, ()),
    "torch.func vmap(grad)": (vmap_of_grad, ()),
    "Opacus": (opacus, ("opacus",)),
    "Opacus, raw parameters frozen": (opacus_layers_only, ("opacus",)),
    "BackPACK": (backpack, ("backpack", "opt_einsum")),
}


def without_fused_attention(model: nn.Module) -> nn.Module:
    """torch.func has no batching rule for fused attention on a CPU."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


def add_squares(sums: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    for name, total in sums.items():
        total += gradients[name].to(total.dtype).square().sum(0).view_as(total)  # gradients may share memory


def mean(sums: dict[str, Tensor], batches: Batches) -> dict[str, Tensor]:
    return {name: total / sum(len(labels) for _, labels in batches) for name, total in sums.items()}
