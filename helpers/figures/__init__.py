"""Runs as pictures and tables."""

from helpers.figures.classes import plot_classwise, plot_confusion, plot_metric
from helpers.figures.compare import plot_forest, plot_gap, plot_reliability, plot_sweep, plot_tradeoff
from helpers.figures.curves import (
    Reached,
    first_reached,
    plot_curves,
    plot_progress,
    reached_table,
    steps_per_epoch,
)
from helpers.figures.images import before_after, class_grid, image_grid, right_wrong_gallery
from helpers.figures.tables import (
    accuracy_table,
    arms_table,
    classwise_table,
    comparison_table,
    scales_table,
)
