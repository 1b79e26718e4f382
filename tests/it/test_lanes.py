"""Lanes: what may be written side by side is, and what may not comes out right all the same."""
import pytest

import kb

pytestmark = pytest.mark.matrix

MORE = ["--lanes=4", "--log-level=debug"]


def lanes_used(pair, since="0/0"):
    """Over how many lanes the widest batch since a position went: how a backlog is cut depends on the moment."""
    return pair.target.one("select max(lanes) from keybridge.progress where last_commit::pg_lsn > %s", (since,))


@pytest.fixture
def pair(pair):
    """All lanes are used, however fast the target is; a release build can't be asked to, and uses as few as keep up."""
    pair.kb.env["KB_ALL_LANES"] = "1"
    return pair


def went_over(pair, lanes, since="0/0"):
    return not kb.has_hooks() or lanes_used(pair, since) == lanes


def replayed(done):
    return done.err.count("batch is replayed in exact order")


def test_a_table_with_unique_indexes_is_cut(pair):
    """Every kind of unique index that can be looked through: more of them, several columns, partial, NULLS."""
    pair.both("""create table t (id int primary key, u int unique, a int, b text, c text, unique (a, b));
        create unique index on t (c) where a > 100""")
    pair.prepare()
    pair.source.sql("insert into t select g, g, g % 50, 'b' || g, 'c' || g from generate_series(1, 4000) g")
    done = pair.replicate(*MORE, code=0)
    assert went_over(pair, 4) and replayed(done) == 0
    since = pair.lsn()
    pair.source.sql("update t set b = b || 'x', u = u + 10000")
    pair.source.sql("delete from t where id % 4 = 0")
    done = pair.replicate(*MORE, code=0)
    pair.same()
    assert went_over(pair, 4, since) and replayed(done) == 0


@pytest.mark.parametrize("index", ["unique index on t (lower(v))", "unique index on t (n)", "index on t (v)"])
def test_indexes_that_cannot_be_looked_through(pair, index):
    """Equality wider than the bytes': the whole table goes to one lane. An ordinary index doesn't matter."""
    pair.both(f"create table t (id int primary key, n numeric, v text); create {index}")
    pair.prepare()
    pair.source.sql("insert into t select g, g, 'v' || g from generate_series(1, 2000) g")
    pair.replicate(*MORE, code=0)
    pair.same()
    assert went_over(pair, 1 if "unique" in index else 4)


def test_rows_that_hand_on_a_value_share_a_lane(pair):
    """Under FULL every move of a unique value is seen: nothing has to be tried twice."""
    pair.both("create table t (id int primary key, u int unique, v text); alter table t replica identity full")
    pair.prepare()
    pair.source.sql("insert into t select g, g, 'v' from generate_series(1, 3000) g")
    pair.replicate(*MORE, code=0)
    con = pair.source.connect()
    with con.cursor() as cur:
        for i in range(0, 600, 3):
            cur.execute("update t set u = null where id = %s; update t set u = %s where id = %s; update t set u = %s where id = %s",
                        (i + 1, i + 1, i + 2, i + 2, i + 3))
        cur.execute("update t set v = 'w'")
        cur.execute("delete from t where id = 2000")
        cur.execute("insert into t values (9000, 2000, 'in its place')")
    con.close()
    done = pair.replicate(*MORE, code=0)
    pair.same()
    assert went_over(pair, 4) and replayed(done) == 0, done


def test_values_that_move_unseen(pair):
    """Without old rows the second lane waits for the first: that is seen, the batch is replayed, and the table isn't cut for a while."""
    pair.both("create table t (id int primary key, u int unique, v text)")
    pair.prepare()
    pair.source.sql("insert into t select g, g, 'v' from generate_series(1, 3000) g")
    pair.replicate(*MORE, code=0)
    run = pair.start(*MORE)
    for n in range(3):
        pair.source.sql("delete from t where id <= 600")
        pair.source.sql("insert into t select 100000 * %s + g, g, 'has it now' from generate_series(1, 600) g", (n + 1,))
        pair.source.sql("delete from t where id > 100000 * %s", (n + 1,))
        pair.source.sql("insert into t select g, g, 'back' from generate_series(1, 600) g")
        pair.caught_up()
    pair.same()
    assert run.stop().err.count("waited for each other") <= 1


