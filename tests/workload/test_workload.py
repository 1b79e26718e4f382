"""Random workloads with kills of all three parties: afterwards both sides are equal, to the bit, and no transaction is there
twice. KB_SEEDS sets how many seeds are tried (4 by default), KB_SEED the first one (1)."""
import os

import pytest

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1800)]
FIRST = int(os.environ.get("KB_SEED", "1"))
COUNT = int(os.environ.get("KB_SEEDS", "1" if "KB_SEED" in os.environ else "4"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_seed(seeds, seed):
    outcome = seeds.outcome(seed)
    assert outcome["problem"] is None, outcome["problem"]
