"""What servers and disks refuse: one line that says what to do, the right exit code, nothing left behind."""
import os
import re
import subprocess

import pytest

import kb as kb_module
from kb import wait_until
from test_cli import ENCODED, assert_report


def as_user(database, user):
    return database.dsn.replace("postgres:" + ENCODED, f"{user}:{ENCODED}")


@pytest.fixture
def plain_user(pair):
    """A role on both servers that may log in and write, and nothing else."""
    name = f"plain_{pair.id}"
    for side in (pair.source, pair.target):
        side.sql(f"create role {name} login password '{kb_module.PASSWORD}'")
        side.sql(f"grant all on schema public to {name}")
    yield name
    for side in (pair.source, pair.target):
        side.sql(f"drop owned by {name}; drop role {name}")


def test_source_without_replication_privilege(pair, plain_user):
    pair.prepare()
    done = pair.replicate(timeout=30, env={"KEYBRIDGE_SOURCE": as_user(pair.source, plain_user)})
    assert_report(done, 4, "may not replicate")
    assert done.hint()
    assert pair.slot_active() is False


def test_target_without_privilege(pair, plain_user):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    done = pair.replicate(timeout=30, env={"KEYBRIDGE_TARGET": as_user(pair.target, plain_user)})
    assert_report(done, 5, "(?i)permission")
    assert pair.target.one("select count(*) from t") == 0


def test_second_process_is_refused(pair):
    pair.prepare()
    first = pair.start()
    wait_until(pair.slot_active, 20, "the stream")
    done = pair.kb.run(*pair.args("--apply-retry=2s", until=pair.lsn()), timeout=60, env=pair.env())
    assert done.code in (4, 7), done
    assert done.error()
    assert first.alive()
    first.stop()


def test_start_behind_progress_is_refused(pair):
    pair.both("create table t (a int primary key)")
    start = pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.kb.run(*pair.args(f"--start-lsn={start}", until=pair.lsn()), code=0, env=pair.env())
    pair.source.sql("insert into t values (2)")
    done = pair.kb.run(*pair.args(f"--start-lsn={pair.lsn()}", until=pair.lsn()), timeout=30, env=pair.env())
    assert_report(done, 7, "start")
    pair.replicate(code=0)
    pair.same()


def test_table_missing_on_the_target(pair):
    pair.source.sql("create table only_here (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into only_here values (1)")
    done = pair.replicate(timeout=60)
    assert done.code in (5, 7), done
    assert "only_here" in done.error(), done
    pair.target.sql("create table only_here (a int primary key)")
    pair.replicate(code=0)
    pair.same()


def test_column_missing_on_the_target(pair):
    pair.source.sql("create table c (a int primary key, b text)")
    pair.target.sql("create table c (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into c values (1, 'x')")
    done = pair.replicate(timeout=60)
    assert done.code in (5, 7), done
    assert re.search(r"\bc\b", done.error()), done
    assert pair.target.one("select count(*) from c") == 0


def test_row_that_is_there_already(pair):
    """Somebody wrote to the target: that is for a person to decide, and nothing may be skipped or overwritten."""
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    pair.target.sql("insert into t values (7, 'theirs')")
    pair.source.sql("insert into t values (6, 'ours'); insert into t values (7, 'ours')")
    done = pair.replicate(timeout=60)
    assert_report(done, 7)
    assert re.search(r"\bt\b", done.error()) and "7" in done.error(), done
    assert pair.target.one("select b from t where a = 7") == "theirs"
    pair.target.sql("delete from t where a = 7")
    pair.replicate(code=0)
    pair.same()


def test_update_that_matches_no_row(pair):
    pair.both("create table t (a int primary key, b text); insert into t values (1, 'x'), (2, 'y')")
    pair.prepare()
    pair.target.sql("delete from t where a = 2")
    pair.source.sql("update t set b = 'z' where a = 2")
    done = pair.replicate(timeout=60)
    assert_report(done, 7)
    assert re.search(r"\bt\b", done.error()), done


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_full_spool_disk(pair, tmp_path):
    pair.both("create table big (a int primary key, b text)")
    pair.prepare()
    pair.source.sql("insert into big select i, md5(i::text) || md5((-i)::text) from generate_series(1, 60000) i")
    spool = tmp_path / "small"
    spool.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(spool)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting isn't allowed here")
    try:
        done = pair.kb.run(*pair.args(f"--spool-dir={spool}", "--spool-memory=64KiB", "--apply-retry=2s", until=pair.lsn()),
                           timeout=90, env=pair.env())
        assert_report(done, 71, "(?i)no space")
        assert not [f for f in spool.rglob("*") if f.is_file()], "left on the disk"
    finally:
        subprocess.run(["umount", str(spool)], check=True)
    pair.replicate(f"--spool-dir={tmp_path}", "--spool-memory=64KiB", timeout=120, code=0)
    pair.same()


def test_trap_019_slot_older_than_its_publication(pair):
    """What was written before the publication can't be decoded with it: the server says so, we say what to do."""
    pair.both("create table t (a int primary key)")
    pair.source.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", [pair.slot])
    pair.source.sql("insert into t values (1)")
    pair.source.sql(f'create publication "{pair.publication}" for all tables')
    pair.source.sql("insert into t values (2)")
    done = pair.replicate(until=pair.lsn())
    if done.code == 0:                                              # 18 and later look it up as it is now
        pair.same()
        return
    assert done.code == 4 and pair.publication in done.error() and "does not exist" in done.error(), done
    assert "before" in done.hint() and "slot" in done.hint(), done
    assert pair.target.one("select count(*) from t") == 0
