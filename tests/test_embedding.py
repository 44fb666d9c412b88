"""t-SNE: the same meaning in every library, and pictures that come out the same again."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from taught import taught

from helpers.latent import available_backends, embed, principal, tsne
from helpers.settings import ROOT

README, ENVIRONMENT = (ROOT / "README.md").read_text(), (ROOT / "environment.yml").read_text()

FAST = {"iterations": 250, "perplexity": 10}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(y == label)[:40] for label in (0, 1, 4)])
    return X[chosen], y[chosen]


def exact_kl(X: np.ndarray, Y: np.ndarray, perplexity: float) -> float:
    """Return the divergence by the definition, as notebook 12 teaches it: all pairs, each width by bisection."""
    P = taught("12", "affinities").affinities(X, perplexity)
    Q = 1 / (1 + squareform(pdist(Y, "sqeuclidean"))) - np.eye(len(Y))
    return entropy(P.ravel(), Q.ravel())


def test_the_libraries_for_cpus_reach_the_same_divergence_with_the_same_parameters(digits, monkeypatch):
    X, y = digits
    monkeypatch.setattr(tsne, "LEAST_RATE", 20)  # with so few points, 200 would leave them trembling at the end
    given = {"iterations": 500, "perplexity": 10}
    found = {name: [embed(X, name, seed=seed, **given) for seed in range(6)] for name in ("opentsne", "sklearn")}
    kl = {name: [exact_kl(principal(X), e.coordinates, 10) for e in several] for name, several in found.items()}
    # From start to start, and from processor to processor, one divergence scatters by 3 %, a mean of six by 1.2 %.
    assert np.mean(kl["opentsne"]) == pytest.approx(np.mean(kl["sklearn"]), rel=0.05)
    for name, several in found.items():
        for e, exact in zip(several, kl[name], strict=True):
            assert e.coordinates.shape == (120, 2) and e.coordinates.dtype == np.float32
            assert e.about["backend"] == name and e.about["repeatable"] and e.about["seconds"] > 0
            assert e.about["kl"] == pytest.approx(exact, rel=0.05)
            assert silhouette_score(e.coordinates, y) > 0.4  # three digits that nobody confuses


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(digits):
    X, _ = digits
    first, again, other = (embed(X, seed=seed, **FAST).coordinates for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other, atol=0.1)


def test_principal_components_are_those_of_an_eigendecomposition():
    X = np.random.default_rng(0).normal(size=(300, 8)) @ np.diag([9, 7, 5, 3, 1, 1, 1, 1])
    values, vectors = np.linalg.eigh(np.cov(X.T))
    expected = (X - X.mean(0)) @ vectors[:, ::-1][:, :3]
    found = principal(X, 3)
    assert found.dtype == np.float32
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-3)
    assert np.array_equal(principal(X, 8), X.astype(np.float32)) and principal(X, None).shape == X.shape


def test_every_start_is_centred_small_and_carries_the_seed(digits):
    X = digits[0].astype(np.float32)
    given = np.random.default_rng(0).normal(50, 30, (len(X), 2))
    for positions in (None, given):
        start = tsne._start(X, positions, 0)
        assert start.shape == (len(X), 2) and np.abs(start.mean(0)).max() < 1e-5
        assert start[:, 0].std() == pytest.approx(1e-4, rel=0.01)
        assert not np.array_equal(start, tsne._start(X, positions, 1))
    assert np.corrcoef(tsne._start(X, given, 0)[:, 0], given[:, 0])[0, 1] > 0.999
    components = PCA(2, random_state=0).fit_transform(X)
    assert abs(np.corrcoef(tsne._start(X, None, 0)[:, 1], components[:, 1])[0, 1]) > 0.999


# 3.0.1 has these, and more for a viewer of its own.
TSNECUDA = """perplexity early_exaggeration learning_rate num_neighbors force_magnify_iters pre_momentum post_momentum
    theta epssq n_iter n_iter_without_progress min_grad_norm perplexity_epsilon metric init return_style num_snapshots
    verbose random_seed device magnitude_factor"""


def stand_in(monkeypatch, name: str, **behaviour) -> Mock:
    """Return a class TSNE that takes the place of that in module ``name`` and notes how it is called."""
    TSNE = Mock(**behaviour)
    TSNE.return_value.fit_transform.side_effect = lambda X, *start: X[:, :2]
    TSNE.return_value.kl_divergence_ = 1.5
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(TSNE=TSNE))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return TSNE


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(6000, 5)).astype(np.float32)


def test_tsnecuda_is_taken_first_and_gets_enough_neighbours_our_rate_and_the_start_with_the_seed(monkeypatch, X):
    TSNE = stand_in(monkeypatch, "tsnecuda")
    made = embed(X, perplexity=20, iterations=1000, seed=3)
    notes = TSNE.call_args.kwargs
    assert set(notes) <= set(TSNECUDA.split()) - {"random_seed"}  # that it ignores
    assert made.about["backend"] == "tsnecuda" and not made.about["repeatable"] and made.about["kl"] is None
    assert notes["num_neighbors"] >= 60
    assert notes["learning_rate"] == 6000 / 12 and notes["early_exaggeration"] == 12 and notes["perplexity"] == 20
    assert (notes["force_magnify_iters"], notes["n_iter"]) == (250, 1000)
    start = TSNE.return_value.fit_transform.call_args.args[1]
    assert start.dtype == np.float32 and np.array_equal(start, tsne._start(X, None, 3).astype(np.float32))


def test_scikit_learn_gets_a_quarter_of_the_rate_and_our_early_iterations(monkeypatch, X):
    TSNE = stand_in(monkeypatch, "sklearn.manifold")
    made = embed(X, "sklearn", iterations=300, seed=4, initialization=X[:, 2:4])
    notes = TSNE.call_args.kwargs
    assert notes["learning_rate"] == 125 and notes["max_iter"] == 300 and notes["random_state"] == 4
    parameters = made.about["parameters"]
    assert parameters["early"] == 100 and parameters["initialization"] == "positions"


def test_without_a_gpu_auto_takes_opentsne(monkeypatch, digits):
    stand_in(monkeypatch, "tsnecuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    X = np.hstack([digits[0], np.zeros((120, 3)), np.full((120, 1), 7.0)])
    X[1] = X[0]  # dead features and repeated rows do no harm
    made = embed(X, **FAST)
    assert made.about["backend"] == "opentsne" and np.isfinite(made.coordinates).all()
    assert available_backends() == {"tsnecuda": "torch sees no CUDA GPU", "opentsne": None, "sklearn": None}


def test_where_a_gpu_lacks_tsnecuda_or_has_a_broken_one_one_line_says_how_to_get_it(monkeypatch, X):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tsnecuda", None)
    reason = available_backends()["tsnecuda"]
    assert "tsnecuda" in reason.partition(";")[0] and tsne.GET_TSNECUDA in reason and "\n" not in reason
    (line,) = (line for line in README.splitlines() if "pip install tsnecuda" in line)
    (same,) = (line for line in ENVIRONMENT.splitlines() if "pip install tsnecuda" in line)
    assert line.partition("pip ")[2] == same.partition("pip ")[2] and line.partition("pip ")[2] in tsne.GET_TSNECUDA
    broken = OSError("libcudart.so.10.2: cannot open shared object file: No such file or directory\nmore")
    stand_in(monkeypatch, "tsnecuda", side_effect=broken)
    reason, _, get = available_backends()["tsnecuda"].partition("; ")
    assert reason == str(broken).splitlines()[0] and "tsnecuda==4.0.1+cu126 -f https://tsnecuda.isx.ai/" in get
    with pytest.raises(ValueError, match="tsnecuda cannot be used here: libcudart"):
        embed(X, "tsnecuda")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.full((60, 4), np.nan)}, "60 of the 60 rows of X hold NaN"),
        ({"X": np.ones((60, 2, 2))}, "flatten"),
        ({"perplexity": 20}, "perplexity=20: with 60 samples it must be from 1 to 19.7"),
        ({"perplexity": float("nan")}, "perplexity=nan"),
        ({"backend": "umap"}, "no backend 'umap'; choose auto, tsnecuda"),
        ({"initialization": np.zeros((59, 2))}, r"shape \(59, 2\); give a place for each sample, \(60, 2\)"),
    ],
)
def test_unusable_values_are_refused_in_words(change, words):
    given = {"X": np.random.default_rng(0).normal(size=(60, 4)), "perplexity": 5} | change
    with pytest.raises(ValueError, match=words):
        embed(**given)
