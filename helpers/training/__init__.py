"""One network trained: its choices, the parts that they name, and the loop that follows them."""

from helpers.training.augment import AUGMENTATIONS, augmentation, blur
from helpers.training.experiment import LOSSES, OPTIMIZERS, SCHEDULES, WEIGHTED_LOSSES, Experiment, rehearsal
from helpers.training.kept import fingerprint, load_network, save_network, start
from helpers.training.loop import (
    EVALUATION_BATCH,
    Fit,
    RoundedProducts,
    Trainer,
    criterion,
    fit,
    normalise,
    pick_device,
    predict,
    products,
    training_split,
)
from helpers.training.muon import Muon, as_matrix
