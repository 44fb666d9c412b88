"""t-SNE: the same meaning in every library, honest refusals, and pictures that come out the same again."""

import sys
from inspect import Parameter, Signature
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from helpers.latent import available_backends, embed, principal
from helpers.latent import tsne as embedding
from helpers.latent import tsne as tsne_backends

FAST = {"iterations": 250, "perplexity": 10, "verbose": False}


@pytest.fixture(scope="module")
def digits():
    """Return 40 pictures each of the digits 0, 1 and 4: float64 (120, 64), and labels."""
    X, y = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(y == label)[:40] for label in (0, 1, 4)])
    return X[chosen], y[chosen]


def exact_kl(X: np.ndarray, Y: np.ndarray, perplexity: float) -> float:
    """Return the divergence by the definition: all pairs, and each Gaussian's width by bisection."""
    D = squareform(pdist(X, "sqeuclidean"))
    P = np.zeros_like(D)
    for i, row in enumerate(D):
        low, high = 0.0, 1e3
        for _ in range(100):
            beta = (low + high) / 2
            p = np.exp(-beta * (np.where(np.arange(len(row)) == i, np.inf, row) - np.delete(row, i).min()))
            p /= p.sum()
            entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
        P[i] = p
    P = (P + P.T) / P.sum() / 2
    Q = 1 / (1 + squareform(pdist(Y, "sqeuclidean")))
    np.fill_diagonal(Q, 0)
    Q /= Q.sum()
    used = P > 0
    return float((P[used] * np.log(P[used] / Q[used])).sum())


# --- For real, on the CPU. ---


def test_the_libraries_for_cpus_reach_the_same_divergence_with_the_same_parameters(digits):
    X, y = digits
    # With so few points, the usual rate of 200 would leave them trembling at the end.
    given = {"iterations": 500, "perplexity": 10, "learning_rate": 20, "verbose": False}
    found = {name: [embed(X, name, seed=seed, **given) for seed in range(8)] for name in ("opentsne", "sklearn")}
    kl = {name: [exact_kl(principal(X), e.coordinates, 10) for e in several] for name, several in found.items()}
    # From start to start, and from processor to processor, one divergence scatters by 3 %, a mean of eight by 1 %.
    assert np.mean(kl["opentsne"]) == pytest.approx(np.mean(kl["sklearn"]), rel=0.05)
    for name, several in found.items():
        for e, exact in zip(several, kl[name], strict=True):
            assert e.coordinates.shape == (120, 2) and e.coordinates.dtype == np.float32
            assert e.backend == name and e.repeatable and e.seconds > 0
            assert e.kl == pytest.approx(exact, rel=0.05)
            assert silhouette_score(e.coordinates, y) > 0.4  # three digits that nobody confuses


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(digits):
    X, _ = digits
    first, again, other = (embed(X, seed=seed, **FAST).coordinates for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other, atol=0.1)


def test_dead_features_and_repeated_rows_do_no_harm(digits):
    X, _ = digits
    with_dead = np.hstack([X, np.zeros((len(X), 3)), np.full((len(X), 1), 7.0)])
    with_dead[1] = with_dead[0]
    assert np.isfinite(embed(with_dead, **FAST).coordinates).all()


def test_torchdr_reaches_nearly_the_same_divergence(digits):
    pytest.importorskip("torchdr", reason="TorchDR is an extra: pip install -e '.[gpu]'")
    X = principal(digits[0])
    plan = tsne_backends.Plan(10.0, 12.0, 20.0, 160, 340, "pca", embedding._start(X, "pca", 0), 0, 1)
    ours, _ = tsne_backends._by_torchdr(X, plan, "cpu")
    reference, _ = tsne_backends._by_sklearn(X, plan)
    # It counts each point as its own neighbour in the plane, too, which tells while there are few of them.
    assert exact_kl(X, ours, 10) == pytest.approx(exact_kl(X, reference, 10), rel=0.3)


# --- What it starts from. ---


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
    for initialization in ("pca", "random", given):
        start = embedding._start(X, initialization, 0)
        assert start.shape == (len(X), 2) and np.abs(start.mean(0)).max() < 1e-5
        assert start[:, 0].std() == pytest.approx(1e-4, rel=0.01)
        assert not np.array_equal(start, embedding._start(X, initialization, 1))
    close = embedding._start(X, given, 0)
    assert np.corrcoef(close[:, 0], given[:, 0])[0, 1] > 0.999
    components = PCA(2, random_state=0).fit_transform(X)
    assert abs(np.corrcoef(embedding._start(X, "pca", 0)[:, 1], components[:, 1])[0, 1]) > 0.999


# --- The libraries for GPUs, by stand-ins that note what they are asked for. ---


