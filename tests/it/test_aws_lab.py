"""The AWS client against the local AWS, whose instances are real servers: every call, then every fault on each of them."""
import random

import pytest

from awskit import awscall, plain_env
from lab.pgserver import free_port
from lab.server import Lab

port = lambda: free_port(23700, 23999)
MASTER = {"MasterUsername": "boss", "MasterUserPassword": "boss-password"}
MONITOR = "arn:aws:iam::123456789012:role/rds-monitoring"
IMPORT = "arn:aws:iam::123456789012:role/import"


@pytest.fixture(scope="module")
def lab(scratch):
    with Lab(f"{scratch}/aws", port=port(), dns_port=port(), db_port=port(), speed=20, tls=False) as made:
        yield made
    assert made.violations == []


@pytest.fixture
def call(lab, tmp_path):
    """call(…) → the last value; fails when the call does. call.refused(…) → the error."""
    class Call:
        env = plain_env(lab.endpoint, tmp_path, AWS_REGION=lab.region, AWS_ACCESS_KEY_ID=lab.access_key,
                        AWS_SECRET_ACCESS_KEY=lab.secret_key)

        def __call__(self, *args):
            done = awscall("--run=r-1", "--poll-ms=60", *args, env=self.env)
            assert done.code == 0, done
            return done.value

        def refused(self, *args):
            done = awscall("--run=r-1", "--poll-ms=60", "--attempts=3", *args, env=self.env)
            assert done.code == 6, done
            return done.value
    lab.faults.clear()
    return Call()


@pytest.fixture(scope="module")
def source(lab):
    """An instance that differs from the defaults wherever it can."""
    rds = lab.client("rds")
    rds.create_db_parameter_group(DBParameterGroupName="own", DBParameterGroupFamily="postgres15", Description="x")
    rds.create_db_instance(
        DBInstanceIdentifier="src", Engine="postgres", DBInstanceClass="db.r6g.large", AllocatedStorage=100, **MASTER,
        StorageEncrypted=True, KmsKeyId="alias/lab-a", DBParameterGroupName="own", VpcSecurityGroupIds=["sg-1", "sg-2"],
        DBSubnetGroupName="lab-private", BackupRetentionPeriod=7, PreferredBackupWindow="01:00-01:30",
        PreferredMaintenanceWindow="sun:02:00-sun:03:00", MaxAllocatedStorage=500, DeletionProtection=False, CopyTagsToSnapshot=True,
        EnableIAMDatabaseAuthentication=True, EnableCloudwatchLogsExports=["postgresql", "upgrade"], MonitoringInterval=60,
        MonitoringRoleArn=MONITOR, EnablePerformanceInsights=True, PerformanceInsightsRetentionPeriod=7, PubliclyAccessible=False,
        AutoMinorVersionUpgrade=False, Tags=[{"Key": "team", "Value": "a & b"}, {"Key": "empty", "Value": ""}])
    return "src"


@pytest.fixture(scope="module")
def copy(lab, source, tmp_path_factory):
    """Snapshot, copy under the other key, restore: by the client, to the name dst."""
    env = plain_env(lab.endpoint, tmp_path_factory.mktemp("home"), AWS_REGION=lab.region, AWS_ACCESS_KEY_ID=lab.access_key,
                    AWS_SECRET_ACCESS_KEY=lab.secret_key)
    done = awscall("--run=r-1", "--poll-ms=60", "wait-instance", source, "settled", "then", "create-snapshot", source, "snap-1", "then",
                   "wait-snapshot", "snap-1", "then", "copy-snapshot", "snap-1", "snap-2", "alias/lab-b", "then",
                   "wait-snapshot", "snap-2", "then", "restore-as", source, "dst", "snap-2", "then",
                   "wait-instance", "dst", "settled", "then", "modify-as", source, "dst", "then", "wait-instance", "dst", "settled", "then",
                   "modify-as", source, "dst", env=env)
    assert done.code == 0, done
    assert done.values[-3:] == [True, True, False], done        # changed once, then nothing is left to change
    return "dst"


