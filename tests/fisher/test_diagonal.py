"""Every rule against one sample at a time in float64, on every tensor."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from several_processes import together
from small_networks import likelihood, small_vit, some_batches
from torch import nn

from osdtw_lib.backend import distributed
from osdtw_lib.backend.timm_import import timm
from osdtw_lib.errors import UserError
from osdtw_lib.fisher import diagonal
from osdtw_lib.fisher.diagonal import diagonal_fisher, diagonal_fishers

KINDS = {
    "average pooling": {"global_pool": "avg", "class_token": False},
    "class token": {"global_pool": "token"},
    "class token, average pooling": {"global_pool": "avg"},
    "register tokens": {"global_pool": "token", "reg_tokens": 2},
    "position embedding without prefix": {"global_pool": "avg", "reg_tokens": 3, "no_embed_class": True},
    "LayerScale": {"global_pool": "avg", "class_token": False, "init_values": 0.3},
    "qk-norm": {"global_pool": "avg", "class_token": False, "qk_norm": True},
    "no bias": {"global_pool": "avg", "class_token": False, "qkv_bias": False},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "RmsNorm": {"global_pool": "avg", "class_token": False, "norm_layer": timm.layers.RmsNorm},
    "pre-norm": {"global_pool": "avg", "class_token": False, "pre_norm": True},
    "final norm and fc_norm": {"global_pool": "avg", "class_token": False, "final_norm": True, "fc_norm": True},
}


def one_sample_at_a_time(model, batches, log_likelihood):
    model.eval()
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count = 0
    for images, labels in batches:
        for i in range(len(labels)):
            model.zero_grad()
            log_likelihood(model(images[i : i + 1]), labels[i : i + 1]).sum().backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    sums[name] += p.grad**2
            count += 1
    model.zero_grad()
    return {name: total / count for name, total in sums.items()}


def assert_equal_on_every_tensor(found, expected, rtol=1e-9):
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        assert found[name].shape == reference.shape, name
        scale = float(reference.abs().max())
        # where the reference is nought but for rounding (a key's bias), so must be what was found
        assert torch.allclose(found[name].to(reference), reference, rtol=rtol, atol=rtol * scale + 1e-25), name


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_one_sample_loop(kind, capsys):
    model = small_vit(**KINDS[kind])
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    assert sum(float(v.sum()) for v in expected.values()) > 0
    assert_equal_on_every_tensor(diagonal_fisher(model, some_batches(), likelihood()), expected)
    in_float32 = diagonal_fisher(model.float(), some_batches(dtype=torch.float32), likelihood())
    for name, reference in expected.items():  # the compiled loops are float32's
        assert torch.allclose(in_float32[name].double(), reference, rtol=0, atol=1e-4 * float(reference.max()) + 1e-12), name
    assert "no rule" not in capsys.readouterr().out


@pytest.mark.parametrize("precision, nearly", [("bf16", 0.05), ("fp16", 0.005)])  # some units of a mantissa of 8, of 11 bits
def test_half_precision_stays_close_to_float64(precision, nearly):
    model = small_vit(**KINDS["LayerScale"])
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    found = diagonal_fisher(model.float(), some_batches(dtype=torch.float32), likelihood(), precision=precision)
    whole = diagonal_fisher(model, some_batches(dtype=torch.float32), likelihood())
    assert all(f.dtype == torch.float32 for f in found.values())
    for name, reference in expected.items():
        assert torch.allclose(found[name].double(), reference, rtol=0, atol=nearly * float(reference.max()) + 1e-6), name
    assert not torch.equal(found["patch_embed.proj.weight"], whole["patch_embed.proj.weight"])


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        diagonal_fisher(small_vit(), some_batches(), likelihood(), precision="half")


def test_a_position_embedding_that_is_resampled():
    model = small_vit(**KINDS["average pooling"], dynamic_img_size=True)
    batches = [(torch.randn(3, 2, 16, 16, dtype=torch.float64), torch.tensor([0, 3, 5]))]
    expected = one_sample_at_a_time(model, batches, likelihood())
    assert_equal_on_every_tensor(diagonal_fisher(model, batches, likelihood()), expected)


def test_the_categorical_likelihood_and_one_output():
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=4, in_chans=2, embed_dim=12, depth=1, num_heads=3, num_classes=4, global_pool="avg"
    ).double()
    tail = likelihood("categorical", "tail")
    expected = one_sample_at_a_time(model, some_batches(), tail)
    assert_equal_on_every_tensor(diagonal_fisher(model, some_batches(), tail), expected)


def test_summing_squares_token_by_token_would_be_noticed():
    model = small_vit(**KINDS["average pooling"])
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    name, wrong = "blocks.0.mlp.fc1.bias", torch.zeros(48, dtype=torch.float64)

    def add_squares_of_tokens(module, grad_input, grad_output):
        wrong.add_((grad_output[0] ** 2).sum((0, 1)))

    model.blocks[0].mlp.fc1.register_full_backward_hook(add_squares_of_tokens)
    for images, labels in some_batches():
        likelihood()(model(images), labels).sum().backward()
    assert not torch.allclose(wrong / 8, expected[name], rtol=0.1)


def test_does_not_depend_on_the_batch_size_or_the_buffer():
    model = small_vit(**KINDS["class token"])
    whole = diagonal_fisher(model, some_batches((8,)), likelihood())
    images, labels = some_batches((8,))[0]
    single = [(images[i : i + 1], labels[i : i + 1]) for i in range(8)]
    assert_equal_on_every_tensor(diagonal_fisher(model, single, likelihood(), buffer_megabytes=1e-6), whole)


def test_float32_stays_close_to_float64():
    model = small_vit(**KINDS["LayerScale"])
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    found = diagonal_fisher(model.float(), some_batches(dtype=torch.float32), likelihood())
    assert all(f.dtype == torch.float32 for f in found.values())
    assert_equal_on_every_tensor(found, expected, rtol=1e-4)


class Odd(nn.Module):
    """A layer called twice, a raw parameter, a tied weight and a convolution without a rule."""

    def __init__(self):
        super().__init__()
        self.twice, self.scale = nn.Linear(6, 6), nn.Parameter(torch.randn(6))
        self.grouped = nn.Conv1d(4, 4, 3, groups=2, padding=1)
        self.out = nn.Linear(6, 6, bias=False)
        self.out.weight = self.twice.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = x.flatten(1)[:, :24].reshape(-1, 4, 6)
        x = torch.tanh(self.twice(torch.tanh(self.twice(self.grouped(x) * self.scale))))
        return self.last(self.out(x).mean(1))


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unused, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(1).reshape(len(x), -1, 8)
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))).mean(1))


class Folded(nn.Module):
    """Tokens go through a layer as if they were a batch."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        tokens = torch.tanh(self.layer(x.reshape(-1, 8)))
        return self.last(tokens.reshape(len(x), -1, 8).mean(1))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(128, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x.flatten(1)) + 1  # which autograd itself would not miss
        y = self.layer(x)
        return self.last(y + x.mul_(3))


