"""t-SNE by the fastest library at hand, with one set of parameters that means the same in each.

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008; the defaults are those of Kobak and Berens, "The art of
using t-SNE for single-cell transcriptomics", 2019.
"""

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module, metadata, util
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

MOMENTUM = 0.8


@dataclass(frozen=True)
class Plan:
    """All choices of one embedding, settled; ``start`` is float64 (N, 2), ``learning_rate`` as in openTSNE."""

    perplexity: float
    early_exaggeration: float
    learning_rate: float
    early: int
    late: int
    initialization: str
    start: np.ndarray
    seed: int
    threads: int

    @property
    def neighbours(self) -> int:
        """How many neighbours the perplexity needs, and the point itself, which some libraries count."""
        return math.ceil(3 * self.perplexity) + 1


Made = tuple[np.ndarray, float | None]


def _by_tsnecuda(X: np.ndarray, plan: Plan) -> Made:
    # Its own default of 32 neighbours is too few for perplexity 30. It ignores `random_seed`: the start has the seed.
    model = import_module("tsnecuda").TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        learning_rate=plan.learning_rate,
        num_neighbors=plan.neighbours,
        force_magnify_iters=plan.early,
        n_iter=plan.early + plan.late,
        n_iter_without_progress=plan.early + plan.late,
        min_grad_norm=0.0,
        pre_momentum=MOMENTUM,
        post_momentum=MOMENTUM,
    )
    return model.fit_transform(X, plan.start.astype(np.float32)), None


def _by_cuml(X: np.ndarray, plan: Plan) -> Made:
    TSNE = import_module("cuml.manifold").TSNE
    # Renamed in 2025. Left to itself, `adaptive` would override learning rate, exaggeration and neighbours; without it
    # the rate doubles after the early iterations, whatever one asks for.
    iterations = "max_iter" if "max_iter" in inspect.signature(TSNE).parameters else "n_iter"
    model = TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        learning_rate=plan.learning_rate,
        learning_rate_method="none",
        n_neighbors=plan.neighbours,
        exaggeration_iter=plan.early,
        min_grad_norm=0.0,
        pre_momentum=MOMENTUM,
        post_momentum=MOMENTUM,
        init=plan.initialization,
        random_state=plan.seed,
        method="fft",
        output_type="numpy",
        **{iterations: plan.early + plan.late},
    )
    coordinates = model.fit_transform(X)
    kl = getattr(model, "kl_divergence_", None)
    return coordinates, None if kl is None else float(kl)


