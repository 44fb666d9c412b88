"""Each transform against torchvision's, image by image, on the same random choices."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.training import AUGMENTATIONS, augmentation, blur

SHAPES = [(3, 32, 32), (1, 21, 40), (4, 40, 17)]
EVERYTHING = "crop:4 hflip:0.5 vflip:0.25 rotate:30 blur:2 cutout:8"


def images_of(shape, n=200, seed=0):
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def transform_with_choices(spec, n, seed=1):
    (transform,) = augmentation(spec).transforms
    return transform, transform.draw(n, torch.Generator().manual_seed(seed), "cpu")


def applied(spec, shape, n=200):
    images = images_of(shape, n)
    transform, choices = transform_with_choices(spec, n)
    return images, choices, transform.apply(images.clone(), choices)


def erased(image, side, row, column):
    """Return an image with a square around a place, in shares of its height and width, clipped at its edges."""
    _, height, width = image.shape
    top, left = int(row * np.float32(height)) - side // 2, int(column * np.float32(width)) - side // 2
    bottom, right = min(top + side, height), min(left + side, width)
    top, left = max(top, 0), max(left, 0)
    return reference.erase(image, top, left, max(bottom - top, 0), max(right - left, 0), v=0)


ORACLES = {  # torchvision's way with one image, the value after the colon, and what was drawn for this image
    "hflip": lambda image, _, chosen: reference.hflip(image) if chosen else image,
    "vflip": lambda image, _, chosen: reference.vflip(image) if chosen else image,
    "crop": lambda image, pad, *corner: reference.crop(reference.pad(image, pad), *corner, *image.shape[1:]),
    "rotate": lambda image, _, angle: reference.rotate(image, angle, fill=0),
    "blur": lambda image, _, sigma: reference.gaussian_blur(image, [3, 3], [sigma, sigma]),
    "cutout": erased,
}
SPECS = "hflip:0.4 vflip:0.4 crop:0 crop:1 crop:4 crop:16 rotate:30 rotate:180 blur:0.25 blur:3"
SPECS += " cutout:0 cutout:1 cutout:5 cutout:8 cutout:64"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS.split())
def test_a_transform_is_torchvisions(spec, shape):
    (name, value), (images, choices, changed) = spec.split(":"), applied(spec, shape)
    drawn = choices.reshape(-1, len(images)).T.tolist()
    expected = [ORACLES[name](image, int(float(value)), *own) for image, own in zip(images, drawn, strict=True)]
    difference = (changed.int() - torch.stack(expected).int()).abs()
    if name == "rotate":
        # Where a place is halfway between two pixels, rounding decides. Ten float32 roundings of numbers up to 30, in
        # both ways of computing it, leave 4e-5 pixels of doubt in either direction: less than 1e-4 of all places.
        assert (difference > 0).float().mean() < 1e-4
    elif name == "blur":
        # A sum halfway between two grey levels may be rounded either way, as convolutions add in no fixed order.
        assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-4
    else:
        assert difference.max() == 0


def test_blur_of_a_quarter_pixel_changes_no_grey_level_and_any_is_as_exact_under_autocast():
    checkerboard = 255 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2).to(torch.uint8).repeat(50, 3, 1, 1)
    dots = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    dots[:, :, ::3, ::3] = 255
    for images in (checkerboard, dots, 255 - dots):
        assert torch.equal(augmentation("blur:0.25")(images, torch.Generator().manual_seed(0)), images)
        assert not torch.equal(augmentation("blur:0.35")(images, torch.Generator().manual_seed(0)), images)
    images, choices, changed = applied("blur:3", SHAPES[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(blur(images, choices, 3), changed)


def test_the_largest_fraction_puts_cutouts_centre_on_the_last_pixel():
    transform, choices = transform_with_choices("cutout:1", 1)
    largest = torch.full_like(choices, 1 - 2**-24)
    for side in [*range(1, 100), 224, 1023, 1025]:
        changed = transform.apply(torch.ones(1, 1, side, 7, dtype=torch.uint8), largest)
        assert changed[0, 0, -1, -1] == 0 and changed.sum() == 7 * side - 1


def test_choices_are_spread_as_described():
    n = 20_000
    assert abs(transform_with_choices("hflip:0.25", n)[1].float().mean() - 0.25) < 0.02

    corners = transform_with_choices("crop:2", n)[1]
    counts = torch.bincount(corners[0] * 5 + corners[1], minlength=25)  # 25 places, 800 times each
    assert counts.numel() == 25 and (counts - n / 25).abs().max() < 5 * (n / 25) ** 0.5

    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    for spec, low, high in (("rotate:30", -30, 30), ("blur:0.5", 0.1, 0.5), ("cutout:4", 0, 1)):
        drawn = transform_with_choices(spec, n)[1]
        for row in drawn.reshape(-1, n):
            assert low <= row.min() and row.max() <= high
            assert torch.allclose((row.double().quantile(quarters) - low) / (high - low), quarters, atol=0.02)
    rows, columns = transform_with_choices("cutout:4", n)[1]
    assert abs(torch.corrcoef(torch.stack([rows, columns]))[0, 1]) < 0.03


@pytest.mark.parametrize("spec", ["crop:4 cutout:8 hflip", "hflip cutout:8 crop:4", EVERYTHING])
def test_transforms_act_in_the_order_written(spec):
    images = images_of((3, 32, 32))
    generator, expected = torch.Generator().manual_seed(5), images
    for word in spec.split():
        (transform,) = augmentation(word).transforms
        expected = transform.apply(expected, transform.draw(len(images), generator, "cpu"))
    assert torch.equal(augmentation(spec)(images, torch.Generator().manual_seed(5)), expected)


@pytest.mark.parametrize("spec", ["", *AUGMENTATIONS, EVERYTHING])
def test_input_stays_and_output_is_alike_and_the_generators_alone(spec):
    images, change, state = images_of((3, 32, 32)), augmentation(spec), torch.get_rng_state()
    before = images.clone()
    changed = change(images, torch.Generator().manual_seed(2))
    assert torch.equal(images, before) and torch.equal(state, torch.get_rng_state())
    assert changed.dtype == torch.uint8 and changed.shape == images.shape and changed.is_contiguous()
    assert torch.equal(changed, images) == (spec == "")
    torch.rand(3)
    other_layout = images.to(memory_format=torch.channels_last)
    assert torch.equal(change(other_layout, torch.Generator().manual_seed(2)), changed)
    assert torch.equal(change(images, torch.Generator().manual_seed(8)), changed) == (spec == "")


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_work_does_not_go_image_by_image_nor_wait_for_the_device():
    noted = []
    for n in (2, 64):
        with Operations() as operations:
            augmentation(EVERYTHING)(images_of((3, 32, 32), n), torch.Generator().manual_seed(0))
        noted.append(operations.names)
    assert noted[0] == noted[1] and len(noted[0]) > 20
    # Operations whose answer the host needs before it can go on.
    assert not [name for name in noted[0] if any(s in name for s in ("_local_scalar_dense", "nonzero", "is_nonzero"))]


@pytest.mark.gpu
def test_gpu_is_never_waited_for_and_agrees_with_torchvision():
    images = images_of((3, 32, 32)).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    change = augmentation(EVERYTHING)
    change(images, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert change(images, generator).is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for spec in EVERYTHING.split():
        (transform,) = augmentation(spec).transforms
        choices = transform.draw(len(images), generator, images.device)
        host = transform.apply(images.cpu(), choices.cpu())
        different = (transform.apply(images, choices).cpu().int() - host.int()).abs()
        assert (different > 0).float().mean() < 1e-4, spec


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("mirror", "no augmentation 'mirror'.*hflip:0.5.*cutout:8"),
        ("crop:4,hflip", "crop:4,hflip makes no sense"),
        ("crop:2.5", "whole number"),
        ("crop:-1", "at least 0"),
        ("cutout:inf", "at least 0"),
        ("hflip:1.5", "from 0 to 1"),
        ("vflip:nan", "from 0 to 1"),
        ("rotate:200", "from 0 to 180"),
        ("blur:0.05", "at least 0.1"),
        ("hflip crop hflip:0.2", "hflip more than once"),
        (None, "no augmentation 'None'"),
    ],
)
def test_nonsense_is_refused_with_the_choices(spec, complaint):
    with pytest.raises(ValueError, match=complaint):
        augmentation(spec)


def test_images_that_cannot_be_augmented_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="uint8"):
        augmentation("")(torch.zeros(2, 3, 8, 8), generator)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\)"):
        augmentation("hflip")(torch.zeros(3, 8, 8, dtype=torch.uint8), generator)
    with pytest.raises(ValueError, match="8x9 image out of sight"):
        augmentation("crop:8")(torch.zeros(2, 3, 8, 9, dtype=torch.uint8), generator)
