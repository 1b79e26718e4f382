"""The whole move by hand, with boto3 as the client: what keybridge is going to do, without keybridge."""
import re
import threading

import dns.message
import dns.query
import psycopg2
import pytest

from lab.pgserver import wait_for
from lab.server import Lab

MASTER = {"user": "boss", "password": "boss-password"}


@pytest.fixture(scope="module")
def lab(module_folder):
    with Lab(module_folder, speed=4) as lab:
        yield lab
    assert lab.violations == []


@pytest.fixture(scope="module")
def rds(lab):
    return lab.client("rds")


def instance(rds, name):
    return rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]


def wait_available(rds, name):
    """Polls; returns every status seen on the way."""
    seen = []

    def ready():
        status = instance(rds, name)["DBInstanceStatus"]
        if status not in seen:
            seen.append(status)
        shown = instance(rds, name)                             # the first moments after a Modify still show the old status
        return status == "available" and not shown["PendingModifiedValues"] and \
            shown["DBParameterGroups"][0]["ParameterApplyStatus"] != "applying"
    wait_for(f"{name} to be available", ready, 30, 0.03)
    return seen


def wait_snapshot(rds, name):
    percents = []

    def ready():
        snapshot = rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"][0]
        percents.append(snapshot["PercentProgress"])
        return snapshot["Status"] == "available"
    wait_for(f"snapshot {name}", ready, 30, 0.03)
    return percents


def connect(lab, name, dbname="shop", **more):
    where = lab.rds.instances[name]
    con = psycopg2.connect(host=where.address, port=lab.db_port, dbname=dbname, **{**MASTER, **more})
    con.autocommit = True
    return con


def query(con, text, *args):
    with con.cursor() as cur:
        cur.execute(text, args or None)
        return cur.fetchall() if cur.description else None


def ask_dns(lab, name, kind="A", how=dns.query.udp):
    return how(dns.message.make_query(name, kind), lab.dns_host, port=lab.dns_port, timeout=5)


class Load:
    """Inserts as fast as it can through one connection; knows what was acknowledged."""

    def __init__(self, con):
        self.con, self.stop, self.done = con, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with self.con.cursor() as cur:
            while not self.stop.is_set():
                cur.execute("insert into orders (note) values ('x')")
                self.done += 1

    def end(self):
        self.stop.set()
        self.thread.join()


def test_1_create_with_a_key_and_every_setting(lab, rds):
    rds.create_db_parameter_group(DBParameterGroupName="shop-pg", DBParameterGroupFamily="postgres15", Description="x")
    rds.modify_db_parameter_group(DBParameterGroupName="shop-pg", Parameters=[
        {"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"}])
    made = rds.create_db_instance(
        DBInstanceIdentifier="src", Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20, DBName="shop",
        MasterUsername=MASTER["user"], MasterUserPassword=MASTER["password"], StorageEncrypted=True, KmsKeyId="alias/lab-a",
        DBParameterGroupName="shop-pg", VpcSecurityGroupIds=["sg-0aa", "sg-0bb"], DBSubnetGroupName="lab-private",
        MultiAZ=True, MaxAllocatedStorage=100, EnableIAMDatabaseAuthentication=True, EnableCloudwatchLogsExports=["postgresql"],
        DeletionProtection=True, BackupRetentionPeriod=7, PreferredBackupWindow="01:00-01:30",
        PreferredMaintenanceWindow="sat:23:10-sat:23:40", CopyTagsToSnapshot=True, MonitoringInterval=30,
        MonitoringRoleArn=f"arn:aws:iam::{lab.account}:role/monitor", EnablePerformanceInsights=True,
        PerformanceInsightsKMSKeyId="alias/lab-a", PerformanceInsightsRetentionPeriod=31, AutoMinorVersionUpgrade=False,
        OptionGroupName="lab-options", Tags=[{"Key": "team", "Value": "orders"}])["DBInstance"]
    assert made["DBInstanceStatus"] == "creating" and "Endpoint" not in made and made["KmsKeyId"] == lab.key_a
    assert wait_available(rds, "src")[0] == "creating"
    rds.add_role_to_db_instance(DBInstanceIdentifier="src", RoleArn=f"arn:aws:iam::{lab.account}:role/s3",
                                FeatureName="s3Import")
    wait_for("the role", lambda: instance(rds, "src")["AssociatedRoles"][0]["Status"] == "ACTIVE")
    con = connect(lab, "src")
    assert query(con, "show work_mem") == [("8MB",)] and query(con, "show wal_level") == [("replica",)]


