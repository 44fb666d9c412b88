"""The quality of a picture, figure by figure, against the definition on small arrays and against other libraries."""

import numpy as np
import openTSNE
import pytest
from openTSNE.affinity import PerplexityBasedNN
from scipy.spatial.distance import pdist, squareform
from scipy.stats import entropy, spearmanr
from sklearn.datasets import load_digits, make_blobs
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from taught import taught

from helpers.latent import tsne

BY_HAND = taught("12", "nearest", "neighbour_recall")  # from all distances, as the notebook shows it


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def blobs():
    X, labels = make_blobs([60] * 4, n_features=6, cluster_std=1.0, center_box=(-20, 20), random_state=3)
    return X, tsne.principal(X, 2), labels


def test_neighbours_and_recall_are_those_by_hand(random):
    X, Y = random.normal(size=(60, 5)), random.normal(size=(60, 2))
    nearest = BY_HAND.nearest(X, 7)
    assert [set(row) for row in tsne.neighbours(X, np.array([3, 40]), 7)] == [set(nearest[3]), set(nearest[40])]
    assert tsne.recall(X, Y, 7) == pytest.approx(BY_HAND.neighbour_recall(X, Y, 7))
    assert tsne.recall(X, 3 * X, 7) == 1
    same = tsne.neighbours(np.zeros((30, 2)), np.arange(30), 10)  # points that coincide are not their own neighbours
    assert same.shape == (30, 10) and not (same == np.arange(30)[:, None]).any()
    assert 0.02 < tsne.recall(random.normal(size=(2000, 3)), random.normal(size=(2000, 2)), 100, sample=300) < 0.08


def test_a_sample_estimates_the_whole(random):
    X = random.normal(size=(1500, 3))
    Y = X[:, :2] + random.normal(0, 0.1, (1500, 2))
    assert tsne.recall(X, Y, sample=700) == pytest.approx(tsne.recall(X, Y, sample=1500), abs=0.02)
    assert tsne.recall(X, Y, sample=700) == tsne.recall(X, Y, sample=700)


def test_class_means_keep_their_neighbours_or_not(random):
    labels = np.repeat(np.arange(10), 8)
    places = np.c_[np.arange(10.0) ** 1.1, np.zeros(10)]
    X, scatter = places[labels], random.normal(0, 1e-3, (80, 2))
    assert tsne.class_recall(X, X + scatter, labels) == 1
    order = np.array([5, 2, 8, 0, 6, 1, 9, 3, 7, 4])
    expected = BY_HAND.neighbour_recall(places, places[order], 4)
    assert tsne.class_recall(X, places[order][labels], labels) == pytest.approx(expected) and expected < 0.9
    assert tsne.class_recall(X[:16], X[:16], labels[:16]) == 1  # two classes have no choice


def test_the_divergence_is_that_of_the_definition_and_openTSNEs_own():
    X, y = load_digits(return_X_y=True)
    X = X[:250]
    made = openTSNE.TSNE(perplexity=15, n_iter=250, early_exaggeration_iter=100, random_state=0).fit(X)
    Y = np.asarray(made)
    # The definition, every pair written out; the affinities are openTSNE's, which leave out all but 45 neighbours.
    P = PerplexityBasedNN(X, perplexity=15, method="exact", random_state=0).P.toarray()
    Q = 1 / (1 + squareform(pdist(Y, "sqeuclidean"))) - np.eye(len(Y))
    assert tsne.kl_divergence(X, Y, 15) == pytest.approx(entropy(P.ravel(), Q.ravel()), rel=1e-6)
    # openTSNE's own figure takes the sum over pairs from its approximation, which is coarse for so few points.
    assert tsne.kl_divergence(X, Y, 15) == pytest.approx(made.kl_divergence, rel=0.05)
    assert tsne.kl_divergence(X, Y[::-1], 15) > 2 * tsne.kl_divergence(X, Y, 15)
    assert tsne.kl_divergence(X, Y, 15, sample=150) == pytest.approx(tsne.kl_divergence(X, Y, 15), rel=0.05)


def test_all_figures_at_once(blobs, random):
    X, Y, labels = blobs
    found = tsne.quality(X, Y, labels)
    compare = {"recall", "class_recall", "distance_correlation", "trustworthiness"}
    assert set(found) == compare | {"accuracy", "original_accuracy", "silhouette", "adjusted_rand", "groups"}
    assert found["recall"] == tsne.recall(X, Y) and found["groups"] == 4
    assert found["accuracy"] == found["original_accuracy"] == found["adjusted_rand"] == 1
    mixed = tsne.quality(X, Y, random.permutation(labels))
    assert mixed["adjusted_rand"] == pytest.approx(0, abs=0.03) and mixed["accuracy"] == pytest.approx(0.25, abs=0.08)
    pairs = np.triu_indices(240, 1)
    by_hand = [np.sqrt(((Z[pairs[0]] - Z[pairs[1]]) ** 2).sum(1)) for Z in (X, Y)]
    assert found["distance_correlation"] == pytest.approx(spearmanr(*by_hand).statistic)
    assert found["trustworthiness"] == pytest.approx(sklearn_trustworthiness(X, Y, n_neighbors=10))
    assert all(type(value) in (float, int) for value in found.values())
    worse = tsne.quality(X, Y[::-1] + random.normal(0, 30, Y.shape), labels)
    assert all(worse[name] < found[name] for name in compare - {"class_recall"})


def test_the_classes_that_mix_are_named(random):
    labels = np.repeat([0, 1, 2], 100)
    Y = np.array([[0, 0], [0.5, 0], [100, 0]])[labels] + random.normal(size=(300, 2))
    pairs = tsne.intermixing(Y, labels, ("cat", "dog", "ship"))
    assert [pair[:2] for pair in pairs[:1]] == [("cat", "dog")] and len(pairs) == 3
    assert 0.3 < pairs[0][2] < 0.5 and pairs[1][2] == pairs[2][2] == 0
    near = labels[BY_HAND.nearest(Y, 10)[:200]]  # of the first two classes, which are of the same size
    assert pairs[0][2] == pytest.approx(np.mean(near == 1 - labels[:200, None]))


def test_alignment_undoes_what_t_sne_leaves_free(random):
    reference = random.normal(size=(50, 2)) * [3, 1]
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]])
    moved = (reference * [1, -1]) @ turn + [30, -7]  # mirrored, turned, shifted
    assert np.allclose(tsne.align(moved, reference), reference)
    larger = tsne.align(5 * moved, reference)
    assert np.allclose(larger - larger.mean(0), 5 * (reference - reference.mean(0)))  # sizes are kept
    assert tsne.align(moved.astype(np.float32), reference).dtype == np.float32
