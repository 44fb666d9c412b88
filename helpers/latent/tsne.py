"""t-SNE by the fastest library at hand, with the same parameters in each, and how good its picture is, in numbers.

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; defaults and figures of merit are those of Kobak and
Berens, "The art of using t-SNE for single-cell transcriptomics", 2019. ``X``, (N, D), are latents, ``Y``, (N, 2), their
places in the plane; where all N would be slow, a seeded sample is asked, and the others still count as neighbours.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from openTSNE.affinity import PerplexityBasedNN
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn import manifold
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, confusion_matrix, pairwise_distances_chunked, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

MOMENTUM, EXAGGERATION, EARLY_ITERATIONS, LEAST_RATE = 0.8, 12.0, 250, 200.0
# Of the start's deviation, one part in a hundred is noise: it gives the seed a meaning that no library can ignore.
START_STD, JITTER = 1e-4, 0.01
NEIGHBOURS = 10
# PyPI's 3.0.1 imports anywhere and starts with CUDA 10.2 alone; both versions take the arguments that are used here.
GET_TSNECUDA = (
    "for a newer GPU: pip install tsnecuda==4.0.1+cu126 -f https://tsnecuda.isx.ai/tsnecuda_stable.html, with the tag "
    "of your CUDA (cu118, cu124, cu126, cu129, cu130)"
)
Made = tuple[np.ndarray, float | None]  # coordinates, and the final divergence where the library has it


def _by_tsnecuda(TSNE: Callable, X: np.ndarray, start: np.ndarray, plan: SimpleNamespace) -> Made:
    near = math.ceil(3 * plan.perplexity) + 1  # with the point itself; its default is too few
    every = plan.early + plan.late
    length = {"force_magnify_iters": plan.early, "n_iter": every, "n_iter_without_progress": every}
    length["min_grad_norm"] = 0.0
    rate = {"learning_rate": plan.learning_rate, "pre_momentum": MOMENTUM, "post_momentum": MOMENTUM}
    model = TSNE(num_neighbors=near, **length, **rate)  # it ignores `random_seed`: the start has the seed
    return model.fit_transform(X, start.astype(np.float32)), None


def _by_opentsne(TSNE: Callable, X: np.ndarray, start: np.ndarray, plan: SimpleNamespace) -> Made:
    # A rate that is given as a number is kept after the early iterations, too.
    rate = {"learning_rate": plan.learning_rate, "initial_momentum": MOMENTUM, "final_momentum": MOMENTUM}
    length = {"early_exaggeration_iter": plan.early, "n_iter": plan.late}
    made = TSNE(**length, **rate, initialization=start, random_state=plan.seed, n_jobs=plan.threads).fit(X)
    return np.asarray(made), float(made.kl_divergence)


def _by_sklearn(TSNE: Callable, X: np.ndarray, start: np.ndarray, plan: SimpleNamespace) -> Made:
    rate, every = plan.learning_rate / 4, plan.early + plan.late  # its gradient has a factor of 4 that the others lack
    length = {"max_iter": every, "n_iter_without_progress": every, "min_grad_norm": 0.0}
    start = start.astype(np.float32)
    model = TSNE(learning_rate=rate, **length, init=start, random_state=plan.seed, n_jobs=plan.threads)
    model._EXPLORATION_MAX_ITER = plan.early  # the only way to say how many of the iterations are early
    return model.fit_transform(X), float(model.kl_divergence_)


class Backend(NamedTuple):
    """A library: the package that has its class TSNE, how that is called, and whether it needs a GPU."""

    package: str
    run: Callable[[Callable, np.ndarray, np.ndarray, SimpleNamespace], Made]
    gpu: bool = False


# From the fastest to the slowest; scikit-learn's is there for comparison, and where nothing else is.
BACKENDS = {
    "tsnecuda": Backend("tsnecuda", _by_tsnecuda, gpu=True),
    "opentsne": Backend("openTSNE", _by_opentsne),
    "sklearn": Backend("sklearn.manifold", _by_sklearn),
}


def available_backends() -> dict[str, str | None]:
    """Return for each backend None where it can be used, or in one line why it cannot."""
    return dict.fromkeys(BACKENDS) | {"tsnecuda": _obstacle_to_tsnecuda()}


def _obstacle_to_tsnecuda() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU"
    try:
        import_module("tsnecuda").TSNE()  # only its constructor loads the library, which may be for another CUDA
    except (ImportError, OSError, RuntimeError) as error:
        return f"{(str(error) or type(error).__name__).splitlines()[0]}; {GET_TSNECUDA}"
    return None


@dataclass(frozen=True)
class Picture:
    """An embedding and what is known about it; ``quality`` and ``mixing`` for that of a run's training images."""

    coordinates: np.ndarray  # float32 (N, 2), in the order of what was embedded
    about: dict[str, Any]  # plain values: "backend", "parameters", "seconds", "repeatable", ...

    @property
    def quality(self) -> dict[str, float]:
        """The figures of merit by name."""
        return self.about["quality"]

    @property
    def mixing(self) -> dict[tuple[str, str], float]:
        """How much each pair of classes mixes, the most first: the share of neighbours that they exchange."""
        return {(one, other): share for one, other, share in self.about["mixing"]}


