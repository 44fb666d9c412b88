"""A kept network is the trained one in half precision, says where it comes from, and is started from exactly."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.data import DataError, DataMissing, load
from helpers.models import build
from helpers.record import Run, read_run, train_run, write_run
from helpers.training import Experiment, Trainer, fingerprint, load_network, save_network, start
from helpers.training import kept as pretrained

SMALL = Experiment(dataset="digits", model="r2", model_options={"dropout": 0.0}, train_size=64, epochs=1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "networks_folder", lambda: tmp_path / "networks")
    monkeypatch.setattr(pretrained, "DATA", tmp_path)
    return tmp_path / "networks"


def run_of(experiment=SMALL, classes=10):
    content = {"experiment": experiment.choices(), "key": experiment.key, "provenance": {"device": "cpu"}}
    return Run(content | {"classes": [str(i) for i in range(classes)]})


def random_network(experiment=SMALL, classes=10, seed=5):
    torch.manual_seed(seed)
    model = build(experiment.model, classes=classes, **experiment.model_options)
    model.bn1.running_mean += torch.randn(32)
    return model


def test_weights_come_back_as_the_nearest_half_precision_numbers(folder):
    model = random_network()
    path = save_network("small-net", model, run_of().content)
    kept, info = load_network("small-net")
    assert path == folder / "small-net.safetensors" == pretrained.network_path("small-net")
    assert info["experiment"] == SMALL and info["key"] == SMALL.key and info["device"] == "cpu"
    assert info["classes"] == tuple("0123456789") and not kept.training
    for name, value in model.state_dict().items():
        wanted = value.half().float() if value.is_floating_point() else value
        assert torch.equal(kept.state_dict()[name], wanted) and kept.state_dict()[name].dtype == value.dtype
    assert load_file(path)["conv1.weight"].dtype == torch.float16


def test_what_cannot_be_kept_is_refused(folder, monkeypatch):
    model = random_network()
    for name in ("Small", "../up", "", "a_b"):
        with pytest.raises(ValueError, match="name="):
            save_network(name, model, run_of().content)
    with pytest.raises(ValueError, match="logits"):
        save_network("cut", model[:-1], run_of().content)
    with pytest.raises(ValueError, match="do not fit"):
        save_network("other", build("r1"), run_of().content)
    with torch.no_grad():
        model.fc1.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"fc1.weight.*half precision"):
        save_network("large", model, run_of().content)
    assert not folder.exists()
    size = save_network("one", random_network(), run_of().content).stat().st_size
    monkeypatch.setattr(pretrained, "ROOM", 2 * size - 1)
    save_network("one", random_network(seed=6), run_of().content)  # in its own place
    with pytest.raises(ValueError, match=f"of {2 * size - 1:,} for all networks {size:,} are taken"):
        save_network("two", random_network(), run_of().content)


def test_absent_and_damaged_networks_are_named(folder):
    with pytest.raises(DataMissing, match=r"no network 'abc'.*none yet"):
        load_network("abc")
    path = save_network("abc", random_network(), run_of().content)
    with pytest.raises(DataMissing, match=r"no network 'abd'.*there are: abc"):
        load_network("abd")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"abc.safetensors cannot be used"):
        load_network("abc")
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="experiment"):
        load_network("abc")
    info = {"experiment": json.dumps(SMALL.choices()), "classes": '["a", "b"]'}
    save_file({"conv1.weight": torch.zeros(1)}, path, metadata=info)
    with pytest.raises(DataError, match="do not fit"):
        load_network("abc")


def test_a_run_starts_from_the_kept_weights_and_the_seeds_own_last_layer():
    save_network("small-net", random_network(classes=3), run_of(classes=3).content)
    kept, _ = load_network("small-net")
    data, tuned = load("digits"), SMALL.but(initial="small-net", seed=4)
    found = Trainer(tuned, data, torch.device("cpu"), False).model.state_dict()
    scratch = Trainer(SMALL.but(seed=4), data, torch.device("cpu"), False).model.state_dict()
    for name, value in found.items():
        wanted = scratch[name] if name.startswith("logits.") else kept.state_dict()[name]
        assert torch.equal(value, wanted), name
    assert found["logits.weight"].shape == (10, 128)
    assert not torch.equal(found["conv1.weight"], scratch["conv1.weight"])
    # Another model than the kept one is refused.
    save_network("small-net", random_network(), run_of().content)
    for other in ({"model": "r1", "model_options": {}}, {"model_options": {"dropout": 0.2}}):
        with pytest.raises(ValueError, match=r"initial='small-net' is a 'r2' with \{'dropout': 0.0\}, not"):
            start(SMALL.but(initial="small-net", **other), load("digits"))


def test_the_record_says_which_weights_it_started_from(tmp_path):
    path = save_network("small-net", random_network(), run_of().content)
    experiment = SMALL.but(initial="small-net")
    write_run(train_run(experiment, device="cpu", progress=False), tmp_path / "runs")
    run = read_run(experiment, "cpu", folder=tmp_path / "runs")
    assert run.provenance["initial"] == hashlib.sha256(path.read_bytes()).hexdigest() == fingerprint("small-net")
    assert "initial" not in train_run(SMALL, device="cpu", progress=False)["provenance"]
