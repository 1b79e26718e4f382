"""Transactions that the source streams before they commit; publications that don't publish everything."""
import os
import random
import threading

import pytest

from kb import Failed, wait_until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]
DEEP = os.environ.get("KB_DEEP")


@pytest.fixture
def small(pair, source_server):
    """A pair whose source streams whatever is bigger than 64 kB."""
    if int(source_server.one("show server_version_num")) >= 130000:
        pair.source.sql(f"alter role {source_server.superuser} in database {pair.id} set logical_decoding_work_mem = '64kB'")
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    return pair


def transaction(pair, dice, base, end, pause=None):
    """Rows from base on, savepoints nested and rolled back at random, ended by commit or rollback."""
    with pair.source.connect() as con, con.cursor() as cur:
        cur.execute("begin")
        depth = 0
        for i in range(12):
            at = base + i * 1000
            cur.execute(f"insert into t select g, repeat('x', 20) from generate_series({at}, {at} + 399) g")
            cur.execute(f"update t set b = 'u' where a between {at} and {at} + 30")
            kind = dice.random()
            if kind < .5:
                depth += 1
                cur.execute(f"savepoint s{depth}")
            elif depth and kind < .8:
                to = dice.randint(1, depth)
                cur.execute(f"rollback to s{to}")
                depth = to
            elif depth:
                cur.execute(f"release s{depth}")
                depth -= 1
            if pause:
                pause()
        cur.execute(end)


def test_several_at_once_with_rolled_back_savepoints(small):
    """Eight transactions whose blocks are interleaved, some of them rolled back as a whole."""
    run = small.start()
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=transaction, args=(
        small, random.Random(n), n * 100000, "rollback" if n % 3 == 2 else "commit", lambda: barrier.wait(60))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    small.caught_up(60)
    assert run.stop().code == 130
    small.same()
    assert small.target.one("select count(distinct a / 100000) from t") == 6


def test_kills_in_the_middle(small):
    """Killed while transactions are being streamed, and before and after their end."""
    dice = random.Random(3)
    run = [small.start()]

    def kill_now_and_then():
        if dice.random() < .3:
            run[0].kill9()
            run[0] = small.start()
    for n in range(6):
        transaction(small, random.Random(n + 100), n * 100000, "rollback" if n == 4 else "commit", kill_now_and_then)
    small.caught_up(60)
    assert run[0].stop().code == 130
    small.same()


def test_small_ones_go_on_beside_an_open_one(small):
    """Somebody's big open transaction doesn't hold the others up."""
    run = small.start()
    with small.source.connect(autocommit=False) as con, con.cursor() as cur:
        cur.execute("insert into t select g, repeat('x', 100) from generate_series(1, 20000) g")
        small.source.sql("insert into t values (-1)")
        wait_until(lambda: small.target.one("select count(*) from t where a = -1") == 1)
        cur.execute("savepoint s; insert into t values (-2), (-3); rollback to s")
        small.source.sql("insert into t values (-4)")
        wait_until(lambda: small.target.one("select count(*) from t") == 2)
        con.commit()
    small.caught_up()
    assert run.stop().code == 130
    small.same()


def test_ddl_inside(small):
    """A table made and changed inside a streamed transaction, in parts that stay and parts that don't."""
    small.target.sql("create table u (a int primary key, b int, c text)")
    with small.source.connect() as con, con.cursor() as cur:
        for statement in ("begin", "create table u (a int primary key)",
                          "insert into u select g from generate_series(1, 3000) g", "savepoint s",
                          "alter table u add x int default 1", "insert into u select g, g from generate_series(3001, 6000) g",
                          "rollback to s", "alter table u add b int", "insert into u select g, g from generate_series(6001, 9000) g",
                          "alter table u add c text default 'c'", "insert into u select g, g, 'x' from generate_series(9001, 12000) g",
                          "update u set c = 'y' where a % 7 = 0", "commit"):
            cur.execute(statement)
    small.target.sql("alter table u alter c set default 'c'")
    small.replicate(code=0)
    count, low = small.target.sql("select count(*), sum(a) from u")[0]
    assert (count, low) == small.source.sql("select count(*), sum(a) from u")[0]
    assert small.source.sql("select a, b, c from u order by 1") == small.target.sql("select a, b, c from u order by 1")


def streams(pair):
    return pair.source.one("select current_setting('server_version_num')::int") >= 140000


def spooled(run):
    """Bytes in its spool's files, which have no names."""
    fds = f"/proc/{run.pid}/fd"
    return sum(os.stat(f"{fds}/{fd}").st_size for fd in os.listdir(fds) if "/spool/" in os.readlink(f"{fds}/{fd}"))