def test_a_copy_under_the_new_key_is_like_the_source(call, lab, source, copy):
    a, b = call("instance", source), call("instance", copy)
    assert a["kms_key"] == lab.key_a and b["kms_key"] == lab.key_b
    own = {"name", "arn", "resource_id", "host", "created", "kms_key", "tags", "secondary_zone"}
    different = {k: (a[k], b[k]) for k in a if k not in own and a[k] != b[k]}
    assert not different
    assert b["tags"] == {"team": "a & b", "empty": "", "keybridge:run": "r-1"}
    assert a["parameter_groups"] == {"own": "in-sync"} and set(a["security_groups"]) == {"sg-1", "sg-2"}
    assert a["log_exports"] == ["postgresql", "upgrade"] and a["monitoring_role"] == MONITOR and a["max_allocated_storage"] == 500
    snapshot = call("snapshot", "snap-2")
    assert snapshot["kms_key"] == lab.key_b and snapshot["encrypted"] and snapshot["tags"]["keybridge:run"] == "r-1"


def test_the_log_of_the_copy(call, copy):
    files = call("logs", copy, "postgresql")
    text = "".join(call("log", copy, name) for name, *_ in files)
    assert "redo done at" in text and "database system is ready to accept connections" in text
    assert call("logs", copy, "nothing-like-this") == []


def test_roles_tags_events(call, lab, source, copy):
    call("add-role", copy, IMPORT, "s3Import", "then", "wait-instance", copy, "settled")
    call("add-role", copy, IMPORT, "s3Import")                  # once more is fine
    assert [r[:2] for r in call("instance", copy)["roles"]] == [[IMPORT, "s3Import"]]
    error = call.refused("add-role", copy, IMPORT + "2", "s3Import")
    assert error["code"] == "DBInstanceRoleAlreadyExists"
    arn = call("instance", copy)["arn"]
    call("add-tags", arn, "new=tag=with=signs", "other=x")
    assert call("tags", arn)["new"] == "tag=with=signs"
    assert any("restored" in m.lower() or "created" in m.lower() for m in call("events", copy, "db-instance"))


def test_parameter_groups(call, lab):
    assert call("group", "g-1") is None
    call("create-group", "g-1", "postgres15", "a=b")
    call("create-group", "g-1", "postgres15")                   # ours: taken
    assert call("group", "g-1")["family"] == "postgres15"
    call("modify-group", "g-1", "rds.logical_replication=1", "wal_sender_timeout=10000")
    assert call("parameters", "g-1", "user") == {"rds.logical_replication": "1", "wal_sender_timeout": "10000"}
    everything = call("parameters", "g-1")
    assert len(everything) > 100 and "max_connections" in everything         # several pages
    lab.client("rds").create_db_parameter_group(DBParameterGroupName="g-2", DBParameterGroupFamily="postgres15", Description="x")
    assert call.refused("create-group", "g-2", "postgres15")["code"] == "DBParameterGroupAlreadyExists"
    call("delete-group", "g-1")
    call("delete-group", "g-1")
    assert call("group", "g-1") is None


def test_keys(call, lab):
    assert call("key", "alias/lab-b", "check")["arn"] == lab.key_b
    kms = lab.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    error = call.refused("key", key, "check")
    assert f"key/{key} can't be used: it is Disabled" in error["error"] and "kms:EnableKey" in error["hint"]
    error = call.refused("key", "alias/none")
    assert error["code"] == "NotFoundException" and error["error"].startswith("key alias/none: KMS DescribeKey: NotFoundException")


def test_a_key_that_is_disabled(call, lab, source, copy):
    kms = lab.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    error = call.refused("copy-snapshot", "snap-1", "snap-x", key)
    assert error["code"] == "KMSKeyNotAccessibleFault" and "kms:CreateGrant" in error["hint"], error
    assert error["error"].startswith("RDS CopyDBSnapshot: KMSKeyNotAccessibleFault: ") and "(request id " in error["error"]


