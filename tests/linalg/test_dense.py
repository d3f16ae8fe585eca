"""The whole matrix and all its eigenpairs: against the matrix itself and SciPy; resumption; memory."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from landscape.linalg.dense import dense_bytes, dense_matrix, dense_spectrum
from landscape.linalg.operator import MatrixOperator
from tests.support.spectra import FAMILIES, AsymmetricOperator, digits_like, family, rotated


def _whole(operator: MatrixOperator, block: int = 7) -> Tensor:
    *_, (matrix, done) = dense_matrix(operator, block=block)
    assert done == operator.size
    return matrix


@pytest.mark.parametrize("block", [1, 7, 30, 64])
def test_rows_are_the_products_with_unit_vectors(block: int) -> None:
    """A block that does not divide the size, one that is the size, one that is larger; and not symmetric."""
    operator = AsymmetricOperator(rotated(digits_like(30, 0), 0), 0.1, 1)
    sizes = [done for _, done in dense_matrix(operator, block=block)]
    assert sizes == [min(30, first + block) for first in range(0, 30, block)]
    expected = operator.apply(torch.eye(30, dtype=torch.float64))
    assert torch.allclose(_whole(operator, block), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_all_eigenpairs(name: str, n: int) -> None:
    """Values, descending, as they were made; residuals true; vectors orthonormal."""
    values = family(name, n, np.random.default_rng(n))
    scale = np.abs(values).max() + 1e-300
    matrix = _whole(MatrixOperator(rotated(values, 3)))
    found = dense_spectrum(matrix)
    np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-13 * scale)
    assert (np.diff(found.values) <= 0).all()
    assert found.residuals.max() <= 1e-13 * scale
    true = found.vectors @ matrix - torch.from_numpy(found.values)[:, None] * found.vectors
    np.testing.assert_allclose(found.residuals, torch.linalg.vector_norm(true, dim=1), atol=1e-15 * scale)
    off = found.vectors @ found.vectors.T - torch.eye(n, dtype=torch.float64)
    assert off.abs().max() <= 1e-13
    assert found.asymmetry <= 1e-15 * scale


@pytest.mark.parametrize("share", [1e-6, 1e-2])
def test_asymmetry_is_seen(share: float) -> None:
    """The residuals are those of the matrix as computed, so they hold what the symmetric part hides."""
    exact = rotated(digits_like(60, 0), 0)
    operator = AsymmetricOperator(exact, share, 1)
    matrix = _whole(operator)
    found = dense_spectrum(matrix)
    error = (operator.wrong - exact).numpy()
    assert found.asymmetry == pytest.approx(np.linalg.norm(error - error.T), rel=1e-6)
    symmetric = (matrix + matrix.T).numpy() / 2
    np.testing.assert_allclose(found.values, scipy.linalg.eigvalsh(symmetric)[::-1], rtol=0, atol=1e-13)
    # ‖My − θy‖ = ‖(M − Mᵀ)y‖/2 for eigenvectors of the symmetric part, all of which together give ‖M − Mᵀ‖_F.
    assert 2 * np.linalg.norm(found.residuals) == pytest.approx(found.asymmetry, rel=1e-9)
    assert np.abs(found.values - digits_like(60, 0)).max() <= np.linalg.norm(error, 2)


def test_more_pairs_than_a_chunk_of_residuals() -> None:
    matrix = rotated(digits_like(257, 0), 0)
    found = dense_spectrum(matrix)
    true = found.vectors @ matrix - torch.from_numpy(found.values)[:, None] * found.vectors
    np.testing.assert_allclose(found.residuals, torch.linalg.vector_norm(true, dim=1), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_resumed_after_any_block_it_gives_the_same_bits(dtype: torch.dtype) -> None:
    operator = MatrixOperator(rotated(digits_like(40, 0), 0), dtype)
    whole = _whole(operator, block=6)
    for matrix, done in dense_matrix(operator, block=6):
        saved = matrix[:done].clone()
        *_, (again, last) = itertools.chain(
            [(matrix, done)], dense_matrix(operator, block=6, rows=saved, done=done)
        )
        assert last == 40
        assert torch.equal(again, whole)
        assert torch.equal(saved, whole[:done])


def test_single_precision_products() -> None:
    """Rounded products: the values are as good as they are, and the asymmetry tells of what size that is."""
    exact = rotated(digits_like(100, 0), 0)
    matrix = _whole(MatrixOperator(exact, torch.float32))
    found = dense_spectrum(matrix)
    assert matrix.dtype == torch.float64
    np.testing.assert_allclose(found.values, digits_like(100, 0), rtol=0, atol=1e-6)


def test_a_block_needs_a_vector() -> None:
    with pytest.raises(ValueError, match="at least one vector"):
        next(dense_matrix(MatrixOperator(torch.eye(3, dtype=torch.float64)), block=0))


_PEAK = """
import pathlib, re, torch
from landscape.linalg.dense import dense_matrix, dense_spectrum
class Diagonal:
    dtype, device = torch.float64, torch.device("cpu")
    def __init__(self, size):
        self.size, self.values = size, torch.linspace(-1, 1, size, dtype=torch.float64)
    def apply(self, vectors):
        return vectors * self.values + vectors.sum(1, keepdim=True)

def peak(size):
    *_, (matrix, _) = dense_matrix(Diagonal(size), block=8)
    dense_spectrum(matrix)
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

torch.set_num_threads(1)
before = peak(50)  # LAPACK and its buffers are there
print(peak(1200) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_what_it_says() -> None:
    """The peak of a process that takes all the pairs of 1200 rows, matrix included."""
    out = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    estimate = dense_bytes(1200, 8)
    assert 0.7 * estimate <= int(out.stdout) <= 1.05 * estimate
    assert dense_bytes(300, 8) - dense_bytes(300, 0) == 2 * 8 * 8 * 300
