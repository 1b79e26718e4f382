"""The relay log: while the target stalls, the source is received into files, so that it recycles its WAL; nothing is lost,
whatever is killed, torn or full meanwhile."""
import os
import random
import signal
import subprocess

import pytest

import kb

pytestmark = pytest.mark.matrix

SEED = int(os.environ.get("KB_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
AFTER = ("--relay-after=1s", "--spool-memory=256KiB")
TABLES = """create table t (k bigserial primary key, who int, b text); create table counter (id int primary key, n bigint);
    insert into counter select g, 0 from generate_series(0, 9) g; create table keyless (a int);
    create table gate (a int primary key)"""
# Savepoints that are rolled back, small transactions, and (streamed from 14 on, with a small logical_decoding_work_mem) big ones.
SCRIPT = """
\\set id random(1, 100000)
\\set n random(1, :most)
begin;
insert into t (who, b) values (:client_id, :id);
savepoint a;
insert into t (who, b) select :client_id, repeat('a', g) from generate_series(1, :n) g;
rollback to savepoint a;
update counter set n = n + 1 where id = :id % 10;
insert into t (who, b) select :client_id, md5(g::text) || md5((g * :id)::text) from generate_series(1, :n * 3) g;
savepoint b;
insert into keyless values (:id % 5), (:id % 5);
delete from t where who = :client_id and k % 7 = :id % 7;
end;
"""


@pytest.fixture
def source(fresh_server):
    return fresh_server("source", logical_decoding_work_mem="64kB", min_wal_size="32MB", max_wal_size="64MB",
                        wal_keep_size="0", checkpoint_timeout="30s")


@pytest.fixture
def relayed(source, target_server, make_pair, tmp_path):
    pair = make_pair(source, target_server)
    pair.both(TABLES)
    pair.prepare()
    (tmp_path / "load.sql").write_text(SCRIPT)
    pair.script = str(tmp_path / "load.sql")
    print(f"seed {SEED}")
    return pair


def load(pair, rate=12, most=150):
    """Slow enough for a target on a busy machine to keep up with; some transactions are streamed."""
    return pair.load("-f", pair.script, "-D", f"most={most}", "--random-seed", str(SEED), f"--rate={rate}", clients=3)


def end_loads(pair):
    for one in pair.loads:
        one.stop(check=False)


def lock(pair, table="gate"):
    """The target can't take what the source writes to this table."""
    con = pair.target.connect(autocommit=False)
    con.cursor().execute(f"lock table {table} in access exclusive mode")
    return con


def stall(pair):
    """The stream stands before a lock from now on."""
    held = lock(pair)
    pair.source.sql("insert into gate select coalesce(max(a), 0) + 1 from gate")
    return held


def started(pair):
    run = pair.start(*AFTER)
    says(run, "event=streaming")
    pair.caught_up()
    return run


def says(run, text, times=1, timeout=90):
    def look():
        assert run.alive() or text in run.err(), run.wait()
        return run.err().count(text) >= times
    try:
        kb.wait_until(look, timeout, text)
    except kb.Failed as problem:
        raise kb.Failed(f"{problem}\n{run.err()[-6000:]}") from None


INTO = "receiving into the relay log"


def slot(pair):
    return pair.source.sql("select restart_lsn::text, confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s",
                           (pair.slot,))[0]


def ahead(pair, lsn):
    return pair.source.one("select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s",
                           (lsn, pair.slot))


def wal_files(pair):
    return {r[0] for r in pair.source.sql("select pg_ls_dir('pg_wal')") if len(r[0]) == 24}


def folder(pair):
    return f"{pair.kb.folder}/keybridge-state/spool/relay-{pair.slot}"


def segments(pair):
    try:
        return sorted(os.listdir(folder(pair)))
    except FileNotFoundError:
        return []


def finish(pair, *args):
    pair.replicate(*args, code=0, timeout=180)
    pair.same()


def test_trap_004_the_source_recycles_wal_while_the_target_stalls(relayed):
    """And what was confirmed isn't taken for applied."""
    pair = relayed
    run = started(pair)
    held = stall(pair)
    before = slot(pair)
    first = wal_files(pair)
    load(pair)
    says(run, INTO)
    for _ in range(5):                          # four whole segments
        pair.source.sql("insert into t (b) select md5(g::text) from generate_series(1, 1000) g; select pg_switch_wal()")
    assert pair.source.one("select pg_current_wal_lsn() - %s::pg_lsn > 60000000", (before[1],))
    end = pair.lsn()

    def recycled():
        pair.source.sql("checkpoint")
        return not first & wal_files(pair)
    kb.wait_until(lambda: ahead(pair, end), 60, "the slot to move")
    kb.wait_until(recycled, 60, "WAL to be recycled", every=1)
    assert segments(pair)
    assert pair.target.one("select count(*) from t") < pair.source.one("select count(*) from t")
    assert {os.stat(f"{folder(pair)}/{s}").st_mode & 0o777 for s in segments(pair)} == {0o600}
    held.close()
    says(run, "the relay log is drained")
    end_loads(pair)
    kb.wait_until(lambda: not segments(pair), 60, "the log to be removed")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


def test_trap_028_a_target_that_is_stopped(source, fresh_server, make_pair, tmp_path):
    """Not even keepalives come from it; the source's connection lives longer than wal_sender_timeout."""
    target = fresh_server("target")
    pair = make_pair(source, target)
    pair.both(TABLES)
    pair.prepare()
    pair.source.sql(f"alter database {pair.id} set wal_sender_timeout = '3s'")
    (tmp_path / "load.sql").write_text(SCRIPT)
    pair.script = str(tmp_path / "load.sql")
    run = started(pair)
    load(pair)
    kb.time.sleep(1)
    target.pause()
    try:
        says(run, INTO)
        end = pair.lsn()
        kb.wait_until(lambda: ahead(pair, end), 60)
        end_loads(pair)                                     # nothing more to confirm: only what keeps the connection
        kb.time.sleep(7)
        assert "receiving interrupted" not in run.err()
    finally:
        target.resume()
    end_loads(pair)
    kb.wait_until(lambda: not segments(pair), 120, "the log to be removed")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


@pytest.mark.slow
def test_the_target_is_away(source, fresh_server, make_pair, tmp_path):
    """Killed and down for a while: the source goes on being received."""
    target = fresh_server("target")
    pair = make_pair(source, target)
    pair.both(TABLES)
    pair.prepare()
    (tmp_path / "load.sql").write_text(SCRIPT)
    pair.script = str(tmp_path / "load.sql")
    run = started(pair)
    load(pair)
    for turn in range(2):
        target.kill9()
        says(run, INTO, turn + 1)
        end = pair.lsn()
        kb.wait_until(lambda: ahead(pair, end), 60)
        target.start()
        says(run, "the relay log is drained", turn + 1)
    end_loads(pair)
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


def test_the_target_is_killed_while_relaying(source, fresh_server, make_pair, tmp_path):
    target = fresh_server("target", synchronous_commit="off", wal_writer_delay="10s", fsync="on")
    pair = make_pair(source, target)
    pair.both(TABLES)
    pair.prepare()
    (tmp_path / "load.sql").write_text(SCRIPT)
    pair.script = str(tmp_path / "load.sql")
    run = started(pair)
    held = stall(pair)
    load(pair)
    says(run, INTO)
    kb.time.sleep(2)
    held.close()
    for _ in range(3):
        kb.time.sleep(0.7)
        target.kill9()
        target.start()
    end_loads(pair)
    kb.wait_until(lambda: not segments(pair), 120, "the log to be removed")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


@pytest.mark.slow
def test_the_source_restarts_while_relaying(relayed, source):
    pair = relayed
    run = started(pair)
    held = stall(pair)
    says(run, INTO)
    for mode in ("immediate", "fast"):
        load(pair)
        kb.time.sleep(1.5)
        con = pair.source.connect(autocommit=False)
        con.cursor().execute("insert into t (b) select repeat('x', 500) from generate_series(1, 3000)")   # streamed, never committed
        kb.time.sleep(0.5)
        source.restart(mode)
        end_loads(pair)
    pair.source.sql("insert into t (b) select repeat('y', 500) from generate_series(1, 3000)")
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    held.close()
    kb.wait_until(lambda: not segments(pair), 120, "the log to be removed")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


@pytest.mark.slow
def test_trap_160_random_kills(relayed):
    pair = relayed
    moments = random.Random(SEED)
    pair.replicate(code=0)
    held = stall(pair)
    load(pair)
    for turn in range(6):
        run = pair.start("--relay-after=200ms", "--spool-memory=256KiB", "--relay-limit=200MiB")
        kb.time.sleep(moments.uniform(0.3, 3))
        assert run.alive(), run.wait()
        if turn == 3:
            held.close()
            kb.time.sleep(moments.uniform(0, 1))
        run.kill9()
    end_loads(pair)
    finish(pair)
    assert not segments(pair)


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["relay-entered", "relay-rotated", "relay-rotated:3", "relay-written:2", "relay-written:9", "relay-before-sync",
                                   "relay-before-sync:4", "relay-synced:3", "relay-before-ack:6", "relay-after-ack:6"])
def test_kill_at(relayed, point):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    load(pair, *((200, 400) if point == "relay-rotated:3" else ()))     # three segments full
    run = pair.start("--relay-after=300ms", "--relay-limit=100MiB", env={"KB_CRASH_AT": point})
    done = run.wait(60)
    assert done.code == -9 and "crash point" in done.err, done
    end_loads(pair)
    held.close()
    finish(pair)


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["relay-drained", "relay-removed"])
def test_kill_when_it_is_over(relayed, point):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    load(pair)
    run = pair.start("--relay-after=300ms", env={"KB_CRASH_AT": point})
    says(run, INTO)
    kb.time.sleep(1)
    end_loads(pair)
    held.close()
    done = run.wait(60)
    assert done.code == -9 and "crash point" in done.err, done
    finish(pair)


