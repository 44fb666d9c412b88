"""The libraries that compute t-SNE: which of them work here, and what each calls the same choice.

They differ in names and conventions; the functions that begin with ``_by_`` translate. Momentum is 0.8 throughout,
except in scikit-learn, where it is 0.5 in the early iterations and cannot be changed.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module, metadata, util

import numpy as np
import torch

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
