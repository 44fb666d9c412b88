"""What notebook 11 writes out, against derivatives, SciPy, Pillow and the functions that train."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix
from taught import taught
from torch import nn

from helpers.data import DataMissing, load
from helpers.models import SWITCHES, build
from helpers.record import Difference, Run, Runs, compare_values, pack
from helpers.training import Experiment, normalise
from helpers.training.parts import mixture, moving_average

PIECES = taught("11", "mixup", "mixed_loss", "moved")


def test_mixup_is_the_trainings():
    images, labels = torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8), torch.arange(7)
    mixed, first, second = PIECES.mixup(images, labels, 0.3)
    expected, others = mixture(images, labels, 0.3)
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(first, labels) and torch.equal(second, others)
    logits = torch.randn(7, 10)
    targets = 0.3 * nn.functional.one_hot(labels, 10) + 0.7 * nn.functional.one_hot(others, 10)
    loss = PIECES.mixed_loss(nn.functional.cross_entropy, logits, labels, others, 0.3)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, targets))


def test_the_average_of_weights_is_the_trainings():
    model = build("r2")
    theirs = moving_average(Experiment(model="r2", averaging=0.9), model)
    theirs.update_parameters(model)  # the first is a copy
    ours = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
        ours = PIECES.moved(ours, dict(model.named_parameters()), 0.9)
        theirs.update_parameters(model)
    torch.testing.assert_close(ours, dict(theirs.module.named_parameters()))


DIAGRAM = taught("11", "COLOURS", "NAMES", "boxes", "draw_box", "draw_network")


@pytest.mark.parametrize(
    ("name", "chosen"), [("r2", {}), ("r2", {"blocks": "residual"}), ("improved", dict.fromkeys(SWITCHES, True))]
)
def test_boxes_hold_all_parameters_in_order(name, chosen):
    net = build(name, **chosen)
    found = DIAGRAM.boxes(net)
    assert sum(box["parameters"] for box in found) == sum(p.numel() for p in net.parameters())
    assert found[-1]["layer"] == "logits" and found[-1]["output_shape"] == [10]
    convolutions = [name for name, _ in net.named_children() if name.startswith("conv")]
    assert [box["layer"] for box in found if box["layer"].startswith("conv")] == convolutions


def test_the_drawing_names_every_box_with_its_shape_and_weights():
    net = build("r4")
    found = DIAGRAM.boxes(net)
    (ax,) = DIAGRAM.draw_network(net).axes
    texts = "\n".join(text.get_text() for text in ax.texts)
    assert all(box["layer"] in texts and "×".join(map(str, box["output_shape"])) in texts for box in found)
    assert "69,480" in texts  # fc1 of R4 with its batch norm: 69,240 + 240
    edges = [(p.get_x(), p.get_x() + p.get_width()) for p in ax.patches]
    assert len(edges) == len(found) and all(p.get_height() > 0 for p in ax.patches)
    assert all(right < left for (_, right), (left, _) in zip(edges, edges[1:], strict=False))  # nothing overlaps


IDEAS = ("padding", "larger batch")
VALUES = np.random.default_rng(5).normal(0.5, 0.02, (7, 4))
ARMS = ("base", *IDEAS, "all", *(f"without {idea}" for idea in IDEAS))
ABLATION = taught("11", "what_is_missed", "dot", "staircase", "added_to_the_others", "waterfall", "judged")


def runs(*arms, lost=()):
    found = [
        SimpleNamespace(arm=a, seed=s, device="cpu", metrics={"validation_accuracy": v}, collapsed=(a, s) in lost)
        for a in arms
        for s, v in enumerate(VALUES[ARMS.index(a)])
    ]
    return Runs(SimpleNamespace(name="fake"), found)


def test_what_an_idea_adds_to_the_others_is_what_leaving_it_out_loses():
    frame = pd.DataFrame({arm: VALUES[ARMS.index(arm)] for arm in ARMS[3:]})
    lost = compare_values(frame, "validation_accuracy", "all").differences
    for d, loss, idea in zip(ABLATION.what_is_missed(runs(*ARMS[3:])).differences, lost, IDEAS, strict=True):
        assert (d.a, d.mean, d.low, d.high) == (idea, -loss.mean, -loss.high, -loss.low)
        assert d.mean == pytest.approx((VALUES[3] - VALUES[ARMS.index(f"without {idea}")]).mean())
    kept = np.delete(VALUES[ARMS.index("without padding")], 2)  # a collapsed run is not averaged
    found = ABLATION.what_is_missed(runs(*ARMS[3:], lost=[("without padding", 2)]))
    assert found["padding"].mean == pytest.approx(VALUES[3].mean() - kept.mean())


WORDS = [
    ((1, 2), (1, 2), "helps both ways"),
    ((1, 2), (-1, 2), "helps alone"),
    ((-1, 2), (1, 2), "helps among all"),
    ((-2, -1), (-3, -2), "hurts both ways"),
    ((1, 2), (-2, -1), "depends on the others"),
    ((-1, 1), (-1, 1), "not separable"),
]


@pytest.mark.parametrize(("alone", "among", "words"), WORDS)
def test_words_follow_from_both_intervals(alone, among, words):
    ends = (Difference("a", "b", (low + high) / 2, low, high) for low, high in (alone, among))
    assert ABLATION.judged(*ends) == words


def test_the_waterfall_ends_at_the_sum_of_the_gains():
    added, missed = runs(*ARMS[:4]), ABLATION.what_is_missed(runs(*ARMS[3:]))
    alone = ABLATION.verdict(added, against="base")
    vars(ABLATION).update(added=added, alone=alone, missed=missed, names=list(IDEAS))
    left, right = ABLATION.waterfall().axes
    means = 100 * VALUES.mean(axis=1)
    first, last = left.patches[0], left.patches[-1]
    assert first.get_x() == pytest.approx(means[0])
    assert last.get_x() + last.get_width() == pytest.approx(means[1] + means[2] - means[0])
    dots = [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == "o"]
    assert dots == pytest.approx([means[3] - means[4], means[3] - means[5]])


BUDGETS = taught("11", "ACCURACIES", "our_row", "their_row", "final_network")
BASE = Experiment(dataset="digits", model="r4", epochs=2, flagship=True)
LABELS = np.repeat([0, 1], 50)


def run_of(seed, accuracy):
    names = ("validation_accuracy", "test_accuracy", "test_accuracy_tta")
    guesses = np.where(np.arange(LABELS.size) < round(LABELS.size * accuracy), LABELS, 1 - LABELS)
    return Run({
        "experiment": BASE.but(seed=seed).choices(),
        "key": BASE.but(seed=seed).key,
        "classes": list("0123456789"),
        "metrics": dict.fromkeys(names, accuracy) | {"training_seconds": 10.0},
        "provenance": {"device": "cpu"},
        "diverged": None,
        "confusion": {"train": [[1, 0], [0, 1]], "test": confusion_matrix(LABELS, guesses).tolist()},
        "predictions": {"test": {"labels": pack(guesses), "confidence": pack(np.full(LABELS.size, 255))}},
    })  # fmt: skip


def test_our_row_is_of_the_network_and_its_runs_and_theirs_what_was_published():
    row = BUDGETS.our_row([run_of(seed, 0.5 + 0.1 * seed) for seed in range(3)])
    half = 100 * stats.sem([0.5, 0.6, 0.7]) * stats.t.ppf(0.975, 2)
    assert row["validation (%)"] == f"60.00 ± {half:.2f}"
    mean, both = map(float, row["test (%)"].split(" ± "))
    assert mean == 60 and half < both < half + 10  # its interval covers the pictures, too
    assert (row["parameters"], row["epochs"]) == ("81,574", "2")
    BUDGETS.cifar = load("cifar10")
    assert BUDGETS.their_row("R1/numpy")["validation (%)"] == "50.15"  # 67.82, 60.00, ... 49.04: ten classes
    assert BUDGETS.their_row("R4")["test (%)"] == "64.57 [60.7, 68.2]"
    row = BUDGETS.their_row("He2016/resnet-20")
    assert (row["parameters"], row["test (%)"], row["validation (%)"]) == ("270,000", "91.25", "–")
    with pytest.raises(KeyError, match="R9"):
        BUDGETS.their_row("R9")


def test_the_kept_network_is_that_of_the_run():
    torch.manual_seed(1)
    trained, kept, run = build("r4").eval(), {}, run_of(0, 0.5)

    def load_kept(name):
        if name not in kept:
            raise DataMissing(name)
        return kept[name]

    def keep(name, model, record):
        kept[name] = model, {"key": record["key"], "device": "cpu"}

    vars(BUDGETS).update(load_network=load_kept, save_network=keep, load_weights=lambda run: trained.state_dict())
    network = BUDGETS.final_network("mine", run)
    assert torch.equal(network.fc1.weight, trained.fc1.weight)
    BUDGETS.load_weights = lambda run: pytest.fail("the network is kept already")
    assert BUDGETS.final_network("mine", run) is network
    with pytest.raises(BaseException, match="kept already"):
        BUDGETS.final_network("mine", run_of(1, 0.5))  # of another run than the kept one's


CAM = taught("11", "grad_cam", "enlarged", "glowing")


def net(seed=0, **switches):
    torch.manual_seed(seed)
    return build("improved", padding=True, **switches).eval()


def test_maps_are_grad_cams_by_hand():
    model, images, classes = net(batch_norm=True), torch.randn(4, 3, 32, 32), torch.tensor([3, 0, 9, 3])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = CAM.grad_cam(model, images, classes, "conv3")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not maps.requires_grad
    kept = []
    model.conv3.register_forward_hook(lambda module, inputs, output: kept.append(output.detach().clone()))
    model(images)
    behind = list(model.children())[[name for name, _ in model.named_children()].index("conv3") + 1 :]
    for i in range(4):

        def logit(a, i=i):
            for layer in behind:
                a = layer(a)
            return a[0, classes[i]]

        gradient = torch.autograd.functional.jacobian(logit, kept[0][i : i + 1].clone())[0]
        expected = sum(w * a for w, a in zip(gradient.mean((1, 2)), kept[0][i], strict=True)).clamp(min=0)
        torch.testing.assert_close(maps[i], expected, atol=1e-6, rtol=1e-4)


def test_where_logits_are_means_of_maps_the_map_is_the_classs_own():
    model, images = net(pointwise=True), torch.randn(3, 3, 32, 32)
    kept = []
    model.maps.register_forward_hook(lambda module, inputs, output: kept.append(output.detach()))
    classes = model(images).argmax(1)
    own = kept[0][torch.arange(3), classes]
    torch.testing.assert_close(CAM.grad_cam(model, images, classes, "maps"), own.clamp(min=0) / own[0].numel())


def test_pictures_are_brightest_where_the_map_is_high():
    pictures, maps = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8), torch.zeros(1, 4, 4)
    maps[0, 0, 3] = 2.0
    shown = CAM.glowing(pictures, maps)
    assert shown.shape == (1, 3, 128, 128) and shown[0, :, 8, 120].sum() > 2 * shown[0, :, 120, 8].sum()
    assert CAM.glowing(pictures, torch.zeros(1, 4, 4)).max() < 128  # no evidence at all is no division by zero


DAMAGE = taught("11", "jpeg", "blur", "noise", "DAMAGE", "robustness", "draw_robustness")
IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_blur_is_scipys_away_from_the_edges_and_jpeg_pillows():
    images = load("digits").validation.images[:5]
    for sigma in (0.5, 1.0, 2.0):
        expected = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3.0)
        # Torchvision samples the same Gaussian; both round to whole grey levels.
        assert np.abs(DAMAGE.blur(images, sigma).numpy() - expected).max() < 1.01
    assert torch.equal(DAMAGE.blur(images, 0), images)
    file = io.BytesIO()
    Image.fromarray(IMAGES[2].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=30)
    assert np.array_equal(DAMAGE.jpeg(IMAGES, 30)[2].permute(1, 2, 0).numpy(), np.array(Image.open(file)))


def test_noise_has_the_deviation_that_it_says_and_is_the_same_each_time():
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    damaged = DAMAGE.noise(grey, 20)
    assert damaged.float().mean().item() == pytest.approx(128, abs=0.3)
    assert damaged.float().std().item() == pytest.approx(20, rel=0.02)
    assert torch.equal(DAMAGE.noise(grey, 20), damaged) and torch.equal(DAMAGE.noise(grey, 0), grey)
    assert DAMAGE.noise(torch.zeros_like(grey), 20).max() > 40  # clipped below, never wrapped around


def test_curves_are_accuracies_on_damaged_pictures():
    data = load("digits")
    images, labels = data.validation.images[:150], data.validation.labels[:150]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    curves = DAMAGE.robustness(model, images, labels, data)
    assert [[s for s, _ in curve] for curve in curves.values()] == [list(kind[1]) for kind in DAMAGE.DAMAGE.values()]

    def right(images):
        return (model(normalise(images, data.mean, data.std)).argmax(1) == labels).float().mean().item()

    # Laid out in memory otherwise, a picture between two classes may go either way.
    assert curves["blur"][0][1] == curves["noise"][0][1] == pytest.approx(right(images), abs=1.5 / 150)
    assert curves["noise"][-1][1] == pytest.approx(right(DAMAGE.noise(images, 40)), abs=1.5 / 150)
    axes = DAMAGE.draw_robustness({"one": curves, "other": curves}, 0.1).axes
    assert list(axes[1].get_lines()[0].get_ydata()) == pytest.approx([100 * right for _, right in curves["blur"]])
    assert axes[0].xaxis_inverted() and not axes[1].xaxis_inverted()  # milder is at the left