def test_2_the_master_is_no_superuser(lab):
    con = connect(lab, "src")
    assert query(con, "select rolsuper, rolcreatedb, rolcreaterole, pg_has_role('rds_superuser', 'member') from pg_roles "
                      "where rolname = current_user") == [(False, True, True, True)]
    query(con, "set session_replication_role = replica; reset session_replication_role")
    query(con,
          "create table orders (id bigserial primary key, note text); create schema s; create publication p for table orders")
    query(con,
          "create role clerk login password 'clerk-password'; grant insert on orders to clerk; alter role clerk nologin; "
          "alter role clerk login")
    query(con, "alter database shop connection limit 50")
    query(con, "create database more")
    clerk = connect(lab, "src", user="clerk", password="clerk-password")
    assert query(con, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'clerk'") == [(True,)]
    with pytest.raises(psycopg2.Error):
        query(clerk, "select 1")
    with pytest.raises(psycopg2.OperationalError, match="rejects"):
        connect(lab, "src", dbname="rdsadmin")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(con, "create role evil superuser")


def test_3_logical_replication_needs_a_reboot(lab, rds):
    change = {"ParameterName": "rds.logical_replication", "ParameterValue": "1"}
    with pytest.raises(rds.exceptions.ClientError, match="immediate apply method for static"):
        rds.modify_db_parameter_group(DBParameterGroupName="shop-pg", Parameters=[{**change, "ApplyMethod": "immediate"}])
    rds.modify_db_parameter_group(DBParameterGroupName="shop-pg", Parameters=[{**change, "ApplyMethod": "pending-reboot"}])
    wait_for("pending-reboot", lambda: instance(rds, "src")["DBParameterGroups"][0]["ParameterApplyStatus"] == "pending-reboot")
    rds.reboot_db_instance(DBInstanceIdentifier="src")
    assert wait_available(rds, "src")[0] == "rebooting"
    assert instance(rds, "src")["DBParameterGroups"][0]["ParameterApplyStatus"] == "in-sync"
    con = connect(lab, "src")
    assert query(con, "show wal_level; show rds.logical_replication") == [("on",)]
    assert query(con, "select pg_create_logical_replication_slot('kb', 'pgoutput') is not null") == [(True,)]


def test_4_snapshot_under_load_copy_restore(lab, rds):
    load = Load(connect(lab, "src"))
    wait_for("some load", lambda: load.done > 100)
    before = load.done
    rds.create_db_snapshot(DBInstanceIdentifier="src", DBSnapshotIdentifier="s1", Tags=[{"Key": "run", "Value": "1"}])
    assert instance(rds, "src")["DBInstanceStatus"] == "backing-up"
    with pytest.raises(rds.exceptions.InvalidDBSnapshotStateFault):
        rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="s2", KmsKeyId=lab.key_b)
    percents = wait_snapshot(rds, "s1")
    assert percents == sorted(percents) and len(set(percents)) > 2
    wait_for("more load", lambda: load.done > before + 100)
    copied = rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="s2", KmsKeyId="alias/lab-b",
                                  CopyTags=True)["DBSnapshot"]
    assert copied["Status"] == "copying" and copied["KmsKeyId"] == lab.key_b
    wait_snapshot(rds, "s2")
    load.end()
    made = rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="dst", DBSnapshotIdentifier="s2",
                                                    DBParameterGroupName="shop-pg")["DBInstance"]
    assert made["DBInstanceStatus"] == "creating"
    assert wait_available(rds, "dst")[0] == "creating"
    con = connect(lab, "dst")
    ids = [r[0] for r in query(con, "select id from orders order by id")]
    assert ids == list(range(1, len(ids) + 1)) and before <= len(ids) <= load.done
    assert query(con, "select slot_name, active from pg_replication_slots") == [("kb", False)]      # to be dropped on the copy
    query(con, "select pg_drop_replication_slot('kb')")