def relay_and_kill(pair, seconds=1):
    """Killed while the log has something that the source has been told to forget."""
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start(*AFTER)
    load(pair)
    says(run, INTO)
    kb.time.sleep(seconds)
    end_loads(pair)
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    run.kill9()
    held.close()


def test_goes_on_from_the_log(relayed):
    pair = relayed
    relay_and_kill(pair)
    pair.source.sql("insert into gate values (1000)")
    finish(pair)
    assert not segments(pair)


def test_nothing_but_the_log_is_asked_of_the_source(relayed):
    """With the target still away the next run receives further before anything else."""
    pair = relayed
    relay_and_kill(pair)
    held = stall(pair)
    run = pair.start(*AFTER)
    says(run, INTO)
    load(pair)
    kb.time.sleep(1)
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    end_loads(pair)
    run.kill9()
    held.close()
    finish(pair)


def refused(pair, *texts):
    done = pair.replicate()
    assert done.code == 7, done
    for text in texts:
        assert text in done.error(), done
    return done


def test_trap_160_a_deleted_log_is_missed(relayed):
    pair = relayed
    relay_and_kill(pair)
    os.rename(folder(pair), folder(pair) + ".away")
    done = refused(pair, "is confirmed up to")
    assert "relay log" in done.hint() and folder(pair) in done.hint().replace("keybridge-state", f"{pair.kb.folder}/keybridge-state")
    os.rename(folder(pair) + ".away", folder(pair))
    finish(pair)


