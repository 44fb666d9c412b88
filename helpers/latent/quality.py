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
from sklearn.metrics import adjusted_rand_score, confusion_matrix, pairwise_distances_chunked, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

NEIGHBOURS, CLASS_NEIGHBOURS, FOLDS = 10, 4, 5


def quality(X: np.ndarray, Y: np.ndarray, labels: np.ndarray, *, sample: int = 5000, seed: int = 0) -> dict[str, float]:
    """Return the figures of merit of ``Y`` as a picture of ``X``, by name.

    ``recall``, ``class_recall``, ``distance_correlation`` (Spearman's, between all distances in X and in Y) and
    ``trustworthiness`` compare Y with X. ``accuracy``, ``silhouette``, ``adjusted_rand`` (between the labels and as
    many clusters as there are classes) and ``groups`` (how many) say what can be seen in Y alone, and
    ``original_accuracy`` is that of the same classifier on the same points of X.
    """
    chosen, few = _sample(len(X), sample, seed), _sample(len(X), 1000, seed)
    clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(Y)
    return {
        "recall": recall(X, Y, sample=sample, seed=seed),
        "class_recall": class_recall(X, Y, labels),
        "distance_correlation": float(spearmanr(pdist(X[few]), pdist(Y[few])).statistic),
        "trustworthiness": trustworthiness(X, Y, sample=min(sample, 3000), seed=seed),
        "accuracy": accuracy(Y[chosen], labels[chosen], seed=seed),
        "original_accuracy": accuracy(X[chosen], labels[chosen], seed=seed),
        "silhouette": float(silhouette_score(Y[chosen], labels[chosen])),
        "adjusted_rand": float(adjusted_rand_score(labels, clusters)),
        "groups": groups(Y[chosen]),
    }


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
    if len(classes) < 3:
        return 1.0
    means = [np.stack([Z[labels == c].mean(0) for c in classes]) for Z in (X, Y)]
    return recall(*means, k=min(k, (len(classes) - 1) // 2), sample=len(classes))


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


def groups(Y: np.ndarray, share: float = 0.02) -> int:
    """Return how many dense groups HDBSCAN finds in the plane, each with at least ``share`` of the points."""
    found = HDBSCAN(min_cluster_size=max(round(share * len(Y)), 5), copy=True).fit_predict(Y)
    return int(found.max() + 1)


def intermixing(
    Y: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, sample: int = 10_000, seed: int = 0
) -> list[tuple[str, str, float]]:
    """Return each pair of classes and how much it mixes, the most first.

    That is the share of a point's nearest neighbours that are of the other class, averaged over both directions.
    """
    asked, numbers = _sample(len(Y), sample, seed), range(len(classes))
    near = labels[neighbours(Y, asked)].ravel()
    own = np.repeat(labels[asked], NEIGHBOURS)
    shares = confusion_matrix(own, near, labels=numbers, normalize="true")
    mixed = (shares + shares.T) / 2
    pairs = [(classes[a], classes[b], float(mixed[a, b])) for a in numbers for b in numbers if a < b]
    return sorted(pairs, key=lambda pair: -pair[2])


def align(Y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return Y (N, 2) turned, mirrored if need be, and shifted to lie as near to ``reference`` (N, 2) as it can.

    Distances within Y stay as they are: t-SNE leaves both free (Procrustes; Schönemann, 1966).
    """
    centred = Y - Y.mean(0)
    rotation, _ = orthogonal_procrustes(centred, reference - reference.mean(0))
    return (centred @ rotation + reference.mean(0)).astype(Y.dtype)


def _sample(n: int, size: int, seed: int) -> np.ndarray:
    """Return ``size`` of the indices below ``n``, in order, the same for the same seed; all if there are no more."""
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