class _Gains(torch.optim.Optimizer):
    """Gradient descent as the other libraries do it: with momentum, and with a gain for each coordinate.

    A gain grows by 0.2 where a step keeps its direction and shrinks by a fifth where it turns (Jacobs, 1988). TorchDR's
    own choice, without gains, is far from the minimum after as many iterations.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for point in group["params"]:
                state = self.state[point]
                update = state.setdefault("update", torch.zeros_like(point))
                gain = state.setdefault("gain", torch.ones_like(point))
                keeps = update * point.grad < 0  # an update goes against its gradient
                state["gain"] = torch.where(keeps, gain + 0.2, gain * 0.8).clamp_(min=0.01)
                update.mul_(MOMENTUM).sub_(group["lr"] * state["gain"] * point.grad)
                point.add_(update)


def _by_torchdr(X: np.ndarray, plan: Plan, device: str = "cuda") -> Made:
    # The gradient has its factor of 4 here, so the rate is a quarter. Without KeOps, memory grows with N squared.
    model = import_module("torchdr").TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration_coeff=plan.early_exaggeration,
        early_exaggeration_iter=plan.early,
        lr=plan.learning_rate / 4,
        max_iter=plan.early + plan.late,
        min_grad_norm=0.0,
        optimizer=_Gains,
        optimizer_kwargs={},
        init=torch.from_numpy(plan.start.astype(np.float32)),
        init_scaling=float(plan.start[:, 0].std()),
        device=device,
        backend="keops" if util.find_spec("pykeops") else None,
        random_state=plan.seed,
        process_duplicates=False,  # it would drop rows, and the start has one for each
    )
    return torch.as_tensor(model.fit_transform(torch.from_numpy(X))).detach().cpu().numpy(), None


def _by_opentsne(X: np.ndarray, plan: Plan) -> Made:
    made = (
        import_module("openTSNE")
        .TSNE(
            n_components=2,
            perplexity=plan.perplexity,
            early_exaggeration=plan.early_exaggeration,
            early_exaggeration_iter=plan.early,
            n_iter=plan.late,
            learning_rate=plan.learning_rate,  # given as a number it is kept after the early iterations, too
            initial_momentum=MOMENTUM,
            final_momentum=MOMENTUM,
            initialization=plan.start,
            random_state=plan.seed,
            n_jobs=plan.threads,
        )
        .fit(X)
    )
    return np.asarray(made), float(made.kl_divergence)


def _by_sklearn(X: np.ndarray, plan: Plan) -> Made:
    model = import_module("sklearn.manifold").TSNE(
        n_components=2,
        perplexity=plan.perplexity,
        early_exaggeration=plan.early_exaggeration,
        learning_rate=plan.learning_rate / 4,  # its gradient has the factor of 4 that the others leave out
        max_iter=plan.early + plan.late,
        n_iter_without_progress=plan.early + plan.late,
        min_grad_norm=0.0,
        init=plan.start.astype(np.float32),
        random_state=plan.seed,
        n_jobs=plan.threads,
    )
    model._EXPLORATION_MAX_ITER = plan.early  # the only way to say how many of the iterations are early
    return model.fit_transform(X), float(model.kl_divergence_)


@dataclass(frozen=True)
class Backend:
    """A library: how it is called, what it needs, and whether it repeats itself and starts where it is told to."""

    run: Callable[[np.ndarray, Plan], Made]
    package: str
    gpu: bool
    repeatable: bool = True
    takes_positions: bool = True


# From the fastest to the slowest. On a GPU, sums in no fixed order differ in their last digits, and t-SNE amplifies it.
BACKENDS = {
    "tsnecuda": Backend(_by_tsnecuda, "tsnecuda", gpu=True, repeatable=False),
    "cuml": Backend(_by_cuml, "cuml", gpu=True, repeatable=False, takes_positions=False),
    "torchdr": Backend(_by_torchdr, "torchdr", gpu=True, repeatable=False),
    "opentsne": Backend(_by_opentsne, "openTSNE", gpu=False),
    "sklearn": Backend(_by_sklearn, "sklearn", gpu=False),
}


def available_backends() -> dict[str, str | None]:
    """Return for each backend, fastest first, None where it can be used, or in one line why it cannot."""
    return {name: obstacle(backend) for name, backend in BACKENDS.items()}


def obstacle(backend: Backend) -> str | None:
    """Return why a backend cannot be used here, None if it can."""
    try:
        module = import_module(backend.package)
    except ModuleNotFoundError as error:
        missing = error.name == backend.package
        return "not installed" if missing else f"it needs {error.name}, which is not installed"
    except (ImportError, OSError, RuntimeError) as error:
        return f"it does not load: {_one_line(error)}"
    if backend.gpu and not torch.cuda.is_available():
        return "torch sees no CUDA GPU"
    if backend.package == "tsnecuda":
        try:  # it imports anywhere; only its constructor loads the library, which may be for another CUDA
            module.TSNE()
        except (OSError, RuntimeError) as error:
            return f"its library does not load: {_one_line(error)}"
    return None


def version(package: str) -> str:
    """Return the version of a package that is imported under this name."""
    # The name to install differs from the name to import for one of them.
    try:
        return metadata.version({"sklearn": "scikit-learn"}.get(package, package))
    except metadata.PackageNotFoundError:
        return "unknown"


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


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
