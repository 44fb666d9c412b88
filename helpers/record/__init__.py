"""What came of training, kept: one run, many runs, a study of them, and what they allow one to say."""

from helpers.record.evidence import (
    LEVEL,
    Difference,
    Verdict,
    arm_interval,
    compare_values,
    compare_within,
    critical_value,
    interval,
    kept_values,
    largest_t,
    moderate,
    moderated,
    verdict,
)
from helpers.record.literature import Published, published, published_figures, published_for, published_reports
from helpers.record.parallel import RunsFailed, default_jobs, device_kind, record, train_apart
from helpers.record.quantities import (
    MISSING,
    arm_mean_and_half,
    arm_plus_minus,
    mean_and_half,
    metric_label,
    percent,
    plus_minus,
    scale_and_digits,
    seeds_text,
    span,
)
from helpers.record.recorder import BINS, expected_calibration_error, reliability, thin, train_run, write_run
from helpers.record.run import DEVICES, Run, load_snapshot, load_weights, pack, read_run, record_path, unpack
from helpers.record.study import Runs, Study, first_recorded, most_telling_first, seconds_recorded, status
