"""keybridge verify against a running stream: both sides at one exact position while writes flow."""
import json
import os
import threading
import time

import pytest

from kb import Failed, wait_until

ROUNDS = int(os.environ.get("KB_VERIFY_ROUNDS", "10"))          # verifications one behind the other, under load


def verify(pair, *more, code=0, timeout=120):
    done = pair.command("verify", "--json", f"--slot={pair.slot}", *more, code=code, timeout=timeout)
    return done.json()["databases"][0]


def listening(pair):
    wait_until(lambda: pair.target.one("select count(*) from pg_stat_activity where application_name = 'keybridge pause'"), 20)


@pytest.fixture
def stream(pair):
    pair.pgbench_tables()
    pair.both("create table t (id int primary key, v text); create table k (a int, b text)")
    pair.both("alter table k replica identity full; alter table pgbench_history replica identity full")
    pair.prepare()
    pair.run = pair.start()
    listening(pair)
    return pair


def test_trap_165_hot_rows_under_load(stream):
    """Writes all the time, on few rows; each verification is exact, so there is never a false alarm."""
    with stream.load(clients=4):
        time.sleep(1)
        for _ in range(ROUNDS):
            r = verify(stream)
            assert r["equal"] and r["how"] == "at position" and r["position"], r
        pauses = r["pause_us"]
    print(f"the stream stood still for {pauses / 1000:.1f} ms in the last one")
    stream.caught_up()
    stream.same()
    assert stream.run.alive()
    assert stream.source.one("select count(*) from pg_replication_slots where slot_name like 'keybridge_verify%%'") == 0
    assert stream.target.one("select count(*) from keybridge.pause") == 0


def test_differences_are_found_under_load(stream):
    stream.source.sql("insert into t select k, 'v' || k from generate_series(1, 2000) k; insert into k select k % 5, 'x' from generate_series(1, 100) k")
    stream.caught_up()
    stream.target.sql("update t set v = 'w' where id = 5; delete from t where id = 6; insert into t values (-1, '')")
    stream.target.sql("delete from k where ctid = (select min(ctid) from k where a = 3)")
    with stream.load(clients=2):
        r = verify(stream, code=1)
    tables = {t["table"]: t for t in r["tables"]}
    assert sorted((x["kind"], x["key"]) for x in tables["t"]["rows"]) == [("changed", "id=5"), ("extra", "id=-1"), ("missing", "id=6")]
    assert (tables["k"]["missing"], tables["k"]["extra"]) == (1, 0)
    assert all(tables[f"pgbench_{n}"]["verdict"] == "equal" for n in ("accounts", "branches", "tellers", "history"))


def test_a_quiet_source(stream):
    """Nobody commits behind the position: verify's own message does."""
    stream.source.sql("insert into t values (1, 'x')")
    r = verify(stream, timeout=30)
    assert r["equal"] and r["how"] == "at position"
    assert r["total_us"] < 5_000_000


def test_a_stream_that_is_behind(stream):
    """The position is where the source is; the stream has to get there, and verify waits for it."""
    stream.source.sql("insert into t select k, md5(k::text) from generate_series(1, 200000) k")
    stream.source.sql("update t set v = v || 'x' where id % 2 = 0")
    r = verify(stream)
    assert r["equal"] and r["how"] == "at position"
    assert next(t for t in r["tables"] if t["table"] == "t")["target_rows"] == 200000


