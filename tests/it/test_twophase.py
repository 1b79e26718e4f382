"""Prepared transactions: across the start, the end and restarts, from slots with and without two_phase."""
import random

import pytest

from kb import wait_until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(300)]


@pytest.fixture(params=[False, True], ids=["whole", "two_phase"])
def ready(request, pair, source_server):
    """A pair with table t on both sides, publication and slot; with the slot's two_phase where the source has it."""
    if request.param and version(source_server) < 14:
        pytest.skip("has no slots with two_phase")
    pair.two_phase = request.param and version(source_server) >= 15        # 14's pgoutput can't do it
    pair.both("create table t (a int primary key, b text)")
    pair.publish()
    pair.source.sql("select pg_create_logical_replication_slot(%s, 'pgoutput'" + (", false, true)" if request.param else ")"),
                    (pair.slot,))
    pair.gids = []
    yield pair
    for (gid,) in pair.source.sql("select gid from pg_prepared_xacts where database = current_database()"):
        pair.source.sql(f"rollback prepared '{gid}'")


def version(server):
    return int(server.one("show server_version_num")) // 10000


def prepare(pair, gid, *statements):
    with pair.source.connect() as con, con.cursor() as cur:
        cur.execute("begin")
        for statement in statements:
            cur.execute(statement)
        cur.execute(f"prepare transaction '{pair.id}-{gid}'")


def commit(pair, gid):
    pair.source.sql(f"commit prepared '{pair.id}-{gid}'")


def rollback(pair, gid):
    pair.source.sql(f"rollback prepared '{pair.id}-{gid}'")


def keys(pair):
    return [a for (a,) in pair.target.sql("select a from t order by 1")]


def test_prepared_before_the_start(ready):
    """A slot made before the copy, a start position after the PREPARE: the copy has rolled it back, all of it is sent."""
    prepare(ready, "x", "insert into t values (1, 'one')", "update t set b = 'eins' where a = 1")
    start = ready.lsn()
    ready.source.sql("insert into t values (2, 'two')")
    commit(ready, "x")
    ready.replicate(f"--start-lsn={start}", code=0)
    ready.same()
    assert keys(ready) == [1, 2]


def test_trap_080_prepared_before_the_end(ready):
    """PREPARE before the end position and COMMIT PREPARED after it: not part of it, and not waited for; then it comes."""
    ready.source.sql("insert into t values (1)")
    prepare(ready, "x", "insert into t values (2)")
    end = ready.lsn()
    ready.source.sql("insert into t values (3)")           # a commit that began at the very end would be part of it
    commit(ready, "x")
    ready.replicate(until=end, code=0)
    assert keys(ready) == [1]
    ready.replicate(code=0)
    ready.same()


def test_prepared_and_still_open_at_the_end(ready):
    ready.source.sql("insert into t values (1)")
    prepare(ready, "x", "insert into t values (2)")
    ready.replicate(code=0)
    assert keys(ready) == [1]
    ready.source.sql("insert into t values (3)")
    ready.replicate(code=0)
    assert keys(ready) == [1, 3]
    commit(ready, "x")
    ready.replicate(code=0)
    ready.same()
    assert keys(ready) == [1, 2, 3]


def test_rolled_back(ready):
    prepare(ready, "x", "insert into t values (1)")
    prepare(ready, "y", "insert into t values (2)")
    ready.replicate(code=0)
    rollback(ready, "x")
    ready.source.sql("insert into t values (3)")
    ready.replicate(code=0)
    rollback(ready, "y")
    prepare(ready, "x", "insert into t values (2)")
    commit(ready, "x")
    ready.replicate(code=0)
    ready.same()
    assert keys(ready) == [2, 3]


def test_order_is_that_of_the_commits(ready):
    """The prepared one changes a row first and commits last."""
    ready.source.sql("insert into t values (1, 'a'), (2, 'a')")
    prepare(ready, "x", "update t set b = 'x' where a = 1", "delete from t where a = 2")
    ready.source.sql("insert into t values (3, 'b')")
    commit(ready, "x")
    ready.source.sql("update t set b = 'c' where a = 1; insert into t values (2, 'again')")
    ready.replicate(code=0)
    ready.same()


