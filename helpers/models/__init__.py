"""The networks of the course, by name, each a plain ``nn.Sequential`` whose layers carry names.

The keys r0, r1, r2 and r4 stand for the published reports that the course reproduces. Where a report does not give a
size, the docstring says what is published and what is our reading of it. Defaults are part of recorded keys, so they
stay; where a report's own choice is another, the docstring names it. Every net takes normalised float images of shape
(N, 3, 32, 32) and returns logits of shape (N, classes).

Weights are drawn layer by layer, in the order in which the layers are written, from torch's global generator and with
torch's default initialisation. So after the same ``torch.manual_seed`` two nets of the same shapes start from the same
weights, with or without batch norm and dropout, whatever the activation and the pooling: none of these draws anything.
"""

import inspect
from collections.abc import Callable

from torch import nn

from helpers.models.layers import ENOUGH_PICTURES, LEAST_VARIANCE, Residual, Whitening, chain, whiten
from helpers.models.ours import IDEAS, SWITCHES, compact, fast94, googlenet, improved
from helpers.models.reports import r0_base, r0_final, r0_model2, r1, r2, r3, r3_norm, r4
from helpers.models.structure import evaluating, latents, layer_table, structure_hash, summary

MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "r0-base": r0_base,
    "r0-model2": r0_model2,
    "r0-final": r0_final,
    "r1": r1,
    "r2": r2,
    "r3": r3,
    "r3-norm": r3_norm,
    "r4": r4,
    "googlenet": googlenet,
    "improved": improved,
    "compact": compact,
    "fast94": fast94,
}


def options(name: str) -> dict[str, object]:
    """Return the options of the net ``name`` with their defaults; ValueError lists the nets if it is none."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of: {', '.join(sorted(MODELS))}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build(name: str, classes: int = 10, **chosen: object) -> nn.Module:
    """Return a new, freshly initialised net: ``build("r2", classes=10, batch_norm=False)``.

    The caller seeds torch first. Unknown names and options, and senseless values, raise ValueError with
    the choices. To check a choice without drawing any weight, build under ``with torch.device("meta"):``.
    """
    known = options(name)
    if unknown := sorted(set(chosen) - set(known)):
        choices = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
        raise ValueError(f"model {name!r} has no option {', '.join(unknown)}; its options: {choices}")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"classes is {classes!r}; a classifier needs a whole number of at least 2")
    return MODELS[name](classes, **chosen)
