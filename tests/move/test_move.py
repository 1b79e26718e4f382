"""Whole migrations in the lab: real servers, real load, AWS's wire protocols."""
import os
import random
import re
import stat
import time

import psycopg2
import pytest

import kb
from lab.pgserver import wait_for


def test_move_under_load(scene):
    scene.create().load()
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    scene.audit_is_sound()
    receipt = scene.receipt()
    assert receipt["blocked_us"] < 5_000_000
    assert "writes were blocked for" in done.out


def test_every_setting_is_carried_over(scene):
    """All that a user can choose and the lab knows; what differs afterwards is in the receipt, and here nothing may."""
    lab = scene.lab
    scene.create(
        scale=0, VpcSecurityGroupIds=["sg-0aa", "sg-0bb"], DBSubnetGroupName="lab-private", MultiAZ=True, MaxAllocatedStorage=100,
        EnableIAMDatabaseAuthentication=True, EnableCloudwatchLogsExports=["postgresql"], DeletionProtection=True,
        BackupRetentionPeriod=7, PreferredBackupWindow="01:00-01:30", PreferredMaintenanceWindow="sat:23:10-sat:23:40",
        CopyTagsToSnapshot=True, MonitoringInterval=30, MonitoringRoleArn=f"arn:aws:iam::{lab.account}:role/monitor",
        EnablePerformanceInsights=True, PerformanceInsightsKMSKeyId=lab.key_a, PerformanceInsightsRetentionPeriod=31,
        AutoMinorVersionUpgrade=False, OptionGroupName="lab-options", Tags=[{"Key": "team", "Value": "orders"}])
    scene.rds.add_role_to_db_instance(DBInstanceIdentifier=scene.name, RoleArn=f"arn:aws:iam::{lab.account}:role/s3",
                                      FeatureName="s3Import")
    scene.available(scene.name)
    done = scene.run(command="provision")
    assert done.code == 0, done
    old, new = scene.describe(scene.name), scene.describe(scene.target)
    differ = {k for k in old if k not in ("DBInstanceIdentifier", "DBInstanceArn", "DbiResourceId", "KmsKeyId", "InstanceCreateTime",
                                          "Endpoint", "LatestRestorableTime", "TagList") and old[k] != new.get(k)}
    assert not differ, {k: (old[k], new.get(k)) for k in differ}
    mine = [t for t in new["TagList"] if not t["Key"].startswith("keybridge:")]
    assert mine == old["TagList"]
    assert new["KmsKeyId"] == lab.key_b
    facts = scene.status()
    assert [p["state"] for p in facts["phases"]] == ["done"] * len(facts["phases"])


def test_stops_before_the_cut_over_and_goes_on(scene):
    scene.create(scale=0).load(rate=0)
    run = scene.start()
    kb.wait_until(lambda: "following until stopped" in run.err() or not run.alive(), 90)
    assert run.alive(), run.wait()
    assert scene.accepts_writes(scene.name) and not scene.accepts_writes(scene.target)
    kb.wait_until(lambda: all(d["progress"] for d in scene.status()["databases"]), 10, "progress in the status")
    shop = [d for d in scene.status()["databases"] if d["database"] == "shop"][0]
    assert shop["progress"]["lag_ms"] < 10000 and "/" in shop["progress"]["applied_lsn"]
    text = scene.kb.run("status", f"--state-dir={scene.state}").out
    assert "keybridge_shop" in text and "APPLIED" in text
    second = scene.run()
    assert second.code == 7 and "drives this migration already" in second.error(), second
    done = run.stop()
    assert done.code == 0 and "--cutover" in done.out, done
    rehearsal = scene.run("--cutover", "--dry-run")
    assert rehearsal.code == 0 and "ready for the cut-over" in rehearsal.out, rehearsal
    assert scene.accepts_writes(scene.name) and not scene.accepts_writes(scene.target)
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    again = scene.run("--cutover")
    assert again.code == 0 and "writes were blocked" in again.out, again
    for name in os.listdir(scene.state):
        assert stat.S_IMODE(os.lstat(f"{scene.state}/{name}").st_mode) & 0o077 == 0, name
    done = scene.cleanup()
    assert done.code == 0, done
    assert f"instance {scene.name}" in done.out                # still under the old key
    assert scene.sql("select 1 from pg_namespace where nspname = 'keybridge'", name=scene.target) == []
    names = [x["DBSnapshotIdentifier"] for x in scene.rds.describe_db_snapshots()["DBSnapshots"]]
    assert not [n for n in names if scene.name in n]


