"""t-SNE by the fastest library at hand, with one set of parameters that means the same in each.

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; the defaults are those of Kobak and Berens, "The art of
using t-SNE for single-cell transcriptomics", 2019.
"""

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from helpers.tsne_backends import BACKENDS, Plan, available_backends, obstacle, version

__all__ = ["Embedding", "available_backends", "embed", "principal"]

EARLY_ITERATIONS, START_STD = 250, 1e-4
INITIALIZATIONS = ("pca", "random")
# The part of the start's deviation that is noise. It gives the seed a meaning that no library can ignore.
JITTER = 0.01


@dataclass(frozen=True)
class Embedding:
    """What :func:`embed` made: coordinates float32 (N, 2), and how.

    ``parameters`` are those used, all of them plain values; ``kl`` is the backend's own final Kullback-Leibler
    divergence, None where it has none (to compare backends, see ``projection.kl_divergence``); ``repeatable`` says
    whether the same seed gives the same picture again on the same machine, with as many threads.
    """

    coordinates: np.ndarray
    backend: str
    parameters: dict[str, Any]
    seconds: float
    kl: float | None
    repeatable: bool


def embed(
    X: np.ndarray,
    backend: str = "auto",
    *,
    perplexity: float = 30,
    early_exaggeration: float = 12,
    learning_rate: float | str = "auto",
    iterations: int = 750,
    initialization: str | np.ndarray = "pca",
    pca_dimensions: int | None = 50,
    seed: int = 0,
    verbose: bool = True,
) -> Embedding:
    """Return the t-SNE embedding of ``X`` (N, D), N latents of D numbers each, in two dimensions.

    ``backend`` is a name in BACKENDS; "auto" takes the fastest that works here. Which one it is, and why no faster one,
    is said in a line on stderr. Dead features, constant in all rows, do no harm.

    - ``learning_rate`` is that of openTSNE, FIt-SNE and tsnecuda, four times scikit-learn's; "auto" is N divided by
      ``early_exaggeration`` (Belkina et al., 2019), at least 200, in all iterations.
    - Of the ``iterations`` the first 250 are early, with exaggeration, or a third of them if there are fewer than 750.
    - ``initialization``: "pca", "random", or positions (N, 2), such as those of an earlier stage. All are centred,
      scaled to a deviation of 1e-4 in the first column, and get 1 % of noise from ``seed``. cuML makes its own start.
    - ``pca_dimensions``: to how many principal components ``X`` is reduced first, if it has more; None: not at all.

    Raises:
        ValueError: unusable values, or a backend that is unknown or cannot be used here; it says which and why.
    """
    began = time.perf_counter()
    X = _checked(X, perplexity, early_exaggeration, learning_rate, iterations, pca_dimensions)
    positions = None if isinstance(initialization, str) else _checked_positions(initialization, len(X))
    if positions is None and initialization not in INITIALIZATIONS:
        choices = ", ".join(INITIALIZATIONS)
        raise ValueError(f"initialization={initialization!r} is unknown; choose {choices}, or positions (N, 2)")
    name, reasons = _chosen(backend, positions is not None)
    X = principal(X, pca_dimensions, seed)
    early = min(EARLY_ITERATIONS, iterations // 3)
    plan = Plan(
        perplexity=float(perplexity),
        early_exaggeration=float(early_exaggeration),
        learning_rate=max(len(X) / early_exaggeration, 200.0) if learning_rate == "auto" else float(learning_rate),
        early=early,
        late=iterations - early,
        initialization="positions" if positions is not None else initialization,
        start=_start(X, initialization if positions is None else positions, seed),
        seed=seed,
        threads=torch.get_num_threads(),
    )
    made, kl = BACKENDS[name].run(X, plan)
    parameters = {key: value for key, value in vars(plan).items() if key != "start"}
    parameters |= {"dimensions": X.shape[1], "version": version(BACKENDS[name].package)}
    coordinates = np.ascontiguousarray(made, dtype=np.float32)
    found = Embedding(coordinates, name, parameters, time.perf_counter() - began, kl, BACKENDS[name].repeatable)
    if verbose:
        why = f" ({'; '.join(f'{key}: {reason}' for key, reason in reasons.items())})" if reasons else ""
        note = "" if found.repeatable else "; another run will differ a little: this backend cannot repeat itself"
        print(f"t-SNE of {len(X):,} points by {name} in {found.seconds:.1f} s{why}{note}", file=sys.stderr)
    return found


def principal(X: np.ndarray, dimensions: int | None = 50, seed: int = 0) -> np.ndarray:
    """Return the first principal components of ``X`` (N, D): float32 (N, dimensions), or ``X`` if it has no more."""
    X = np.ascontiguousarray(X, dtype=np.float32)
    if dimensions is None or min(X.shape) <= dimensions:
        return X
    return PCA(dimensions, random_state=seed).fit_transform(X)


def _start(X: np.ndarray, initialization: str | np.ndarray, seed: int) -> np.ndarray:
    """Return the first positions, float64 (N, 2), centred, with a deviation of START_STD in the first column."""
    random = np.random.default_rng(seed)
    if isinstance(initialization, np.ndarray):
        start = initialization
    elif initialization == "pca":
        start = PCA(2, random_state=seed).fit_transform(X).astype(np.float64)
    else:
        start = random.standard_normal((len(X), 2))
    start = start / start[:, 0].std() + JITTER * random.standard_normal(start.shape)
    return START_STD * (start - start.mean(0))


def _chosen(backend: str, positions: bool) -> tuple[str, dict[str, str]]:
    """Return the backend to use, and why the faster ones (or the one asked for) are passed over."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    reasons: dict[str, str] = {}
    for name in BACKENDS if backend == "auto" else (backend,):
        reason = obstacle(BACKENDS[name])
        if reason is None and positions and not BACKENDS[name].takes_positions:
            reason = "it cannot start from given positions"
        if reason is None:
            return name, reasons
        reasons[name] = reason
    raise ValueError("; ".join(f"{name} cannot be used here: {reason}" for name, reason in reasons.items()))


def _checked(
    X: np.ndarray, perplexity: float, exaggeration: float, rate: float | str, iterations: int, dimensions: int | None
) -> np.ndarray:
    """Return ``X`` as float32 (N, D), fit for t-SNE with these choices; ValueError says what is wrong."""
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "fiu":
        raise ValueError(f"X must be numbers of shape (N, D), got {X.dtype} of shape {X.shape}; flatten the latents")
    if len(X) < 2:
        raise ValueError(f"an embedding needs several samples, got {len(X)}")
    X = X.astype(np.float32, copy=False)
    if bad := int((~np.isfinite(X)).any(axis=1).sum()):
        raise ValueError(
            f"{bad:,} of the {len(X):,} rows of X hold NaN or infinite values; leave them out or mend them"
        )
    if (varying := int((np.ptp(X, axis=0) > 0).sum())) < 2:
        raise ValueError(f"{varying} of the {X.shape[1]} columns of X vary, the others are constant; two must")
    if not perplexity > 1 or 3 * perplexity > len(X) - 1:
        most = (len(X) - 1) / 3
        wanted = f"between 1 and (N - 1) / 3, {most:.1f} for N = {len(X)}" if most > 1 else "N of at least 5"
        raise ValueError(f"perplexity={perplexity} with {len(X)} samples: it needs {wanted}")
    if not exaggeration >= 1:
        raise ValueError(f"early_exaggeration={exaggeration} must be at least 1")
    if rate != "auto" and (isinstance(rate, str) or not 0 < rate < math.inf):
        raise ValueError(f'learning_rate={rate!r} must be "auto" or a positive number')
    if iterations < EARLY_ITERATIONS:
        raise ValueError(f"iterations={iterations} are too few; t-SNE takes at least {EARLY_ITERATIONS}")
    if dimensions is not None and dimensions < 2:
        raise ValueError(f"pca_dimensions={dimensions} must be at least 2, or None for all")
    return X


def _checked_positions(positions: np.ndarray, n: int) -> np.ndarray:
    """Return given first positions as float64 (N, 2); ValueError says what is wrong."""
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (n, 2):
        raise ValueError(f"initialization has shape {positions.shape}; X has {n} samples, so give ({n}, 2)")
    if not np.isfinite(positions).all() or not positions[:, 0].std() > 0:
        raise ValueError("initialization must be finite, and its first column must not be constant")
    return positions
