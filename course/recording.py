"""What the record holds of the declared studies, and in which order the rest is best trained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from helpers.models import build, layer_table
from helpers.record import DEVICES, LEAST_SEEDS, Study, kind_for, read_run, record_path
from helpers.training import Experiment

# Training images where an experiment takes them all; only the order of training depends on it.
WHOLE = 45_000


def status(studies: Mapping[str, Sequence[Study]]) -> list[dict[str, Any]]:
    """Return one row per study of ``studies`` (notebook -> its studies), and per kind of device that has runs of it.

    Each row has study, notebook, declared and recorded (numbers of runs), seeds (complete in every arm), device
    (None where nothing is recorded) and stale (runs whose model has changed since).
    """
    rows = []
    for notebook, study in ((name, study) for name, several in studies.items() for study in several):
        experiments = [e for _, e in study.experiments()]
        at_home = [(kind_for(e, kind), record_path(e, kind)) for kind in DEVICES for e in experiments]
        kinds = [kind for kind in DEVICES if any(home == kind and path.is_file() for home, path in at_home)]
        for device in kinds or [None]:
            runs = [run for e in experiments if device and (run := read_run(e, device))]
            row = {
                "study": study.name,
                "notebook": notebook,
                "declared": len(study.seeds) * len(study.arms),
                "recorded": len(runs),
                "seeds": len(study.recorded_seeds(device)) if device else 0,
                "device": device,
                "stale": sum(run.is_stale() for run in runs),
            }
            rows.append(row)
    return rows


def most_telling_first(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Return the experiments, each once, in the order in which they answer most per hour.

    First the seeds that every arm needs, then those beyond; within each, from the fewest multiply-adds to the most. So
    a record that is stopped at any time holds many small studies rather than a part of one large one.
    """
    costs: dict[str, int] = {}

    def cost(e: Experiment) -> int:  # about, and at most: the multiply-adds of all forward passes
        name = f"{e.model} {e.model_options}"
        if name not in costs:
            costs[name] = sum(row["multiply_adds"] for row in layer_table(build(e.model, **e.model_options)))
        return costs[name] * e.epochs * (e.train_size or WHOLE)

    return sorted(dict.fromkeys(experiments), key=lambda e: (e.seed >= LEAST_SEEDS, cost(e), e.seed))
