"""The low-pass filter as a linear map: against a dense discrete Fourier transform in float64."""

import numpy as np
import pytest
import torch

from stylize.preconditioner import LowPassPreconditioner

SIZES = [(6, 5), (5, 6), (6, 6), (5, 5), (1, 4), (4, 1), (1, 1)]


def dense(height: int, width: int, exponent: float = 1.5, corner: float = 0.02) -> np.ndarray:
    """The filter's matrix, one column per pixel."""
    basis = torch.eye(height * width).view(height * width, 1, height, width)
    low_pass = LowPassPreconditioner(height, width, exponent=exponent, corner=corner)
    return low_pass(basis).reshape(height * width, -1).double().numpy().T


def expected(height: int, width: int, exponent: float, corner: float) -> np.ndarray:
    """The same by explicit Fourier matrices."""
    fourier = np.kron(np.fft.fft(np.eye(height)), np.fft.fft(np.eye(width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]).ravel()
    gain = (1 / (frequency + corner)) ** exponent
    gain /= gain.mean()
    return np.real(np.linalg.inv(fourier) @ (gain[:, None] * fourier))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exponent", [0.5, 1.5, 3.0])
def test_agrees_with_the_direct_transform(size, exponent):
    matrix = dense(size[0], size[1], exponent=exponent, corner=0.05)
    assert np.allclose(matrix, expected(size[0], size[1], exponent, 0.05), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_is_symmetric_positive_definite_of_mean_gain_one(size):
    matrix = dense(size[0], size[1])
    assert np.allclose(matrix, matrix.T, atol=1e-6)
    gains = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert gains.min() > 0
    assert gains.mean() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_exponent_zero_is_the_identity(size):
    assert np.allclose(dense(size[0], size[1], exponent=0.0), np.eye(size[0] * size[1]), atol=1e-6)


def test_smooth_passes_and_noise_does_not():
    low_pass = LowPassPreconditioner(16, 16)
    flat = torch.ones(1, 1, 16, 16)
    checks = (torch.arange(16)[:, None] + torch.arange(16)[None, :]).remainder(2).mul(2).sub(1).float()[None, None]
    assert float(low_pass(flat).mean()) > 1
    assert float((low_pass(checks) * checks).mean()) < 1


def test_float64_keeps_its_type_and_accuracy():
    images = torch.rand(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    filtered = LowPassPreconditioner(6, 5, exponent=1.5, corner=0.05)(images)
    assert filtered.dtype == torch.float64
    matrix = torch.from_numpy(expected(6, 5, 1.5, 0.05))
    assert torch.allclose(filtered.flatten(2), images.flatten(2) @ matrix.T, rtol=1e-6)


@pytest.mark.parametrize("size", [(16, 12), (109, 89), (218, 178)])
def test_an_images_bits_do_not_depend_on_its_batchmates(size):
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    low_pass = LowPassPreconditioner(*size)
    together = low_pass(images)
    for row in range(3):
        assert torch.equal(low_pass(images[row : row + 1])[0], together[row])