def test_5_a_restore_that_forgets_the_parameter_group(lab, rds):
    """A server with a logical slot doesn't start with wal_level=replica."""
    rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="bad", DBSnapshotIdentifier="s2")
    wait_for("its end", lambda: instance(rds, "bad")["DBInstanceStatus"] != "creating")
    bad = instance(rds, "bad")
    assert bad["DBInstanceStatus"] == "incompatible-parameters"
    assert bad["DBParameterGroups"][0]["DBParameterGroupName"] == "default.postgres15"
    rds.delete_db_instance(DBInstanceIdentifier="bad", SkipFinalSnapshot=True)
    wait_for("its deletion", lambda: "bad" not in lab.rds.instances)


def test_6_defaults_of_a_restore(lab, rds):
    src, dst = instance(rds, "src"), instance(rds, "dst")
    assert dst["KmsKeyId"] == lab.key_b and dst["DbiResourceId"] != src["DbiResourceId"]
    for same in ("DBInstanceClass", "AllocatedStorage", "MasterUsername", "DBName", "EngineVersion", "BackupRetentionPeriod",
                 "PreferredBackupWindow", "LicenseModel"):
        assert dst[same] == src[same], same
    assert dst["TagList"] == src["TagList"] == [{"Key": "team", "Value": "orders"}]
    assert [g["VpcSecurityGroupId"] for g in dst["VpcSecurityGroups"]] == ["sg-0default"]
    assert dst["DBSubnetGroup"]["DBSubnetGroupName"] == "default"
    assert dst["OptionGroupMemberships"][0]["OptionGroupName"] == "default:postgres-15"
    assert (dst["MultiAZ"], dst["IAMDatabaseAuthenticationEnabled"], dst["DeletionProtection"], dst["CopyTagsToSnapshot"],
            dst["MonitoringInterval"], dst["PerformanceInsightsEnabled"],
            dst["AssociatedRoles"]) == (False,) * 4 + (0, False, [])
    for absent in ("MaxAllocatedStorage", "MonitoringRoleArn", "PerformanceInsightsKMSKeyId", "EnabledCloudwatchLogsExports"):
        assert absent not in dst and absent in src
    assert dst["PreferredMaintenanceWindow"] != src["PreferredMaintenanceWindow"]


