"""What can happen to a replication slot, and what the stream says about it."""
import os
import re
import shutil
import threading

import pytest

from kb import drop_slot, wait_until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(300)]


def version(server):
    return int(server.one("show server_version_num")) // 10000


def write(pair, times=1, table="other", rows=20000):
    for _ in range(times):
        pair.source.sql(f"insert into {table} select g from generate_series(1, {rows}) g")


def refused(done, code, *words):
    assert done.code == code, done
    for word in words:
        assert word in done.error() + done.hint(), done
    assert "trying again" not in done.err, done


# --- quiet databases ---------------------------------------------------------------------------------------------------

@pytest.mark.needs(source=13)
def test_trap_009_010_quiet_publication_lets_wal_go(fresh_server, target_server, make_pair):
    """Only unpublished tables and another database are written to; nothing of ours is written to the source. Both positions
    of the slot advance, and the source's WAL files are recycled."""
    source = fresh_server("source", max_wal_size="32MB", min_wal_size="32MB", wal_keep_size=0)
    pair = make_pair(source, target_server)
    pair.both("create table t (a int primary key); create table other (a int)")
    source.sql("create table busy (a int)")
    pair.prepare("for table t")
    first = source.sql("select restart_lsn, confirmed_flush_lsn, pg_walfile_name(restart_lsn) from pg_replication_slots")[0]
    run = pair.start()
    for _ in range(4):
        write(pair, 4)
        source.sql("insert into busy select g from generate_series(1, 100000) g; select pg_switch_wal(); checkpoint")
        pair.caught_up()

    def moved():
        source.sql("checkpoint")                            # logs running transactions, which is what moves restart_lsn
        pair.caught_up()
        return source.one("select restart_lsn > %s::pg_lsn and confirmed_flush_lsn > %s::pg_lsn and not exists (select from"
                          " pg_ls_waldir() where name <= %s) from pg_replication_slots", first)
    wait_until(moved, 60, every=0.5)
    assert run.stop().code == 130
    assert pair.source.one("select count(*) from t") == 0


def test_trap_011_empty_transactions_are_progress(pair):
    """Only transactions that change nothing published; after a crash the stream begins where it was and not where it once
    began, on the source and on the target."""
    pair.both("create table t (a int primary key); create table other (a int)")
    start = pair.prepare("for table t")
    run = pair.start()
    write(pair, 3)
    pair.caught_up()
    confirmed = pair.confirmed()
    run.kill9()
    done = pair.replicate("--json", code=0).json()
    assert pair.source.one("select %s::pg_lsn >= %s::pg_lsn and %s::pg_lsn > %s::pg_lsn", (done["start"], confirmed, confirmed, start))


# --- how the slot does -------------------------------------------------------------------------------------------------

