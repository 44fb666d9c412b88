"""Runs as pictures and tables: each function returns a Figure or a DataFrame, and shows nothing by itself."""

from helpers.figures.compare import (
    accuracy_table,
    arms_table,
    classwise_table,
    comparison_table,
    plot_forest,
    plot_gap,
    plot_reliability,
    plot_sweep,
    scales_table,
)
from helpers.figures.curves import log_axis, plot_curves, plot_progress, steps_per_epoch
from helpers.figures.images import before_after, class_grid, image_grid, right_wrong_gallery
