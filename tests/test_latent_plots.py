"""Pictures of latents: names stand where their class is, images where their point is, pages stay small."""

import numpy as np
import pytest

from helpers.latent import name_places, plot_film, plot_latents, plot_stages, plot_thumbnails
from helpers.style import pdf

CLASSES = ("cat", "dog", "ship")


@pytest.fixture
def islands():
    """Return three islands, the third in two parts, a large one and a small one far off."""
    random = np.random.default_rng(0)
    centres = np.array([[0, 0], [50, 0], [0, 50], [50, 50]])
    part = np.repeat([0, 1, 2, 3], [200, 200, 200, 60])
    return (centres[part] + random.normal(size=(660, 2))).astype(np.float32), np.minimum(part, 2).astype(np.uint8)


def test_names_stand_in_the_densest_part_of_their_class(islands):
    Y, labels = islands
    places = name_places(Y, labels, 3)
    assert np.allclose(places, [[0, 0], [50, 0], [0, 50]], atol=1.5)  # the mean of the third would be near (11, 50)
    assert np.isnan(name_places(Y, labels, 4)[3]).all()


def test_names_of_classes_that_lie_on_each_other_do_not(islands):
    Y = np.repeat(islands[0][:100], 3, axis=0)
    places = name_places(Y, np.tile([0, 1, 2], 100), 3)
    heights = np.sort(places[:, 1]) / np.ptp(Y, axis=0).max()
    assert (np.diff(heights) > 0.05).all()


def test_every_picture_is_drawn_as_pixels_and_stays_small(islands):
    Y, labels = np.tile(islands[0], (60, 1)), np.tile(islands[1], 60)
    drawn = plot_stages({"features": [Y, Y], "last layer": [Y, Y]}, ["before", "after"], labels, CLASSES)
    assert [ax.get_title(loc="left") for ax in drawn.axes] == ["before", "after"] * 2
    assert {text.get_text() for text in drawn.axes[0].texts} == set(CLASSES)
    assert len(pdf(drawn)) < 1_500_000  # 158,400 points as shapes would be several megabytes
    assert len(pdf(plot_latents(Y, labels, CLASSES))) < 1_500_000
    assert len(plot_film([Y[:100]] * 5, list("abcde"), labels[:100], CLASSES, columns=3).axes) == 6
    with pytest.raises(ValueError, match="'features' has 1 pictures for 2 columns"):
        plot_stages({"features": [Y]}, ["before", "after"], labels, CLASSES)


def test_a_thumbnail_stands_where_its_point_is():
    Y = np.array([[0.0, 0.0], [3.9, 4.0], [0.1, 3.9]])
    images = np.zeros((3, 3, 2, 2), np.uint8)
    images[0, 0], images[1, 1], images[2, 2] = 200, 200, 200  # red, green, blue
    sheet = plot_thumbnails(Y, images, across=4).axes[0].images[0].get_array()
    assert sheet.shape == (8, 8, 3)
    assert (sheet[-1, 0] == (200, 0, 0)).all()  # lower left
    assert (sheet[0, -1] == (0, 200, 0)).all()  # upper right
    assert (sheet[0, 0] == (0, 0, 200)).all()  # upper left
    assert (sheet[4, 4] == 255).all()
