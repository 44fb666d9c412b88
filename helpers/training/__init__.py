"""One network trained: its choices, the parts that they name, and the loop that follows them."""

from helpers.training.augment import AUGMENTATIONS, augmentation, blur
from helpers.training.experiment import Experiment, rehearsal
from helpers.training.kept import fingerprint, load_network, save_network, start
from helpers.training.loop import EVALUATION_BATCH, Fit, Trainer, fit, pick_device, predict, training_split
from helpers.training.parts import criterion, normalise
