#!/usr/bin/python3
"""The main job on one machine: a PostgreSQL instance under load moves to another KMS key, through a local AWS with real
servers (tests/lab). Prints the receipt and what the application saw; any bad figure makes it fail. Leaves nothing behind.
"""
import ctypes
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import shutil
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests")]

import boto3  # noqa: E402
import psycopg2  # noqa: E402

import load  # noqa: E402
from lab.pgserver import BINDIR  # noqa: E402

KEYBRIDGE = os.environ.get("KB_BIN", os.path.join(ROOT, "build/release/bin/keybridge"))
SCALE = int(os.environ.get("DEMO_SCALE", "10"))
RECORD, OLD, NEW = "orders.app.lab", "orders", "orders-new"
BOSS, BOSS_PASSWORD, APP, APP_PASSWORD = "boss", "a-boss-password", "app", "an-app-password"

STARTED = time.time()
SHOWN = ("phase done", "exact position", "both sides are equal", "ready for", "writes are blocked", "writes flow",
         "fence gave way", "cutover step", "late sessions", "setting differs")


def say(text=""):
    print(f"[{time.time() - STARTED:6.1f} s] {text}" if text else "", flush=True)


def die_with_us():
    """In the child: end when the demo ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Stage:
    """The lab and the instance in it."""

    def __init__(self, folder):
        self.process = subprocess.Popen([sys.executable, os.path.join(ROOT, "tests/lab/lab.py"), "--dir", folder, "--speed", "4"],
                                        stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the lab didn't start")
        self.info = json.loads(line)
        self.dns = (self.info["dns"].rsplit(":", 1)[0], int(self.info["dns"].rsplit(":", 1)[1]))
        self.rds, self.route53 = self.client("rds"), self.client("route53", "us-east-1")

    def client(self, service, region=None):
        return boto3.client(service, endpoint_url=self.info["endpoint"], region_name=region or self.info["region"],
                            aws_access_key_id=self.info["access_key"], aws_secret_access_key=self.info["secret_key"])

    def env(self, folder):
        return {"PATH": os.environ["PATH"], "HOME": folder, "AWS_ENDPOINT_URL": self.info["endpoint"],
                "AWS_ACCESS_KEY_ID": self.info["access_key"], "AWS_SECRET_ACCESS_KEY": self.info["secret_key"],
                "AWS_REGION": self.info["region"], "KEYBRIDGE_DB_PASSWORD": BOSS_PASSWORD, "KEYBRIDGE_AWS_POLL": "250ms"}

    def describe(self, name):
        return self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def create(self):
        self.rds.create_db_parameter_group(DBParameterGroupName="orders-pg", DBParameterGroupFamily="postgres15", Description="x")
        self.rds.modify_db_parameter_group(DBParameterGroupName="orders-pg", Parameters=[
            {"ParameterName": "rds.logical_replication", "ParameterValue": "1", "ApplyMethod": "pending-reboot"}])
        self.rds.create_db_instance(
            DBInstanceIdentifier=OLD, Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20, DBName="shop",
            MasterUsername=BOSS, MasterUserPassword=BOSS_PASSWORD, StorageEncrypted=True, KmsKeyId=self.info["key_a"],
            DBParameterGroupName="orders-pg", MaxAllocatedStorage=100, PreferredMaintenanceWindow="sat:23:10-sat:23:40",
            BackupRetentionPeriod=7, DeletionProtection=True, Tags=[{"Key": "team", "Value": "orders"}])
        while self.describe(OLD)["DBInstanceStatus"] != "available":
            time.sleep(0.1)

    def address(self, name):
        endpoint = self.describe(name)["Endpoint"]
        return endpoint["Address"], endpoint["Port"]

    def connect(self, name, dbname="shop"):
        address, port = self.address(name)
        con = psycopg2.connect(host=address, port=port, dbname=dbname, user=BOSS, password=BOSS_PASSWORD, connect_timeout=5)
        con.autocommit = True
        return con

    def fill(self):
        address, port = self.address(OLD)
        with self.connect(OLD).cursor() as cur:
            cur.execute(f"create role {APP} login password '{APP_PASSWORD}'")
            cur.execute(load.LEDGER)
            cur.execute(load.AWKWARD)
        subprocess.run([f"{BINDIR}/pgbench", "-i", "-q", "-s", str(SCALE), "-h", address, "-p", str(port), "-U", BOSS, "shop"],
                       check=True, capture_output=True, env={**os.environ, "PGPASSWORD": BOSS_PASSWORD})
        with self.connect(OLD).cursor() as cur:
            cur.execute(f"grant select, insert, update, delete on all tables in schema public to {APP}; "
                        f"grant usage on all sequences in schema public to {APP}")

    def point_record(self):
        self.route53.change_resource_record_sets(HostedZoneId=self.info["zone_id"], ChangeBatch={"Changes": [{
            "Action": "UPSERT", "ResourceRecordSet": {"Name": RECORD, "Type": "CNAME", "TTL": 5, "ResourceRecords": [
                {"Value": self.address(OLD)[0]}]}}]})

    def where(self):
        return load.resolve(RECORD, self.dns), self.info["db_port"], "shop", APP, APP_PASSWORD

    def end(self):
        self.process.terminate()
        self.process.wait(60)


class Load:
    def __init__(self, stage):
        self.ledger = load.Ledger(stage.where, writers=3).start()
        self.pgbench = load.Pgbench(stage.where, BINDIR, clients=4, rate=300).start()
        self.awkward = load.Awkward(stage.where)
        self.awkward.start()

    def stop(self):
        for part in (self.ledger, self.pgbench, self.awkward):
            part.stop()


def follow(pipe, kept):
    """keybridge's log as it comes; what matters is shown."""
    for line in pipe:
        kept.append(line)
        if any(word in line for word in SHOWN) or " warn " in line or not line[:2].isdigit():
            print("             " + line.rstrip()[:230], flush=True)


