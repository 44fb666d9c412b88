"""What came of training, kept: one run, many runs, a study of them, and what they allow one to say."""

from helpers.record.evidence import (
    LEVEL,
    Difference,
    Verdict,
    arm_interval,
    compare_values,
    compare_within,
    interval,
    kept_values,
    percent,
    share_interval,
    uncollapsed,
    verdict,
)
from helpers.record.printed import (
    MISSING,
    arm_mean_and_half,
    arm_plus_minus,
    mean_and_half,
    metric_label,
    plus_minus,
    published,
    published_figures,
    published_for,
    scale_and_digits,
    seeds_text,
    span,
)
from helpers.record.recorder import default_jobs, device_kind, record, train_run, write_run
from helpers.record.run import (
    DEVICES,
    Run,
    Runs,
    kind_for,
    load_snapshot,
    load_weights,
    pack,
    read_run,
    record_path,
    unpack,
)
from helpers.record.study import LEAST_SEEDS, Study
