"""Exact diagonal empirical Fisher: the mean over samples of the squared per-sample score (section 6.2).

The gradient of a Linear's weight for one sample is a sum over its tokens, so it must be summed before it is
squared. One backward pass gives every layer its input x and its output's gradient g; one small rule a layer
type turns them into sums of squares. Gradients of the weights themselves are never computed, and nothing of
size (batch x parameters) is ever held.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..artifacts.background import Background
from ..backend import distributed, gpus
from ..backend.precision import REDUCED, autocast
from ..errors import UserError
from .reading import check_repeatable, own
from .rules import EXPANDED, RULES, Rule, has_bias_apart, in_single
from .sums import gathered

CHECK_EVERY = 32  # batches between two looks for non-finite sums, and whether a checkpoint is due
CHECKPOINT_SECONDS = 2.0  # not more often than this, nor than its cost allows
FP16_SCALE = 256.0  # of the log-likelihood, so that gradients do not vanish below what fp16 can hold


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    **options,
) -> dict[str, Tensor]:
    """`diagonal_fishers` of one model, with the same options."""
    return diagonal_fishers({"": model}, batches, {"": log_likelihood}, **options)[""]


def diagonal_fishers(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    log_likelihoods: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    *,
    buffer_megabytes: float = 64.0,
    precision: str = "fp32",
    checkpoint=None,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, dict[str, Tensor]]:
    """Mean over samples of the squared per-sample score of every parameter of each model, in evaluation mode.

    models: {name: images (B, ...) -> logits (B, outputs)}, which share no parameter; batches, read once for all of them:
    (images, labels) that come out the same each time. log_likelihoods: {name: (logits, labels) -> (B,)}, one number a sample.
    buffer_megabytes bounds the scratch memory of plain PyTorch's products; the compiled loops and the GPU kernel hold tiles
    alone. precision "bf16" or "fp16" runs the network under autocast; sums stay float32 (float64 for a float64 model).
    checkpoint (save/load, one a process) lets a killed pass go on. With several processes each takes every
    world_size-th batch, with one reduction at the end.
    Returns {name: {parameter name: tensor of the parameter's shape}}. The models, their hooks, flags, modes and the random
    state are left as they were, also after an exception.
    Raises UserError for batches that shuffle, drop or augment, for no data, and for a score that is not finite; ValueError
    for a precision that does not exist.
    """
    if precision not in REDUCED:
        raise ValueError(f"precision is one of {', '.join(REDUCED)}, got '{precision}'")
    with torch.enable_grad(), gpus.random_state_kept(), contextlib.ExitStack() as stack:
        for model in models.values():
            stack.enter_context(_as_found(model))
        check_repeatable(batches)
        runs = {
            name: _Pass(model.eval(), log_likelihoods[name], int(buffer_megabytes * 2**20), precision)
            for name, model in models.items()
        }
        done = _resumed(runs, checkpoint)
        saved = checkpoint and stack.enter_context(Background(checkpoint))
        for run in runs.values():
            stack.callback(run.detach)
            run.attach()
        for number, (images, labels) in own(batches, done):
            images, labels = _on_device(model, images, labels)
            for run in runs.values():
                run.batch(images, labels, number)
            progress(len(labels))
            if number // distributed.world_size() % CHECK_EVERY == CHECK_EVERY - 1:
                for run in runs.values():
                    run.check_finite(batches)
                if saved and saved.due(CHECKPOINT_SECONDS):
                    saved.save(_tensors(runs), {"batches": number + 1, "samples": run.samples})
        for run in runs.values():
            run.check_finite(batches)
    known = len(batches.labels) if hasattr(batches, "labels") else None
    return {name: run.mean(known) for name, run in runs.items()}


def _tensors(runs: dict[str, _Pass]) -> dict[str, Tensor]:
    return {f"{name}/{parameter}": total for name, run in runs.items() for parameter, total in run.sums.items()}


def _resumed(runs: dict[str, _Pass], checkpoint) -> int:
    """How many batches the passes have behind them, by a checkpoint."""
    found = checkpoint.load() if checkpoint is not None else None
    if not found:
        return 0
    tensors, state = found
    for name, total in _tensors(runs).items():
        total.copy_(tensors[name])
    for run in runs.values():
        run.samples = state["samples"]
    print(f"fisher: resumes after batch {state['batches']}", flush=True)
    return state["batches"]


class _Pass:
    """The state of one pass: which parameter has which rule, and the running sums of squares."""

    def __init__(self, model: nn.Module, log_likelihood, buffer_bytes: int, precision: str):
        self.model, self.log_likelihood = model, log_likelihood
        self.buffer_bytes, self.precision = buffer_bytes, precision
        self.scale = FP16_SCALE if precision == "fp16" else 1.0
        self.parameters = dict(model.named_parameters())
        self.sums = {n: torch.zeros(p.shape, dtype=_sum_type(p.dtype), device=p.device) for n, p in self.parameters.items()}
        self.samples, self.handles, self.said = 0, [], False
        self.finite: list[tuple[int, Tensor]] = []  # number of each batch since the last look, and whether all likelihoods were
        self.rows: dict[str, list[int]] = {}  # of each layer, how many every call in this batch was given
        self.ruled, self.expanded, self.one_by_one = self._assign()

    def _assign(self):
        """{module: (itself, its rule, sums, names)}, names of raw parameters to expand, and of those one sample at a time."""
        uses: dict[int, int] = {}
        for _, p in self.model.named_parameters(remove_duplicate=False):
            uses[id(p)] = uses.get(id(p), 0) + 1
        ruled, expanded, one_by_one, apart = {}, [], [], {}
        for path, module in self.model.named_modules():
            if has_bias_apart(module) and all(uses[id(p)] == 1 for p in module.parameters()):
                apart[f"{path}.qkv"] = [f"{path}.q_bias", f"{path}.v_bias"]  # they go with the layer
                continue
            own = {f"{path}.{n}" if path else n: (n, p) for n, p in module.named_parameters(recurse=False)}
            own = {full: pair for full, pair in own.items() if full in self.parameters}
            function, valid = RULES.get(type(module), (None, lambda module: False))
            fits = function and valid(module) and all(uses[id(p)] == 1 for _, p in own.values())
            if own and fits:
                sums = {local: self.sums[full] for full, (local, _) in own.items()}
                sums |= {"bias": self._joined(*apart[path])} if path in apart else {}
                ruled[path] = (module, function, sums, [*own, *apart.pop(path, [])])
            for full, (local, p) in own.items():
                raw = any(isinstance(module, kind) and local == name and whole(module) for kind, name, whole in EXPANDED)
                if raw and uses[id(p)] == 1 and (p.ndim == 1 or (p.ndim == 3 and p.shape[0] == 1)):
                    expanded.append(full)
                elif not fits:
                    one_by_one.append(full)
        return ruled, expanded, one_by_one + [name for names in apart.values() for name in names]

    def _joined(self, query: str, value: str) -> Tensor:
        """The sums of a bias (3 D,) of which two parameters are the first and the last third; theirs become parts of it."""
        width, like = len(self.sums[query]), self.sums[query]
        whole = torch.zeros(3 * width, dtype=like.dtype, device=like.device)
        self.sums[query], self.sums[value] = whole[:width], whole[2 * width :]
        return whole

    def mean(self, known: int | None = None) -> dict[str, Tensor]:
        """Over the samples of all processes, which ask for it together; known: how many there are, where one can know."""
        samples = distributed.sum_over_processes(list(self.sums.values()), self.samples)
        if samples == 0:
            raise UserError("the Fisher needs at least one sample; the batches are empty")
        if known not in (None, samples):
            raise RuntimeError(f"the Fisher has counted {samples} samples, and there are {known}")
        return {name: total / (samples * self.scale**2) for name, total in self.sums.items()}

    def attach(self) -> None:
        for p in self.parameters.values():
            p.requires_grad_(False)
        for path, (module, function, sums, _) in self.ruled.items():
            self.handles.append(module.register_forward_hook(self._hook(path, function, sums)))

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def _hook(self, path: str, function: Rule, sums: dict[str, Tensor]):
        def hook(module, args, output):
            x = args[0].detach()
            version = x._version

            def add(g):
                if x._version != version:
                    raise RuntimeError(f"{path}: its input is changed in place after the call, so the Fisher cannot read it")
                function(module, x, g, sums, self.buffer_bytes)

            self.rows.setdefault(path, []).append(len(x))
            if not output.requires_grad:
                output.requires_grad_()  # the first layer: nothing before it asks for gradients
            if path in self.ruled:
                output.register_hook(add)
            if isinstance(module, nn.Conv2d):  # a token's numbers side by side, as every layer after it reads them
                return output.contiguous(memory_format=torch.channels_last)

        return hook

    def batch(self, images: Tensor, labels: Tensor, number: int) -> None:
        copies = {}
        for name in self.expanded:  # one copy a sample, so that its gradient is the sample's own
            one = self.parameters[name].detach().requires_grad_()
            copies[name] = one.expand(len(labels), 1 if one.ndim == 1 else -1, -1)
            copies[name].register_hook(lambda g, sums=self.sums[name]: self._add_expanded(sums, g))
        self.rows.clear()
        scores = self._log_likelihood(copies, images, labels)
        odd = [path for path in self.ruled if self.rows.get(path) != [len(labels)]]
        if odd:  # called twice or never, or with tokens folded into the batch: the rule does not hold there
            for path in odd:
                self.one_by_one += self.ruled.pop(path)[3]
            scores = self._log_likelihood(copies, images, labels)  # graph anew, without those rules
        if scores.shape != labels.shape[:1]:
            raise ValueError(f"log_likelihood must return one number a sample ({len(labels)},), got {tuple(scores.shape)}")
        if scores.requires_grad:
            with gathered():
                scores.sum().backward()
        self._one_sample_at_a_time(images, labels)
        self.samples += len(labels)
        self.finite.append((number, torch.isfinite(scores.detach()).all()))  # looked at later: a GPU would stand still meanwhile

    def _check_likelihoods(self, batches) -> None:
        """Raises UserError naming batch and sample where a log-likelihood since the last look was not finite."""
        looked_at, self.finite = self.finite, []
        if not looked_at or bool(torch.stack([finite for _, finite in looked_at]).all()):
            return
        self.detach()
        number = next(number for number, finite in looked_at if not finite)
        images, labels = _on_device(self.model, *next(itertools.islice(batches, number, None)))
        with torch.no_grad():
            bad = (~torch.isfinite(self._log_likelihood({}, images, labels))).nonzero()
        if len(bad):
            reason = self._first_not_finite(images[bad[0]])
            raise UserError(f"the log-likelihood of sample {int(bad[0])} of batch {number} is not finite: {reason}")

    def _log_likelihood(self, copies: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.precision, images.device):
            # nothing expanded is tied (_assign), so nobody need look for ties at every batch
            logits = functional_call(self.model, copies, (images,), tie_weights=False) if copies else self.model(images)
        return self.log_likelihood(in_single(logits), labels) * self.scale

    def _first_not_finite(self, image: Tensor) -> str:
        """In words, where the first infinite or NaN value of one image (1, ...) stands; slow, and rare."""
        if not torch.isfinite(image).all():
            return "the image holds a value that is not"
        found = []

        def look(path):
            def hook(module, args, output):
                if isinstance(output, Tensor) and not torch.isfinite(output).all():
                    found.append(path)

            return hook

        self.detach()
        handles = [m.register_forward_hook(look(path)) for path, m in self.model.named_modules() if not any(m.children())]
        try:
            with torch.no_grad():
                self._log_likelihood({}, image, torch.zeros(1, dtype=torch.long, device=image.device))
        finally:
            for handle in handles:
                handle.remove()
        return f"the output of layer {found[0]} is not" if found else "the output of every layer is"

    @staticmethod
    def _add_expanded(sums: Tensor, g: Tensor) -> None:
        sums += in_single(g).square().sum(0).view_as(sums)

    def _one_sample_at_a_time(self, images: Tensor, labels: Tensor) -> None:
        """The slow exact way, for parameters without a rule."""
        if not self.one_by_one:
            return
        if not self.said:
            shown = ", ".join(self.one_by_one[:5]) + (" ..." if len(self.one_by_one) > 5 else "")
            print(f"fisher: no rule for {shown}: taken one sample at a time (exact, slower)", flush=True)
            self.said = True
        self.detach()
        chosen = [self.parameters[name].requires_grad_() for name in self.one_by_one]
        for i in range(len(labels)):
            score = self._log_likelihood({}, images[i : i + 1], labels[i : i + 1]).sum()
            for name, g in zip(self.one_by_one, torch.autograd.grad(score, chosen, allow_unused=True)):
                if g is not None:
                    self.sums[name] += in_single(g).square()
        self.attach()

    def check_finite(self, batches) -> None:
        """Raises UserError naming layer and sample if a likelihood or a sum is not finite; finding them is slow, and rare."""
        self._check_likelihoods(batches)
        total = sum(float(s.sum(dtype=torch.float64)) for s in self.sums.values())
        if math.isfinite(total):
            return
        self.detach()
        for p in self.parameters.values():
            p.requires_grad_()
        index = 0
        for images, labels in batches:
            images, labels = _on_device(self.model, images, labels)
            for i in range(len(labels)):
                score = self._log_likelihood({}, images[i : i + 1], labels[i : i + 1]).sum()
                grads = torch.autograd.grad(score, list(self.parameters.values()), allow_unused=True)
                for name, g in zip(self.parameters, grads):
                    if g is not None and not torch.isfinite(in_single(g).square().sum()):
                        raise UserError(f"the score of sample {index} is not finite in {name}; the model has diverged there")
                index += 1
        raise UserError("a sum of squared scores is not finite; the model has diverged")


@contextlib.contextmanager
def _as_found(model: nn.Module):
    modes = [(module, module.training) for module in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    apart = [(module, module.qkv_bias_separate) for module in model.modules() if has_bias_apart(module)]
    for module, _ in apart:  # so that its layer is called, and its bias added to what the layer gives
        module.qkv_bias_separate = True
    checkpointing = getattr(model, "grad_checkpointing", False)
    if checkpointing:
        model.grad_checkpointing = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)
        for module, flag in apart:
            module.qkv_bias_separate = flag
        if checkpointing:
            model.grad_checkpointing = True


def _on_device(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