def test_an_input_changed_after_the_call_is_refused():
    with pytest.raises(RuntimeError, match="layer: its input is changed in place"):
        diagonal_fisher(InPlace().double(), some_batches(), likelihood())


@pytest.mark.parametrize("kind", [Odd, Repeated, Folded])
def test_what_has_no_rule_is_exact_and_said_once(kind, capsys):
    torch.manual_seed(0)
    model = kind().double()
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    assert_equal_on_every_tensor(diagonal_fisher(model, some_batches(), likelihood()), expected)
    assert capsys.readouterr().out.count("no rule") == 1


def test_a_convolution_that_overlaps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()
    expected = one_sample_at_a_time(model, some_batches(), likelihood())
    assert_equal_on_every_tensor(diagonal_fisher(model, some_batches(), likelihood()), expected)


def loaded(batches):
    """A loader, which takes a seed of its own from torch's random state each time it is read."""
    images, labels = (torch.cat(parts) for parts in zip(*batches))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 5)


def as_it_is(model):
    return {
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "names": [n for n, _ in model.named_parameters()],
        "ids": [id(p) for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "values": [p.detach().clone() for p in model.parameters()],
        "random": torch.get_rng_state(),
    }


def assert_same(before, after):
    for what in ("modes", "flags", "names", "ids", "hooks"):
        assert before[what] == after[what], what
    for a, b in zip(before["grads"] + before["values"], after["grads"] + after["values"]):
        assert (a is None and b is None) or torch.equal(a, b)
    assert torch.equal(before["random"], after["random"])


@pytest.mark.parametrize("how", [list, loaded], ids=["list", "loader"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails, how):
    model = small_vit(**KINDS["register tokens"], drop_path_rate=0.5).train()
    model.blocks[0].eval()
    model.head.weight.requires_grad_(False)
    model.blocks[1].mlp.fc1.weight.grad = torch.ones_like(model.blocks[1].mlp.fc1.weight)
    before = as_it_is(model)
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            diagonal_fisher(model, how(some_batches()), lambda s, y: (_ for _ in ()).throw(RuntimeError("on purpose")))
    else:
        with torch.no_grad():
            diagonal_fisher(model, how(some_batches()), likelihood())
    assert_same(before, as_it_is(model))


def test_no_gradient_of_a_weight_is_computed():
    model = small_vit(**KINDS["average pooling"])
    seen = []

    def spy(logits, labels):
        seen.append([p.requires_grad for p in model.parameters()])
        return likelihood()(logits, labels)

    diagonal_fisher(model, some_batches(), spy)
    assert seen and not any(any(flags) for flags in seen)


def test_refuses_batches_that_do_not_repeat():
    model = small_vit()
    images, labels = some_batches((8,))[0]
    data = torch.utils.data.TensorDataset(images, labels)

    def whole(*sampler):
        return torch.utils.data.DataLoader(data, batch_sampler=torch.utils.data.BatchSampler(*sampler))

    for loader, why in (
        (torch.utils.data.DataLoader(data, 4, shuffle=True), "shuffles"),
        (torch.utils.data.DataLoader(data, 5, drop_last=True), "drops"),
        (whole(torch.utils.data.SequentialSampler(data), 5, True), "drops"),
        (whole(torch.utils.data.RandomSampler(data), 4, False), "shuffles"),
        (iter([(images, labels)]), "one-time iterator"),
        ([], "empty"),
    ):
        with pytest.raises(UserError, match=why):
            diagonal_fisher(model, loader, likelihood())

    class Augmented:
        def __iter__(self):
            return iter([(images + torch.randn(()), labels)])

    with pytest.raises(UserError, match="differs when read again"):
        diagonal_fisher(model, Augmented(), likelihood())


def test_accepts_a_loader_in_order():
    model = small_vit(**KINDS["average pooling"])
    images, labels = some_batches((8,))[0]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 3)
    expected = diagonal_fisher(model, [(images, labels)], likelihood())
    assert_equal_on_every_tensor(diagonal_fisher(model, loader, likelihood()), expected)


def test_names_the_sample_whose_likelihood_is_not_finite():
    model, (images, labels) = small_vit(), some_batches((8,))[0]
    images[6, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="sample 2 of batch 1 is not finite: the image holds"):
        diagonal_fisher(model, [(images[:4], labels[:4]), (images[4:], labels[4:])], likelihood())
    with pytest.raises(UserError, match="sample 6 of batch 0 is not finite: the image holds"):
        diagonal_fisher(model, [(images, labels)], likelihood())


class Looks(TorchDispatchMode):
    """Operations that wait for a device's numbers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_no_batch_waits_for_a_number(monkeypatch):
    """A GPU would stand still: likelihoods and sums are looked at together, every so many batches and at the end."""
    batch, check, looks, checks = diagonal._Pass.batch, diagonal._Pass.check_finite, Looks(), []

    def watched(self, *arguments):
        with looks:
            batch(self, *arguments)

    monkeypatch.setattr(diagonal._Pass, "batch", watched)
    counted = lambda self, batches: checks.append(len(self.finite)) or check(self, batches)  # noqa: E731
    monkeypatch.setattr(diagonal._Pass, "check_finite", counted)
    diagonal_fisher(small_vit(), some_batches((5, 3, 2)), likelihood())
    assert looks.seen == [] and checks == [3]


def test_names_the_layer_where_values_stop_being_finite():
    model = small_vit()
    model.blocks[1].mlp.fc2.weight.data[3, 4] = float("inf")
    with pytest.raises(UserError, match=r"sample 0 of batch 0 is not finite: the output of layer blocks\.1\.mlp\.fc2 is not"):
        diagonal_fisher(model, some_batches(), likelihood())
    with pytest.raises(UserError, match="the output of every layer is"):
        diagonal_fisher(small_vit(), some_batches(), lambda s, labels: s.sum(-1) * float("nan"))


def test_names_layer_and_sample_of_a_score_that_overflows():
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x):
            return self.layer(x[:, :, 0, 0])

    images, labels = some_batches((8,), torch.float32)[0]
    images[5] = 1e25  # the score is finite, its square is not
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"sample 5 .*layer\.weight"):
        warnings.simplefilter("ignore")
        diagonal_fisher(Overflow(), [(images, labels)], lambda s, y: 1e-3 * s.sum(-1))


class Memory:
    """A checkpoint kept in memory; may stop the pass after a save."""

    def __init__(self, stop_after=None):
        self.saved, self.stop_after, self.saves = None, stop_after, 0

    def save(self, tensors, state):
        self.saved = ({n: t.clone() for n, t in tensors.items()}, dict(state))
        self.saves += 1
        if self.saves == self.stop_after:
            raise KeyboardInterrupt

    def load(self):
        return self.saved and (dict(self.saved[0]), self.saved[1])


def test_a_pass_that_was_stopped_goes_on_and_ends_the_same(monkeypatch, capsys):
    monkeypatch.setattr("osdtw_lib.fisher.diagonal.CHECK_EVERY", 1)
    monkeypatch.setattr("osdtw_lib.fisher.diagonal.CHECKPOINT_SECONDS", 0)
    model, batches = small_vit(**KINDS["class token"]), some_batches((2, 2, 2, 2))
    whole = diagonal_fisher(model, batches, likelihood())
    memory = Memory(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        diagonal_fisher(model, batches, likelihood(), checkpoint=memory)
    resumed = diagonal_fisher(model, batches, likelihood(), checkpoint=memory)
    assert "resumes after batch 2" in capsys.readouterr().out
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_samples_that_are_missing_or_counted_twice_are_noticed():
    class Known(list):
        labels = torch.zeros(8)

    model = small_vit(**KINDS["class token"])
    diagonal_fisher(model, Known(some_batches((4, 4))), likelihood())
    with pytest.raises(RuntimeError, match="has counted 6 samples, and there are 8"):
        diagonal_fisher(model, Known(some_batches((4, 2))), likelihood())


def test_several_models_have_what_each_has_alone_by_one_reading_of_the_batches(monkeypatch):
    monkeypatch.setattr("osdtw_lib.fisher.diagonal.CHECK_EVERY", 1)
    monkeypatch.setattr("osdtw_lib.fisher.diagonal.CHECKPOINT_SECONDS", 0)
    models = {"head": small_vit(**KINDS["class token"]), "tail": small_vit(3, **KINDS["average pooling"]).train()}
    likelihoods = {task: likelihood(task=task) for task in models}
    read = []

    class Read(list):
        def __iter__(self):
            read.append(0)
            for batch in list.__iter__(self):
                read[-1] += 1
                yield batch

    batches, memory = Read(some_batches((2, 2, 2, 2))), Memory(stop_after=2)
    found = diagonal_fishers(models, batches, likelihoods)
    assert read == [1, 1, 4] and models["tail"].training and not models["tail"].head._forward_hooks  # looked at twice, read once
    with pytest.raises(KeyboardInterrupt):
        diagonal_fishers(models, batches, likelihoods, checkpoint=memory)
    resumed = diagonal_fishers(models, batches, likelihoods, checkpoint=memory)
    for task, model in models.items():
        alone = diagonal_fisher(model, batches, likelihoods[task])
        for name, total in alone.items():
            assert torch.equal(found[task][name], total) and torch.equal(resumed[task][name], total), (task, name)


def _save(folder):
    result = diagonal_fisher(small_vit(**KINDS["class token"]), some_batches((3, 2, 3)), likelihood())
    torch.save(result, folder / f"{distributed.rank()}.pt")


@pytest.mark.journey
def test_two_processes_give_what_one_gives(tmp_path):
    together(_save, (tmp_path,), 2)
    expected = diagonal_fisher(small_vit(**KINDS["class token"]), some_batches((3, 2, 3)), likelihood())
    for rank in range(2):
        assert_equal_on_every_tensor(torch.load(tmp_path / f"{rank}.pt"), expected)


@pytest.mark.journey
def test_memory_stays_away_from_batch_times_parameters():
    from torch.profiler import ProfilerActivity, profile

    model = small_vit(**KINDS["average pooling"])
    largest = max(p.numel() for p in model.parameters())
    images, labels = some_batches((16,))[0]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        diagonal_fisher(model, [(images, labels)], likelihood(), buffer_megabytes=1e-6)
    most = max(event.self_cpu_memory_usage for event in run.events())
    assert most < 16 * largest * 8 / 2
