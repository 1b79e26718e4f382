"""The stream, killed at any moment: every committed transaction is on the target exactly once.

KB_KILLS sets how many times the process is killed in the random test (5 by default), KB_SEED which moments are chosen.
"""
import os
import random
import time

import pytest

import kb

KILLS = int(os.environ.get("KB_KILLS", "5"))
SEED = int(os.environ.get("KB_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

# Beside pgbench's four rows: keyless and keyed rows whose doubling or loss is seen, rows that come and go, savepoints that are
# rolled back, multi-row statements (many rows at one LSN), and a message.
SCRIPT = """
\\set id random(1, 100000)
\\set n random(1, 300)
begin;
insert into log (who, what) values (:client_id, :id);
update counter set n = n + 1 where id = :id % 10;
savepoint a;
insert into log (who, what) select :client_id, -g from generate_series(1, :n) g;
rollback to savepoint a;
insert into many (client, g, t) select :client_id, g, repeat('x', :n) from generate_series(1, :n) g;
delete from many where client = :client_id and g % 3 = :id % 3;
insert into keyless values (:id % 5), (:id % 5);
update spare set n = n + 1 where id = :id % 4;
savepoint b;
insert into log (who, what) values (:client_id, :n);
select pg_logical_emit_message(true, 'keybridge-test', 'x');
end;
"""
TABLES = """create table log (k bigserial primary key, who int, what int, at timestamptz default clock_timestamp());
    create table counter (id int primary key, n bigint); insert into counter select g, 0 from generate_series(0, 9) g;
    create table many (k bigserial primary key, client int, g int, t text); create index on many (client, g);
    create table keyless (a int); create table spare (id int, n int); alter table spare replica identity full;
    insert into spare select g % 4, g from generate_series(1, 12) g"""


@pytest.fixture
def loaded(pair, tmp_path):
    """Tables, slot, and a load that runs."""
    script = tmp_path / "load.sql"
    script.write_text(SCRIPT)
    pair.pgbench_tables()
    pair.both(TABLES)
    pair.prepare()
    pair.load("-b", "tpcb-like@3", "-f", f"{script}@1", "--random-seed", str(SEED), clients=4)
    print(f"seed {SEED}")
    return pair


def end_loads(pair):
    for load in pair.loads:
        load.stop()


@pytest.mark.matrix
def test_random_kills(loaded):
    moments = random.Random(SEED)
    for _ in range(KILLS):
        run = loaded.start("--lanes=3", "--apply-batch-changes=5000")
        time.sleep(moments.uniform(0.05, 1.5))
        assert run.alive(), run.wait()
        run.kill9()
    end_loads(loaded)
    done = loaded.replicate("--lanes=3", timeout=120, code=0)
    loaded.same()
    assert "half" not in done.err


def test_kill_with_other_lanes_afterwards(loaded):
    """What one run left half there the next completes, however many lanes it has itself."""
    moments = random.Random(SEED + 1)
    for lanes in (4, 1, 2, 3, 1):
        run = loaded.start(f"--lanes={lanes}")
        time.sleep(moments.uniform(0.2, 0.8))
        run.kill9()
    end_loads(loaded)
    loaded.replicate("--lanes=2", timeout=120, code=0)
    loaded.same()


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["stream-started", "batch-pushed", "batch-pushed:20", "before-ack:3", "after-ack:3"])
def test_kill_at(loaded, point):
    run = loaded.start(env={"KB_CRASH_AT": point})
    done = run.wait(30)
    assert done.code == -9 and "crash point" in done.err
    end_loads(loaded)
    loaded.replicate(code=0, timeout=120)
    loaded.same()


def load_and_stream(make_pair, source, target, tmp_path, *args):
    pair = make_pair(source, target)
    script = tmp_path / "load.sql"
    script.write_text(SCRIPT)
    pair.pgbench_tables()
    pair.both(TABLES)
    pair.prepare()
    pair.load("-b", "tpcb-like@3", "-f", f"{script}@1", clients=3)
    run = pair.start(*args)
    kb.wait_until(lambda: pair.target.one("select count(*) from log") > 20, what="the stream to run")
    return pair, run


def goes_on(pair, rows=50):
    """Until so many more rows have arrived on the target."""
    seen = pair.target.one("select count(*) from log")
    kb.wait_until(lambda: pair.target.one("select count(*) from log") > seen + rows, what="more rows on the target")


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_target_restarts(fresh_server, source_server, make_pair, tmp_path, mode):
    target = fresh_server("target")
    pair, run = load_and_stream(make_pair, source_server, target, tmp_path)
    for _ in range(2):
        target.restart(mode)
        goes_on(pair)
        assert run.alive(), run.wait()
    end_loads(pair)
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


def test_target_crashes_with_asynchronous_commit(fresh_server, source_server, make_pair, tmp_path):
    """Trap 174: what was committed on the target and not flushed is gone after its crash, so it must be sent again."""
    target = fresh_server("target", synchronous_commit="off", wal_writer_delay="10s", fsync="on")
    pair, run = load_and_stream(make_pair, source_server, target, tmp_path)
    for _ in range(3):
        goes_on(pair)
        target.kill9()
        target.start()
    assert run.alive(), run.wait()
    end_loads(pair)
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_source_restarts(fresh_server, target_server, make_pair, tmp_path, mode):
    source = fresh_server("source")
    pair = make_pair(source, target_server)
    pair.both(TABLES)
    pair.prepare()
    run = pair.start("--lanes=3")
    for turn in range(3):
        with kb.Writer(pair.source, lambda con, n, turn=turn: con.cursor().execute(
                "insert into log (who, what) values (%s, %s); insert into many (client, g, t) select %s, g, 'x' from generate_series(1, 50) g",
                (turn, n, n))):
            time.sleep(0.8)
            source.restart(mode)
    assert run.alive(), run.wait()
    pair.source.sql("update counter set n = n + 1")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


@pytest.mark.matrix
def test_both_crash_and_keybridge_too(fresh_server, make_pair, tmp_path):
    source, target = fresh_server("source"), fresh_server("target")
    pair, run = load_and_stream(make_pair, source, target, tmp_path)
    run.kill9()
    for load in pair.loads:
        load.stop(check=False)
    target.kill9()
    source.kill9()
    source.start()
    target.start()
    pair.replicate(code=0, timeout=120)
    pair.same()