def test_confirmed_stays_before_the_prepare(ready):
    """What a restart needs may not be confirmed; when it is durable, it must be."""
    run = ready.start()
    prepare(ready, "x", "insert into t values (1)")
    after = ready.lsn()
    ready.source.sql("insert into t values (2)")
    wait_until(lambda: keys(ready) == [2])
    if ready.two_phase:
        ready.source.sql("insert into t values (3)")
        wait_until(lambda: keys(ready) == [2, 3])
        assert ready.source.one("select %s::pg_lsn >= confirmed_flush_lsn from pg_replication_slots where slot_name = %s",
                                (after, ready.slot))
    run.kill9()
    commit(ready, "x")
    run = ready.start()
    ready.caught_up()
    ready.same()
    assert run.stop().code == 130


@pytest.mark.needs(source=13)
def test_prepared_with_savepoints_and_streamed(ready, source_server):
    """Big enough to be streamed before it is prepared, with parts that were rolled back; two of them at once."""
    ready.source.sql(f"alter role {source_server.superuser} in database {ready.id} set logical_decoding_work_mem = '64kB'")
    run = ready.start()
    for gid, base in (("x", 0), ("y", 100000)):
        prepare(ready, gid, f"insert into t select i, repeat('v', 50) from generate_series({base} + 1, {base} + 3000) i",
                "savepoint lost", f"insert into t select i, 'lost' from generate_series({base} + 5001, {base} + 8000) i",
                "rollback to lost", "savepoint kept", f"delete from t where a between {base} + 1 and {base} + 1000",
                "release kept")
    ready.source.sql("insert into t values (-1)")
    wait_until(lambda: keys(ready) == [-1])
    run.kill9()
    run = ready.start()
    commit(ready, "y")
    wait_until(lambda: len(keys(ready)) == 2001)
    rollback(ready, "x")
    ready.source.sql("insert into t values (-2)")
    ready.caught_up()
    ready.same()
    assert run.stop().code == 130


def test_ddl_inside(ready):
    """A table that was changed in a prepared transaction."""
    ready.both("create table u (a int primary key)")
    ready.target.sql("alter table u add b int default 7")
    run = ready.start("--ddl=stop")
    ready.source.sql("insert into u values (0)")
    ready.caught_up()
    prepare(ready, "x", "alter table u add b int default 7", "insert into u values (1, 2)")
    ready.source.sql("insert into t values (1)")
    wait_until(lambda: keys(ready) == [1])
    commit(ready, "x")
    ready.source.sql("insert into u values (2, 3)")
    ready.caught_up()
    assert run.stop().code == 130
    ready.same()


def test_table_locked_by_a_prepared_transaction(ready, source_server):
    """Versions from 16 on lock published tables to tell their columns: the stream must say what it waits for."""
    prepare(ready, "x", "lock table t in access exclusive mode", "insert into t values (1)")
    if version(source_server) < 16:
        ready.replicate(code=0)
        assert keys(ready) == []
        commit(ready, "x")
    else:
        run = ready.start()
        wait_until(lambda: "holds an exclusive lock on a published table" in run.err())
        commit(ready, "x")
        ready.caught_up()
        assert run.stop().code == 130
    ready.replicate(code=0)
    ready.same()


def test_kills_anywhere(ready):
    """A load of prepared transactions, with kill -9 at random moments."""
    dice = random.Random(5)
    waiting, run = [], ready.start()
    for i in range(120):
        kind = dice.random()
        if kind < .5:
            prepare(ready, i, f"insert into t values ({i}, 'p')", "savepoint s", f"insert into t values ({i} + 100000)",
                    "rollback to s", f"insert into t values ({i} + 200000)")
            waiting.append(i)
        elif waiting and kind < .9:
            gid = waiting.pop(dice.randrange(len(waiting)))
            dice.choice((commit, commit, rollback))(ready, gid)
        else:
            ready.source.sql(f"insert into t values ({i} + 300000)")
        if i % 12 == 11:
            run.kill9()
            run = ready.start()
    for gid in waiting:
        commit(ready, gid)
    ready.caught_up(60)
    assert run.stop().code == 130
    ready.same()


def test_slot_moved_past_a_prepare(ready):
    """Somebody else moved the slot: what was prepared can't be had any more, and must not be left out silently."""
    if not ready.two_phase:
        pytest.skip("there it comes whole")
    prepare(ready, "x", "insert into t values (1)")
    ready.source.sql("insert into t values (2)")
    ready.source.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", (ready.slot,))
    commit(ready, "x")
    done = ready.replicate(code=7)
    assert f"'{ready.id}-x'" in done.error() and "PREPARE is before the start" in done.error(), done
    assert keys(ready) == []