def test_7_settings_carried_over_by_modify(lab, rds):
    src = instance(rds, "src")
    rds.modify_db_instance(
        DBInstanceIdentifier="dst", ApplyImmediately=True, DBParameterGroupName="default.postgres15", MaxAllocatedStorage=100,
        VpcSecurityGroupIds=["sg-0aa", "sg-0bb"], OptionGroupName="lab-options", MultiAZ=True, DBSubnetGroupName="lab-private",
        PreferredMaintenanceWindow="sat:23:10-sat:23:40", CopyTagsToSnapshot=True, MonitoringInterval=30,
        DeletionProtection=True,
        MonitoringRoleArn=src["MonitoringRoleArn"], EnablePerformanceInsights=True, PerformanceInsightsKMSKeyId="alias/lab-b",
        PerformanceInsightsRetentionPeriod=31, AutoMinorVersionUpgrade=False, EnableIAMDatabaseAuthentication=True,
        PubliclyAccessible=False, CloudwatchLogsExportConfiguration={"EnableLogTypes": ["postgresql"]})
    with pytest.raises(rds.exceptions.InvalidDBInstanceStateFault):
        rds.modify_db_instance(DBInstanceIdentifier="dst", ApplyImmediately=True, MultiAZ=False)
    seen = wait_available(rds, "dst")
    assert "modifying" in seen and instance(rds, "dst")["DBParameterGroups"][0]["ParameterApplyStatus"] == "pending-reboot"
    rds.modify_db_instance(DBInstanceIdentifier="dst", DBParameterGroupName="shop-pg")
    wait_available(rds, "dst")
    rds.reboot_db_instance(DBInstanceIdentifier="dst")
    wait_available(rds, "dst")
    rds.add_role_to_db_instance(DBInstanceIdentifier="dst", RoleArn=f"arn:aws:iam::{lab.account}:role/s3",
                                FeatureName="s3Import")
    wait_for("the role", lambda: instance(rds, "dst")["AssociatedRoles"][0]["Status"] == "ACTIVE")
    dst = instance(rds, "dst")
    own = {"DBInstanceIdentifier", "DBInstanceArn", "DbiResourceId", "Endpoint", "InstanceCreateTime", "KmsKeyId",
           "PerformanceInsightsKMSKeyId", "LatestRestorableTime"}
    assert {k: v for k, v in dst.items() if k not in own} == {k: v for k, v in src.items() if k not in own}
    assert query(connect(lab, "dst"), "show wal_level") == [("logical",)]


def test_8_the_log_says_where_recovery_ended(lab, rds):
    files = rds.describe_db_log_files(DBInstanceIdentifier="dst", FilenameContains="postgresql.log")["DescribeDBLogFiles"]
    assert files and all(re.fullmatch(r"error/postgresql\.log\.\d{4}-\d\d-\d\d-\d{4}", f["LogFileName"]) for f in files)
    text, marker, calls = "", "0", 0
    while True:
        part = rds.download_db_log_file_portion(DBInstanceIdentifier="dst", LogFileName=files[0]["LogFileName"], Marker=marker,
                                                NumberOfLines=5)
        text, marker, calls = text + part["LogFileData"], part["Marker"], calls + 1
        if not part["AdditionalDataPending"]:
            break
    assert calls > 1 and re.search(r"redo done at [0-9A-F]+/[0-9A-F]+ system usage", text)
    newest = rds.download_db_log_file_portion(DBInstanceIdentifier="dst", LogFileName=files[-1]["LogFileName"], NumberOfLines=1)
    assert newest["LogFileData"].count("\n") <= 1
    with pytest.raises(rds.exceptions.DBLogFileNotFoundFault):
        rds.download_db_log_file_portion(DBInstanceIdentifier="dst", LogFileName="error/none")
    messages = [e["Message"] for e in rds.describe_events(SourceIdentifier="dst", SourceType="db-instance")["Events"]]
    assert "Restored from snapshot s2" in messages


