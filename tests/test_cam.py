"""Maps of evidence against derivatives by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.lessons.cam import class_activation_maps, last_convolution, overlaid, plot_maps
from helpers.models import build


def net(seed=0, **switches):
    torch.manual_seed(seed)
    return build("improved", padding=True, **switches)


def test_maps_are_grad_cams_by_hand():
    model, images, classes = net(batch_norm=True).eval(), torch.randn(4, 3, 32, 32), torch.tensor([3, 0, 9, 3])
    maps = class_activation_maps(model, images, classes, "conv3")
    layers = dict(model.named_children())
    names = list(layers)
    at = names.index("conv3") + 1
    x = images
    for name in names[:at]:
        x = layers[name](x)
    x = x.detach()
    for i in range(4):  # one image at a time, its gradient by differences of the part behind the layer

        def logit(a, i=i):
            for name in names[at:]:
                a = layers[name](a)
            return a[0, classes[i]]

        gradient = torch.autograd.functional.jacobian(logit, x[i : i + 1])[0]
        weights = gradient.mean((1, 2))
        expected = sum(w * a for w, a in zip(weights, x[i], strict=True)).clamp(min=0)
        torch.testing.assert_close(maps[i], expected, atol=1e-6, rtol=1e-4)
    step = torch.zeros_like(x[:1])
    step[0, 5, 2, 2] = 1e-2
    with torch.no_grad():
        slope = (logit(x[3:] + step) - logit(x[3:] - step)) / 2e-2
    assert slope.item() == pytest.approx(gradient[5, 2, 2].item(), rel=0.05, abs=1e-5)


def test_where_logits_are_means_of_maps_the_map_is_the_classs_own():
    model, images = net(pointwise=True).eval(), torch.randn(3, 3, 32, 32)
    kept = []
    model.maps.register_forward_hook(lambda module, inputs, output: kept.append(output.detach()))
    classes = model(images).argmax(1)
    maps = class_activation_maps(model, images, classes)
    own = kept[0][torch.arange(3), classes]
    torch.testing.assert_close(maps, own.clamp(min=0) / own[0].numel())
    assert last_convolution(model) == "maps"


def test_the_net_stays_as_it_was():
    model, images = net(batch_norm=True, dropout=True).train(), torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    class_activation_maps(model, images, torch.tensor([0, 1]))
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_layers_without_maps_are_refused():
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="no layer 'conv9'.*conv1"):
        class_activation_maps(net(), images, torch.tensor([0]), "conv9")
    with pytest.raises(ValueError, match="'fc1' gives .* choose a convolution"):
        class_activation_maps(net(), images, torch.tensor([0]), "fc1")
    with pytest.raises(ValueError, match="no convolution"):
        last_convolution(nn.Linear(2, 2))


def test_pictures_are_brightest_where_the_map_is_high():
    images, maps = np.full((1, 3, 32, 32), 90, np.uint8), torch.zeros(1, 4, 4)
    maps[0, 0, 3] = 2.0
    shown = overlaid(images, maps)
    assert shown.shape == (1, 3, 128, 128) and shown.dtype == np.uint8
    assert shown[0, :, 8, 120].sum() > 2 * shown[0, :, 120, 8].sum()
    assert len(plot_maps(images, maps, ["one"]).axes) == 1
    assert overlaid(images, torch.zeros(1, 4, 4)).max() < 128  # no evidence at all is no division by zero
