"""keybridge replicate between two PostgreSQL servers: what arrives, what is confirmed, how it ends."""
import os
import re

import pytest

import kb

pytestmark = pytest.mark.matrix


def test_one_row(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    pair.source.sql("insert into t values (1, 'one'); update t set b = 'two'; insert into t values (2, null)")
    done = pair.replicate("--json", code=0)
    pair.same()
    result = done.json()
    assert result["changes"] == 3 and result["format"] == ("binary" if kb.SOURCE_MAJOR >= 14 else "text")


def test_pgbench_then_until(pair):
    pair.pgbench_tables()
    pair.prepare()
    pair.source.pgbench("-n", "-c", "4", "-j", "2", "-t", "500")
    pair.replicate(code=0)
    pair.same()
    pair.source.pgbench("-n", "-c", "4", "-j", "2", "-t", "100")
    pair.replicate(code=0)
    pair.same()


def test_follows_a_load(pair):
    pair.pgbench_tables()
    pair.prepare()
    run = pair.start()
    with pair.load() as load:
        kb.wait_until(lambda: pair.source.one("select count(*) from pgbench_history") > 2000)
        load.stop()
    pair.caught_up()
    pair.same()
    done = run.stop()
    assert done.code == 130, done
    assert kb.wait_until(lambda: not pair.slot_active(), 5)


# --- positions ---------------------------------------------------------------------------------------------------------

def test_trap_001_002_many_at_one_position(pair):
    """Commits back to back, and a thousand rows at one LSN, with a restart between any two runs."""
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    con = pair.source.connect()
    for n in range(5):
        with con.cursor() as cur:
            for i in range(20):
                cur.execute("insert into t values (%s, 'x')", (n * 10000 + i,))
            cur.execute("insert into t select g, 'y' from generate_series(%s, %s) g", (n * 10000 + 1000, n * 10000 + 1999))
        pair.replicate(until=pair.lsn(), code=0)
        pair.same()
    con.autocommit = False
    with con.cursor() as cur:                               # and an end in the middle of a transaction
        cur.execute("insert into t select g from generate_series(100001, 100500) g")
        middle = pair.lsn()
        cur.execute("insert into t select g from generate_series(100501, 101000) g")
    con.commit()
    pair.replicate(until=middle, code=0)
    assert pair.target.one("select count(*) from t where a > 100000") == 0
    pair.replicate(code=0)
    pair.same()
    con.close()


def lock(pair, table):
    """A connection that keeps the target's table from being written."""
    con = pair.target.connect(autocommit=False)
    con.cursor().execute(f"lock table {table} in share row exclusive mode")
    return con


@pytest.mark.needs(source=12)
def test_trap_003_nothing_is_confirmed_early(pair):
    """While the target stands still, other WAL and keepalives must not move the slot."""
    pair.both("create table t (a int primary key); create table other (a int)")
    pair.prepare("for table t")
    pair.source.sql(f"alter database {pair.id} set wal_sender_timeout = '2s'")    # so that status goes often
    pair.source.sql("insert into t values (1)")
    run = pair.start()
    pair.caught_up()
    locked = lock(pair, "t")
    before = pair.lsn()
    pair.source.sql("insert into t values (2)")
    for _ in range(20):
        pair.source.sql("insert into other select g from generate_series(1, 1000) g")
        kb.time.sleep(0.2)
    assert pair.source.one("select %s::pg_lsn <= %s::pg_lsn", (pair.confirmed(), before))
    run.kill9()
    locked.close()
    pair.source.sql("insert into t values (3)")
    pair.replicate(code=0)
    pair.same(["public.t"])


def test_trap_004_the_end_is_when_all_is_durable(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    for n in range(300):
        pair.source.sql(f"insert into t select g, repeat('x', 300) from generate_series({n * 100}, {n * 100 + 99}) g")
    locked = lock(pair, "t")
    run = pair.start(until=pair.lsn())
    kb.time.sleep(3)
    assert run.alive()
    locked.close()
    assert run.wait(30).code == 0
    pair.same()


def test_trap_004_the_end_survives_a_crash_of_the_target(fresh_server, source_server, make_pair):
    """Commits don't wait for the target's disk, the end does."""
    target = fresh_server("target", wal_writer_delay="10s", wal_writer_flush_after="1GB", fsync="on")
    pair = make_pair(source_server, target)
    pair.both("create table t (a int primary key)")
    pair.prepare()
    for n in range(2):
        pair.source.sql(f"insert into t values ({n})")
        pair.replicate(code=0)
        target.kill9()
        target.start()
        pair.same()


def test_trap_005_past_the_end(pair):
    """What commits behind the end position isn't lost for the next run, though the source has told of it."""
    pair.both("create table t (a int primary key); create table other (a int)")
    pair.prepare("for table t")
    pair.source.sql("insert into t values (1)")
    end = pair.lsn()
    pair.source.sql("insert into other select g from generate_series(1, 1000) g; insert into t values (2)")
    pair.replicate(until=end, code=0)
    assert pair.source.one("select %s::pg_lsn >= %s::pg_lsn", (pair.confirmed(), end))
    pair.source.sql("insert into t values (3)")
    pair.replicate(code=0)
    pair.same(["public.t"])


def test_until_in_the_future_waits(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    high, low = (int(x, 16) for x in pair.lsn().split("/"))
    end = f"{high:X}/{low + 100000:X}"
    run = pair.start(until=end)
    kb.time.sleep(2)
    assert run.alive()
    pair.source.sql("insert into t values (1)")
    pair.source.sql("insert into t select g from generate_series(2, 10000) g")        # commits behind the end
    assert run.wait(20).code == 0
    assert pair.target.one("select count(*) from t where a = 1") == 1
    pair.replicate(code=0)
    pair.same()


def test_until_is_reached_on_an_idle_source(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    for expression in ("pg_current_wal_insert_lsn()", "pg_current_wal_lsn()", "pg_current_wal_flush_lsn()"):
        done = pair.replicate(until=pair.source.one(f"select {expression}::text"), code=0, timeout=20)
        assert done.seconds < 5


@pytest.mark.needs(source=12)
def test_until_at_the_start_of_a_commit(pair):
    """The position of a commit record itself includes that commit."""
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    copy = f"{pair.slot}_peek"
    pair.source.sql("select pg_copy_logical_replication_slot(%s, %s, false, 'pgoutput')", (pair.slot, copy))
    commit = pair.source.one("""select substr(encode(data, 'hex'), 5, 16) from pg_logical_slot_get_binary_changes(%s, null, null,
        'proto_version', '1', 'publication_names', %s) where get_byte(data, 0) = 67""", (copy, pair.publication))
    pair.source.sql("select pg_drop_replication_slot(%s)", (copy,))
    pair.replicate(until=f"{commit[:8]}/{commit[8:]}", code=0)
    pair.same()


def test_trap_006_open_transaction_across_a_restart(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    held = pair.source.connect(autocommit=False)
    held.cursor().execute("insert into t values (1)")
    pair.source.sql("insert into t values (2)")
    pair.source.sql("insert into t values (3)")
    pair.replicate(code=0)
    held.commit()
    pair.replicate(code=0)
    pair.same()


def test_trap_007_message_before_rows(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    held = pair.source.connect(autocommit=False)
    held.cursor().execute("select pg_logical_emit_message(true, 'keybridge', 'marker')")
    pair.source.sql("insert into t values (1)")
    pair.replicate(code=0)
    held.cursor().execute("insert into t values (2)")
    held.commit()
    pair.source.sql("select pg_logical_emit_message(true, 'keybridge', 'marker'), pg_logical_emit_message(false, 'x', 'y')")
    pair.replicate(code=0)
    pair.same()


# --- transactions that are streamed or big -----------------------------------------------------------------------------

STREAMED = """
create procedure work(n int) language plpgsql as $$
begin
  for i in 1..n loop
    begin
      insert into t select 1000 * i + g, repeat('a', 20) from generate_series(1, 100) g;
      if i % 3 = 0 then raise exception 'away with it'; end if;
      update t set b = b || 'u' where a between 1000 * i and 1000 * i + 50;
      begin
        delete from t where a between 1000 * i and 1000 * i + 20;
        if i % 5 = 0 then raise exception 'only this'; end if;
      exception when others then null;
      end;
    exception when others then null;
    end;
  end loop;
end $$"""


@pytest.mark.needs(source=14)
def test_streamed_with_rolled_back_savepoints(pair):
    pair.both("create table t (a int primary key, b text); create table u (a int primary key)")
    pair.source.sql(STREAMED)
    pair.source.sql(f"alter database {pair.id} set logical_decoding_work_mem = '64kB'")
    pair.prepare()
    held = pair.source.connect(autocommit=False)                # streamed beside the others, and rolled back
    held.cursor().execute("insert into u select -g from generate_series(1, 20000) g")
    run = pair.start("--spool-memory=256KiB")
    for n in (1, 200, 3, 100):
        pair.source.sql("truncate t")
        pair.source.sql("call work(%s)", (n,)) if n else None
        pair.source.sql("insert into u values (%s)", (n,))
    held.rollback()
    pair.source.sql("alter table t add column c int default 7")
    pair.source.sql("insert into t select -g, 'y', g from generate_series(1, 5000) g")
    pair.caught_up()
    pair.same()
    assert pair.source.one("select stream_txns > 0 from pg_stat_replication_slots where slot_name = %s", (pair.slot,))
    run.stop()


@pytest.mark.needs(source=14)
def test_ddl_inside_a_streamed_transaction(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.source.sql(f"alter database {pair.id} set logical_decoding_work_mem = '64kB'")
    pair.prepare()
    run = pair.start()
    con = pair.source.connect(autocommit=False)
    cur = con.cursor()
    cur.execute("insert into t select g, 'x' from generate_series(1, 3000) g; savepoint s")
    cur.execute("alter table t add column gone int; insert into t select g, 'x', g from generate_series(3001, 6000) g; rollback to s")
    cur.execute("insert into t select g, 'x' from generate_series(6001, 9000) g")
    con.commit()
    pair.source.sql("insert into t values (0, 'after')")
    pair.caught_up()
    pair.same()
    run.stop()


def big(pair, rows, most_mib):
    pair.both("create table t (a bigint primary key, b text, c timestamptz)")
    pair.prepare()
    pair.source.sql("insert into t select g, 'row ' || g, now() from generate_series(1, %s) g", (rows,))
    run = pair.start(until=pair.lsn())
    peak = 0
    while run.alive():
        try:
            peak = max(peak, run.rss_peak())
        except (OSError, AttributeError):
            break
        kb.time.sleep(0.05)
    done = run.wait(900)
    assert done.code == 0, done
    print(f"{rows} rows, {done.seconds:.1f} s, VmHWM {peak / 2**20:.0f} MiB")
    pair.same()
    with open(kb.BIN, "rb") as f:
        if b"__asan_init" not in f.read():                      # whose quarantine keeps what was freed
            assert peak < most_mib * 2**20
    assert not os.listdir(f"{pair.kb.folder}/keybridge-state/spool")


@pytest.mark.slow
def test_big_transaction(pair):
    big(pair, 1_000_000, 256)


@pytest.mark.skipif(not os.environ.get("KB_DEEP"), reason="KB_DEEP=1: ten million rows")
@pytest.mark.timeout(1800)
def test_ten_million_rows(pair):
    big(pair, 10_000_000, 256)


def test_big_transaction_of_old_protocol_mix(pair):
    """Updates, deletes, truncate and two tables in one transaction that doesn't fit."""
    pair.both("create table t (a int primary key, b text); create table u (a int primary key); insert into u values (1), (2)")
    pair.prepare()
    pair.source.sql("""begin; insert into t select g, 'x' from generate_series(1, 30000) g; update t set b = 'y' where a % 2 = 0;
        delete from t where a % 7 = 0; truncate u; insert into u select g from generate_series(5, 3000) g;
        select pg_logical_emit_message(true, 'k', 'v'); update t set a = -a where a % 11 = 0; commit""")
    pair.source.sql("insert into u values (1)")
    pair.replicate("--spool-memory=1MiB", code=0)
    pair.same()


def test_spool_disk_full(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    locked = lock(pair, "t")
    run = pair.start("--spool-memory=1MiB", f"--spool-dir={pair.kb.folder}/small")
    kb.wait_until(pair.slot_active)
    kb.subprocess.run(["prlimit", "--pid", str(run.pid), "--fsize=200000"], check=True)
    pair.source.sql("insert into t select g, md5(g::text) from generate_series(1, 200000) g")
    done = run.wait(30)
    locked.close()
    assert done.code == 71, done
    assert "small: File too large" in done.error() and "--spool-dir" in done.hint()
    assert not os.listdir(f"{pair.kb.folder}/small")
    pair.replicate(code=0)
    pair.same()


def test_spool_on_a_full_file_system(pair):
    """A real one, which only root can make."""
    small = f"{pair.kb.folder}/full"
    os.mkdir(small)
    if kb.subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs isn't allowed")
    try:
        pair.both("create table t (a int primary key, b text)")
        pair.prepare()
        pair.source.sql("insert into t select g, md5(g::text) from generate_series(1, 200000) g")
        done = pair.replicate("--spool-memory=1MiB", f"--spool-dir={small}", code=71)
        assert "full: No space left on device" in done.error() and "--spool-dir" in done.hint()
        assert not os.listdir(small)
    finally:
        kb.subprocess.run(["umount", small], check=True)
    pair.replicate(code=0)
    pair.same()


def test_spool_folder_cannot_be_made(pair):
    pair.prepare()
    done = pair.replicate("--spool-dir=/proc/nowhere/spool", code=71)
    assert "making the spool folder /proc/nowhere" in done.error() and "--spool-dir" in done.hint()


# --- connections -------------------------------------------------------------------------------------------------------

@pytest.mark.needs(source=12)
def test_trap_028_stalled_target_keeps_the_connection(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    pair.source.sql(f"alter database {pair.id} set wal_sender_timeout = '2s'")
    run = pair.start("--apply-batch-changes=1000")
    pair.source.sql("insert into t values (0, 'x')")
    pair.caught_up()
    walsender = pair.source.one("select active_pid from pg_replication_slots where slot_name = %s", (pair.slot,))
    locked = lock(pair, "t")
    for n in range(200):
        pair.source.sql(f"insert into t select g, repeat('x', 200) from generate_series({n * 1000 + 1}, {n * 1000 + 1000}) g")
    kb.time.sleep(6)
    locked.close()
    pair.caught_up(60)
    pair.same()
    assert walsender == pair.source.one("select active_pid from pg_replication_slots where slot_name = %s", (pair.slot,))
    done = run.stop()
    assert "interrupted" not in done.err


@pytest.mark.needs(source=12)
def test_half_open_source_is_noticed(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql(f"alter database {pair.id} set wal_sender_timeout = '2s'")
    run = pair.start()
    pair.source.sql("insert into t values (1)")
    pair.caught_up()
    walsender = pair.source.one("select active_pid from pg_replication_slots where slot_name = %s", (pair.slot,))
    os.kill(walsender, kb.signal.SIGSTOP)
    try:
        kb.wait_until(lambda: "no sign of life" in run.err(), 15)
    finally:
        os.kill(walsender, kb.signal.SIGCONT)
    pair.source.sql("insert into t values (2)")
    pair.caught_up(30)
    pair.same()
    run.stop()


def test_cut_connections_are_made_again(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    run = pair.start()
    with kb.Writer(pair.source, lambda con, n: con.cursor().execute("insert into t values (%s)", (n,))) as writer:
        for server, what in ((pair.servers[0], "backend_type = 'walsender'"), (pair.servers[1], "application_name like 'keybridge%'"),
                             (pair.servers[0], "application_name like 'keybridge%'"), (pair.servers[1], "true")) * 2:
            kb.time.sleep(0.4)
            server.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{pair.id}' and {what} "
                       "and application_name <> ''")
    assert not writer.problem
    pair.caught_up(60)
    pair.same()
    assert "stream interrupted" in run.stop().err


# --- text mode ---------------------------------------------------------------------------------------------------------

def test_types_with_other_oids_go_as_text(pair):
    pair.target.sql("create type filler as (a int)")
    pair.both("create type mood as enum ('sad', 'ok'); create table t (a int primary key, m mood, ms mood[], f float8, b bytea, i interval)")
    pair.prepare()
    pair.source.sql("""alter role postgres in database {0} set datestyle = 'SQL, DMY'; alter database {0} set extra_float_digits = 0;
        alter database {0} set intervalstyle = 'sql_standard'; alter database {0} set bytea_output = 'escape'""".format(pair.id))
    pair.source.sql("""insert into t values (1, 'ok', '{sad,ok}', 0.1::float8 + 0.2::float8, '\\x00ff27', '-1 year 2 days 3:04:05.000006')""")
    done = pair.replicate("--json", code=0)
    assert done.json()["format"] == "text" and ("mood" in done.err or kb.SOURCE_MAJOR < 14)
    pair.same()


def test_column_of_another_type_goes_as_text(pair):
    pair.source.sql("create table t (a int primary key, b int)")
    pair.target.sql("create table t (a bigint primary key, b int)")
    pair.prepare()
    pair.source.sql("insert into t values (1, 2); update t set b = 3; insert into t values (2)")
    assert pair.replicate("--json", code=0).json()["format"] == "text"
    pair.same()


# --- refusals ----------------------------------------------------------------------------------------------------------

def refused(done, code, *words):
    assert done.code == code, done
    for word in words:
        assert word in done.error() + done.hint(), done
    assert done.err.count("\nkeybridge ") + done.err.startswith("keybridge ") == 1


def test_slot_missing(pair):
    pair.publish()
    refused(pair.replicate(), 4, f'replication slot "{pair.slot}" doesn\'t exist', "pg_create_logical_replication_slot")


def test_publication_missing(pair):
    pair.make_slot()
    pair.source.sql('create publication "Other one" for all tables')
    refused(pair.replicate(), 4, f'publication "{pair.publication}" doesn\'t exist', '"Other one"')


def test_slot_of_another_kind(pair):
    pair.publish()
    pair.source.sql("select pg_create_logical_replication_slot(%s, 'test_decoding')", (pair.slot,))
    refused(pair.replicate(), 4, "test_decoding", "pgoutput is needed")


def test_slot_in_use_is_waited_for(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    first = pair.start()
    pair.source.sql("insert into t values (1)")
    pair.caught_up()
    second = pair.start()
    kb.wait_until(lambda: "is in use by process" in second.err())
    first.kill9()
    pair.source.sql("insert into t values (2)")
    pair.caught_up()
    pair.same()
    second.stop()


def test_slot_in_use_gives_up(pair):
    pair.prepare()
    pair.start()
    kb.wait_until(pair.slot_active)
    refused(pair.replicate("--apply-retry=1s"), 4, "is in use by process")


def test_trap_021_start_position_before_the_slot(pair):
    pair.both("create table t (a int primary key)")
    before = pair.lsn()
    pair.source.sql("insert into t values (1)")
    pair.prepare()
    refused(pair.replicate(f"--start-lsn={before}"), 7, f"the start position {before} is before", "slot must be made before")


def test_start_position_is_kept(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    start = pair.lsn()
    pair.source.sql("insert into t values (2)")
    pair.target.sql("insert into t values (1)")                 # what a copy as of `start` holds
    pair.replicate(f"--start-lsn={start}", code=0)
    pair.same()
    pair.source.sql("insert into t values (3)")
    pair.replicate(code=0)
    pair.replicate(f"--start-lsn={start}", code=0)
    pair.same()
    refused(pair.replicate("--start-lsn=0/1"), 7, "0/1")


def test_start_is_remembered_before_the_first_transaction(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    start = pair.lsn()
    pair.target.sql("insert into t values (1)")
    locked = lock(pair, "t")
    pair.source.sql("insert into t values (2)")
    run = pair.start(f"--start-lsn={start}")
    kb.wait_until(pair.slot_active)
    run.kill9()
    locked.close()
    pair.replicate(code=0)
    pair.same()


def test_trap_021_start_position_in_the_future(pair):
    pair.prepare()
    refused(pair.replicate("--start-lsn=FFFF/0"), 7, "is behind the source's end of WAL")


@pytest.mark.parametrize("option", ["--start-lsn", "--until-lsn"])
def test_bad_lsn(pair, option):
    refused(pair.kb.run(*pair.args(f"{option}=16B374D848"), env=pair.env()), 2, option, "is not an LSN")


def test_wrong_password(pair):
    env = {"KEYBRIDGE_SOURCE": pair.source.server_dsn("wrong")}
    refused(pair.replicate(env=env), 4, "password authentication failed", "PGPASSFILE")
    env = {"KEYBRIDGE_TARGET": pair.target.server_dsn("wrong")}
    pair.prepare()
    refused(pair.replicate(env=env), 5, "password authentication failed")


def test_user_who_may_not_replicate(pair, source_server):
    pair.prepare()
    source_server.sql(f"create role plain_{pair.id} login password 'x'")
    dsn = f"postgres://plain_{pair.id}:x@{source_server.host}:{source_server.port}/{pair.id}"
    try:
        refused(pair.replicate(env={"KEYBRIDGE_SOURCE": dsn}), 4, "may not replicate", "rds_replication")
    finally:
        source_server.sql(f"drop role plain_{pair.id}")


def test_nobody_there(pair):
    env = {"KEYBRIDGE_SOURCE": f"postgres://postgres@127.0.0.1:1/{pair.id}"}
    done = pair.replicate(env=env, until="0/1")
    refused(done, 4, "Connection refused", "check that the server is up")
    assert done.seconds < 15


def test_same_database_twice(pair):
    pair.prepare()
    refused(pair.replicate(env={"KEYBRIDGE_TARGET": pair.source.dsn}), 2, "the same database")


def test_wal_level(fresh_server, target_server, make_pair):
    source = fresh_server("source", wal_level="replica")
    pair = make_pair(source, target_server)
    pair.publish()
    refused(pair.replicate(), 4, "wal_level of the source is replica", "rds.logical_replication")


def test_no_source(pair):
    refused(pair.kb.run("replicate", f"--target={pair.target.dsn}"), 2, "--source isn't given")


def test_second_signal_ends_at_once(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    run = pair.start()
    kb.wait_until(pair.slot_active)
    run.process.send_signal(kb.signal.SIGINT)
    done = run.wait(10)
    assert done.code == 130 and done.seconds < 10, done


def test_target_of_another_encoding(pair):
    pair.target.server.sql(f"drop database {pair.id}")
    pair.target.server.sql(f"create database {pair.id} template template0 encoding latin1 lc_collate 'C' lc_ctype 'C'")
    pair.both("create table \"tä\" (a int primary key, \"ö\" text)")
    pair.prepare()
    pair.source.sql("insert into \"tä\" values (1, 'é ñ ÿ'), (2, repeat('ü', 3000)); update \"tä\" set \"ö\" = \"ö\" || 'ß'")
    pair.replicate(code=0)
    assert pair.source.rows('public."tä"') == pair.target.rows('public."tä"')         # their digests are of other bytes


def test_trap_078_what_the_stream_does_not_carry_is_said(pair):
    pair.both("create table t (a int primary key); create unlogged table u (a int)")
    pair.source.sql("select lo_create(1); create materialized view m as select 1 as one")
    pair.prepare()
    pair.source.sql("insert into t values (1); insert into u values (1)")
    done = pair.replicate(until=pair.lsn())
    assert done.code == 0, done
    for what in ("public.u", "1 large objects", "public.m"):
        assert re.search(rf"not carried by the stream.*{what}", done.err), (what, done)