def test_key_moves_leave_the_others_set_wise(pair):
    pair.both("create table t (id int primary key, v text)")
    pair.prepare()
    pair.source.sql("insert into t select g, 'v' from generate_series(1, 3000) g")
    pair.replicate(*MORE, code=0)
    since = pair.lsn()
    pair.source.sql("update t set id = id + 10000 where id % 100 = 0")
    pair.source.sql("update t set v = 'w' where id % 2 = 0")
    pair.source.sql("update t set id = id - 10000 where id > 10000")
    done = pair.replicate(*MORE, code=0)
    pair.same()
    assert went_over(pair, 4, since) and replayed(done) == 0


def test_cascades_come_as_rows(pair):
    """Foreign keys don't order rows: the lanes' sessions are replicas, whose constraint triggers and actions don't fire."""
    pair.both("""create table p (id int primary key); create table c (id int primary key, p int references p on delete cascade on update cascade);
        create table d (id int primary key, c int references c on delete set null)""")
    pair.prepare()
    pair.source.sql("insert into p select g from generate_series(1, 1000) g; insert into c select g, g from generate_series(1, 1000) g;"
                    "insert into d select g, g from generate_series(1, 1000) g")
    pair.source.sql("delete from p where id % 3 = 0")
    pair.source.sql("update p set id = id + 5000 where id % 2 = 0")
    pair.source.sql("delete from c where id % 5 = 0")
    done = pair.replicate(*MORE, code=0)
    pair.same()
    assert went_over(pair, 4) and replayed(done) == 0
    assert kb.difference(pair.source, pair.target) is None


def test_a_key_without_an_index_is_told_once(pair):
    """Right all the same, but slow: whoever watches hears of it, once a table, and not of tables that only get inserts."""
    pair.both("create table i (id int primary key); create table n (id int, v text); create table h (a int); create table f (a int, b int); alter table f replica identity full")
    pair.source.sql("alter table n add primary key (id)")
    pair.target.sql("create index on n (v); create index on n (id) where id > 5")
    pair.prepare()
    for _ in range(2):
        for text in ("insert into i values (1)", "insert into n values (1, 'a')", "update n set v = 'b'", "delete from i", "delete from n", "insert into h values (1)",
                     "insert into f values (1, 1), (1, 1)", "update f set b = 2 where a = 1", "truncate n"):
            pair.source.sql(text)
    done = pair.replicate("--apply-batch-changes=1", code=0)
    told = [line for line in done.err.splitlines() if "reads the whole table" in line]
    assert len(told) == 2 and 'table=public.n key="without an index"' in told[0] and "table=public.f key=none" in told[1], told
    assert pair.source.sql("select * from f") == pair.target.sql("select * from f")


def test_equal_rows_in_one_reading(pair):
    """A thousand changes of a table without a key don't read it a thousand times, and change as many of equal rows as the source did."""
    pair.both("create table t (a int, b text, n numeric); alter table t replica identity full; insert into t select g % 500, 'b', 1.0 from generate_series(1, 20000) g;"
              "insert into t select g % 500, 'b', 1.00 from generate_series(1, 1000) g")
    pair.prepare()
    pair.source.sql("delete from t where ctid in (select ctid from t where n::text = '1.0' limit 1500)")
    pair.source.sql("update t set b = 'c' where ctid in (select ctid from t where n::text = '1.00' limit 900)")
    pair.source.sql("update t set b = 'd', n = 1.000 where b = 'c' and a < 100")
    pair.source.sql("insert into t values (1, 'new', null), (1, 'new', null)")
    pair.source.sql("delete from t where ctid in (select ctid from t where b = 'new' limit 1)")
    before = pair.target.one("select seq_tup_read from pg_stat_user_tables where relname = 't'")
    done = pair.replicate("--log-level=debug", code=0)
    pair.same()
    assert replayed(done) == 0, done
    kb.wait_until(lambda: pair.target.one("select seq_tup_read from pg_stat_user_tables where relname = 't'") > before)
    assert pair.target.one("select seq_tup_read from pg_stat_user_tables where relname = 't'") - before < 20 * 21000