def test_trap_160_synced_data_that_the_disk_lost(relayed):
    pair = relayed
    relay_and_kill(pair)
    last = f"{folder(pair)}/{segments(pair)[-1]}"
    whole = open(last, "rb").read()
    with open(last, "r+b") as f:
        f.truncate(os.path.getsize(last) * 2 // 3)
    refused(pair, "the relay log in")
    with open(last, "wb") as f:
        f.write(whole)
    finish(pair)


def test_trap_160_damage_and_a_hole(relayed):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start(*AFTER, "--relay-limit=40MiB")
    load(pair, 200, 400)
    says(run, INTO)
    kb.wait_until(lambda: len(segments(pair)) >= 3, 60, "segments")
    end_loads(pair)
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    run.kill9()
    held.close()
    name = f"{folder(pair)}/{segments(pair)[1]}"
    whole = open(name, "rb").read()
    with open(name, "wb") as f:
        f.write(whole[:len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1:])
    refused(pair, "segment 2 is damaged at byte")
    os.unlink(name)
    refused(pair, "segment 2 is missing")
    with open(name, "wb") as f:
        f.write(whole)
    finish(pair)


def test_the_log_of_another_slot(relayed, target_server, source_server, make_pair):
    pair = relayed
    relay_and_kill(pair)
    other = make_pair(source_server, target_server)
    other.both(TABLES)
    other.prepare()
    os.makedirs(os.path.dirname(folder(other)), exist_ok=True)
    os.rename(folder(pair), folder(other))
    refused(other, "is of slot")
    os.rename(folder(other), folder(pair))
    other.replicate(code=0)
    finish(pair)


@pytest.fixture
def small_disk(tmp_path):
    path = str(tmp_path / "small")
    os.mkdir(path)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], check=False,
                                      capture_output=True).returncode:
        pytest.skip("can't mount a small file system")
    yield path
    subprocess.run(["umount", "-l", path], check=False)


def fill_up(pair, run):
    load(pair, 200, 400)
    says(run, "the relay log is full")
    kb.time.sleep(2)
    end_loads(pair)
    assert run.alive()
    assert not ahead(pair, pair.lsn())


def test_trap_160_the_disk_is_full(relayed, small_disk):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start("--relay-after=1s", f"--spool-dir={small_disk}")
    fill_up(pair, run)
    assert run.err().count("the relay log is full") == 1
    held.close()
    kb.wait_until(lambda: not os.listdir(small_disk), 120, "the log to be removed")
    pair.caught_up(120)
    pair.same()
    assert run.stop().code == 130
    assert not os.listdir(small_disk)


