"""Fixtures of the tests on real PostgreSQL servers. The keybridge under test is $KB_BIN, else the release build's."""
import os
import signal
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.dirname(HERE))

import kb as kb_module  # noqa: E402
from lab import pgversions  # noqa: E402
from lab.pgserver import PgServer  # noqa: E402

# Nothing here outlives the machine's crash, and a killed process loses no page that it has written.
SETTINGS = {"wal_level": "logical", "fsync": "off", "max_wal_senders": 40, "max_replication_slots": 40,
            "max_prepared_transactions": 50,
            "max_connections": 200, "wal_sender_timeout": "20s", "log_min_messages": "warning",
            "log_line_prefix": "%m [%p] %d ", "autovacuum_naptime": "5s", "min_wal_size": "256MB", "max_wal_size": "2GB",
            "timezone": "America/St_Johns"}


def lacking(marker):
    """What a test needs and the servers of this run don't have, in words."""
    for side, have in (("source", kb_module.SOURCE_MAJOR), ("target", kb_module.TARGET_MAJOR)):
        least = marker.kwargs.get(side, marker.kwargs.get("both", 0))
        if have < least:
            return f"needs PostgreSQL {least} as the {side}, not {have}"
    return None


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("hooks") and not kb_module.has_hooks():
            item.add_marker(pytest.mark.skip(reason="this build has no crash points: KB_BIN=build/debug/bin/keybridge"))
        for reason in filter(None, map(lacking, item.iter_markers("needs"))):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure(config):
    # Under nohup SIGHUP is ignored, and children would inherit that; a handler of ours is the default again for them.
    signal.signal(signal.SIGHUP, lambda *_: None)
    config.addinivalue_line("markers", "matrix: also run with other versions of PostgreSQL as source and target")
    config.addinivalue_line("markers", "hooks: needs a build with named crash points")
    config.addinivalue_line("markers", "slow: only in check-deep, and not with every pair of versions")
    config.addinivalue_line("markers", "needs(source=N, target=N, both=N): PostgreSQL versions below which it is skipped")
    if not os.access(kb_module.BIN, os.X_OK):
        raise pytest.UsageError(f"{kb_module.BIN} is missing: build it or set KB_BIN")
    for major in {kb_module.SOURCE_MAJOR, kb_module.TARGET_MAJOR} - {15}:
        try:
            pgversions.bindir(major)
        except pgversions.Unavailable as problem:
            raise pytest.UsageError(str(problem)) from None


@pytest.fixture(scope="session")
def scratch():
    """A folder that the servers' user may enter."""
    path = tempfile.mkdtemp(prefix="keybridge-it.")
    os.chmod(path, 0o755)
    yield path
    kb_module.remove(path)


def _server(scratch, name, major):
    """KB_PG_SOURCE and KB_PG_TARGET choose the versions; 15 is what Debian has."""
    return PgServer(f"{scratch}/{name}", bindir=pgversions.bindir(major), password=kb_module.PASSWORD, settings=SETTINGS,
                    first_port=25000, last_port=25999)


@pytest.fixture(scope="session")
def source_server(scratch):
    with _server(scratch, "source", kb_module.SOURCE_MAJOR) as server:
        yield server


@pytest.fixture(scope="session")
def target_server(scratch):
    with _server(scratch, "target", kb_module.TARGET_MAJOR) as server:
        yield server


@pytest.fixture
def fresh_server(scratch, request):
    """For tests that crash or restart servers: fresh_server(name, **settings) makes one of the test's own.

    It has the target's version when its name says so, else the source's; major= asks for another.
    """
    made = []

    def make(name="own", major=None, **settings):
        major = major or (kb_module.TARGET_MAJOR if name.startswith("target") else kb_module.SOURCE_MAJOR)
        server = _server(scratch, f"{name}-{len(made)}-{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}", major)
        server.settings.update(settings)
        server.init()
        server.start()
        made.append(server)
        return server
    yield make
    for server in made:
        server.remove()


@pytest.fixture
def kb(tmp_path):
    """Runs keybridge: kb("replicate", "--slot=x", code=2)."""
    runner = kb_module.Kb(str(tmp_path))
    yield runner
    runner.end()


@pytest.fixture
def pair(source_server, target_server, kb):
    """Fresh databases on both servers; gone with their slots at the end. After every test nothing may have leaked."""
    made = kb_module.Pair(source_server, target_server, kb)
    yield made
    made.drop()
    outputs = kb.outputs()
    for secret in (kb_module.PASSWORD, "s3cret%2Fword%401"):
        assert secret not in outputs, "the password was printed"


@pytest.fixture
def make_pair(kb):
    """A pair on servers of the test's own: make_pair(source, target)."""
    made = []

    def make(source, target):
        made.append(kb_module.Pair(source, target, kb))
        return made[-1]
    yield make
    for one in made:
        one.drop()
