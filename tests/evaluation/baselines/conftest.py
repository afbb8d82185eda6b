from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_models(tmp_path_factory) -> dict[str, Path]:
    """Published name -> a folder with a narrow random model of its kind."""
    from tests.helpers.pretrained_models import save  # transformers takes seconds to import

    return save(tmp_path_factory.mktemp("models"))