@pytest.mark.needs(source=13)
def test_the_state_of_the_slot_is_shown(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    run = pair.start("--json")
    pair.caught_up()
    wait_until(lambda: re.search(r"wal_status=\w+ retained_bytes=[1-9]", run.err()), 20)
    run.kill9()


@pytest.mark.needs(source=13)
def test_running_short_of_wal_is_said(fresh_server, target_server, make_pair):
    """An open transaction keeps the source from letting WAL go though all is confirmed; its limit comes nearer, then the
    slot is given up: warnings first, then an end."""
    source = fresh_server("source", max_slot_wal_keep_size="256MB", max_wal_size="32MB", min_wal_size="32MB")
    pair = make_pair(source, target_server)
    if version(source) < 13:
        pytest.skip("keeps WAL without limit")
    pair.both("create table t (a int primary key)")
    source.sql("create table other (a int)", dbname=pair.id)
    pair.prepare("for table t")
    holder = pair.source.connect(autocommit=False)
    holder.cursor().execute("insert into other values (1)")
    run = pair.start("--source-disk-free=1GiB")
    pair.source.sql("insert into t values (0)")
    pair.caught_up()

    def grow(files):
        for _ in range(files):
            source.sql("create table if not exists w (a int); insert into w values (1); select pg_switch_wal()")

    grow(4)
    wait_until(lambda: "more WAL for the slot than max_wal_size" in run.err(), 20)
    grow(3)
    line = wait_until(lambda: re.search(r"WAL kept for the slot will soon be too much.*|about to give the slot up.*", run.err()), 60)
    assert re.search(r"wal_status=\w+ retained_bytes=\d+ safe_bytes=\d+ disk_bytes=[1-9]\d+ bytes_per_s=\d+ minutes_left=\d+",
                     line.group(0)), line.group(0)
    grow(16)
    source.sql("checkpoint")
    done = run.wait(60)
    holder.close()
    assert done.code == 7 and "was invalidated: the source has removed WAL" in done.error(), done
    assert "max_slot_wal_keep_size" in done.hint()


# --- slots that aren't what they were ------------------------------------------------------------------------------------

def test_trap_012_slot_made_again(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.replicate(code=0)
    drop_slot(pair.servers[0], pair.slot)
    pair.source.sql("insert into t values (2)")
    pair.make_slot()
    refused(pair.replicate(), 7, "is confirmed up to", "the slot was made again or moved", "copy must be made again")
    assert pair.target.sql("select a from t") == [(1,)]


@pytest.mark.needs(source=13)
def test_trap_013_missing_is_not_invalidated(fresh_server, target_server, make_pair):
    source = fresh_server("source", max_slot_wal_keep_size="1MB", max_wal_size="32MB", min_wal_size="32MB")
    pair = make_pair(source, target_server)
    if version(source) < 13:
        pytest.skip("keeps WAL without limit")
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.replicate(code=0)
    for _ in range(4):
        source.sql("create table if not exists w (a int); insert into w values (1); select pg_switch_wal(); checkpoint")
    wait_until(lambda: source.one("select wal_status from pg_replication_slots") == "lost", 20)
    refused(pair.replicate(), 7, "was invalidated: the source has removed WAL", "max_slot_wal_keep_size")
    drop_slot(source, pair.slot)
    refused(pair.replicate(), 4, "doesn't exist", "somebody dropped it, or a failover lost it")


def test_trap_016_slot_without_a_confirmed_position(pair):
    """Its creation waits for an open transaction: it is there, and no stream can begin from it."""
    pair.both("create table t (a int primary key)")
    pair.publish()
    blocker = pair.source.connect(autocommit=False)
    blocker.cursor().execute("insert into t values (1)")
    made = threading.Thread(target=pair.make_slot)
    made.start()
    wait_until(lambda: pair.source.one("select true from pg_replication_slots where slot_name = %s and"
                                       " confirmed_flush_lsn is null", (pair.slot,)))
    refused(pair.replicate(), 4, "has no confirmed position", "its creation waits for open transactions")
    blocker.close()
    made.join()
    pair.replicate(code=0)


def test_plugin_that_is_not_allowed(fresh_server, target_server, make_pair):
    source = fresh_server("source")
    if source.one("select count(*) from pg_settings where name = 'output_plugin_libraries'") == 0:
        pytest.skip("has no list of plugins")
    pair = make_pair(source, target_server)
    pair.prepare()
    source.set(output_plugin_libraries="test_decoding")
    source.restart()
    refused(pair.replicate(), 4, "output_plugin_libraries of the source is 'test_decoding'", "add pgoutput")
    source.set(output_plugin_libraries="test_decoding, pgoutput")
    source.restart()
    pair.replicate(code=0)


def test_trap_029_no_setting_is_unknown_to_the_servers(pair):
    """Each session is set up with what its server knows."""
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.replicate(code=0)
    pair.same()
    for server in pair.servers:
        assert "unrecognized configuration parameter" not in server.log_text()


# --- standbys ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def standby(fresh_server, target_server, make_pair, scratch):
    """A pair on a primary of its own with a standby; pair.standby is that, pair.go_to(server) changes the source."""
    from lab.pgserver import PgServer
    import kb as kb_module
    primary = fresh_server("source", hot_standby="on", wal_keep_size="256MB", hot_standby_feedback="on")
    pair = make_pair(primary, target_server)
    pair.both("create table t (a int primary key)")
    primary.sql("select pg_create_physical_replication_slot('standby')")
    datadir = primary.freeze_copy(f"{scratch}/source-standby-{os.getpid()}")
    shutil.rmtree(f"{datadir}/pg_replslot")
    os.mkdir(f"{datadir}/pg_replslot", 0o700)
    shutil.chown(f"{datadir}/pg_replslot", *(("postgres", "postgres") if os.getuid() == 0 else (os.getuid(),)))
    server = PgServer(datadir, bindir=primary.bindir, password=kb_module.PASSWORD, first_port=25000, last_port=25999,
                      settings={**primary.settings, "primary_slot_name": "standby", "primary_conninfo":
                                f"host={primary.host} port={primary.port} user=postgres password={kb_module.PASSWORD} dbname={pair.id}",
                                **({"sync_replication_slots": "on"} if version(primary) >= 17 else {})})
    server.put_file("standby.signal", b"")
    server.start()
    pair.primary, pair.standby = primary, server

    def go_to(other):
        pair.source.server = other
        pair.servers = (other, pair.servers[1])
    pair.go_to = go_to
    yield pair
    drop_slot(server, pair.slot)
    go_to(primary)
    server.remove()
    primary.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'standby' and not active")


def in_step(pair):
    lsn = pair.primary.one("select pg_current_wal_lsn()")
    wait_until(lambda: pair.standby.one("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)), what="the standby")


@pytest.mark.needs(source=13)
def test_trap_014_promoted_standby_without_the_slot(standby):
    """After a failover the slot is gone: said, and not tried for ever."""
    standby.prepare()
    standby.source.sql("insert into t values (1)")
    standby.replicate(code=0)
    in_step(standby)
    standby.primary.stop("immediate")
    standby.standby.sql("select pg_promote()")
    standby.go_to(standby.standby)
    refused(standby.replicate(), 4, "doesn't exist", "a failover lost it", "the copy must be made again")
    standby.make_slot()                                       # a new one begins too late, and that is seen, too
    refused(standby.replicate(), 7, "is confirmed up to", "the copy must be made again")
    standby.go_to(standby.primary)
    standby.primary.start()


@pytest.mark.needs(source=13)
def test_trap_014_failover_slot_survives(standby):
    if version(standby.primary) < 17:
        pytest.skip("has no failover slots")
    standby.publish()
    standby.source.sql("select pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)", (standby.slot,))
    standby.source.sql("insert into t values (1)")
    standby.replicate(code=0)
    run = standby.start()

    def synced():
        standby.source.sql("select pg_log_standby_snapshot()")
        return standby.standby.one("select synced and not temporary from pg_replication_slots where slot_name = %s", (standby.slot,))
    wait_until(synced, 90, every=1)
    run.stop()
    in_step(standby)
    standby.go_to(standby.standby)
    refused(standby.replicate(until="0/1"), 4, "is kept in step with its primary's", "connect to the primary")
    standby.primary.stop("immediate")
    standby.standby.sql("select pg_promote()")
    standby.source.sql("insert into t values (2)")
    standby.replicate(code=0)
    standby.same()
    standby.go_to(standby.primary)
    standby.primary.start()


@pytest.mark.needs(source=13)
def test_trap_018_connected_to_a_reader(standby):
    """Below 16 a standby can't decode; from 16 on it can, and the stream works."""
    standby.publish()
    in_step(standby)
    standby.go_to(standby.standby)
    if version(standby.primary) < 16:
        refused(standby.kb.run(*standby.args(until="0/1"), env=standby.env()), 4, "the source is a standby", "connect to the primary")
        return
    made = threading.Thread(target=standby.make_slot)
    made.start()

    def done():
        standby.primary.sql("select pg_log_standby_snapshot()")
        return not made.is_alive()
    wait_until(done, 60, every=0.3)
    standby.primary.sql("insert into t values (1), (2)", dbname=standby.id)
    end = standby.primary.one("select pg_current_wal_lsn()::text")
    standby.primary.sql("insert into t values (3)", dbname=standby.id)
    in_step(standby)
    standby.replicate(until=end, code=0)
    assert standby.target.one("select count(*) from t") >= 2
