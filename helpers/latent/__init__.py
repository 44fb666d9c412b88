"""The latent space: t-SNE, its quality, its pictures."""

from helpers.latent.plots import explorer_page, latent_page, scatter
from helpers.latent.store import answers, latents, make_picture, pictured, pictures, split_latents
from helpers.latent.tsne import (
    BACKENDS,
    accuracy,
    available_backends,
    embed,
    groups,
    kl_divergence,
    neighbours,
    principal,
    recall,
    trustworthiness,
)
