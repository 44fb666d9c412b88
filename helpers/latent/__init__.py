"""The latent space: t-SNE, its quality, its pictures."""

from helpers.latent.explorer import explorer_page
from helpers.latent.plots import name_places, plot_film, plot_latents, plot_stages, plot_thumbnails
from helpers.latent.quality import (
    accuracy,
    adjusted_rand,
    align,
    class_recall,
    distance_correlation,
    groups,
    intermixing,
    kl_divergence,
    neighbours,
    recall,
    trustworthiness,
)
from helpers.latent.store import (
    answers,
    load_coordinates,
    make_picture,
    picture,
    pictured,
    pictures,
    quantised,
    restored,
    save_coordinates,
    split_latents,
)
from helpers.latent.tsne import BACKENDS, available_backends, embed, principal
