"""One browser, and one set of results, for all tests of pages."""

import pandas
import pytest

from tests.helpers.browser import started
from tests.helpers.systems import rounding_results


@pytest.fixture(scope="session")
def chrome(tmp_path_factory):
    with started(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    found = rounding_results(tmp_path_factory.mktemp("systems"))
    steps = pandas.Series(range(0, 400, 10), dtype=float)
    found[0].curves = pandas.DataFrame({"step": steps, "train/mel": 40 - steps / 10, "val/stoi": steps / 400})
    return found