def test_9_a_cname_moves_the_client(lab, rds):
    route53 = lab.client("route53")
    zone = route53.list_hosted_zones_by_name(DNSName="app.lab")["HostedZones"][0]["Id"]

    def upsert(name, target, action="UPSERT"):
        return route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Comment": "move", "Changes": [{
            "Action": action, "ResourceRecordSet": {"Name": name, "Type": "CNAME", "TTL": 3,
                                                    "ResourceRecords": [{"Value": target}]}}]})["ChangeInfo"]

    def insync(change):
        assert change["Status"] == "PENDING"
        wait_for("INSYNC", lambda: route53.get_change(Id=change["Id"])["ChangeInfo"]["Status"] == "INSYNC")
    ends = {n: lab.rds.endpoint_name(n) for n in ("src", "dst")}
    insync(upsert("db.app.lab", ends["src"]))
    assert lab.resolve("db.app.lab") == lab.rds.instances["src"].address
    change = upsert("db.app.lab", ends["dst"])
    listed = route53.list_resource_record_sets(HostedZoneId=zone, StartRecordName="db.app.lab", StartRecordType="CNAME",
                                               MaxItems="1")
    assert listed["ResourceRecordSets"][0]["ResourceRecords"][0]["Value"] == ends["dst"]
    assert lab.resolve("db.app.lab") == lab.rds.instances["src"].address                # not yet
    insync(change)
    for how in (dns.query.udp, dns.query.tcp):
        answer = ask_dns(lab, "db.app.lab.", how=how).answer
        assert answer[0].ttl == 3 and answer[0][0].target.to_text() == ends["dst"] + "."
        assert answer[1][0].address == lab.rds.instances["dst"].address
    assert ask_dns(lab, "none.app.lab.").rcode() == 3 and ask_dns(lab, "example.org.").rcode() == 5
    wait_for("the hosts file", lambda: f"{lab.rds.instances['dst'].address} db.app.lab\n" in open(lab.hosts_file).read())
    insync(upsert("ip.app.lab", lab.rds.instances["dst"].data["Endpoint"]["Address"]))
    assert lab.resolve("ip.app.lab") == lab.rds.instances["dst"].address
    with pytest.raises(route53.exceptions.InvalidChangeBatch, match="already exists"):
        upsert("db.app.lab", ends["src"], "CREATE")
    with pytest.raises(route53.exceptions.InvalidChangeBatch, match="do not match"):
        upsert("db.app.lab", ends["src"], "DELETE")


def test_10_tls_and_rename_and_delete(lab, rds):
    target = lab.rds.instances["dst"]
    con = connect(lab, "dst", sslmode="verify-full", sslrootcert=lab.authority.bundle)
    assert query(con, "select ssl from pg_stat_ssl where pid = pg_backend_pid()") == [(True,)]
    for name, new in (("src", "src-old"), ("dst", "src")):
        rds.modify_db_instance(DBInstanceIdentifier=name, NewDBInstanceIdentifier=new, ApplyImmediately=True)
        wait_for("renaming", lambda: lab.rds.instances.get(name) is None or lab.rds.instances[name].status == "renaming")
        wait_for("the new name", lambda: new in lab.rds.instances)
        wait_available(rds, new)
    assert lab.rds.instances["src"] is target
    with pytest.raises(rds.exceptions.DBInstanceNotFoundFault):
        instance(rds, "dst")
    assert query(connect(lab, "src", sslmode="require"), "select count(*) > 0 from orders") == [(True,)]
    with pytest.raises(rds.exceptions.ClientError, match="already exists"):
        rds.modify_db_instance(DBInstanceIdentifier="src-old", NewDBInstanceIdentifier="src", ApplyImmediately=True)

    with pytest.raises(rds.exceptions.ClientError, match="FinalDBSnapshotIdentifier is required"):
        rds.delete_db_instance(DBInstanceIdentifier="src-old")
    with pytest.raises(rds.exceptions.ClientError, match="deletion protection"):
        rds.delete_db_instance(DBInstanceIdentifier="src-old", SkipFinalSnapshot=True)
    rds.modify_db_instance(DBInstanceIdentifier="src-old", DeletionProtection=False)
    wait_for("protection off", lambda: not instance(rds, "src-old")["DeletionProtection"])
    wait_available(rds, "src-old")
    gone = rds.delete_db_instance(DBInstanceIdentifier="src-old", FinalDBSnapshotIdentifier="last")["DBInstance"]
    assert gone["DBInstanceStatus"] == "deleting"
    wait_for("deleted", lambda: "src-old" not in lab.rds.instances, 30)
    final = rds.describe_db_snapshots(DBSnapshotIdentifier="last")["DBSnapshots"][0]
    assert final["Status"] == "available" and final["KmsKeyId"] == lab.key_a
    for name in ("s1", "s2"):
        rds.delete_db_snapshot(DBSnapshotIdentifier=name)
    with pytest.raises(rds.exceptions.DBSnapshotNotFoundFault):
        rds.describe_db_snapshots(DBSnapshotIdentifier="s1")