def test_timeout_undoes_everything(scene):
    """Writes may not be blocked for as long as this needs: the application sees a pause, then goes on where it was."""
    scene.create(scale=0).load(rate=0)
    done = scene.run("--cutover", "--timeout=100ms")
    if done.code == 0:
        pytest.skip("a cut-over within 100 ms: too fast to be undone")
    assert done.code == 3, done
    assert done.hint()
    assert scene.accepts_writes(scene.name) and not scene.accepts_writes(scene.target)
    before = scene.ledger.count()
    kb.wait_until(lambda: scene.ledger.count() > before + 20, 10, "the application to go on")
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()


def test_a_long_transaction_is_named_and_nothing_changes(scene):
    scene.create(scale=0).load(rate=0)
    con = scene.connect(user="app", password="app-password")
    con.autocommit = False
    run = scene.start("--cutover", "--timeout=2s")
    kb.wait_until(lambda: "sequences looked at" in run.err() or not run.alive(), 90)
    with con.cursor() as cur:
        cur.execute("insert into ledger (writer, n, account, amount) values (99, 1, 1, 0)")
    done = run.wait()
    assert done.code == 3, done
    assert "could not be locked" in done.error() and "app" in done.error(), done
    assert scene.accepts_writes(scene.name)
    con.close()
    before = scene.ledger.count()
    kb.wait_until(lambda: scene.ledger.count() > before + 20, 10, "the application to go on")
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()


def test_aborted_then_cleaned_up_leaves_nothing(scene):
    scene.create(scale=0, DeletionProtection=True)
    done = scene.run(command="provision")
    assert done.code == 0, done
    told = scene.cleanup("--dry-run")
    assert told.code == 0 and told.out.count("would ") == 9, told        # 3 slots, 3 publications, 2 snapshots, 1 instance
    assert scene.exists(scene.target)
    done = scene.cleanup()
    assert done.code == 0, done
    assert not scene.exists(scene.target)
    scene.source_is_untouched()
    assert scene.cleanup().out.startswith("under the old key") or "nothing to clean up" in scene.cleanup().out
    done = scene.run(command="provision")                                   # and it can begin anew
    assert done.code == 0, done


@pytest.mark.parametrize("fault", ["copy-fails", "snapshot-fails", "key-disabled", "restore-incompatible"])
def test_aws_failures_end_clearly_and_are_cleaned_up(scene, fault):
    scene.create(scale=0)
    scene.lab.faults.add(fault, times=1)
    done = scene.run("--cutover")
    assert done.code == 6, done
    assert done.error()
    done = scene.cleanup()
    assert done.code == 0, done
    assert not scene.exists(scene.target)
    scene.source_is_untouched()


@pytest.mark.parametrize("how", ["disabled", "missing", "same"])
def test_a_wrong_key_is_refused_before_anything_is_made(scene, how):
    scene.create(scale=0)
    kms = scene.lab.client("kms")
    key = kms.create_key(Description="x")["KeyMetadata"]["KeyId"]
    if how == "disabled":
        kms.disable_key(KeyId=key)
    key = {"disabled": key, "missing": "alias/nobody", "same": scene.lab.key_a}[how]
    done = scene.run("--cutover", key=key)
    assert done.code in (6, 7) and done.hint() or how == "same", done
    assert done.code, done
    scene.source_is_untouched()
    assert not scene.exists(scene.target)


def test_refusals_of_the_preflight(scene):
    scene.create(scale=0)
    scene.sql("create table nokey (a int); insert into nokey values (1); update nokey set a = 2; create schema keybridge; "
              "create table locked (a int primary key); revoke all on locked from boss; create table other (a int)")
    kb.wait_until(lambda: scene.sql("select n_tup_upd from pg_stat_user_tables where relname = 'nokey'") == [(1,)], 10)
    done = scene.run("--cutover")
    assert done.code == 7, done
    for word in ("public.nokey", "earlier migration", "REPLICA IDENTITY FULL"):
        assert word in done.err, (word, done)
    scene.source_is_untouched()


