"""Latents are the network's own; their pictures are made from the run's weights and images, kept, and read again."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from helpers.data import Split, channel_statistics, load
from helpers.latent import answers, embed, pictured, pictures, recall, split_latents
from helpers.latent import store as latent_space
from helpers.models import build
from helpers.record import Run, load_snapshot, train_run
from helpers.record import run as run_module
from helpers.training import Experiment, normalise, predict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "runs_folder", lambda: folder / "runs")
        patch.setattr(latent_space, "embeddings_folder", lambda: folder / "embeddings")
        experiment = Experiment(dataset="digits", model="r4", train_size=200, batch_size=50, epochs=2, snapshots=True)
        yield Run(train_run(experiment, device="cpu", progress=False))


def test_a_picture_is_of_the_networks_own_latents_and_judged_by_them_and_made_once(run, monkeypatch):
    (made,) = pictures(run, "flatten", [2], iterations=300)
    data, split = load("digits"), pictured(run)
    X = split_latents(load_snapshot(run, 2), split, data.mean, data.std, "flatten")["flatten"]
    assert made.coordinates.shape == (200, 2) and len(split) == 200
    assert made.quality["recall"] == pytest.approx(recall(X, made.coordinates), abs=0.01)
    assert made.quality["recall"] > 0.3  # by chance it would be 0.05
    assert made.about["run"] == run.content["key"] and made.about["backend"] == "opentsne"
    assert len(made.mixing) == 45 and list(made.mixing.values()) == sorted(made.mixing.values(), reverse=True)
    with monkeypatch.context() as patch:
        patch.setattr(latent_space, "load_snapshot", lambda *_: pytest.fail("computed again"))
        again = pictures(run, "flatten", [2], iterations=300)[0]
        assert np.array_equal(made.coordinates, again.coordinates) and made.about == again.about
        with pytest.raises(BaseException, match="computed again"):
            pictures(run, "flatten", [2], iterations=301)
    with pytest.raises(FileNotFoundError, match="move the run's record away"):
        pictures(run, "flatten", [7])
    with pytest.raises(ValueError, match="flatten"):
        pictures(run, "flaten", [2])
    with pytest.raises(ValueError, match="perplexity=90"):
        pictures(run, "flatten", [2], perplexity=90)


def test_a_later_stage_starts_from_the_earlier_one_and_is_turned_to_it(run, monkeypatch):
    starts = []
    note = starts.append
    monkeypatch.setattr(latent_space, "embed", lambda X, **given: note(given["initialization"]) or embed(X, **given))
    early, late = pictures(run, "fc2_leaky_relu", (1, 2), points=150, iterations=300)
    assert starts[0] is None and np.allclose(starts[1], early.coordinates)
    assert late.about["after"] == 1 and len(late.coordinates) == 150
    centred = [each.coordinates - each.coordinates.mean(0) for each in (late, early)]
    turn, _ = orthogonal_procrustes(*centred)
    assert np.allclose(turn, np.eye(2), atol=1e-3)  # nothing is left to turn


def test_answers_are_those_of_the_network_at_that_time(run):
    data = load("digits")
    for epoch in (0, 2):
        labels, named = answers(run, epoch)
        split = pictured(run)
        with torch.no_grad():
            expected = load_snapshot(run, epoch)(normalise(split.images, data.mean, data.std)).argmax(1)
        assert np.array_equal(labels, split.labels.numpy()) and np.array_equal(named, expected.numpy())
    assert len(answers(run, 2, points=100)[0]) == 100
    # The run's own network was laid out in memory otherwise: a picture between two classes may go either way.
    right = (answers(run, 2)[0] == answers(run, 2)[1]).mean()
    assert right == pytest.approx(run.metrics["train_accuracy"], abs=1.5 / 200)


def test_latents_are_those_of_a_plain_forward_pass_in_order_whatever_the_batch_size():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (23, 3, 32, 32), dtype=torch.uint8)
    split, (mean, std) = Split(images, torch.arange(23) % 10, torch.arange(23)), channel_statistics(images)
    model = build("r4").to(memory_format=torch.channels_last).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Channels first, then rows, then columns, whatever the order in memory is.
    x = (images.double() / 255 - mean.double().view(1, 3, 1, 1)) / std.double().view(1, 3, 1, 1)
    plain, expected = build("r4").double().eval(), {}
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, layer in plain.named_children():
            x = layer(x)
            expected[name] = x.flatten(1).numpy()
    for batch_size in (1, 5, 100):
        found = split_latents(model, split, mean, std, ["pool2", "fc2", "logits"], batch_size=batch_size)
        assert {name: a.shape for name, a in found.items()} == {"pool2": (23, 576), "fc2": (23, 84), "logits": (23, 10)}
        for name, rows in found.items():
            assert rows.dtype == np.float32 and np.allclose(rows, expected[name], atol=1e-4), name
    assert np.allclose(found["logits"], predict(model, split, mean, std).numpy(), atol=1e-4)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="no layer 'fc9'; its layers are: conv1"):
        split_latents(model, split, mean, std, "fc9")
