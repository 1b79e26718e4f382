"""The private server itself: made, crashed, copied under load, and never left behind."""
import os
import signal
import subprocess
import sys
import threading

import psycopg2
import pytest

from lab import pgserver
from lab.pgserver import PgServer, free_port, wait_for


@pytest.fixture
def server(folder):
    with PgServer(f"{folder}/src", password="s3cret", superuser="boss", first_port=20000, last_port=20999,
                  settings={"wal_level": "logical", "fsync": False}) as server:
        yield server


def test_settings_password_and_restart(server):
    assert server.one("show wal_level") == "logical"
    with pytest.raises(psycopg2.OperationalError, match="password"):
        server.connect(password="wrong")
    server.set(work_mem="7MB")
    server.restart()
    assert server.one("show work_mem") == "7MB"
    assert server.psql("select current_user") == "boss\n"
    server.stop()
    assert not server.is_up() and not server.is_running()
    server.stop()


def test_kill9_recovers(server):
    server.sql("create table t (a int); insert into t select generate_series(1,100)")
    server.kill9()
    assert not server.is_running()
    server.start()
    assert server.one("select count(*) from t") == 100
    assert "redo done at" in server.log_text()


def test_copy_under_load_is_a_prefix(server, folder):
    server.sql("create table t (a int primary key)")
    stop, acknowledged = threading.Event(), []

    def load():
        con = server.connect()
        n = 0
        while not stop.is_set():
            n += 1
            con.cursor().execute("insert into t values (%s)", (n,))
            acknowledged.append(n)

    thread = threading.Thread(target=load)
    thread.start()
    wait_for("some rows", lambda: len(acknowledged) > 200)
    before = len(acknowledged)
    copied = server.freeze_copy(f"{folder}/copy")
    wait_for("the load to go on", lambda: len(acknowledged) > before + 100)
    stop.set()
    thread.join()
    assert not os.path.exists(f"{copied}/postmaster.pid")
    copy = PgServer(copied, port=free_port(20000, 20999), superuser="boss", password="s3cret")
    try:
        copy.start()
        rows = [r[0] for r in copy.sql("select a from t order by a")]
        assert rows == list(range(1, len(rows) + 1)) and before <= len(rows) <= len(acknowledged)
    finally:
        copy.remove()


def test_frozen_server_goes_on_when_the_copy_fails(server, folder, monkeypatch):
    monkeypatch.setattr(pgserver.subprocess, "run", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.freeze_copy(f"{folder}/copy")
    assert server.one("select 1") == 1


def test_ports_are_not_given_twice():
    assert len({free_port(20000, 20999) for _ in range(50)}) == 50


@pytest.mark.parametrize("how", ["exit", "kill", "frozen"])
def test_servers_die_with_their_process(folder, how):
    script = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))!r})
from lab.pgserver import PgServer
s = PgServer({folder!r} + "/d", first_port=20000, last_port=20999)
s.init(); s.start()
print(s.pid, flush=True)
if {how!r} == "frozen":
    s._freeze([], 10)
sys.exit(0) if {how!r} == "exit" else os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
    pid = int(done.stdout)
    wait_for("the orphan server to end", lambda: not pgserver._alive(pid), 20)
    assert done.returncode == (0 if how == "exit" else -signal.SIGKILL)


def test_cleanup_by_folder(folder):
    server = PgServer(f"{folder}/deep/er/d", first_port=20000, last_port=20999)
    server.init()
    server.start()
    assert pgserver.cleanup(folder) == 1
    wait_for("it to be gone", lambda: not server.is_running())
