"""One small random model for all notebooks."""

import pytest
from small_model import save_small_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))
