"""The 245 points of Chinchilla's figure, and fits of them."""

from pathlib import Path

import pytest

from chinchilla_jax.scaling.fit import fit
from chinchilla_jax.scaling.runs import read, without_outliers

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "epoch_chinchilla.csv"
COLUMNS = {"n_total": "Model Size", "flops": "Training FLOP"}


@pytest.fixture(scope="session")
def whole():
    """The 245 points of Chinchilla's figure."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there: the 245 points are not part of the project")
    return read(DATA, COLUMNS)


@pytest.fixture(scope="session")
def epoch(whole):
    """The 240 that Besiroglu et al. kept."""
    return without_outliers(whole, 5)


@pytest.fixture(scope="session")
def best(epoch):
    """The exact optimum on them."""
    return fit(epoch)


@pytest.fixture
def file(tmp_path):
    """Where a table goes."""
    return tmp_path / "runs.csv"
