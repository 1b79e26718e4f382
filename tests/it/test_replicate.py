"""keybridge replicate between two PostgreSQL servers: what arrives, what is confirmed, how it ends."""
import kb


def test_one_row(pair):
    pair.both("create table t (a int primary key, b text)")
    pair.prepare()
    pair.source.sql("insert into t values (1, 'one'); update t set b = 'two'; insert into t values (2, null)")
    done = pair.replicate("--json", code=0)
    pair.same()
    result = done.json()
    assert result["changes"] == 3 and result["format"] == "binary"


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
