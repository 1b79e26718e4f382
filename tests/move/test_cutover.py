"""keybridge cutover between two servers, without AWS: fence, drain, sequences, opening, undoing."""
import threading
import time

import psycopg2
import pytest

import kb


def cutover(pair, *more, timeout=60, env=None):
    return pair.kb.run("cutover", f"--slot={pair.slot}", f"--publication={pair.publication}",
                       f"--state-dir={pair.kb.folder}/state-{pair.id}", "--cutover-watch=200ms", *more, timeout=timeout, env={**pair.env(), **(env or {})})


def writable(database):
    try:
        con = database.connect()
    except psycopg2.OperationalError:
        return False
    try:
        with con.cursor() as cur:
            cur.execute("insert into probe values (default)")
        return True
    except psycopg2.Error:
        return False
    finally:
        con.close()


@pytest.fixture
def moved(pair):
    """A pair with tables, sequences and a slot, ready to be cut over; the source is opened again afterwards."""
    pair.both("create table t (id bigserial primary key, w int, n int); create table probe (id serial primary key);"
              "create sequence s increment 5; create table u (a int)")
    pair.prepare()
    yield pair
    pair.source.server.sql(f"alter database {pair.id} allow_connections true", dbname="template1")


class Writers:
    """Threads that insert and remember what was acknowledged."""

    def __init__(self, database, count=3):
        self.database, self.ended, self.acked = database, threading.Event(), [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self._run, args=(w,), daemon=True) for w in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, writer):
        try:
            con = self.database.connect()
            n = 0
            while not self.ended.is_set():
                n += 1
                with con.cursor() as cur:
                    cur.execute("insert into t (w, n) values (%s, %s)", (writer, n))
                    cur.execute("select nextval('s')")
                self.acked[writer].append(n)
        except psycopg2.Error:
            pass

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(20)
        return {(w, n) for w, done in enumerate(self.acked) for n in done}


def test_cutover_runs_the_stream_itself(moved):
    writers = Writers(moved.source)
    time.sleep(0.3)
    done = cutover(moved)
    acked = writers.stop()
    assert done.code == 0, done
    there = moved.target.sql("select w, n, count(*) from t group by 1, 2")
    assert acked <= {(w, n) for w, n, _ in there}
    assert all(c == 1 for _, _, c in there)
    assert not writable(moved.source) and writable(moved.target)
    assert moved.target.one("select nextval('s')") > max(len(a) for a in writers.acked)
    assert moved.target.one("insert into t (w, n) values (99, 1) returning id") > len(acked)


def test_cutover_follows_a_replicate_that_runs(moved):
    run = moved.start()
    kb.wait_until(moved.slot_active, 20, "the stream")
    writers = Writers(moved.source)
    time.sleep(0.3)
    done = cutover(moved)
    acked = writers.stop()
    assert done.code == 0, done
    assert "replicate runs already" in done.err
    assert acked <= {(w, n) for w, n in moved.target.sql("select w, n from t")}
    assert not writable(moved.source) and writable(moved.target)
    run.kill9()


def test_skipped_transactions_are_in_the_receipt(moved):
    """Of an earlier run: what an operator let the stream leave out is told to whoever reads the receipt later."""
    moved.source.sql("insert into u values (1)")
    moved.replicate(code=0)
    moved.target.sql("create unique index on u (a)")
    moved.source.sql("insert into u values (1)")
    moved.replicate("--apply-skip-failed", code=1)
    moved.target.sql("drop index public.u_a_idx; insert into u values (1)")        # repaired by hand
    done = cutover(moved, "--json", "--accept-drift")
    assert done.code == 0, done
    [letter] = done.json()["databases"][moved.id]["dead_letters"]
    assert "duplicate key" in letter and "transaction " in letter
    with open(f"{moved.kb.folder}/state-{moved.id}/receipt.txt") as f:
        assert "transactions that were skipped" in f.read()


def test_dry_run_changes_nothing(moved):
    done = cutover(moved, "--dry-run")
    assert done.code == 0 and "nothing was blocked or changed" in done.out, done
    assert "predicted_ms" in done.err
    assert writable(moved.source) and writable(moved.target)


def test_a_reader_is_not_blocked_and_writers_wait(moved):
    """During the window selects go through; an update waits and then ends with the session, it isn't half done."""
    moved.source.sql("insert into t (w, n) select 1, g from generate_series(1, 100) g")
    moved.target.sql("select 1")
    read = []
    ended = threading.Event()

    def reader():
        con = moved.source.connect()
        while not ended.is_set():
            try:
                began = time.monotonic()
                with con.cursor() as cur:
                    cur.execute("select count(*) from t")
                read.append(time.monotonic() - began)
            except psycopg2.Error:
                return
    thread = threading.Thread(target=reader)
    thread.start()
    done = cutover(moved)
    ended.set()
    thread.join()
    assert done.code == 0, done
    assert len(read) > 5 and max(read) < 2


