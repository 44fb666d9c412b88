"""The latent space: t-SNE, its quality, its pictures."""

from helpers.latent.plots import explorer_page, plot_latents, scatter
from helpers.latent.quality import accuracy, groups, kl_divergence, neighbours, recall, trustworthiness
from helpers.latent.store import answers, make_picture, pictured, pictures, split_latents
from helpers.latent.tsne import BACKENDS, available_backends, embed, principal