def test_trap_160_others_fill_the_disk(relayed, small_disk):
    """Without any warning by the floor: a write that fails."""
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start("--relay-after=1s", f"--spool-dir={small_disk}")
    says(run, INTO)
    with open(f"{small_disk}/ballast", "wb") as f:
        try:
            f.write(b"x" * (1 << 24))
            f.flush()
        except OSError:
            pass
    fill_up(pair, run)
    os.unlink(f"{small_disk}/ballast")
    says(run, "has room again")
    run.kill9()
    held.close()
    finish(pair, f"--spool-dir={small_disk}")


def test_the_limit(relayed):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start(*AFTER, "--relay-limit=4MiB")
    fill_up(pair, run)
    assert sum(os.path.getsize(f"{folder(pair)}/{s}") for s in segments(pair)) <= 4 << 20
    held.close()
    kb.wait_until(lambda: not segments(pair), 120, "the log to be removed")
    pair.caught_up(120)
    pair.same()
    assert run.stop().code == 130


def test_a_transaction_that_is_larger_than_the_limit(relayed):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start(*AFTER, "--relay-limit=1MiB")
    says(run, INTO)
    pair.source.sql("insert into t (b) select md5(g::text) || md5((g * 7)::text) from generate_series(1, 100000) g")
    held.close()
    kb.wait_until(lambda: not segments(pair), 120, "the log to be removed")
    pair.caught_up(120)
    pair.same()
    assert run.stop().code == 130


def test_until_is_reached_through_the_log(relayed):
    """Traps 4 and 5: the end is when all is durable on the target, not when it is in the log."""
    pair = relayed
    relay_and_kill(pair)
    held = stall(pair)
    end = pair.lsn()
    pair.source.sql("insert into t (b) values ('behind the end')")
    run = pair.start(*AFTER, until=end)
    says(run, "event=streaming")
    kb.time.sleep(1)
    assert run.alive()
    held.close()
    assert run.wait(60).code == 0
    finish(pair)


def test_verify_pauses_a_stream_that_relays(relayed):
    pair = relayed
    run = started(pair)
    held = stall(pair)
    load(pair)
    says(run, INTO)
    kb.time.sleep(1)
    held.close()
    pair.command("verify", code=0, timeout=120)
    end_loads(pair)
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


def test_stalls_again_before_the_log_is_durable(relayed):
    """Drained with its last transaction under way, which then hangs: the log is gone on with."""
    pair = relayed
    run = pair.start("--relay-after=2s", "--apply-batch-changes=1")
    says(run, "event=streaming")
    pair.caught_up()
    before, last = lock(pair, "keyless"), lock(pair)
    pair.source.sql("insert into keyless values (1)")
    pair.source.sql("insert into gate values (1)")
    says(run, INTO)
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    before.close()
    says(run, "the relay log is drained")
    load(pair)
    says(run, INTO, 2)
    assert "stalls again" in run.err() and "a relay log is there" in run.err()
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60)
    end_loads(pair)
    last.close()
    kb.wait_until(lambda: not segments(pair), 60, "the log to be removed")
    pair.caught_up(60)
    pair.same()
    assert run.stop().code == 130


def test_never(relayed):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start("--relay-after=0")
    load(pair)
    kb.time.sleep(3)
    assert INTO not in run.err() and not segments(pair)
    end_loads(pair)
    run.kill9()
    held.close()
    finish(pair)


def test_sigterm_while_relaying(relayed):
    pair = relayed
    pair.replicate(code=0)
    held = stall(pair)
    run = pair.start(*AFTER)
    load(pair)
    says(run, INTO)
    kb.time.sleep(1)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait(30).code == 130
    assert segments(pair)
    end_loads(pair)
    held.close()
    finish(pair)


def test_the_end_is_in_the_log_while_the_target_is_busy(relayed):
    """What comes last before the end position goes to the target once that has taken what came before."""
    pair = relayed
    held = stall(pair)
    run = pair.start(*AFTER)
    con = pair.source.connect()
    for n in range(150):                        # three batches, of which one is in the queue, and a part of the fourth
        con.cursor().execute("insert into keyless values (%s)", (n,))
    con.close()
    end = pair.lsn()
    kb.wait_until(lambda: ahead(pair, end), 60, "the log to hold all")
    run.kill9()
    run = pair.start("--relay-after=1s", "--apply-batch-changes=40", until=end)
    kb.wait_until(lambda: pair.target.one("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), 30, "the lane before the lock")
    held.close()
    assert run.wait(30).code == 0
    pair.same()