@pytest.mark.parametrize("kind", ["copy-fails", "key-disabled"])
def test_a_copy_that_fails(call, lab, copy, kind):
    lab.faults.add(kind)
    call("copy-snapshot", "snap-1", f"snap-{kind}", "alias/lab-b")
    error = call.refused("wait-snapshot", f"snap-{kind}")
    assert error["code"] == "failed" and error["error"] == f'waiting for snapshot snap-{kind}: it is "failed"'
    if kind == "key-disabled":
        lab.client("kms").enable_key(KeyId=lab.key_b)
    call("delete-snapshot", f"snap-{kind}", "then", "wait-snapshot-gone", f"snap-{kind}")


def test_a_restore_that_fails(call, lab, source, copy):
    lab.faults.add("restore-incompatible")
    call("restore-as", source, "bad", "snap-2")
    error = call.refused("wait-instance", "bad")
    assert error["code"] == "incompatible-restore"
    call("delete-instance", "bad", "then", "wait-instance-gone", "bad")
    assert call("instance", "bad") is None


FAULTS = [("throttle", {}), ("status", {"status": 500}), ("status", {"status": 503}), ("html", {}), ("drop", {}), ("lost", {}),
          ("slow", {"seconds": 0.2})]


@pytest.mark.parametrize("kind,more", FAULTS, ids=lambda x: x if isinstance(x, str) else str(x.get("status", "")))
def test_every_call_survives_every_fault(call, lab, source, copy, kind, more):
    """Each call once with the fault on its first attempt; what it makes exists once afterwards."""
    def with_fault(action, *args, times=1):
        lab.faults.clear()
        lab.faults.add(kind, action=action, times=times, **more)
        value = call(*args)
        assert lab.faults.list()[0]["hits"] == times, action
        lab.faults.clear()
        return value
    zone = lab.info()["zone_id"]
    with_fault("GetCallerIdentity", "identity")
    with_fault("DescribeKey", "key", "alias/lab-a")
    with_fault("DescribeDBInstances", "instances")
    with_fault("CreateDBSnapshot", "create-snapshot", source, "f-1")
    with_fault("DescribeDBSnapshots", "wait-snapshot", "f-1")
    with_fault("CopyDBSnapshot", "copy-snapshot", "f-1", "f-2", "alias/lab-b")
    call("wait-snapshot", "f-2")
    if kind in ("throttle", "lost"):            # the others are as good as one of these, and a server takes its time
        with_fault("RestoreDBInstanceFromDBSnapshot", "restore-as", source, "f-db", "f-2")
        call("wait-instance", "f-db", "settled")
        with_fault("ModifyDBInstance", "modify-as", source, "f-db")
        call("wait-instance", "f-db", "settled")
        resource = call("instance", "f-db")["resource_id"]
        with_fault("ModifyDBInstance", "rename", "f-db", "f-db2", resource)
        call("wait-renamed", "f-db2", resource)
        with_fault("AddRoleToDBInstance", "add-role", "f-db2", IMPORT, "s3Import")
        with_fault("AddTagsToResource", "add-tags", call("instance", "f-db2")["arn"], "a=b")
        with_fault("ListTagsForResource", "tags", call("instance", "f-db2")["arn"])
        call("wait-instance", "f-db2", "settled")
        with_fault("RebootDBInstance", "reboot", "f-db2")
        call("wait-instance", "f-db2", "settled")
        with_fault("DeleteDBInstance", "delete-instance", "f-db2")
        call("wait-instance-gone", "f-db2")
    with_fault("CreateDBParameterGroup", "create-group", "f-g", "postgres15")
    with_fault("ModifyDBParameterGroup", "modify-group", "f-g", "work_mem=1024")
    with_fault("DescribeDBParameters", "parameters", "f-g")
    with_fault("DeleteDBParameterGroup", "delete-group", "f-g")
    with_fault("DescribeDBLogFiles", "logs", copy)
    with_fault("DownloadDBLogFilePortion", "log", copy, call("logs", copy)[0][0])
    with_fault("DescribeEvents", "events", copy, "db-instance")
    with_fault("ListHostedZones", "zone-of", "x.app.lab")
    with_fault("ChangeResourceRecordSets", "upsert", zone, "x.app.lab", "CNAME", "-", "127.0.0.1.lab", "30")
    with_fault("GetChange", "upsert", zone, "x.app.lab", "CNAME", "-", "other.lab", "30")
    with_fault("ListResourceRecordSets", "records", zone)
    with_fault("DeleteDBSnapshot", "delete-snapshot", "f-1")
    with_fault("DeleteDBSnapshot", "delete-snapshot", "f-2")
    call("wait-snapshot-gone", "f-1", "then", "wait-snapshot-gone", "f-2")
    assert call("instances") == sorted([source, copy])
    assert call("snapshots", "-", "manual") == ["snap-1", "snap-2"]