def embed(
    X: np.ndarray,
    backend: str = "auto",
    *,
    perplexity: float = 30,
    iterations: int = 750,
    initialization: np.ndarray | None = None,
    pca_dimensions: int | None = 50,
    seed: int = 0,
) -> Picture:
    """Return the t-SNE embedding of ``X`` (N, D), N latents of D numbers each, by ``backend``, "auto" by the fastest.

    Of the ``iterations`` the first 250 are early, with exaggeration, or a third of them if there are fewer than 750.
    The learning rate is N / 12, the early exaggeration (Belkina et al., 2019), at least 200. ``initialization`` (N, 2);
    None: the first two principal components. Before, ``X`` is reduced to ``pca_dimensions`` components, if given.
    """
    began = time.perf_counter()
    X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"X must be numbers of shape (N, D), got {X.shape}; flatten the latents")
    if bad := int((~np.isfinite(X)).any(axis=1).sum()):
        raise ValueError(f"{bad:,} of the {len(X):,} rows of X hold NaN or infinite values")
    most = (len(X) - 1) / 3
    if not 1 < perplexity <= most:
        raise ValueError(f"perplexity={perplexity}: with {len(X)} samples it must be from 1 to {most:.1f}, (N - 1) / 3")
    obstacles = available_backends()
    if backend == "auto":
        backend = next(name for name, reason in obstacles.items() if reason is None)
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    if reason := obstacles[backend]:
        raise ValueError(f"{backend} cannot be used here: {reason}")
    X = principal(X, pca_dimensions, seed)
    early = min(EARLY_ITERATIONS, iterations // 3)
    plan = SimpleNamespace(
        perplexity=float(perplexity),
        early_exaggeration=EXAGGERATION,
        learning_rate=max(len(X) / EXAGGERATION, LEAST_RATE),
        early=early,
        late=iterations - early,
        initialization="pca" if initialization is None else "positions",
        seed=seed,
        threads=torch.get_num_threads(),
    )
    package, run, gpu = BACKENDS[backend]
    TSNE = partial(import_module(package).TSNE, perplexity=plan.perplexity, early_exaggeration=EXAGGERATION)
    made, kl = run(TSNE, X, _start(X, initialization, seed), plan)
    version = getattr(sys.modules[package.split(".")[0]], "__version__", "unknown")
    about = {
        "backend": backend,
        "parameters": vars(plan) | {"dimensions": X.shape[1], "version": version},
        "seconds": round(time.perf_counter() - began, 2),
        "repeatable": not gpu,  # there, sums in no fixed order differ in their last digits: t-SNE amplifies it
        "kl": kl,  # the library's own; to compare libraries: kl_divergence
    }
    return Picture(np.ascontiguousarray(made, dtype=np.float32), about)


def principal(X: np.ndarray, dimensions: int | None = 50, seed: int = 0) -> np.ndarray:
    """Return the first principal components of ``X`` (N, D): float32 (N, dimensions), or ``X`` if it has no more."""
    X = np.ascontiguousarray(X, dtype=np.float32)
    if dimensions is None or min(X.shape) <= dimensions:
        return X
    return PCA(dimensions, random_state=seed).fit_transform(X)


def _start(X: np.ndarray, positions: np.ndarray | None, seed: int) -> np.ndarray:
    """Return the first positions, float64 (N, 2), centred, of deviation START_STD in the first column, with noise."""
    start = PCA(2, random_state=seed).fit_transform(X) if positions is None else positions
    if start.shape != (len(X), 2):
        raise ValueError(f"initialization has shape {start.shape}; give a place for each sample, ({len(X)}, 2)")
    start = start.astype(np.float64)
    start = start / start[:, 0].std() + JITTER * np.random.default_rng(seed).standard_normal(start.shape)
    return START_STD * (start - start.mean(0))


def quality(X: np.ndarray, Y: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the figures of merit of ``Y`` by name: four compare it with ``X``, the others say what can be seen in it.

    ``adjusted_rand`` compares labels with as many clusters; ``original_accuracy`` is that of the same points in X.
    """
    chosen, few = _sample(len(X), 5000), _sample(len(X), 1000)
    clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=0).fit_predict(Y)
    return {
        "recall": recall(X, Y),
        "class_recall": class_recall(X, Y, labels),
        "distance_correlation": float(spearmanr(pdist(X[few]), pdist(Y[few])).statistic),
        "trustworthiness": trustworthiness(X, Y),
        "accuracy": accuracy(Y[chosen], labels[chosen]),
        "original_accuracy": accuracy(X[chosen], labels[chosen]),
        "silhouette": float(silhouette_score(Y[chosen], labels[chosen])),
        "adjusted_rand": float(adjusted_rand_score(labels, clusters)),
        "groups": groups(Y[chosen]),
    }


def recall(X: np.ndarray, Y: np.ndarray, k: int = NEIGHBOURS, *, sample: int = 5000) -> float:
    """Return the share of a point's ``k`` nearest neighbours in X that are so in Y, too; chance: about k/N."""
    asked = _sample(len(X), sample)
    pairs = zip(neighbours(X, asked, k), neighbours(Y, asked, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def neighbours(X: np.ndarray, asked: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the indices of the ``k`` nearest points of X to each point in ``asked`` (M,), itself left out: (M, k)."""
    found = NearestNeighbors(n_neighbors=k + 1).fit(X).kneighbors(X[asked], return_distance=False)
    other = found != np.asarray(asked)[:, None]
    # Where k + 1 points coincide, a point may not be among its own neighbours: then the last one goes instead.
    other[other.all(axis=1), -1] = False
    return found[other].reshape(len(asked), k)


def class_recall(X: np.ndarray, Y: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of a class mean's four nearest class means in X that are so in Y: the picture's larger shape."""
    classes = np.unique(labels)
    if len(classes) < 3:  # there is no choice
        return 1.0
    means = [np.stack([Z[labels == c].mean(0) for c in classes]) for Z in (X, Y)]
    return recall(*means, k=min(4, (len(classes) - 1) // 2))


def trustworthiness(X: np.ndarray, Y: np.ndarray) -> float:
    """Return how far neighbours in Y are also near in X, 0 to 1 (Venna and Kaski, 2001), within a sample of points."""
    chosen = _sample(len(X), 3000)
    return float(manifold.trustworthiness(X[chosen], Y[chosen], n_neighbors=NEIGHBOURS))


def kl_divergence(X: np.ndarray, Y: np.ndarray, perplexity: float = 30, *, sample: int = 10_000) -> float:
    """Return the Kullback-Leibler divergence that t-SNE minimises, by openTSNE's affinities in X, after its PCA."""
    method = "exact" if len(X) < 5000 else "approx"
    P = PerplexityBasedNN(np.asarray(X, float), perplexity=perplexity, method=method, random_state=0).P.tocoo()
    Y = np.asarray(Y, dtype=np.float64)
    asked = Y[_sample(len(Y), sample)]
    chunks = pairwise_distances_chunked(asked, Y, metric="sqeuclidean", reduce_func=lambda D, _: (1 / (1 + D)).sum(1))
    total = (sum(float(part.sum()) for part in chunks) - len(asked)) * len(Y) / len(asked)  # no pairs of one point
    kernel = 1 / (1 + ((Y[P.row] - Y[P.col]) ** 2).sum(axis=1))
    return float((P.data * np.log(P.data / (kernel / total), where=P.data > 0, out=np.zeros_like(P.data))).sum())


def accuracy(Z: np.ndarray, labels: np.ndarray) -> float:
    """Return the cross-validated accuracy of a k-nearest-neighbour classifier on Z: latents, or places in the plane."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(KNeighborsClassifier(NEIGHBOURS), Z, labels, cv=folds).mean())


def groups(Y: np.ndarray) -> int:
    """Return how many dense groups HDBSCAN finds in the plane, each with at least 2 % of the points."""
    return int(HDBSCAN(min_cluster_size=max(round(0.02 * len(Y)), 5), copy=True).fit_predict(Y).max() + 1)


def intermixing(Y: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return each pair of classes and the share of a point's neighbours in the other, mean of both, the most first."""
    asked, numbers = _sample(len(Y), 10_000), range(len(classes))
    near = labels[neighbours(Y, asked)].ravel()
    own = np.repeat(labels[asked], NEIGHBOURS)
    shares = confusion_matrix(own, near, labels=numbers, normalize="true")
    mixed = (shares + shares.T) / 2
    pairs = [(classes[a], classes[b], float(mixed[a, b])) for a in numbers for b in numbers if a < b]
    return sorted(pairs, key=lambda pair: -pair[2])


def align(Y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return Y turned, perhaps mirrored, and shifted to lie nearest to ``reference`` (Procrustes; Schönemann, 1966)."""
    centred = Y - Y.mean(0)
    rotation, _ = orthogonal_procrustes(centred, reference - reference.mean(0))
    return (centred @ rotation + reference.mean(0)).astype(Y.dtype)


def _sample(n: int, size: int) -> np.ndarray:
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(0).choice(n, size, replace=False))
