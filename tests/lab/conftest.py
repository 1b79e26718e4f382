"""Fixtures of the lab's own tests."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _scratch():
    """A scratch folder that the servers' user may enter."""
    path = tempfile.mkdtemp(prefix="keybridge-lab.")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


folder = pytest.fixture(_scratch, name="folder")
module_folder = pytest.fixture(_scratch, scope="module", name="module_folder")
