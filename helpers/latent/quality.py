"""How good a picture of latents is, in numbers: what it keeps of the original, and what can be seen in it.

``X`` are the latents, (N, D); ``Y`` their places in the plane, (N, 2); ``labels`` their classes, (N,). The figures of
merit follow Kobak and Berens, "The art of using t-SNE for single-cell transcriptomics", 2019. Where all N points would
be slow, a seeded sample of them is asked; the others still count as neighbours, unless it says otherwise.
"""

from collections.abc import Sequence

import numpy as np
from openTSNE.affinity import PerplexityBasedNN
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import adjusted_rand_score, pairwise_distances_chunked, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from helpers.latent.tsne import principal

NEIGHBOURS, CLASS_NEIGHBOURS, FOLDS = 10, 4, 5


def quality(
    X: np.ndarray,
    Y: np.ndarray,
    labels: np.ndarray,
    *,
    perplexity: float | None = 30,
    pca_dimensions: int | None = 50,
    sample: int = 5000,
    seed: int = 0,
) -> dict[str, float]:
    """Return all figures of merit of ``Y`` as a picture of ``X``, by name.

    ``recall``, ``class_recall``, ``distance_correlation``, ``trustworthiness`` and ``kl`` (less is better; left out if
    ``perplexity`` is None) compare Y with X. ``accuracy``, ``silhouette``, ``adjusted_rand`` and ``groups`` (how many)
    say what can be seen in Y alone, and ``original_accuracy`` is that of the same classifier on the same points of X.

    Raises:
        ValueError: arrays that do not fit together, or hold NaN.
    """
    X, Y, labels = _checked(X, Y, labels)
    chosen = _sample(len(X), sample, seed)
    found = {
        "recall": recall(X, Y, sample=sample, seed=seed),
        "class_recall": class_recall(X, Y, labels),
        "distance_correlation": distance_correlation(X, Y, seed=seed),
        "trustworthiness": trustworthiness(X, Y, sample=min(sample, 3000), seed=seed),
        "accuracy": accuracy(Y[chosen], labels[chosen], seed=seed),
        "original_accuracy": accuracy(X[chosen], labels[chosen], seed=seed),
        "silhouette": float(silhouette_score(Y[chosen], labels[chosen])),
        "adjusted_rand": adjusted_rand(Y, labels, seed=seed),
        "groups": groups(Y[chosen]),
    }
    if perplexity is not None:
        found["kl"] = kl_divergence(principal(X, pca_dimensions, seed), Y, perplexity, seed=seed)
    return found