def test_idle_transaction_in_the_way_is_named(moved):
    con = moved.source.connect(autocommit=False)
    with con.cursor() as cur:
        cur.execute("insert into t (w, n) values (1, 1)")
    done = cutover(moved, "--timeout=1s")
    assert done.code == 3 and "idle in transaction" in done.error() and "holds public.t" in done.error(), done
    con.rollback()
    con.close()
    assert writable(moved.source)
    assert cutover(moved).code == 0
    assert not writable(moved.source) and writable(moved.target)


def test_prepared_transaction_in_the_way_is_named(fresh_server, target_server, make_pair):
    source = fresh_server("prep", wal_level="logical", max_prepared_transactions=5)
    pair = make_pair(source, target_server)
    pair.both("create table t (id bigserial primary key, w int, n int); create table probe (id serial primary key)")
    pair.prepare()
    pair.source.sql("begin; insert into t (w, n) values (1, 1); prepare transaction 'in the way'")
    done = cutover(pair, "--timeout=1s")
    assert done.code == 3 and "prepared transaction 'in the way'" in done.error(), done
    pair.source.sql("commit prepared 'in the way'")
    done = cutover(pair)
    assert done.code == 0, done
    assert pair.target.one("select count(*) from t") == 1
    source.sql(f"alter database {pair.id} allow_connections true", dbname="template1")


def test_trap_148_prepared_transaction_that_is_in_nobodys_way(fresh_server, target_server, make_pair):
    """It changed nothing that moves, so no lock tells of it; but after the switch nobody could commit it any more."""
    source = fresh_server("prep", wal_level="logical", max_prepared_transactions=5)
    pair = make_pair(source, target_server)
    pair.both("create table t (id bigserial primary key); create table probe (id serial primary key)")
    pair.both("create unlogged table u (a int)")
    pair.prepare()
    pair.source.sql("begin; insert into u values (1); prepare transaction 'left over'")
    done = cutover(pair, "--timeout=1s")
    assert done.code == 3 and f"prepared transaction 'left over' of postgres in {pair.id}, open" in done.error(), done
    assert "COMMIT PREPARED" in done.hint() or "end the transactions" in done.hint()
    pair.source.sql("insert into t default values")                                          # open as before
    pair.source.sql("commit prepared 'left over'")
    done = cutover(pair)
    assert done.code == 0, done
    source.sql(f"alter database {pair.id} allow_connections true", dbname="template1")


def test_publication_that_was_narrowed(fresh_server, target_server, make_pair):
    """Somebody takes deletes out of the publication: what they took away would be back on the new side."""
    source = fresh_server("narrow", wal_level="logical")
    pair = make_pair(source, target_server)
    pair.both("create table t (id bigserial primary key); create table probe (id serial primary key)")
    pair.prepare()
    pair.source.sql(f"alter publication {pair.publication} set (publish = 'insert, update')")
    done = cutover(pair, "--timeout=1s")
    assert done.code == 7 and "leaves something out: it doesn't publish DELETE, TRUNCATE" in done.error(), done


VACUUMED = "create table v (a int primary key, b int)"
FILL = "insert into v select g, 0 from generate_series(1, 60000) g; delete from v where a % 2 = 0"


def vacuuming(database):
    return database.sql("select pid from pg_stat_progress_vacuum where relid = 'v'::regclass")


def test_an_autovacuum_is_sent_away(moved):
    """It holds a lock that conflicts with ours, for hours on a big table; the server cancels it only for somebody who waits."""
    moved.both(VACUUMED)
    moved.both("alter table v set (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, "
                     "autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)")
    moved.source.sql(FILL)
    kb.wait_until(lambda: vacuuming(moved.source), 60, "autovacuum")
    done = cutover(moved)
    assert done.code == 0, done
    assert not writable(moved.source) and writable(moved.target)


def test_a_vacuum_by_hand_is_named(moved):
    moved.both(VACUUMED)
    moved.both("alter table v set (autovacuum_enabled = off)")
    moved.source.sql(FILL)
    con = moved.source.connect()
    vacuum = threading.Thread(target=_slow_vacuum, args=(con,))
    vacuum.start()
    kb.wait_until(lambda: vacuuming(moved.source), 20, "vacuum")
    done = cutover(moved, "--timeout=1s")
    assert done.code == 3 and "holds public.v" in done.error(), done
    con.cancel()
    vacuum.join()
    assert cutover(moved).code == 0


def _slow_vacuum(con):
    try:
        with con.cursor() as cur:
            cur.execute("set vacuum_cost_delay = 100; set vacuum_cost_limit = 1")
            cur.execute("vacuum v")
    except psycopg2.Error:
        pass