def memory_of_an_aborted_one(pair, rows):
    run = pair.start("--spool-memory=1MiB")
    pair.source.sql("insert into t values (-1)")
    pair.caught_up()
    with pair.source.connect() as con, con.cursor() as cur:
        cur.execute("begin")
        for i in range(10):
            cur.execute(f"savepoint s; insert into t select g, 'lost' from generate_series({i * rows // 10 + 1}, {i * rows // 10 + rows // 20}) g")
            cur.execute("rollback to s")
            cur.execute(f"insert into t select g, 'kept' from generate_series({i * rows // 10 + 1}, {(i + 1) * rows // 10}) g")
        peak = run.rss_peak()
        if streams(pair):
            wait_until(lambda: spooled(run) > 0, what="the spool to be used")
        cur.execute("rollback")
    pair.source.sql("insert into t values (-2)")
    pair.caught_up(600)
    peak = max(peak, run.rss_peak())
    assert spooled(run) == 0
    assert run.stop().code == 130
    pair.same()
    assert pair.target.one("select count(*) from t") == 2
    return peak


def test_trap_079_streamed_with_savepoints_then_aborted(small):
    """KB_DEEP makes it ten million rows. Nothing of it arrives, memory stays bounded, nothing is left in the spool."""
    peak = memory_of_an_aborted_one(small, 10_000_000 if DEEP else 200_000)
    assert peak < 256 << 20, f"{peak >> 20} MiB resident"
    left = [f for f in os.listdir(small.kb.folder + "/keybridge-state/spool")] if os.path.isdir(small.kb.folder + "/keybridge-state/spool") else []
    assert left == []


def test_protocol_is_the_best_the_source_has(small, source_server):
    version = int(source_server.one("show server_version_num")) // 10000
    want = 4 if version >= 16 else 3 if version >= 15 else 2 if version >= 14 else 1
    done = small.replicate(code=0)
    assert f"protocol={want} " in done.err


def test_rows_that_came_from_elsewhere_move_too(small):
    """An origin on the source's transactions (it was replicated there, or marked) keeps nothing back."""
    small.source.sql("select pg_replication_origin_create('el''se where')")
    try:
        con = small.source.connect()
        for statement in ("select pg_replication_origin_session_setup('el''se where')",
                          "begin", "select pg_replication_origin_xact_setup('0/ABCDEF', now())",
                          "insert into t select g, repeat('x', 50) from generate_series(1, 5000) g", "commit",
                          "begin", "select pg_replication_origin_xact_setup('0/ABCDFF', now())", "insert into t values (0)", "commit"):
            con.cursor().execute(statement)
        con.close()
        small.replicate(code=0)
        small.same()
    finally:
        wait_until(lambda: small.source.one("select count(*) from pg_stat_activity where datname = current_database() and pid <>"
                                            " pg_backend_pid() and backend_type = 'client backend'") == 0)
        small.source.sql("select pg_replication_origin_drop('el''se where')")


# --- publications that leave something out ---------------------------------------------------------------------------------

@pytest.mark.needs(source=15)
def test_row_filter(pair):
    """Rows move into and out of the filter: what is published is what arrives, and that it isn't all is said."""
    pair.both("create table t (a int primary key, b int)")
    pair.prepare("for table t where (a > 0)")
    pair.source.sql("insert into t values (1, 1), (-1, 1), (2, 2), (3, 3), (-4, 4)")
    pair.source.sql("update t set a = -2 where a = 2; update t set a = 4 where a = -4; update t set b = 9; delete from t where a = 3")
    done = pair.replicate(code=0)
    assert 'event="the publication leaves something out"' in done.err and 'what="only some rows of public.t"' in done.err
    assert pair.target.sql("select * from t order by 1") == pair.source.sql("select * from t where a > 0 order by 1")


@pytest.mark.needs(source=15)
def test_column_list(pair):
    pair.both("create table t (a int primary key, b int, c text default 'own')")
    pair.prepare("for table t (a, b)")
    pair.source.sql("insert into t values (1, 1, 'x'), (2, 2, 'y'); update t set b = 3, c = 'z' where a = 1; update t set a = 5 where a = 2")
    done = pair.replicate(code=0)
    assert 'what="only some columns of public.t"' in done.err
    assert pair.target.sql("select * from t order by 1") == [(1, 3, "own"), (5, 2, "own")]


def test_some_operations(pair):
    pair.both("create table t (a int primary key, b int)")
    pair.publish(options="with (publish = 'insert, update')")
    pair.make_slot()
    pair.source.sql("insert into t values (1, 1), (2, 2); update t set b = 3; delete from t where a = 1; truncate t")
    done = pair.replicate(code=0)
    assert "it doesn't publish DELETE, TRUNCATE" in done.err
    assert pair.target.sql("select * from t order by 1") == [(1, 3), (2, 3)]


def test_a_filter_that_comes_later(pair, source_server):
    """Told at the next start, and a row that was there before stays as it was."""
    if int(source_server.one("show server_version_num")) < 150000:
        pytest.skip("has no filters")
    pair.both("create table t (a int primary key, b int)")
    pair.prepare("for table t")
    pair.source.sql("insert into t values (1, 1), (2, 2)")
    assert "leaves something out" not in pair.replicate(code=0).err
    pair.source.sql(f"alter publication {pair.publication} set table t where (a > 1)")
    pair.source.sql("update t set b = 9")
    assert "only some rows of public.t" in pair.replicate(code=0).err
    assert pair.target.sql("select * from t order by 1") == [(1, 1), (2, 9)]
    with pytest.raises(Failed):
        pair.same()
