"""The tests of whole migrations have the fixtures of tests/it, and a lab."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "it"))

from importlib.util import module_from_spec, spec_from_file_location  # noqa: E402

_spec = spec_from_file_location("it_conftest", os.path.join(os.path.dirname(HERE), "it", "conftest.py"))
_it = module_from_spec(_spec)
_spec.loader.exec_module(_it)
globals().update({k: v for k, v in vars(_it).items() if not k.startswith("__")})

import pytest  # noqa: E402

import kb as kb_module  # noqa: E402
from lab.server import Lab  # noqa: E402

sys.path.insert(0, HERE)
from movekit import PASSWORD, Scene  # noqa: E402


@pytest.fixture(scope="module")
def lab():
    import tempfile
    folder = tempfile.mkdtemp(prefix="keybridge-move.")
    os.chmod(folder, 0o755)
    with Lab(folder, speed=20) as made:
        yield made
    kb_module.remove(folder)
    assert made.violations == []


@pytest.fixture
def scene(lab, tmp_path):
    """An instance to move. Afterwards no secret may be in any output or state file."""
    runner = kb_module.Kb(str(tmp_path))
    made = Scene(lab, runner, str(tmp_path))
    yield made
    lab.faults.clear()
    made.drop()
    outputs = runner.outputs()
    for secret in (PASSWORD, "app-password", lab.secret_key):
        assert secret not in outputs, "a secret was printed"
        for name in os.listdir(made.state) if os.path.isdir(made.state) else ():
            path = os.path.join(made.state, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    assert secret.encode() not in f.read(), f"a secret is in {name}"
