"""The tests' own tools: a comparison that can't see a difference proves nothing."""
import pytest

import kb


AWKWARD = """create table a (k int primary key, f float8, b bytea, t text, n numeric, z timestamptz);
    insert into a values (1, 0.1, '\\x00ff', 'x', 1.0, '2020-02-29 12:00+05:45'), (2, 'nan', '', '', 'nan', 'infinity')"""


def test_equal_databases_are_equal(pair):
    pair.both(AWKWARD)
    pair.same()


@pytest.mark.parametrize("change", [
    "update a set f = 0.1::float8 + 1.4e-17::float8 where k = 1", "update a set n = 1.00 where k = 1",
    "update a set t = null where k = 2", "update a set b = '\\x00fe' where k = 1", "delete from a where k = 2",
    "insert into a values (3)", "update a set z = z + '1 us' where k = 1", "create table more ()",  "update a set f = -0.0::float8 where k = 2",
])
def test_any_change_is_seen(pair, change):
    pair.both(AWKWARD)
    pair.target.sql(change)
    assert kb.difference(pair.source, pair.target)


def test_duplicates_count(pair):
    pair.both("create table d (a int); insert into d values (1), (1), (2)")
    pair.target.sql("delete from d; insert into d values (1), (2), (2)")
    assert "row 1" in kb.difference(pair.source, pair.target)


def test_pgbench_load(pair):
    pair.pgbench_tables()
    pair.prepare()
    pair.same()
    with pair.load() as load:
        kb.wait_until(lambda: pair.source.one("select count(*) from pgbench_history") > 50)
        report = load.stop()
    assert "number of transactions" in report
    assert kb.difference(pair.source, pair.target)
    assert pair.confirmed() and pair.slot_active() is False
