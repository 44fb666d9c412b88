"""t-SNE by the fastest library at hand, with one set of parameters that means the same in each.

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; the defaults are those of Kobak and Berens, "The art of
using t-SNE for single-cell transcriptomics", 2019.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

MOMENTUM, EXAGGERATION, EARLY_ITERATIONS = 0.8, 12.0, 250
START_STD = 1e-4
# The part of the start's deviation that is noise. It gives the seed a meaning that no library can ignore.
JITTER = 0.01


@dataclass(frozen=True)
class Plan:
    """All choices of one embedding, settled; ``learning_rate`` is as in openTSNE."""

    perplexity: float
    early_exaggeration: float
    learning_rate: float
    early: int
    late: int
    initialization: str
    seed: int
    threads: int


Made = tuple[np.ndarray, float | None]


def _by_tsnecuda(TSNE: type, X: np.ndarray, start: np.ndarray, plan: Plan) -> Made:
    # Its own default of 32 neighbours is too few for perplexity 30. It ignores `random_seed`: the start has the seed.
    model = TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        learning_rate=plan.learning_rate,
        num_neighbors=math.ceil(3 * plan.perplexity) + 1,  # the point itself counts
        force_magnify_iters=plan.early,
        n_iter=plan.early + plan.late,
        n_iter_without_progress=plan.early + plan.late,
        min_grad_norm=0.0,
        pre_momentum=MOMENTUM,
        post_momentum=MOMENTUM,
    )
    return model.fit_transform(X, start.astype(np.float32)), None


def _by_opentsne(TSNE: type, X: np.ndarray, start: np.ndarray, plan: Plan) -> Made:
    model = TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        early_exaggeration_iter=plan.early,
        n_iter=plan.late,
        learning_rate=plan.learning_rate,  # given as a number it is kept after the early iterations, too
        initial_momentum=MOMENTUM,
        final_momentum=MOMENTUM,
        initialization=start,
        random_state=plan.seed,
        n_jobs=plan.threads,
    )
    made = model.fit(X)
    return np.asarray(made), float(made.kl_divergence)


def _by_sklearn(TSNE: type, X: np.ndarray, start: np.ndarray, plan: Plan) -> Made:
    model = TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        learning_rate=plan.learning_rate / 4,  # its gradient has the factor of 4 that the others leave out
        max_iter=plan.early + plan.late,
        n_iter_without_progress=plan.early + plan.late,
        min_grad_norm=0.0,
        init=start.astype(np.float32),
        random_state=plan.seed,
        n_jobs=plan.threads,
    )
    model._EXPLORATION_MAX_ITER = plan.early  # the only way to say how many of the iterations are early
    return model.fit_transform(X), float(model.kl_divergence_)


@dataclass(frozen=True)
class Backend:
    """A library: the package that has its class TSNE, how that is called, and whether it needs a GPU."""

    package: str
    run: Callable[[type, np.ndarray, np.ndarray, Plan], Made]
    gpu: bool = False

    def load(self) -> type:
        """Return its class TSNE. Raises ImportError, OSError or RuntimeError where it cannot be used."""
        TSNE = import_module(self.package).TSNE
        if self.gpu:
            if not torch.cuda.is_available():
                raise RuntimeError("torch sees no CUDA GPU")
            TSNE()  # tsnecuda imports anywhere; only its constructor loads the library, which may be for another CUDA
        return TSNE


# From the fastest to the slowest; scikit-learn's is there for comparison, and where nothing else is.
BACKENDS = {
    "tsnecuda": Backend("tsnecuda", _by_tsnecuda, gpu=True),
    "opentsne": Backend("openTSNE", _by_opentsne),
    "sklearn": Backend("sklearn.manifold", _by_sklearn),
}


def available_backends() -> dict[str, str | None]:
    """Return for each backend, fastest first, None where it can be used, or in one line why it cannot."""
    return {name: _obstacle(name) for name in BACKENDS}


def _obstacle(name: str) -> str | None:
    try:
        BACKENDS[name].load()
    except (ImportError, OSError, RuntimeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return None


@dataclass(frozen=True)
class Embedding:
    """What :func:`embed` made: coordinates float32 (N, 2), and how.

    ``parameters`` are those used, all of them plain values; ``kl`` is the backend's own final Kullback-Leibler
    divergence, None where it has none (to compare backends, see :func:`helpers.latent.kl_divergence`); ``repeatable``
    says whether the same seed gives the same picture again on the same machine, with as many threads.
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
    learning_rate: float | None = None,
    iterations: int = 750,
    initialization: np.ndarray | None = None,
    pca_dimensions: int | None = 50,
    seed: int = 0,
) -> Embedding:
    """Return the t-SNE embedding of ``X`` (N, D), N latents of D numbers each, in two dimensions.

    ``backend`` is a name in BACKENDS; "auto" takes the fastest that works here, see :func:`available_backends`. Dead
    features, constant in all rows, do no harm.

    - ``learning_rate`` is that of openTSNE and tsnecuda, four times scikit-learn's; left out, it is N / 12, the early
      exaggeration (Belkina et al., 2019), at least 200, in all iterations.
    - Of the ``iterations`` the first 250 are early, with exaggeration, or a third of them if there are fewer than 750.
    - ``initialization``: positions (N, 2), such as those of an earlier stage; left out, the first two principal
      components. Centred, scaled to a deviation of 1e-4 in the first column, and with 1 % of noise from ``seed``.
    - ``pca_dimensions``: to how many principal components ``X`` is reduced first, if it has more; None: not at all.

    Raises:
        ValueError: unusable values, or a backend that is unknown or cannot be used here; it says which and why.
    """
    began = time.perf_counter()
    X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"X must be numbers of shape (N, D), got {X.shape}; flatten the latents")
    if bad := int((~np.isfinite(X)).any(axis=1).sum()):
        raise ValueError(f"{bad:,} of the {len(X):,} rows of X hold NaN or infinite values")
    if not 1 < perplexity <= (len(X) - 1) / 3:
        most = (len(X) - 1) / 3
        raise ValueError(f"perplexity={perplexity}: with {len(X)} samples it must be from 1 to {most:.1f}, (N - 1) / 3")
    name = _chosen(backend)
    X = principal(X, pca_dimensions, seed)
    early = min(EARLY_ITERATIONS, iterations // 3)
    plan = Plan(
        perplexity=float(perplexity),
        early_exaggeration=EXAGGERATION,
        learning_rate=float(learning_rate or max(len(X) / EXAGGERATION, 200.0)),
        early=early,
        late=iterations - early,
        initialization="pca" if initialization is None else "positions",
        seed=seed,
        threads=torch.get_num_threads(),
    )
    library = BACKENDS[name]
    made, kl = library.run(library.load(), X, _start(X, initialization, seed), plan)
    version = getattr(sys.modules[library.package.split(".")[0]], "__version__", "unknown")
    parameters = vars(plan) | {"dimensions": X.shape[1], "version": version}
    coordinates, seconds = np.ascontiguousarray(made, dtype=np.float32), time.perf_counter() - began
    # On a GPU, sums in no fixed order differ in their last digits, and t-SNE amplifies it.
    return Embedding(coordinates, name, parameters, seconds, kl, repeatable=not library.gpu)


def principal(X: np.ndarray, dimensions: int | None = 50, seed: int = 0) -> np.ndarray:
    """Return the first principal components of ``X`` (N, D): float32 (N, dimensions), or ``X`` if it has no more."""
    X = np.ascontiguousarray(X, dtype=np.float32)
    if dimensions is None or min(X.shape) <= dimensions:
        return X
    return PCA(dimensions, random_state=seed).fit_transform(X)


def _start(X: np.ndarray, positions: np.ndarray | None, seed: int) -> np.ndarray:
    """Return the first positions, float64 (N, 2), centred, with a deviation of START_STD in the first column."""
    start = PCA(2, random_state=seed).fit_transform(X) if positions is None else positions
    if start.shape != (len(X), 2):
        raise ValueError(f"initialization has shape {start.shape}; give a place for each sample, ({len(X)}, 2)")
    start = start.astype(np.float64)
    start = start / start[:, 0].std() + JITTER * np.random.default_rng(seed).standard_normal(start.shape)
    return START_STD * (start - start.mean(0))


def _chosen(backend: str) -> str:
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    if backend != "auto" and (reason := _obstacle(backend)):
        raise ValueError(f"{backend} cannot be used here: {reason}")
    return backend if backend != "auto" else next(name for name in BACKENDS if _obstacle(name) is None)