def test_another_owner_is_told_before_anything_is_blocked(moved):
    name = f"mover_{moved.id}"
    moved.source.sql(f"create role {name} login replication password '{kb.PASSWORD}'; grant pg_read_all_data, pg_write_all_data to {name}")
    dsn = moved.source.dsn.replace("postgres://postgres:", f"postgres://{name}:")
    done = cutover(moved, env={"KEYBRIDGE_SOURCE": dsn})
    assert done.code == 4 and "may not end other users' sessions" in done.error() and "pg_signal_backend" in done.hint(), done
    moved.source.sql(f"grant pg_signal_backend to {name}")
    done = cutover(moved, env={"KEYBRIDGE_SOURCE": dsn})
    assert done.code == 4 and "belongs to postgres" in done.error() and "GRANT postgres TO" in done.hint(), done
    assert writable(moved.source)
    moved.source.sql(f"drop owned by {name}; drop role {name}")


def test_a_table_made_after_the_publication_is_told(pair):
    pair.both("create table t (id bigserial primary key, w int, n int); create table probe (id serial primary key)")
    pair.prepare("for table t, probe")
    pair.source.sql("create table late (a int primary key)")
    done = cutover(pair)
    assert done.code == 7 and "public.late" in done.error(), done
    assert writable(pair.source)


def test_a_target_written_to_keeps_its_higher_sequence(moved):
    moved.source.sql("select nextval('s')")
    moved.target.sql("select setval('s', 5000)")
    done = cutover(moved)
    assert done.code == 0, done
    assert moved.target.one("select nextval('s')") == 5005


def test_sequences_advanced_without_tables_are_not_lost(moved):
    """nextval needs no table lock: what is drawn while the locks are held is read again once the sessions are gone."""
    ended = threading.Event()
    drawn = []

    def draw():
        con = moved.source.connect()
        try:
            while not ended.is_set():
                with con.cursor() as cur:
                    cur.execute("select nextval('s')")
                    drawn.append(cur.fetchone()[0])
        except psycopg2.Error:
            pass
    thread = threading.Thread(target=draw)
    thread.start()
    done = cutover(moved)
    ended.set()
    thread.join()
    assert done.code == 0, done
    assert moved.target.one("select nextval('s')") > max(drawn)


def stalled_drain(moved, *more):
    """A cut-over that has the locks, with one more row behind them that the target can't take. Its run, and what locks."""
    held = moved.source.connect(autocommit=False)
    held.cursor().execute("insert into t (w, n) values (7, 7)")
    run = moved.kb.start("cutover", f"--slot={moved.slot}", f"--publication={moved.publication}",
                         f"--state-dir={moved.kb.folder}/state-{moved.id}", "--cutover-watch=200ms", *more, env=moved.env())
    kb.wait_until(lambda: "fence gave way" in run.err() or not run.alive(), 30)
    lock = moved.target.connect(autocommit=False)            # not before the target was closed to all others
    lock.cursor().execute("lock table t in share row exclusive mode")
    held.commit()
    kb.wait_until(lambda: "writes are blocked" in run.err() or not run.alive(), 30)
    return run, lock


def test_trap_153_a_drain_that_never_ends(moved):
    """Writes are blocked for so long and no longer; then all is undone and can be begun again."""
    run, lock = stalled_drain(moved, "--timeout=3s")
    done = run.wait(30)
    assert done.code == 3 and "draining to the end position" in done.error(), done
    assert writable(moved.source)
    lock.close()
    assert cutover(moved).code == 0
    assert not writable(moved.source) and writable(moved.target)
    assert moved.target.one("select count(*) from t where w = 7") == 1


PLACES = ["cutover-fence", "cutover-drain", "cutover-close", "cutover-closed", "cutover-prove", "cutover-opening",
          "cutover-opened-one", "cutover-switch"]


@pytest.mark.hooks
@pytest.mark.parametrize("place", PLACES)
def test_killed_at_each_step(moved, place):
    moved.source.sql("insert into t (w, n) values (1, 1); select nextval('s')")
    done = cutover(moved, env={"KB_CRASH_AT": place})
    assert done.code == -9, done
    assert not (writable(moved.source) and writable(moved.target))
    done = cutover(moved)
    assert done.code == 0, done
    over = PLACES.index(place) >= PLACES.index("cutover-opening")      # from there on the source must not be opened again
    assert over == ("finishing a cut-over that was interrupted" in done.err), done
    assert not writable(moved.source) and writable(moved.target)
    assert moved.target.one("select count(*) from t") == 1
    assert moved.target.one("select nextval('s')") == 6


def test_the_command_gets_both_ends(moved, tmp_path):
    told = tmp_path / "told"
    done = cutover(moved, f"--switch-command=env > {told}")
    assert done.code == 0, done
    text = told.read_text()
    assert f"KEYBRIDGE_OLD_PORT={moved.source.server.port}" in text and f"KEYBRIDGE_NEW_PORT={moved.target.server.port}" in text
    assert kb.PASSWORD not in text and "KEYBRIDGE_SOURCE" not in text


def test_a_failing_command_can_be_repeated(moved, tmp_path):
    flag = tmp_path / "works"
    done = cutover(moved, f"--switch-command=test -e {flag}")
    assert done.code == 71 and done.hint(), done
    assert not writable(moved.source) and writable(moved.target)
    flag.write_text("x")
    done = cutover(moved, f"--switch-command=test -e {flag}")
    assert done.code == 0, done
