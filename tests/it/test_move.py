"""Whole migrations in the lab: real servers, real load, AWS's wire protocols."""
import os

import pytest

import kb
from lab.server import Lab
from movekit import PASSWORD, Scene


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    import tempfile
    folder = tempfile.mkdtemp(prefix="keybridge-move.")
    os.chmod(folder, 0o755)
    with Lab(folder, speed=20, port=26001, dns_port=26002, db_port=26003) as made:
        yield made
    kb.remove(folder)
    assert made.violations == []


@pytest.fixture
def scene(lab, tmp_path):
    runner = kb.Kb(str(tmp_path))
    made = Scene(lab, runner, str(tmp_path))
    yield made
    made.drop()
    outputs = runner.outputs()
    for secret in (PASSWORD, "app-password", lab.secret_key):
        assert secret not in outputs, "a secret was printed"
        for name in os.listdir(made.state) if os.path.isdir(made.state) else ():
            path = os.path.join(made.state, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    assert secret.encode() not in f.read(), f"a secret is in {name}"


def test_move_under_load(scene):
    scene.create().load()
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    scene.audit_is_sound()
    receipt = scene.receipt()
    assert receipt["blocked_us"] < 5_000_000
    assert "writes were blocked for" in done.out


# Every place at which a run is killed once, in the order in which they come. One migration goes through all of them: each rerun
# goes on where the last one died, and dies at the next place.
PLACES = ["preflight", "publication", "publication-made", "slot", "slot-made", "marker", "snapshot", "snapshot-asked", "copy",
          "copy-asked", "restore", "restore-asked", "quiet", "quiet-one", "position", "settings", "modify-asked", "stream",
          "catch-up", "verify", "sequences", "cutover-fence", "cutover-drain", "cutover-close", "cutover-closed",
          "cutover-prove", "cutover-opening", "cutover-opened-one", "cutover-switch", "receipt"]


@pytest.mark.hooks
@pytest.mark.timeout(400)
def test_killed_once_at_every_place(scene):
    scene.create(MaxAllocatedStorage=100, PreferredMaintenanceWindow="sat:23:10-sat:23:40").load(rate=100)
    for place in PLACES:
        done = scene.run("--cutover", env={"KB_CRASH_AT": place})
        assert done.code == -9, f"not killed at {place}: {done}"
        old = scene.accepts_writes(scene.name)
        new = scene.exists(scene.target) and scene.accepts_writes(scene.target)
        closed = PLACES.index(place) > PLACES.index("quiet-one")       # until then it is a copy that nobody knows of
        assert not (old and new and closed), f"both sides take writes after a kill at {place}"
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    scene.audit_is_sound()