def move(stage, folder):
    """Runs keybridge; returns exit code, what it printed, and when it began and ended."""
    command = [KEYBRIDGE, "run", f"--instance={OLD}", f"--kms-key={stage.info['key_b']}", f"--target-instance={NEW}",
               f"--record={RECORD}", f"--state-dir={folder}/state", "--cutover", "--log-format=text"]
    say("$ " + " ".join(os.path.basename(x) if x == KEYBRIDGE else x for x in command))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=stage.env(folder), cwd=folder, preexec_fn=die_with_us)
    kept = []
    reader = threading.Thread(target=follow, args=(process.stderr, kept))
    reader.start()
    out = process.stdout.read()
    process.wait()
    reader.join()
    return process.returncode, out


def closed(stage):
    """The old side takes no application any more."""
    address, port = stage.address(OLD)
    try:
        psycopg2.connect(host=address, port=port, dbname="shop", user=APP, password=APP_PASSWORD, connect_timeout=5).close()
        return False
    except psycopg2.OperationalError:
        return True


def report(stage, streams, receipt, switched):
    """The application's own figures; returns what is bad."""
    bad = []
    ledger, pgbench, awkward = streams.ledger, streams.pgbench, streams.awkward
    con = stage.connect(NEW)
    lost, doubled, wrong = ledger.audit(con)
    sound, history = pgbench.audit(con)
    rows = awkward.audit(con)
    con.close()
    errors = len(ledger.errors) + len(pgbench.errors) + len(awkward.errors)
    old, new = stage.address(OLD)[0], stage.address(NEW)[0]
    figures = [
        ("acknowledged transactions", ledger.count() + awkward.done + history),
        ("  of the ledger, on the old side", ledger.sides.get(old, 0)),
        ("  of the ledger, on the new side", ledger.sides.get(new, 0)),
        ("  of pgbench (rows in its history)", history),
        ("  of awkward values", awkward.done),
        ("lost", len(lost)),
        ("doubled", len(doubled)),
        ("in doubt (COMMIT unanswered), settled either way", sum(map(len, ledger.doubt.values()))),
        ("rows that look otherwise than when acknowledged", wrong + len(rows)),
        ("pgbench's balances add up", "yes" if sound else "NO"),
        ("errors the load saw (ended sessions, refused logins)", errors),
        ("longest pause the load saw at the cut-over", f"{ledger.longest_pause(switched - 3, switched + 8) * 1000:.0f} ms"),
        ("  before it (the lab stops a server to take its snapshot)", f"{ledger.longest_pause(0, switched - 3) * 1000:.0f} ms"),
        ("writes blocked, by keybridge's own clock", f"{receipt['blocked_us'] / 1000:.0f} ms"),
        ("old side refuses the application", "yes" if closed(stage) else "NO"),
        ("new instance is under", stage.describe(NEW)["KmsKeyId"].rsplit("/", 1)[1]),
        ("key that was asked for", stage.info["key_b"].rsplit("/", 1)[1]),
    ]
    print("\nwhat the application saw\n")
    for name, value in figures:
        print(f"  {name:58} {value}")
    bad += [f"{len(lost)} acknowledged transactions are lost"] if lost else []
    bad += [f"{len(doubled)} transactions are there twice"] if doubled else []
    bad += [f"{wrong} ledger entries or balances are wrong"] if wrong else []
    bad += [f"awkward rows are wrong: {rows[:5]}"] if rows else []
    bad += ["pgbench's balances don't add up"] if not sound else []
    bad += ["the old side still lets the application in"] if not closed(stage) else []
    bad += ["the load never wrote to the new side"] if not ledger.sides.get(new) else []
    bad += ["the load never wrote to the old side"] if not ledger.sides.get(old) else []
    bad += ["the new instance is under the wrong key"] if stage.describe(NEW)["KmsKeyId"] != stage.info["key_b"] else []
    bad += [f"writes were blocked for {receipt['blocked_us'] / 1000:.0f} ms"] if receipt["blocked_us"] > 5_000_000 else []
    for database in receipt["databases"].values():
        if not database["verify"]["equal"]:
            bad.append("the receipt says that both sides differ")
    return bad


