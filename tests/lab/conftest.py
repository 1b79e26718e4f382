"""Fixtures of the lab's own tests."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def folder():
    """A scratch folder that the server's user may enter."""
    path = tempfile.mkdtemp(prefix="keybridge-lab.")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
