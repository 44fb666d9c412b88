"""Pictures of latents: names stand where their class is, images where their point is, files stay small."""

import numpy as np
import pytest
from taught import taught

from helpers.latent.plots import name_places
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
    # Those of classes that lie on each other do not.
    Y = np.repeat(islands[0][:100], 3, axis=0)
    heights = np.sort(name_places(Y, np.tile([0, 1, 2], 100), 3)[:, 1]) / np.ptp(Y, axis=0).max()
    assert (np.diff(heights) > 0.05).all()


def test_a_picture_is_drawn_as_pixels_and_stays_small(islands):
    draw = taught("12", "plot_latents").plot_latents
    drawn = draw(np.tile(islands[0], (60, 1)), np.tile(islands[1], 60), CLASSES, 5.4)
    assert {text.get_text() for text in drawn.axes[0].texts} == set(CLASSES)
    assert len(pdf(drawn)) < 1_500_000  # 39,600 points as shapes would be megabytes


def test_a_thumbnail_stands_where_its_point_is():
    Y = np.array([[0.0, 0.0], [3.9, 4.0], [0.1, 3.9]])
    images = np.zeros((3, 3, 2, 2), np.uint8)
    images[0, 0], images[1, 1], images[2, 2] = 200, 200, 200  # red, green, blue
    sheet = taught("12", "draw_thumbnails").draw_thumbnails(Y, images, across=4).axes[0].images[0].get_array()
    assert sheet.shape == (8, 8, 3)
    corners = {(-1, 0): (200, 0, 0), (0, -1): (0, 200, 0), (0, 0): (0, 0, 200)}  # lower left, upper right, upper left
    assert all((sheet[place] == colour).all() for place, colour in {**corners, (4, 4): 255}.items())
