"""`jordan_basis`: a real basis in which a small matrix is in Jordan form, as nearly as its numbers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Numbers = NDArray[Any]  # real or complex


def jordan_basis(matrix: Matrix, within: float = 0.01) -> Matrix:
    """A real matrix T [n, n] whose inverse times `matrix` times T is in Jordan form.

    Blocks of a real eigenvalue have ones above the diagonal; a pair of complex ones is a block of real and imaginary
    parts. Trained weights hold a double eigenvalue as two near ones: those `within` each other count as one, so that
    the form is near to a Jordan form and the change of basis exact all the same.
    """
    columns: list[Numbers] = []
    for value, size in _grouped(np.linalg.eigvals(matrix), within):
        if value.imag >= 0:
            for chain in _chains(matrix - value * np.eye(len(matrix)), size, within):
                for vector in chain:
                    columns += [vector.real, vector.imag] if value.imag > 0 else [vector.real]
    return np.stack(columns, 1)


def _grouped(values: Numbers, within: float) -> list[tuple[complex, int]]:
    """Mean and number of eigenvalues that lie near each other; what is nearly real is real."""
    left, groups = list(values), []
    while left:
        own = [left.pop(0)]
        for other in own:  # it grows
            near = [value for value in left if abs(value - other) <= within]
            own += near
            left = [value for value in left if abs(value - other) > within]
        mean = complex(np.mean(own))
        groups.append((complex(mean.real, 0) if abs(mean.imag) <= within else mean, len(own)))
    return groups


def _chains(shifted: Numbers, size: int, within: float) -> list[list[Numbers]]:
    """Jordan chains of the eigenvalue 0, the eigenvector first in each, the longest chain first."""
    space = np.linalg.svd(np.linalg.matrix_power(shifted, size))[2][-size:].conj().T  # [n, size]
    inner = space.conj().T @ shifted @ space
    powers = [np.linalg.matrix_power(inner, k) for k in range(size + 2)]
    rank = [_rank(power, within) for power in powers]
    rank[size:] = [0, 0]  # nilpotent, but for what rounding left
    chains: list[list[Numbers]] = []
    for length in range(size, 0, -1):
        for _ in range(rank[length - 1] - 2 * rank[length] + rank[length + 1]):
            kernel = np.linalg.svd(powers[length])[2][rank[length] :].conj().T
            lower = np.linalg.svd(powers[length - 1])[2][rank[length - 1] :].conj().T
            taken = np.concatenate([lower, *[np.stack(chain, 1) for chain in chains]], 1)
            top = kernel[:, 0]
            if taken.shape[1]:  # what lies farthest from all that is taken
                basis = np.linalg.qr(taken)[0]
                off = kernel - basis @ (basis.conj().T @ kernel)
                top = kernel @ np.linalg.svd(off)[2][0].conj()
            chains.append([powers[k] @ top for k in range(length - 1, -1, -1)])
    return [[space @ vector for vector in chain] for chain in chains]


def _rank(matrix: Numbers, within: float) -> int:
    return int((np.linalg.svd(matrix, compute_uv=False) > within).sum())
