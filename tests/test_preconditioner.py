"""The preconditioner as a linear map: against a dense discrete Fourier transform in float64, and what it learns."""

import numpy as np
import pytest
import torch

from stylize.preconditioner import PRECONDITIONERS, ImagePreconditioner

NAMES = [name for name in PRECONDITIONERS if name != "none"]
SIZES = [(6, 5), (5, 6), (6, 6), (5, 5), (1, 4), (4, 1), (1, 1)]
LUMINANCE = np.full((3, 3), 1 / 3)


def make(name: str, size: tuple[int, int], batch: int = 1) -> ImagePreconditioner:
    return ImagePreconditioner(name, batch, *size, dtype=torch.float64)


def dense(map_of: ImagePreconditioner, size: tuple[int, int]) -> np.ndarray:
    """The matrix of one image's map, one column per variable."""
    basis = torch.eye(3 * size[0] * size[1], dtype=torch.float64).view(-1, 1, 3, *size)
    columns = torch.stack([map_of(image).flatten() for image in basis])
    matrix: np.ndarray = columns.numpy().T
    return matrix


def filter_matrix(gain: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A filter of one channel by explicit Fourier matrices; gain by frequency [height, width]."""
    fourier = np.kron(np.fft.fft(np.eye(size[0])), np.fft.fft(np.eye(size[1])))
    matrix: np.ndarray = np.real(np.linalg.inv(fourier) @ (gain.ravel()[:, None] * fourier))
    return matrix


def expected(name: str, size: tuple[int, int]) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None, :])
    if name == "low-pass":
        luminance = colour = (frequency + 0.02) ** -1.5
    else:
        luminance, colour = 1 + 0.016 / (frequency**2 + 0.02**2), 2.2 + 0.0016 / (frequency**2 + 0.02**2)
    return np.kron(LUMINANCE, filter_matrix(luminance, size)) + np.kron(
        np.eye(3) - LUMINANCE, filter_matrix(colour, size)
    )


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def taught(size: tuple[int, int], batch: int = 1, pairs: int = 4) -> ImagePreconditioner:
    """One that has seen pairs whose s is twice as large, against y, in the left half as in the right."""
    learner = make("adaptive", size, batch)
    left = torch.ones(size, dtype=torch.float64)
    left[:, : size[1] // 2] = 2
    for number in range(pairs):
        y = pictures(batch, size, number)
        learner.learn(left * y, y / left, torch.ones(batch, dtype=torch.bool))
    return learner


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_direct_transform(name, size):
    assert np.allclose(dense(make(name, size), size), expected(name, size), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(6, 5), (20, 24)])
@pytest.mark.parametrize("learnt", [False, True])
def test_is_symmetric_positive_definite(size, learnt):
    matrix = dense(taught(size) if learnt else make("adaptive", size), size)
    assert np.allclose(matrix, matrix.T, atol=1e-9)
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0


def test_smooth_grey_passes_best_and_noise_least():
    colour = make("colour", (16, 16))
    flat = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    red = flat * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    checks = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).mul(2).sub(1) * flat
    gains = [float((colour(image) * image).sum() / image.square().sum()) for image in (flat, red, checks)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 30 * gains[2]


def test_moves_most_where_pairs_moved_most():
    learner = taught((32, 48))
    noise = pictures(1, (32, 48), seed=9)
    filtered = learner(noise).square().mean((0, 1, 2))
    plain = make("adaptive", (32, 48))(noise).square().mean((0, 1, 2))
    gain = filtered / plain
    assert float(gain[:12].mean()) > 3 * float(gain[-12:].mean())


def test_learns_only_from_usable_pairs_and_not_from_too_few():
    size, noise = (16, 24), pictures(1, (16, 24), seed=9)
    fresh = make("adaptive", size)(noise)
    assert torch.equal(taught(size, pairs=2)(noise), fresh)
    assert not torch.equal(taught(size, pairs=3)(noise), fresh)
    learner = make("adaptive", size)
    broken = torch.full_like(noise, float("nan"))
    for _ in range(9):
        learner.learn(broken, broken, torch.tensor([False]))
    assert torch.equal(learner(noise), fresh)


@pytest.mark.parametrize("name", ["colour", "low-pass"])
def test_fixed_ones_learn_nothing(name):
    size, noise = (16, 24), pictures(1, (16, 24), seed=9)
    fixed = make(name, size)
    before = fixed(noise)
    for number in range(5):
        fixed.learn(pictures(1, size, number), pictures(1, size, 100 + number), torch.tensor([True]))
    assert torch.equal(fixed(noise), before)


def test_a_pair_that_never_changed_a_gradient_in_some_cell_leaves_the_scale_finite():
    size, noise = (32, 32), pictures(1, (32, 32), seed=9)
    learner = make("adaptive", size)
    for number in range(5):
        s, y = pictures(1, size, number), pictures(1, size, 10 + number)
        y[..., :, :] = 0
        y[..., -1, -1] = 1
        learner.learn(s, y, torch.tensor([True]))
    assert torch.isfinite(learner(noise)).all()


def test_clearing_forgets_one_image_alone_and_keeping_reorders():
    size, noise = (16, 24), pictures(3, (16, 24), seed=9)
    learner = taught(size, batch=3)
    before = learner(noise)
    learner.clear(1)
    after = learner(noise)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.equal(after[1:2], make("adaptive", size)(noise[1:2]))
    learner.keep(torch.tensor([2, 0]))
    assert torch.equal(learner(noise[[2, 0]]), before[[2, 0]])


@pytest.mark.parametrize("size", [(16, 12), (109, 89), (218, 178)])
def test_an_images_bits_do_not_depend_on_its_batchmates(size):
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    together = ImagePreconditioner("adaptive", 3, *size)
    alone = [ImagePreconditioner("adaptive", 1, *size) for _ in range(3)]
    for number in range(4):
        s, y = (torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in (number, -number))
        together.learn(s, y, torch.ones(3, dtype=torch.bool))
        for row in range(3):
            alone[row].learn(s[row : row + 1], y[row : row + 1], torch.ones(1, dtype=torch.bool))
    filtered = together(images)
    for row in range(3):
        assert torch.equal(alone[row](images[row : row + 1])[0], filtered[row])


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="low-pass"):
        make("high-pass", (6, 5))