def test_copied_subscriptions_slots_and_prepared_transactions_are_quieted(scene):
    scene.create(scale=0)
    scene.sql("select pg_create_logical_replication_slot('somebodys', 'test_decoding')")
    scene.sql("create table audit (id int, at timestamptz default now()); alter table audit replica identity full;"
              "create function note() returns trigger language plpgsql as $$ begin insert into public.audit values (new.id); "
              "return new; end $$; create trigger always after insert on types for each row execute function note(); "
              "alter table types enable always trigger always; alter database shop set default_transaction_read_only = off")
    done = scene.run("--cutover")
    assert done.code == 0, done
    assert scene.sql("select tgenabled from pg_trigger where tgname = 'always'", name=scene.target) == [("A",)]
    assert scene.sql("select slot_name from pg_replication_slots", name=scene.target) == []
    assert scene.sql("select pubname from pg_publication", name=scene.target) == []
    config = scene.sql("select setconfig from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase "
                       "where d.datname = 'shop' and setrole = 0", name=scene.target)
    assert config == [(["default_transaction_read_only=off"],)]
    scene.sql("insert into types (t) values ('after')", name=scene.target)
    assert scene.sql("select count(*) from audit", name=scene.target) == [(1,)]


def prepare(scene, gid, *statements):
    con = scene.connect()
    for statement in ("begin", *statements, f"prepare transaction '{gid}'"):
        con.cursor().execute(statement)
    con.close()


@pytest.mark.hooks
@pytest.mark.timeout(400)
def test_trap_017_prepared_transactions_from_the_slot_to_the_switch(scene):
    """One that hangs the slot is named; one that is in the copy is rolled back there, named, and comes by the stream when it
    is committed."""
    scene.create(scale=0)
    scene.sql("create table pre (a int primary key)")
    prepare(scene, "too early", "insert into pre values (1)")
    done = scene.run("--apply-retry=4s")
    assert done.code == 4 and "waited 4 s for open transactions" in done.error(), done
    assert "prepared transaction 'too early' of" in done.error() and "the slot waits for open transactions" in done.err
    scene.sql("rollback prepared 'too early'")
    assert scene.run(env={"KB_CRASH_AT": "snapshot"}).code == -9
    prepare(scene, "in the copy", "insert into pre values (2)")
    prepare(scene, "not to be", "insert into pre values (3)")
    done = scene.run("--cutover", env={"KB_CRASH_AT": "verify"})
    assert done.code == -9, done
    assert 'event="a prepared transaction of the copy is rolled back"' in done.err and 'gid="in the copy"' in done.err
    with open(os.path.join(scene.state, "audit.jsonl")) as f:
        assert "'in the copy' of" in f.read()
    assert scene.sql("select gid from pg_prepared_xacts", name=scene.target) == []
    scene.sql("commit prepared 'in the copy'")
    scene.sql("rollback prepared 'not to be'")
    done = scene.run("--cutover")
    assert done.code == 0, done
    assert scene.sql("select a from pre", name=scene.target) == [(2,)]
    scene.audit_is_sound()


def test_answers_that_are_lost_throttled_or_broken(scene):
    """Every call that makes something loses its answer once; others are throttled, answered with 500 or HTML, or cut off."""
    scene.create(scale=0, MaxAllocatedStorage=100).load(rate=0)
    for action in ("CreateDBSnapshot", "CopyDBSnapshot", "RestoreDBInstanceFromDBSnapshot", "ModifyDBInstance",
                   "ChangeResourceRecordSets"):
        scene.lab.faults.add("lost", action)
    scene.lab.faults.add("throttle", "DescribeDBInstances", times=2, after=2)
    scene.lab.faults.add("status", "DescribeDBSnapshots", times=2, status=500)
    scene.lab.faults.add("drop", "DownloadDBLogFilePortion")
    scene.lab.faults.add("html", "DescribeKey", status=503)
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    snapshots = [x for x in scene.rds.describe_db_snapshots()["DBSnapshots"] if x["DBInstanceIdentifier"] == scene.name]
    assert len(snapshots) == 2


