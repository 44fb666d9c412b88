"""The diagram holds what the network holds."""

import pytest

from helpers.lessons.diagram import boxes, draw_network
from helpers.models import SWITCHES, build


@pytest.mark.parametrize(
    ("name", "chosen"), [("r2", {}), ("r2", {"blocks": "residual"}), ("improved", dict.fromkeys(SWITCHES, True))]
)
def test_boxes_hold_all_parameters_in_order(name, chosen):
    net = build(name, **chosen)
    found = boxes(net)
    assert sum(box.parameters for box in found) == sum(p.numel() for p in net.parameters())
    assert found[0].shape == [3, 32, 32] and found[-1].name == "logits" and found[-1].shape == [10]
    assert [b.name for b in found if b.name.startswith("conv")] == [
        n for n, _ in net.named_children() if n.startswith("conv")
    ]


def test_layers_that_keep_the_shape_belong_to_the_one_before():
    conv1, pool1 = boxes(build("r2"))[1:3]
    assert (conv1.name, conv1.followers, conv1.parameters) == ("conv1", ["BatchNorm2d", "ReLU"], 896 + 64)
    assert (pool1.name, pool1.kind, pool1.shape) == ("pool1", "other", [32, 16, 16])


def test_the_drawing_names_every_box_with_its_shape_and_weights():
    net = build("r4")
    figure = draw_network(net)
    (ax,) = figure.axes
    texts = "\n".join(text.get_text() for text in ax.texts)
    for box in boxes(net):
        assert box.name in texts and "×".join(map(str, box.shape)) in texts
    assert "69,480" in texts  # fc1 of R4 with its batch norm: 69,240 + 240
    patches = [patch for patch in ax.patches if patch.get_height() > 0]
    assert len(patches) == len(boxes(net))
    edges = [(p.get_x(), p.get_x() + p.get_width()) for p in patches]
    assert all(right < left for (_, right), (left, _) in zip(edges, edges[1:], strict=False))  # nothing overlaps
    assert edges[-1][1] < figure.get_figwidth()
