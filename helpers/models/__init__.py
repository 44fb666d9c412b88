"""The networks of the course, by name, each a plain ``nn.Sequential`` whose layers carry names.

The keys r0, r1, r2 and r4 stand for the published reports that the course reproduces. Where a report does not give a
size, the docstring says what is published and what is our reading of it. Defaults are part of recorded keys, so they
stay. Every net takes normalised float images of shape (N, 3, 32, 32) and returns logits of shape (N, classes).

Weights are drawn layer by layer, in the order in which the layers are written, from torch's global generator and with
torch's default initialisation. So after the same ``torch.manual_seed`` two nets of the same shapes start from the same
weights, with or without batch norm and dropout, whatever the activation and the pooling: none of these draws anything.
"""

import inspect
from collections.abc import Callable

from torch import nn

from helpers.models import networks
from helpers.models.networks import ENOUGH_PICTURES, SWITCHES, whiten
from helpers.models.structure import latents, layer_table, structure_hash, summary

_FUNCTIONS = (
    *(networks.r0_base, networks.r0_model2, networks.r0_final, networks.r1, networks.r2, networks.r3, networks.r3_norm),
    *(networks.r4, networks.googlenet, networks.improved, networks.compact, networks.fast94),
)
MODELS: dict[str, Callable[..., nn.Sequential]] = {make.__name__.replace("_", "-"): make for make in _FUNCTIONS}


def build(name: str, classes: int = 10, **chosen: object) -> nn.Module:
    """Return a new, freshly initialised net: ``build("r2", classes=10, batch_norm=False)``.

    The caller seeds torch first. Unknown names and options, and senseless values, raise ValueError with
    the choices. To check a choice without drawing any weight, build under ``with torch.device("meta"):``.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of: {', '.join(sorted(MODELS))}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(chosen) - set(known)):
        choices = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
        raise ValueError(f"model {name!r} has no option {', '.join(unknown)}; its options: {choices}")
    for option, value in chosen.items():
        if not _is_like(value, known[option]):
            raise ValueError(f"{option} is {value!r}; give a value of the kind of {known[option]!r}")
    if type(classes) is not int or classes < 2:
        raise ValueError(f"classes is {classes!r}; a classifier needs at least 2")
    return MODELS[name](classes, **chosen)


def _is_like(value: object, like: object) -> bool:
    """Say whether a value is of the default's kind: a share below 1, a whole number from 1 on, or several of them."""
    if isinstance(like, tuple):
        return isinstance(value, list | tuple) and len(value) == len(like) and all(map(_is_like, value, like))
    if isinstance(like, float):
        return type(value) in (int, float) and 0 <= value < 1
    return type(value) is type(like) and (type(value) is not int or value >= 1)