def stand_in(monkeypatch, name: str, parameters: str, fails: Exception | None = None) -> dict:
    """Put a module with a class TSNE, which takes ``parameters``, in the place of ``name``; return what it is given."""
    notes: dict = {}

    def __init__(self, **given):
        if fails:
            raise fails
        if unknown := set(given) - set(parameters.split()):
            raise TypeError(f"unexpected {unknown}")
        notes.update(given)

    def fit_transform(self, X, *start):
        notes.update(X=X, start=start)
        self.kl_divergence_ = 1.5
        return np.asarray(X)[:, :2]

    signature = Signature([Parameter(word, Parameter.KEYWORD_ONLY) for word in parameters.split()])
    methods = {"__init__": __init__, "fit_transform": fit_transform, "__signature__": signature}
    for part in (name, *([f"{name}.manifold"] if name == "cuml" else [])):
        module = ModuleType(part)
        module.TSNE = type("TSNE", (), methods)
        monkeypatch.setitem(sys.modules, part, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return notes


TSNECUDA = (
    "n_components perplexity early_exaggeration learning_rate num_neighbors force_magnify_iters pre_momentum "
    "post_momentum theta epssq n_iter n_iter_without_progress min_grad_norm perplexity_epsilon metric init "
    "return_style num_snapshots verbose random_seed device magnitude_factor"
)
CUML = (
    "n_components perplexity early_exaggeration late_exaggeration learning_rate n_iter_without_progress min_grad_norm "
    "metric metric_params init verbose random_state method angle learning_rate_method n_neighbors perplexity_max_iter "
    "exaggeration_iter pre_momentum post_momentum square_distances precomputed_knn output_type"
)
TORCHDR = (
    "perplexity n_components lr optimizer optimizer_kwargs scheduler scheduler_kwargs init init_scaling min_grad_norm "
    "max_iter device backend verbose random_state early_exaggeration_coeff early_exaggeration_iter max_iter_affinity "
    "metric sparsity check_interval compile distributed process_duplicates"
)


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(6000, 5)).astype(np.float32)


def test_tsnecuda_gets_enough_neighbours_our_rate_and_the_start_with_the_seed(monkeypatch, X):
    notes = stand_in(monkeypatch, "tsnecuda", TSNECUDA)
    made = embed(X, "tsnecuda", perplexity=20, iterations=1000, seed=3, verbose=False)
    assert not made.repeatable and made.kl is None and made.coordinates.shape == (6000, 2)
    assert notes["num_neighbors"] >= 60
    assert notes["learning_rate"] == 6000 / 12 and notes["early_exaggeration"] == 12 and notes["perplexity"] == 20
    assert (notes["force_magnify_iters"], notes["n_iter"]) == (250, 1000)
    assert "random_seed" not in notes
    (start,) = notes["start"]
    assert start.dtype == np.float32 and np.array_equal(start, embedding._start(X, "pca", 3).astype(np.float32))


@pytest.mark.parametrize("iterations_name", ["n_iter", "max_iter"])
def test_cuml_is_kept_from_choosing_for_itself(monkeypatch, X, iterations_name):
    notes = stand_in(monkeypatch, "cuml", f"{CUML} {iterations_name}")
    made = embed(X, "cuml", perplexity=20, learning_rate=300, initialization="random", seed=3, verbose=False)
    assert made.kl == 1.5 and not made.repeatable
    assert notes["learning_rate_method"] == "none" and notes["learning_rate"] == 300
    assert notes["n_neighbors"] >= 60 and notes["random_state"] == 3 and notes["init"] == "random"
    assert (notes["exaggeration_iter"], notes[iterations_name]) == (250, 750)
    with pytest.raises(ValueError, match="cuml cannot be used here: it cannot start from given positions"):
        embed(X, "cuml", initialization=X[:, :2], verbose=False)


def test_torchdr_gets_a_quarter_of_the_rate_and_the_start_as_it_is(monkeypatch, X):
    notes = stand_in(monkeypatch, "torchdr", TORCHDR)
    made = embed(X, "torchdr", early_exaggeration=10, iterations=600, initialization=X[:, 2:4], verbose=False)
    assert made.parameters["learning_rate"] == 600 and notes["lr"] == 150
    assert (notes["early_exaggeration_iter"], notes["max_iter"]) == (200, 600)
    assert (
        notes["early_exaggeration_coeff"] == 10 and notes["device"] == "cuda" and notes["process_duplicates"] is False
    )
    # TorchDR divides by the deviation of the first column and multiplies by init_scaling.
    scaled = notes["init"].numpy() * notes["init_scaling"] / notes["init"].numpy()[:, 0].std()
    assert np.allclose(scaled, embedding._start(X, X[:, 2:4].astype(np.float64), 0), rtol=1e-4, atol=1e-9)
    assert made.parameters["initialization"] == "positions"