@pytest.mark.parametrize("what,env,code,word", [
    ("password", {"KEYBRIDGE_DB_PASSWORD": "wrong"}, 4, "password"),
    ("credentials", {"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, 6, "InvalidClientTokenId|security token|credentials"),
    ("endpoint", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "2"}, 6, "(?i)connect"),
])
def test_what_is_wrong_is_said_in_one_line(scene, what, env, code, word):
    scene.create(scale=0)
    done = scene.run("--cutover", env=env)
    assert done.code == code, (what, done)
    assert re.search(word, done.error()) and done.hint(), (what, done)
    scene.source_is_untouched()


@pytest.mark.parametrize("missing", ["--instance=", "--kms-key="])
def test_what_is_missing_is_said(scene, missing):
    args = [a for a in scene.args("run") if not a.startswith(missing)]
    done = scene.kb.run(*args, env=scene.env())
    assert done.code == 2 and missing[:-1] in done.error() and done.hint(), done


# Every place at which a run is killed once, in the order in which they come. One migration goes through all of them: each rerun
# goes on where the last one died, and dies at the next place.
PLACES = ["preflight", "publication", "publication-made", "slot", "slot-made", "marker", "snapshot", "snapshot-asked", "copy",
          "copy-asked", "restore", "restore-asked", "quiet", "quiet-one", "position", "settings", "modify-asked", "stream",
          "catch-up", "verify", "definitions", "sequences", "cutover-fence", "cutover-drain", "cutover-close", "cutover-closed",
          "cutover-prove", "cutover-opening", "cutover-opened-one", "cutover-switch", "receipt"]


@pytest.mark.hooks
@pytest.mark.timeout(400)
def test_killed_once_at_every_place(scene):
    scene.create(MaxAllocatedStorage=100, PreferredMaintenanceWindow="sat:23:10-sat:23:40").load(rate=100)
    for place in PLACES:
        done = scene.run("--cutover", env={"KB_CRASH_AT": place})
        assert done.code == -9, f"not killed at {place}: {done}"
        old = scene.accepts_writes(scene.name)
        new = scene.exists(scene.target) and scene.accepts_writes(scene.target)
        closed = PLACES.index(place) > PLACES.index("quiet-one")       # until then it is a copy that nobody knows of
        assert not (old and new and closed), f"both sides take writes after a kill at {place}"
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved()
    scene.audit_is_sound()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_random_moments(scene):
    """Ten kills, wherever they fall; then it finishes."""
    scene.create(scale=0).load(rate=0)
    dice = random.Random(time.time_ns())
    kills = 0
    for _ in range(10):
        run = scene.start("--cutover")
        deadline = time.monotonic() + dice.uniform(0.05, 4)
        while run.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not run.alive():
            done = run.wait()
            assert done.code == 0, done
            break
        run.kill9()
        kills += 1
        old = scene.accepts_writes(scene.name)
        new = scene.exists(scene.target) and scene.accepts_writes(scene.target)
        quiet = "position" in [p["phase"] for p in scene.status()["phases"]] if os.path.exists(f"{scene.state}/journal.db") else False
        assert not (old and new and quiet), "both sides take writes"
    done = scene.run("--cutover")
    assert done.code == 0, (kills, done)
    scene.proved()
    scene.audit_is_sound()


RUNS = int(os.environ.get("KB_SNAPSHOTS", "2"))


@pytest.mark.parametrize("run", range(RUNS))
def test_a_snapshot_under_load_is_exact(scene, run):
    """Nothing lost, nothing doubled where the copy ends and the stream begins. Asynchronous commits, so that WAL ends inside a
    record more often than not."""
    scene.create(scale=0)
    scene.sql(f"alter role app set synchronous_commit = {'off' if run % 2 else 'on'}")
    scene.load(writers=6, rate=0)
    time.sleep(random.uniform(0.2, 0.8))
    done = scene.run("--cutover")
    assert done.code == 0, done
    scene.proved(0.2)


def test_trap_077_what_rows_do_not_show_is_found_before_the_cut_over(scene):
    """Roles, rights, large objects and definitions that changed since the snapshot: named, and the cut-over refuses them."""
    scene.create(scale=0)
    scene.sql("select lo_create(7)")
    done = scene.run(command="provision")
    assert done.code == 0, done
    scene.sql("create unlogged table scrap (a int)")
    done = scene.run("--cutover")
    assert done.code == 1 and "missing table public.scrap" in done.error(), done
    scene.sql("drop table scrap; create role latecomer login; grant select on account to latecomer; select lo_put(7, 0, 'later')")
    done = scene.run("--cutover")
    assert done.code == 1 and "things that rows don't show" in done.error() and "--accept-drift" in done.hint(), done
    for what in ("role latecomer: only on the source", "large objects written since the copy", "rights on relation public.account"):
        assert what in done.err, what
    assert scene.accepts_writes(scene.name) and not scene.accepts_writes(scene.target)
    done = scene.run("--cutover", "--accept-drift")
    assert done.code == 0, done
    receipt = scene.receipt()
    assert any("latecomer" in d for d in receipt["definitions"]), receipt
    assert any("large objects" in d for d in receipt["databases"]["shop"]["definitions"]), receipt
    assert "definitions that differ" in done.out


def test_trap_026_cron_jobs_stand_still_on_the_copy(scene):
    """A real pg_cron: its jobs run on one side at a time, its tables don't disturb the comparison, and it all comes back."""
    group = scene.name + "-pg"
    scene.create(scale=0)
    scene.rds.modify_db_parameter_group(DBParameterGroupName=group, Parameters=[
        {"ParameterName": "shared_preload_libraries", "ParameterValue": "pg_cron", "ApplyMethod": "pending-reboot"}])
    scene.rds.reboot_db_instance(DBInstanceIdentifier=scene.name)
    scene.available(scene.name)
    scene.admin_sql("create extension pg_cron; grant usage on schema cron to boss; grant all on all tables in schema cron to boss;"
                    "grant execute on all functions in schema cron to boss", dbname="postgres")
    job = scene.sql("select cron.schedule_in_database('count', '* * * * *', 'insert into runs default values', 'shop')",
                    dbname="postgres")[0][0]
    scene.sql("create table runs (at timestamptz default now(), id serial primary key)")
    done = scene.run(command="provision")
    assert done.code == 0, done
    assert "scheduled jobs" in done.err
    assert "cron.runid_seq" in done.err                            # nobody but the extension's owner may set it
    scene.admin_sql("select nextval('cron.runid_seq')", dbname="postgres")
    active = "select active from cron.job where jobid = %s"
    assert scene.sql(active, [job], "postgres") == [(True,)]
    assert scene.sql(active, [job], "postgres", scene.target) == [(False,)]
    done = scene.run("--cutover")
    assert done.code == 0, done
    assert scene.sql(active, [job], "postgres", scene.target) == [(True,)]


@pytest.mark.hooks
def test_trap_020_a_snapshot_of_another_run_is_refused(scene):
    """The migration's snapshot is replaced by one that has another run's marker."""
    scene.create(scale=0)
    assert scene.run(env={"KB_CRASH_AT": "copy"}).code == -9
    snapshot, = scene.rds.describe_db_snapshots(DBInstanceIdentifier=scene.name, SnapshotType="manual")["DBSnapshots"]
    name, tags = snapshot["DBSnapshotIdentifier"], snapshot["TagList"]
    marker, = scene.sql("select obj_description(oid, 'pg_publication') from pg_publication")[0]
    for dbname in ("shop", "side", "postgres"):
        scene.sql("comment on publication keybridge is 'keybridge 12345678 of another run'", dbname=dbname)
    scene.rds.delete_db_snapshot(DBSnapshotIdentifier=name)
    scene.rds.create_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier=scene.name, Tags=tags)
    wait_for("the other snapshot", lambda: scene.rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"][0][
        "Status"] == "available", 60)
    for dbname in ("shop", "side", "postgres"):
        scene.sql("comment on publication keybridge is %s", [marker], dbname=dbname)
    done = scene.run()
    assert done.code != 0 and "it comes from another snapshot" in done.error(), done
    assert scene.accepts_writes(scene.name)