def test_a_bad_day(call, lab, source, copy):
    """Of all calls 30 % throttled, 5 % answered 500 and 2 % lost after taking effect: nothing is made twice."""
    rng = random.Random(7)
    for n in range(600):
        kind = rng.random()
        if kind < 0.37:
            lab.faults.add("throttle" if kind < 0.30 else "status" if kind < 0.35 else "lost", after=n)
    made = []
    for n in range(5):
        made += [f"b-{n}", f"c-{n}"]
        call("--attempts=20", "create-snapshot", source, f"b-{n}", "then", "wait-snapshot", f"b-{n}", "then", "copy-snapshot", f"b-{n}", f"c-{n}",
             "alias/lab-b", "then", "wait-snapshot", f"c-{n}")
    hits = sum(f["hits"] for f in lab.faults.list())
    lab.faults.clear()
    assert hits > 30
    assert sorted(call("snapshots", "-", "manual")) == sorted(["snap-1", "snap-2", *made])
    for name in made:
        call("delete-snapshot", name)


def test_a_name_that_is_taken(call, lab, source, copy):
    lab.client("rds").create_db_snapshot(DBInstanceIdentifier=source, DBSnapshotIdentifier="theirs")
    call("wait-snapshot", "theirs", "then", "wait-instance", source, "settled")
    error = call.refused("create-snapshot", source, "theirs")
    assert error["code"] == "DBSnapshotAlreadyExists" and error["transient"] is False
    call("wait-snapshot", "theirs", "then", "delete-snapshot", "theirs")


def test_what_isn_t_there(call):
    assert call("instance", "none") is None and call("snapshot", "none") is None
    assert call.refused("wait-instance", "none")["error"] == ('waiting for instance none: RDS has no instance "none" in this account '
                                                              'and region')
    assert call.refused("create-snapshot", "none", "x")["code"] == "DBInstanceNotFound"
    assert call.refused("reboot", "none")["code"] == "DBInstanceNotFound"
    call("delete-instance", "none")
    call("delete-snapshot", "none")


def test_a_refusal_says_what_to_allow(call, lab, source):
    lab.faults.add("error", action="CreateDBSnapshot", code="AccessDenied", message="User: x is not authorized to perform: rds:CreateDBSnapshot")
    error = call.refused("create-snapshot", source, "x")
    assert error["code"] == "AccessDenied" and error["hint"].startswith("allow rds:CreateDBSnapshot for this identity")


def test_zones_and_records(call, lab):
    route53 = lab.client("route53")
    for n in range(130):
        route53.create_hosted_zone(Name=f"z{n}.example.org", CallerReference=str(n))
    assert call("zone", "z129.example.org")["name"] == "z129.example.org."
    zone = call("zone", "z5.example.org")["id"]
    for start in range(0, 320, 100):
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [
            {"Action": "CREATE", "ResourceRecordSet": {"Name": f"r{n}.z5.example.org", "Type": "A", "TTL": 5,
                                                       "ResourceRecords": [{"Value": "127.0.0.1"}]}}
            for n in range(start, min(start + 100, 320))]})
    records = call("records", zone)
    assert len({r["name"] for r in records if r["type"] == "A"}) == 320
    assert call("record", zone, "R7.z5.example.org.", "A")["values"] == ["127.0.0.1"]
    assert call("record", zone, "r7.z5.example.org", "CNAME") is None
    assert call("record", zone, "none.z5.example.org", "A") is None
    assert call.refused("record", "ZNONE", "x", "A")["code"] == "NoSuchHostedZone"