def play(folder):
    stage = Stage(os.path.join(folder, "lab"))
    try:
        say(f"a local AWS at {stage.info['endpoint']}, keys A and B")
        stage.create()
        stage.fill()
        stage.point_record()
        say(f"instance {OLD} under key A: pgbench scale {SCALE}, a ledger, a table of awkward types; clients use {RECORD}")
        streams = Load(stage)
        time.sleep(3)
        say(f"load is on: {streams.ledger.count()} ledger transactions so far; moving the instance to key B")
        run_folder = os.path.join(folder, "run")
        os.makedirs(run_folder)
        code, out = move(stage, run_folder)
        if code != 0:
            streams.stop()
            return [f"keybridge run ended with {code}"]
        with open(os.path.join(run_folder, "state/receipt.json")) as f:
            receipt = json.load(f)
        switched = datetime.datetime.fromisoformat(receipt["switched_at"].replace("Z", "+00:00")).timestamp()
        time.sleep(4)
        streams.stop()
        say("moved; the load went on against the new instance and is stopped now\n")
        print(out)
        return report(stage, streams, receipt, switched)
    finally:
        stage.end()


def main():
    folder = tempfile.mkdtemp(prefix="keybridge-demo.")
    os.chmod(folder, 0o755)
    os.makedirs(os.path.join(folder, "lab"))
    try:
        bad = play(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print()
    for line in bad:
        print(f"BAD: {line}")
    say("demo FAILED" if bad else "demo ended well: nothing lost, nothing doubled, one writable side, the new key")
    return 1 if bad else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