def test_a_long_transaction_on_the_source_does_not_hold_the_stream(stream):
    """The slot has to wait for it; meanwhile the stream goes on."""
    con = stream.source.connect(autocommit=False)
    cur = con.cursor()
    cur.execute("insert into t values (1, 'long')")
    run = stream.kb.start("verify", "--json", f"--slot={stream.slot}", env=stream.env())
    time.sleep(1)
    lags = []
    for k in range(30):
        stream.source.sql(f"insert into k values ({k}, 'y')")
        from_s = time.monotonic()
        wait_until(lambda n=k: stream.target.one("select count(*) from k") == n + 1, 20)
        lags.append(time.monotonic() - from_s)
    assert run.alive(), run.err()
    con.commit()
    done = run.wait()
    assert done.code == 0 and json.loads(done.out)["equal"], done
    assert sorted(lags)[len(lags) // 2] < 1, lags


def test_an_abandoned_verification_lets_go(stream):
    """Killed while the stream is held: the lease runs out and the stream goes on by itself."""
    stream.target.sql("insert into keybridge.pause (stream, request) values (%s, 'dead'); notify keybridge_pause", (stream.slot,))
    wait_until(lambda: stream.target.one("select state from keybridge.pause") == "held", 10)
    stream.source.sql("insert into t values (1, 'x')")
    time.sleep(2)
    assert stream.target.one("select count(*) from t") == 0, "it is held"
    wait_until(lambda: stream.target.one("select count(*) from t") == 1, 20)
    assert stream.target.one("select state from keybridge.pause") == "lapsed"
    assert verify(stream)["equal"], "what the dead one left is no obstacle"


def test_one_verification_at_a_time(stream):
    stream.target.sql("insert into keybridge.pause (stream, request) values (%s, 'other')", (stream.slot,))
    done = stream.command("verify", f"--slot={stream.slot}", code=None)
    assert done.code not in (0, 1) and "another verification" in done.error() and done.hint()
    stream.target.sql("delete from keybridge.pause")


def test_kills_of_verify_at_random_moments(stream):
    with stream.load(clients=2):
        for k in range(8):
            run = stream.kb.start("verify", f"--slot={stream.slot}", env=stream.env())
            time.sleep(0.02 + k * 0.03)
            run.kill9()
            stream.target.sql("update keybridge.pause set renewed_at = renewed_at - interval '1 min'")
        assert verify(stream)["equal"]
    stream.caught_up()
    stream.same()


def test_stream_restarted_while_verify_waits(stream):
    """The stream goes away under a verification: an error that says so, or a later success; never a wrong answer."""
    with stream.load(clients=2):
        run = stream.kb.start("verify", "--json", f"--slot={stream.slot}", env=stream.env())
        time.sleep(0.1)
        stream.run.kill9()
        stream.run = stream.start()
        done = run.wait(60)
        assert done.code == 0 or "stream" in done.error() or "as they are now" in done.out, done
        listening(stream)
        assert verify(stream)["equal"]


def test_batches_are_cut_at_the_position(stream):
    """Writers in many sessions while verifications come one behind the other: what is inside a batch is cut in two."""
    ended = threading.Event()

    def write(n):
        con = stream.source.connect()
        cur = con.cursor()
        k = 0
        while not ended.is_set():
            k += 1
            cur.execute("insert into t values (%s, 'a'); ", (n * 10_000_000 + k,))
            cur.execute("update t set v = v || 'b' where id = %s", (n * 10_000_000 + k,))
            if k % 3 == 0:
                cur.execute("delete from t where id = %s", (n * 10_000_000 + k - 1,))
        con.close()
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for w in writers:
        w.start()
    try:
        for _ in range(15):
            r = verify(stream)
            if not r["equal"]:
                raise Failed(json.dumps(r, indent=1))
    finally:
        ended.set()
        for w in writers:
            w.join()
    stream.caught_up()
    stream.same()


def test_the_only_stream_of_a_database_needs_no_name(stream):
    with stream.load(clients=2):
        done = stream.command("verify", "--json", code=0)
    assert done.json()["databases"][0]["how"] == "at position"


def test_without_a_stream_it_says_so(pair):
    pair.both("create table t (id int primary key)")
    r = pair.command("verify", "--json", code=0).json()["databases"][0]
    assert r["how"] == "as is" and r["position"] is None and "no stream" in r["note"]


@pytest.mark.hooks
def test_a_batch_that_is_there_in_part_is_completed_first(stream):
    """Killed between the lanes' commits: the target is between two states, and must not be looked at in that."""
    stream.run.stop()
    ended = threading.Event()

    def write():
        con = stream.source.connect()
        cur = con.cursor()
        k = 0
        while not ended.is_set():
            k += 1
            cur.execute("insert into t select g, 'x' from generate_series(%s, %s) g", (k * 3000, k * 3000 + 2999))
            cur.execute("update t set v = v || 'y' where id between %s and %s", (k * 3000 - 1500, k * 3000 + 1000))
            ended.wait(0.3)                     # a build with hooks is slow, and has to catch up
        con.close()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for round_ in range(5):
            dies = stream.start("--lanes=3", env={"KB_CRASH_AT": f"between-lane-commits:{2 + round_}", "KB_ALL_LANES": "1"})
            dies.process.wait(60)
            lives = stream.start("--lanes=3")
            listening(stream)
            r = verify(stream)
            assert r["how"] == "at position" and r["equal"], r
            lives.stop()
    finally:
        ended.set()
        writer.join()
