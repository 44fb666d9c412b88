"""Coordinates in files: small, exact to what is promised, the same bytes each time, and never half there."""

import numpy as np
import pytest

from helpers.latent.store import load_coordinates, save_coordinates


@pytest.fixture
def Y():
    random = np.random.default_rng(0)
    centres = random.uniform(-80, 80, (10, 2))
    return (centres[np.arange(45_000) % 10] + random.normal(0, 10, (45_000, 2))).astype(np.float32)


def test_what_is_written_is_read_to_half_a_step_and_eighteen_of_them_are_small(Y, tmp_path):
    about = {"stage": "end", "layer": "flatten", "seed": 2, "quality": {"recall": 0.25, "kl": None}}
    save_coordinates(tmp_path / "new" / "a.npz", Y, about)
    found, noted = load_coordinates(tmp_path / "new" / "a.npz")
    assert noted == about and found.dtype == np.float32 and found.shape == Y.shape
    half_a_step, error = np.ptp(Y.astype(np.float64), axis=0) / 131_070, np.abs(found - Y.astype(np.float64)).max(0)
    assert (error > 0.9 * half_a_step).all() and (error < half_a_step + 1e-5).all()  # float32 rounds once more
    assert 6 * 3 * (tmp_path / "new" / "a.npz").stat().st_size < 3.25 * 2**20


def test_the_same_content_gives_the_same_bytes(Y, tmp_path):
    path, contents = tmp_path / "a.npz", []
    for about in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}):
        save_coordinates(path, Y[:100], about)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]  # nothing half written lies about


def test_damage_is_noticed_wherever_it_is(Y, tmp_path):
    path = tmp_path / "a.npz"
    save_coordinates(path, Y[:500], {"seed": 1})
    whole = path.read_bytes()
    for position in range(60, len(whole), len(whole) // 25):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            found, about = load_coordinates(path)
        except ValueError as error:
            assert "damaged" in str(error)
        else:  # a byte that holds nothing, such as a date
            assert about == {"seed": 1} and np.abs(found - Y[:500]).max() < 0.003
    for content in (b"", whole[: len(whole) // 2], b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.npz is damaged"):
            load_coordinates(path)
    save_coordinates(path, Y[:500], {"seed": 1})  # a whole archive, with other content
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["planes"][0, 0, 0] ^= 1
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="another SHA-256 than it says"):
        load_coordinates(path)