def test_scikit_learn_gets_a_quarter_of_the_rate_and_our_early_iterations(monkeypatch, X):
    notes = stand_in(
        monkeypatch,
        "sklearn.manifold",
        (
            "n_components perplexity early_exaggeration learning_rate "
            "max_iter n_iter_without_progress min_grad_norm init random_state n_jobs"
        ),
    )
    made = embed(X, "sklearn", iterations=300, seed=4, verbose=False)
    assert notes["learning_rate"] == 125 and notes["max_iter"] == 300 and notes["random_state"] == 4
    assert made.parameters["early"] == 100


def test_the_gains_are_those_of_the_other_libraries():
    from sklearn.manifold._t_sne import _gradient_descent

    scale = np.array([1.0, 30.0, 4.0])
    start = np.array([3.0, -2.0, 1.0])
    wanted, _, _ = _gradient_descent(
        lambda p, compute_error: (0.0, scale * p),
        start.copy(),
        0,
        40,
        momentum=0.8,
        learning_rate=0.05,
        min_grad_norm=0,
    )
    point = torch.tensor(start, requires_grad=True)
    optimizer = tsne_backends._Gains([point], lr=0.05)
    for _ in range(40):
        point.grad = torch.tensor(scale) * point.detach()
        optimizer.step()
    assert np.allclose(point.detach(), wanted)


# --- Which are there. ---


def test_without_a_gpu_auto_takes_opentsne_and_says_why_no_faster_one(monkeypatch, digits, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torchdr", ModuleType("torchdr"))
    monkeypatch.setitem(sys.modules, "cuml", None)
    made = embed(digits[0], perplexity=10, iterations=250)
    assert made.backend == "opentsne"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "by opentsne" in said
    assert "torchdr: torch sees no CUDA GPU" in said and "cuml: " in said


def test_a_broken_tsnecuda_is_found_by_its_constructor(monkeypatch):
    broken = OSError("libcudart.so.10.2: cannot open shared object file: No such file or directory\nmore")
    stand_in(monkeypatch, "tsnecuda", TSNECUDA, fails=broken)
    reasons = available_backends()
    assert list(reasons) == ["tsnecuda", "cuml", "torchdr", "opentsne", "sklearn"]
    assert reasons["tsnecuda"].startswith("its library does not load: libcudart.so.10.2")
    assert "\n" not in reasons["tsnecuda"] and reasons["opentsne"] is None and reasons["sklearn"] is None
    with pytest.raises(ValueError, match="tsnecuda cannot be used here: its library does not load: libcudart"):
        embed(np.zeros((20, 3)) + np.arange(20)[:, None] * [1, 2, 3], "tsnecuda", perplexity=3)


def test_a_working_tsnecuda_is_taken_first_and_cuml_not_for_given_positions(monkeypatch, X, capsys):
    stand_in(monkeypatch, "cuml", f"{CUML} n_iter")
    stand_in(monkeypatch, "tsnecuda", TSNECUDA)
    assert embed(X).backend == "tsnecuda"
    assert "cannot repeat itself" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tsnecuda", None)
    monkeypatch.setitem(sys.modules, "torchdr", None)
    small = X[:40]
    made = embed(small, initialization=small[:, :2], **FAST)
    assert made.backend == "opentsne"
    assert embedding._chosen("auto", True)[1]["cuml"] == "it cannot start from given positions"
    assert embedding._chosen("auto", False)[0] == "cuml"


# --- What it refuses. ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.full((60, 4), np.nan)}, "60 of the 60 rows of X hold NaN"),
        ({"X": np.ones((1, 4))}, "several samples, got 1"),
        ({"X": np.ones((60, 4))}, "0 of the 4 columns of X vary"),
        ({"X": np.arange(60.0)[:, None] * [1, 0, 0]}, "1 of the 3 columns of X vary"),
        ({"X": np.ones((60, 2, 2))}, "flatten"),
        ({"X": np.array([["a", "b"]] * 60)}, "X must be numbers"),
        ({"perplexity": 20}, "perplexity=20 with 60 samples: it needs between 1 and .*19.7"),
        ({"perplexity": float("nan")}, "perplexity=nan"),
        ({"X": np.eye(3)}, "N of at least 5"),
        ({"backend": "umap"}, "no backend 'umap'; choose auto, tsnecuda"),
        ({"initialization": np.zeros((59, 2))}, r"shape \(59, 2\); X has 60 samples, so give \(60, 2\)"),
        ({"initialization": np.zeros((60, 2))}, "must not be constant"),
        ({"initialization": "spectral"}, "'spectral' is unknown; choose pca, random"),
        ({"early_exaggeration": 0.5}, "early_exaggeration=0.5"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"iterations": 100}, "iterations=100 are too few"),
        ({"pca_dimensions": 1}, "pca_dimensions=1"),
    ],
)
def test_unusable_values_are_refused_in_words(change, words):
    given = {"X": np.random.default_rng(0).normal(size=(60, 4)), "perplexity": 5} | change
    with pytest.raises(ValueError, match=words):
        embed(**given)
