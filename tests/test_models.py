"""The nets against what is published of them, and against the same nets written with torch's functions."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from taught import taught
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.latent import latents
from helpers.models import MODELS, build, layer_table, structure_hash, summary
from helpers.models.networks import chain


def conv(inputs, outputs, kernel=3):
    return outputs * (inputs * kernel * kernel + 1)


def fc(inputs, outputs):
    return outputs * (inputs + 1)


def bn(*channels):
    return 2 * sum(channels)


PARAMETERS = {
    "r0-base": conv(3, 6) + conv(6, 10) + conv(10, 16) + fc(64, 256) + fc(256, 10),
    "r0-model2": conv(3, 6) + conv(6, 10) + conv(10, 16) + fc(576, 256) + fc(256, 10),
    "r0-final": conv(3, 6) + conv(6, 10) + conv(10, 16) + bn(6, 10, 16) + fc(2704, 256) + fc(256, 32) + fc(32, 10),
    "r1": conv(3, 16) + conv(16, 32) + conv(32, 64) + fc(1024, 99) + fc(99, 10),
    "r2": (conv(3, 32) + conv(32, 64) + conv(64, 128) + bn(32, 64, 128))
    + (fc(2048, 512) + fc(512, 128) + bn(512, 128) + fc(128, 10)),
    "r4": 81_574,  # published
}
NAMES = list(PARAMETERS)


def seeded(name, seed=0, **chosen):
    torch.manual_seed(seed)
    return build(name, **chosen)


def trained_a_little(name, **chosen):
    """Return a net in evaluation mode whose batch norms are no longer those of the start."""
    model = seeded(name, **chosen)
    model(2 * torch.randn(64, 3, 32, 32) + 1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return model.eval()


def shapes(name, **chosen):
    return {row["layer"]: tuple(row["output_shape"]) for row in layer_table(build(name, **chosen))}


def functional(name, w, x):
    """Return the logits of a net as its report describes it, in evaluation mode, from a state_dict."""

    def conv2d(layer, x, padding=0):
        return F.conv2d(x, w[f"{layer}.weight"], w[f"{layer}.bias"], padding=padding)

    def norm(layer, x):
        statistics = (w[f"{layer}.running_mean"], w[f"{layer}.running_var"])
        return F.batch_norm(x, *statistics, w[f"{layer}.weight"], w[f"{layer}.bias"], eps=1e-5)

    def linear(layer, x):
        return x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]

    def two_convolutions(block, x):
        x = F.relu(norm(f"{block}.bn1", conv2d(f"{block}.conv1", x, padding=1)))
        return norm(f"{block}.bn2", conv2d(f"{block}.conv2", x, padding=1))

    if name in ("r0-base", "r0-model2"):
        x = F.relu(conv2d("conv1", x))
        x = F.max_pool2d(x, 2) if name == "r0-base" else x
        x = F.max_pool2d(F.relu(conv2d("conv2", x)), 2)
        x = F.max_pool2d(F.relu(conv2d("conv3", x)), 2)
        return linear("logits", F.relu(linear("fc1", x.flatten(1))))
    if name == "r0-final":
        for i in (1, 2, 3):
            x = F.relu(norm(f"bn{i}", conv2d(f"conv{i}", x)))
        x = F.relu(linear("fc1", F.max_pool2d(x, 2).flatten(1)))
        return linear("logits", F.relu(linear("fc2", x)) if "fc2.weight" in w else x)
    if name == "r1":
        for i in (1, 2, 3):
            x = F.max_pool2d(F.relu(conv2d(f"conv{i}", x, padding=1)), 2)
        return linear("logits", F.relu(linear("fc1", x.flatten(1))))
    if name == "r2":
        for i in (1, 2, 3):
            x = F.avg_pool2d(F.relu(norm(f"bn{i}", conv2d(f"conv{i}", x, padding=1))), 2)
            if f"block{i}.conv1.weight" in w:
                x = F.relu(two_convolutions(f"block{i}", x))
            if f"block{i}.body.conv1.weight" in w:
                x = F.relu(x + two_convolutions(f"block{i}.body", x))
        x = F.relu(norm("fc1_bn", linear("fc1", x.flatten(1))))
        return linear("logits", F.relu(norm("fc2_bn", linear("fc2", x))))
    x = F.max_pool2d(F.leaky_relu(conv2d("conv1", x)), 2)
    x = F.max_pool2d(F.leaky_relu(norm("bn2", conv2d("conv2", x))), 2)
    x = F.leaky_relu(norm("fc1_bn", linear("fc1", x.flatten(1))))
    return linear("logits", F.leaky_relu(linear("fc2", x)))


WIDE = conv(3, 64) + conv(64, 128) + conv(128, 256) + bn(64, 128, 256, 512, 128)
BLOCKS = conv(64, 64) * 2 + conv(128, 128) * 2 + bn(64, 64, 128, 128)
VARIANTS = [
    ("r2", {"blocks": "plain"}, PARAMETERS["r2"] + BLOCKS),
    ("r2", {"blocks": "residual"}, PARAMETERS["r2"] + BLOCKS),
    ("r2", {"width": 2}, WIDE + fc(4096, 512) + fc(512, 128) + fc(128, 10)),
    ("r2", {"hidden": 96}, PARAMETERS["r2"] - fc(2048, 512) - fc(512, 128) + fc(2048, 96) + fc(96, 128) - 2 * 416),
    ("r0-final", {"fc2": False}, 2_174 + 64 + 692_480 + 2_570),  # convolutions, batch norms, fc1, logits
]
ALL = [*((name, {}, PARAMETERS[name]) for name in NAMES), *VARIANTS]


@pytest.mark.parametrize(("name", "chosen", "parameters"), ALL)
def test_nets_compute_what_the_reports_describe_and_their_table_counts_what_torch_does(name, chosen, parameters):
    model, images = trained_a_little(name, **chosen), torch.randn(8, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model(images)
    torch.testing.assert_close(logits, functional(name, model.state_dict(), images))
    rows = layer_table(model)
    assert 2 * len(images) * sum(row["multiply_adds"] for row in rows) == counter.get_total_flops()
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters()) == parameters
    assert build(name, classes=7, **chosen)(images).shape == (8, 7)


def test_notebook_04_writes_the_residual_block_out():
    theirs, images = seeded("r2", blocks="residual").block2, torch.randn(4, 64, 8, 8)
    ours = taught("04", "Residual", "stack").stack(1, batch_norm=True, residual=True, width=64)[1]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    torch.testing.assert_close(ours(images), theirs(images))


def test_plain_and_residual_blocks_differ_in_the_sum_alone():
    nets = {blocks: seeded("r2", seed=4, blocks=blocks) for blocks in ("none", "plain", "residual")}
    plain, residual = (nets[blocks].state_dict() for blocks in ("plain", "residual"))
    assert {name.replace("body.", "") for name in residual} == set(plain)
    assert all(torch.equal(value, plain[name.replace("body.", "")]) for name, value in residual.items())
    none = nets["none"].state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in none.items() if "num_batches" not in name)
    plain, rows = layer_table(nets["plain"]), layer_table(nets["residual"])
    sums = {row["layer"]: row["output_shape"] for row in rows if row["type"] == "Add"}
    assert sums == {"block2.add": [64, 8, 8], "block3.add": [128, 4, 4]}
    assert [row["type"] for row in rows if row["type"] != "Add"] == [row["type"] for row in plain]
    assert len({structure_hash(net) for net in nets.values()}) == 3
    assert structure_hash(nets["none"]) == structure_hash(build("r2"))


def test_dropout_follows_the_activations_of_both_hidden_layers():
    names = [name for name, _ in build("r2").named_children()]
    for hidden in ("fc1", "fc2"):
        place = names.index(hidden)
        assert names[place + 1 : place + 4] == [f"{hidden}_bn", f"{hidden}_relu", f"{hidden}_dropout"]
    assert build("r2").fc1_dropout.p == build("r2").fc2_dropout.p == 0.1


@pytest.mark.parametrize(
    ("chosen", "kinds", "absent"),
    [
        ({"batch_norm": False}, set(), {"BatchNorm2d", "BatchNorm1d"}),
        ({"activation": "leaky_relu"}, {"LeakyReLU"}, {"ReLU"}),
        ({"pool": "max"}, {"MaxPool2d"}, {"AvgPool2d"}),
        ({"dropout": 0.0}, set(), {"Dropout"}),
    ],
)
def test_options_change_what_they_name_and_keep_the_initial_weights(chosen, kinds, absent):
    plain, other = seeded("r2", seed=4), seeded("r2", seed=4, **chosen)
    types = {row["type"] for row in layer_table(other)}
    assert kinds <= types and not absent & types
    weights = {k: v for k, v in other.state_dict().items() if k.startswith(("conv", "fc", "logits")) and "_" not in k}
    assert len(weights) == 12
    for key, value in weights.items():
        assert torch.equal(value, plain.state_dict()[key]), key


def test_kernels():
    sizes = [module.kernel_size for module in build("r2", kernels=[7, 5, 3]) if isinstance(module, nn.Conv2d)]
    assert sizes == [(7, 7), (5, 5), (3, 3)]
    r2 = shapes("r2")
    assert [r2[k] for k in ("conv1", "conv2", "conv3", "flatten")] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (2048,)]
    assert shapes("r2", kernels=[7, 5, 3]) == r2
    second = shapes("r0-final", fc2=False, kernels=[3, 5, 3])
    assert [second[k] for k in ("conv1", "conv2", "conv3")] == [(6, 30, 30), (10, 26, 26), (16, 24, 24)]
    for name in ("r0-base", "r0-model2"):
        assert build(name, kernels=(5, 3, 3), batch_norm=True)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in build(name, batch_norm=True)) == 3


def test_weights_are_drawn_in_order_by_torch_itself_and_none_on_the_meta_device():
    model, state = seeded("r4", 3), torch.get_rng_state()
    with torch.device("meta"):
        assert structure_hash(build("r4")) == structure_hash(model)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    layers = (nn.Conv2d(3, 6, 3), nn.Conv2d(6, 16, 3), nn.Linear(576, 120), nn.Linear(120, 84), nn.Linear(84, 10))
    ours = [module for module in model if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, own in zip(layers, ours, strict=True):
        assert torch.equal(layer.weight, own.weight) and torch.equal(layer.bias, own.bias)


@pytest.mark.parametrize(
    ("name", "chosen", "complaint"),
    [
        ("resnet", {}, "no model 'resnet'.*r0-base, r0-final.*r4"),
        ("r2", {"kernel": 3, "bn": True}, r"no option bn, kernel.*kernels=\(3, 3, 3\).*dropout=0.1"),
        ("r4", {"dropout": 0.1}, "its options: none"),
        ("r2", {"kernels": (3, 3)}, r"of the kind of \(3, 3, 3\)"),
        ("r2", {"kernels": (3, 3, True)}, r"of the kind of \(3, 3, 3\)"),
        ("compact", {"widths": [48, 96, 0]}, r"widths is \[48, 96, 0\].*\(48, 96, 160\)"),
        ("r2", {"dropout": 1.0}, "of the kind of 0.1"),
        ("r2", {"dropout": float("nan")}, "of the kind of 0.1"),
        ("r2", {"batch_norm": "no"}, "of the kind of True"),
        ("improved", {"padding": 1}, "padding is 1.*of the kind of False"),
        ("r2", {"activation": "gelu"}, "relu, leaky_relu"),
        ("r2", {"pool": ["avg"]}, "of the kind of 'avg'"),
        ("r2", {"blocks": "resnet"}, "'resnet'.*none, plain, residual"),
        ("r2", {"width": 0}, "width is 0"),
        ("r2", {"width": True}, "width is True"),
        ("r0-final", {"blocks": "plain"}, "fc2=True"),
        ("r2", {"classes": 1}, "classes is 1.*at least 2"),
        ("r2", {"classes": "10"}, "classes is '10'"),
        ("r0-final", {"kernels": (31, 3, 3)}, "nothing of a 32x32 image"),
        ("r0-model2", {"kernels": (15, 15, 5)}, "nothing of a 32x32 image"),
    ],
)
def test_nonsense_is_refused_with_the_choices(name, chosen, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(name, **chosen)


def test_learners_can_enter_nets_of_their_own(monkeypatch):
    def tiny(classes, *, width=4):
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, classes))

    monkeypatch.setitem(MODELS, "tiny", tiny)
    with pytest.raises(ValueError, match="its options: width=4"):
        build("tiny", depth=3)
    assert build("tiny", 3, width=2)[2].weight.shape == (3, 2)


def nested():
    block = chain(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(inplace=True), drop=nn.Dropout(0.5))
    return nn.Sequential(nn.BatchNorm2d(3), block, nn.Flatten(), nn.Linear(4 * 30 * 30, 10))


def test_latents_by_dotted_name_before_an_activation_in_place():
    found = latents(nested(), torch.randn(5, 3, 32, 32), ["1.conv", "1.drop"])
    assert found["1.conv"].min() < 0
    assert torch.equal(found["1.conv"].relu(), found["1.drop"])  # evaluation: dropout passes everything on
    with pytest.raises(ValueError, match="no layer 'fc9', ''; its layers are: 0, 1, 1.conv, 1.relu"):
        latents(nested(), torch.zeros(1, 3, 32, 32), ["1.conv", "fc9", ""])


@pytest.mark.parametrize("look", [lambda m: latents(m, torch.ones(4, 3, 32, 32), ["2"]), layer_table, summary])
def test_looking_leaves_the_net_as_it_was(look):
    model = nested().train()
    model[0].eval()  # frozen on purpose
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state, recorded = torch.get_rng_state(), []
    hook = model[3].register_forward_hook(lambda *_: recorded.append(torch.is_grad_enabled()))
    look(model)
    assert look is summary or recorded == [False]  # no graph that would hold every layer's output
    hook.remove()
    with pytest.raises(RuntimeError):
        latents(model, torch.ones(4, 5, 32, 32), ["2"])
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks for m in model.modules())


def test_multiply_adds_of_groups_rectangles_and_repeated_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, (3, 5), groups=3, padding=(1, 2))
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.conv(self.conv(x)) * self.scale

    model = Twice()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 6, 9, 7))
    rows = layer_table(model, (6, 9, 7))
    assert 2 * rows[0]["multiply_adds"] == counter.get_total_flops()
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters())


def test_layer_table_is_plain_data_in_order():
    rows = layer_table(nested())
    assert [row["layer"] for row in rows] == ["0", "1.conv", "1.relu", "1.drop", "2", "3"]
    shape = {"output_shape": [4, 30, 30], "parameters": 112, "multiply_adds": 4 * 30 * 30 * 27}
    assert rows[1] == {"layer": "1.conv", "type": "Conv2d"} | shape
    assert json.loads(json.dumps(rows)) == rows


def test_structure_tells_nets_apart_and_weights_do_not_matter():
    variants = [{}, {"kernels": [5, 3, 3]}, {"batch_norm": False}, {"dropout": 0.0}, {"dropout": 0.2}]
    variants += [{"classes": 3}, {"activation": "leaky_relu"}, {"pool": "max"}]
    hashes = [structure_hash(build("r2", **chosen)) for chosen in variants]
    hashes += [structure_hash(build(name)) for name in NAMES if name != "r2"]
    assert len(set(hashes)) == len(hashes)
    assert structure_hash(trained_a_little("r2")) == hashes[0]
    sloped = build("r4")
    sloped.leaky_relu1 = nn.LeakyReLU(0.2)
    assert structure_hash(sloped) != structure_hash(build("r4"))
    # Every recorded run carries one: a change of the recipe makes all of them stale.
    assert structure_hash(build("r4")).startswith("f82ae94111ab15f0")
    assert structure_hash(build("r2")).startswith("0e0e86aea205d801")
    assert list(build("r2").state_dict())[:2] == ["conv1.weight", "conv1.bias"]


def test_summary_is_torchsummarys_table(capsys):
    text = summary(seeded("r4"))
    assert "Total params: 81,574" in text and "Linear-9                  [-1, 120]          69,240" in text
    assert text == summary(seeded("r4")) and capsys.readouterr().out == ""


@pytest.mark.gpu
def test_nets_on_a_gpu_are_looked_at_where_they_are():
    model = build("r4").cuda()
    assert latents(model, torch.randn(4, 3, 32, 32, device="cuda"), "fc1")["fc1"].is_cuda
    assert layer_table(model) == layer_table(build("r4"))
    assert summary(model) == summary(build("r4"))
    assert next(model.parameters()).is_cuda