def recall(X: np.ndarray, Y: np.ndarray, k: int = NEIGHBOURS, *, sample: int = 5000, seed: int = 0) -> float:
    """Return the share of a point's ``k`` nearest neighbours in X that are so in Y, too; chance: about k/N."""
    asked = _sample(len(X), sample, seed)
    pairs = zip(neighbours(X, asked, k), neighbours(Y, asked, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def neighbours(X: np.ndarray, asked: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the indices of the ``k`` nearest points of X to each point in ``asked`` (M,), itself left out: (M, k)."""
    found = NearestNeighbors(n_neighbors=k + 1).fit(X).kneighbors(X[asked], return_distance=False)
    other = found != np.asarray(asked)[:, None]
    # Where k + 1 points coincide, a point may not be among its own neighbours: then the last one goes instead.
    other[other.all(axis=1), -1] = False
    return found[other].reshape(len(asked), k)


def class_recall(X: np.ndarray, Y: np.ndarray, labels: np.ndarray, k: int = CLASS_NEIGHBOURS) -> float:
    """Return the share of a class mean's nearest class means in X that are so in Y: the picture's larger shape.

    ``k`` are compared, or half of the other classes if those are fewer; 1 if there is no more than one other.
    """
    classes = np.unique(labels)
    k = min(k, max((len(classes) - 1) // 2, 1))
    if len(classes) < 3:
        return 1.0
    means = [np.stack([Z[labels == c].mean(0) for c in classes]) for Z in (X, Y)]
    return recall(*means, k=k, sample=len(classes))


def distance_correlation(X: np.ndarray, Y: np.ndarray, *, sample: int = 1000, seed: int = 0) -> float:
    """Return Spearman's correlation between all distances in X and in Y, among a sample of the points."""
    chosen = _sample(len(X), sample, seed)
    return float(spearmanr(pdist(X[chosen]), pdist(Y[chosen])).statistic)


def trustworthiness(X: np.ndarray, Y: np.ndarray, k: int = NEIGHBOURS, *, sample: int = 3000, seed: int = 0) -> float:
    """Return how far neighbours in Y are also near in X, 0 to 1 (Venna and Kaski, 2001), within a sample of points."""
    chosen = _sample(len(X), sample, seed)
    return float(sklearn_trustworthiness(X[chosen], Y[chosen], n_neighbors=k))


def kl_divergence(
    X: np.ndarray, Y: np.ndarray, perplexity: float = 30, *, sample: int = 10_000, seed: int = 0
) -> float:
    """Return the Kullback-Leibler divergence that t-SNE minimises, of Y as a picture of X at this perplexity.

    X is what was embedded: after the PCA, if there was one. The affinities in X are openTSNE's (a few neighbours of
    each point); the sum over all pairs in Y is exact up to ``sample`` points, and beyond the mean of so many points'
    sums, where backends approximate each. Comparable across backends.
    """
    method = "exact" if len(X) < 5000 else "approx"
    P = PerplexityBasedNN(np.asarray(X, float), perplexity=perplexity, method=method, random_state=seed).P.tocoo()
    Y = np.asarray(Y, dtype=np.float64)
    asked = Y[_sample(len(Y), sample, seed)]
    kernels = pairwise_distances_chunked(
        asked, Y, metric="sqeuclidean", reduce_func=lambda D, _: (1 / (1 + D)).sum(axis=1)
    )
    # A point is no pair with itself.
    total = (sum(float(part.sum()) for part in kernels) - len(asked)) * len(Y) / len(asked)
    kernel = 1 / (1 + ((Y[P.row] - Y[P.col]) ** 2).sum(axis=1))
    return float((P.data * np.log(P.data / (kernel / total), where=P.data > 0, out=np.zeros_like(P.data))).sum())


def accuracy(Z: np.ndarray, labels: np.ndarray, k: int = NEIGHBOURS, *, seed: int = 0) -> float:
    """Return the cross-validated accuracy of a k-nearest-neighbour classifier on Z: latents, or places in the plane."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(KNeighborsClassifier(k), Z, labels, cv=folds).mean())


def adjusted_rand(Y: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """Return the adjusted Rand index between the labels and as many clusters as there are classes; chance: 0."""
    found = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(Y)
    return float(adjusted_rand_score(labels, found))


def groups(Y: np.ndarray, share: float = 0.02) -> int:
    """Return how many dense groups HDBSCAN finds in the plane, each with at least ``share`` of the points."""
    found = HDBSCAN(min_cluster_size=max(round(share * len(Y)), 5), copy=True).fit_predict(Y)
    return int(found.max() + 1)


def intermixing(
    Y: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    k: int = NEIGHBOURS,
    *,
    sample: int = 10_000,
    seed: int = 0,
) -> list[tuple[str, str, float]]:
    """Return each pair of classes and how much it mixes, the most first.

    That is the share of a point's ``k`` nearest neighbours that are of the other class, averaged over both directions.
    """
    labels = np.asarray(labels)
    asked = _sample(len(Y), sample, seed)
    near = labels[neighbours(Y, asked, k)]  # (M, k)
    shares = np.zeros((len(classes), len(classes)))
    for a in np.unique(labels[asked]):
        shares[a] = (
            np.bincount(near[labels[asked] == a].ravel(), minlength=len(classes)) / (labels[asked] == a).sum() / k
        )
    mixed = (shares + shares.T) / 2
    pairs = [
        (classes[a], classes[b], float(mixed[a, b])) for a, b in zip(*np.triu_indices(len(classes), 1), strict=True)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def align(Y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return Y (N, 2) turned, mirrored if need be, and shifted to lie as near to ``reference`` (N, 2) as it can.

    Distances within Y stay as they are: t-SNE leaves both free (Procrustes; Schönemann, 1966).
    """
    if Y.shape != reference.shape:
        raise ValueError(f"Y has shape {Y.shape}, the reference {reference.shape}; both need the same points in order")
    centred = Y - Y.mean(0)
    rotation, _ = orthogonal_procrustes(centred, reference - reference.mean(0))
    return (centred @ rotation + reference.mean(0)).astype(Y.dtype)


def _sample(n: int, size: int, seed: int) -> np.ndarray:
    """Return ``size`` of the indices below ``n``, in order, the same for the same seed; all if there are no more."""
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def _checked(X: np.ndarray, Y: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, Y, labels = np.asarray(X), np.asarray(Y), np.asarray(labels)
    if X.ndim != 2 or Y.shape != (len(X), 2) or labels.shape != (len(X),):
        raise ValueError(f"X {X.shape}, Y {Y.shape} and labels {labels.shape} must be (N, D), (N, 2) and (N,)")
    for name, Z in (("X", X), ("Y", Y)):
        if not np.isfinite(Z).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2 * FOLDS:
        raise ValueError(
            f"labels need two classes with {2 * FOLDS} points each, got {len(counts)} of {counts.tolist()}"
        )
    return X, Y, labels
