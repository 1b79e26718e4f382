"""Snapshots: one instant of a running server, copies under another key, restores."""
import contextlib
import copy
import os
import subprocess

from lab.clock import Closed
from lab.errors import AwsError
from lab.pgserver import ServerError
from lab.protocol import stamp
from lab.rds_base import STATE, Snapshot, letters

def _entered(context):
    """The context, entered now, to be left by a `with` in another thread."""
    stack = contextlib.ExitStack()
    stack.enter_context(context)
    return stack


class RdsSnapshots:
    def _new_snapshot(self, instance, name, tags):
        name = self._identifier(name, "DBSnapshotIdentifier", 255)
        if name in self.snapshots:
            raise AwsError("DBSnapshotAlreadyExists",
                           f"Cannot create the snapshot because a snapshot with the identifier {name} already exists.")
        source = instance.data
        data = {"DBSnapshotIdentifier": name, "DBInstanceIdentifier": instance.id, "DBSnapshotArn": self.arn("snapshot", name),
                "Status": "creating", "PercentProgress": 0, "SnapshotType": "manual", "Encrypted": source["StorageEncrypted"],
                "Port": source["Endpoint"]["Port"], "VpcId": source["DBSubnetGroup"]["VpcId"], "SnapshotTarget": "region",
                "OptionGroupName": source["OptionGroupMemberships"][0]["OptionGroupName"],
                "TagList": tags + ([t for t in source["TagList"] if t["Key"] not in {g["Key"] for g in tags}]
                                   if source["CopyTagsToSnapshot"] else [])}
        for field in ("Engine", "EngineVersion", "AllocatedStorage", "AvailabilityZone", "InstanceCreateTime", "MasterUsername",
                      "LicenseModel", "Iops", "StorageType", "StorageThroughput", "KmsKeyId", "ProcessorFeatures",
                      "DbiResourceId", "IAMDatabaseAuthenticationEnabled", "DedicatedLogVolume"):
            if field in source:
                data[field] = copy.deepcopy(source[field])
        snapshot = Snapshot(data, os.path.join(self.lab.folder, "snapshots", letters(12).lower()), copy.deepcopy(source))
        self.snapshots[name] = snapshot
        return snapshot

    def _take(self, instance, snapshot):
        """The crash-consistent copy, then the time that its upload takes."""
        self.event("db-snapshot", snapshot.id, "Creating manual snapshot", "creation")
        instance.db.server.freeze_copy(snapshot.folder)
        now = stamp(self.lab.clock.now())
        with self.lock:
            snapshot.data.update(SnapshotCreateTime=now, OriginalSnapshotCreateTime=now)
        self._progress(snapshot, lambda percent: None)
        self.event("db-snapshot", snapshot.id, "Manual snapshot created", "creation")

    def _progress(self, snapshot, at):
        for percent in range(10, 100, 10):
            self.lab.clock.sleep(STATE / 10)
            if snapshot.gone:
                return
            snapshot.data["PercentProgress"] = percent
            if at(percent):
                snapshot.data["Status"] = "failed"
                return
        with self.lock:
            snapshot.data.update(PercentProgress=100, Status="available")

    def CreateDBSnapshot(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            snapshot = self._new_snapshot(instance, p["DBSnapshotIdentifier"], p.get("Tags", []))
            fault = self.lab.faults.hit("rds", "CreateDBSnapshot", later=True)
            answer = copy.deepcopy(snapshot.data)
            instance.status = "backing-up"

            def work():
                try:
                    if fault:
                        self._progress(snapshot, lambda percent: percent >= 50)
                    else:
                        self._take(instance, snapshot)
                except Closed:
                    raise
                except Exception:
                    snapshot.data["Status"] = "failed"
                    raise
                finally:
                    with self.lock:
                        if instance.status == "backing-up":
                            instance.status = "available"
            self._run(instance, work)
            return {"DBSnapshot": answer}

    def DescribeDBSnapshots(self, p, caller):
        with self.lock:
            found = [self._snapshot(p["DBSnapshotIdentifier"])] if "DBSnapshotIdentifier" in p else list(self.snapshots.values())
            for name, field in (("DBInstanceIdentifier", "DBInstanceIdentifier"), ("DbiResourceId", "DbiResourceId"),
                                ("SnapshotType", "SnapshotType")):
                if name in p:
                    wanted = p[name].lower() if name == "DBInstanceIdentifier" else p[name]
                    found = [s for s in found if s.data[field] == wanted]
            fields = {"db-instance-id": ("DBInstanceIdentifier",), "db-snapshot-id": ("DBSnapshotIdentifier",),
                      "dbi-resource-id": ("DbiResourceId",), "snapshot-type": ("SnapshotType",), "engine": ("Engine",)}
            found = [s for s in found if self._passes(p, s.data, fields)]
            return self._answer("DBSnapshots", self._page("DescribeDBSnapshots", p, found, lambda s: s.id),
                                lambda s: copy.deepcopy(s.data))

    def CopyDBSnapshot(self, p, caller):
        with self.lock:
            source = self._snapshot(p["SourceDBSnapshotIdentifier"])
            name = self._identifier(p["TargetDBSnapshotIdentifier"], "TargetDBSnapshotIdentifier", 255)
            if name in self.snapshots:
                raise AwsError("DBSnapshotAlreadyExists",
                               f"Cannot create the snapshot because a snapshot with the identifier {name} already exists.")
            if source.data["Status"] != "available":
                raise AwsError("InvalidDBSnapshotState",
                               f"Cannot copy the snapshot because it is in {source.data['Status']} state.")
            old_key = self.lab.kms.usable(source.data["KmsKeyId"]) if source.data["Encrypted"] else None
            key = self.lab.kms.usable(p["KmsKeyId"]) if p.get("KmsKeyId") else old_key
            data = copy.deepcopy(source.data)
            data.update(DBSnapshotIdentifier=name, DBSnapshotArn=self.arn("snapshot", name), Status="copying",
                        PercentProgress=0, SnapshotType="manual", Encrypted=key is not None,
                        SourceDBSnapshotIdentifier=source.data["DBSnapshotArn"],
                        SnapshotCreateTime=stamp(self.lab.clock.now()),
                        TagList=p.get("Tags") or (data["TagList"] if p.get("CopyTags") else []))
            data.pop("KmsKeyId", None)
            if key:
                data["KmsKeyId"] = key
            if p.get("OptionGroupName"):
                data["OptionGroupName"] = p["OptionGroupName"]
            snapshot = Snapshot(data, os.path.join(self.lab.folder, "snapshots", letters(12).lower()),
                                copy.deepcopy(source.origin))
            self.snapshots[name] = snapshot
            fault = self.lab.faults.hit("rds", "CopyDBSnapshot", later=True)
            answer = copy.deepcopy(data)
            source_files = _entered(source.in_use())

        def at(percent):
            if percent == 50 and fault and fault["kind"] == "key-disabled":
                self.lab.kms.set_state(key, "Disabled")
            if fault and percent == 50:
                return True
            return key is not None and self.lab.kms.find(key)["KeyState"] != "Enabled"

        def work():
            with source_files, snapshot.in_use():
                if not fault:
                    subprocess.run(["cp", "-a", "--reflink=auto", source.folder, snapshot.folder], check=True)
            self._progress(snapshot, at)
        self.lab.background(work)
        return {"DBSnapshot": answer}

    def DeleteDBSnapshot(self, p, caller):
        with self.lock:
            snapshot = self._snapshot(p["DBSnapshotIdentifier"])
            if snapshot.data["Status"] not in ("available", "failed", "copying"):
                raise AwsError("InvalidDBSnapshotState",
                               "Cannot delete the snapshot because it is not currently in the available state.")
            snapshot.gone = True
            del self.snapshots[snapshot.id]
            self.event("db-snapshot", snapshot.id, "Deleted manual snapshot", "deletion")
            snapshot.tidy()
            answer = copy.deepcopy(snapshot.data)
            answer["Status"] = "deleted"
            return {"DBSnapshot": answer}

    def RestoreDBInstanceFromDBSnapshot(self, p, caller):
        with self.lock:
            name = self._new_instance_name(p["DBInstanceIdentifier"])
            if not p.get("DBSnapshotIdentifier"):
                raise AwsError("InvalidParameterValue", "DBSnapshotIdentifier must be given")
            snapshot = self._snapshot(p["DBSnapshotIdentifier"])
            if snapshot.data["Status"] != "available":
                raise AwsError("InvalidDBSnapshotState", f"DB Snapshot {snapshot.id} is not in available state.")
            if p.get("Engine", "postgres") != "postgres":
                raise AwsError("InvalidParameterCombination", f"Cannot restore a postgres snapshot as {p['Engine']}")
            for no in ("DBName", "ManageMasterUserPassword", "DBClusterSnapshotIdentifier"):
                if p.get(no):
                    raise AwsError("InvalidParameterCombination", f"{no} isn't supported for engine postgres")
            key = self.lab.kms.usable(snapshot.data["KmsKeyId"]) if snapshot.data["Encrypted"] else None
            was, has = snapshot.origin, snapshot.data["AllocatedStorage"]
            size = p.get("AllocatedStorage", has)
            if size < has or has < size < has * 1.1:
                raise AwsError("InvalidParameterValue",
                               f"Invalid storage size: {size}. It must be the snapshot's {has} or at least 10 % more")
            defaults = {
                "DBInstanceClass": p.get("DBInstanceClass", was["DBInstanceClass"]), "MasterUsername": was["MasterUsername"],
                "AllocatedStorage": size, "StorageEncrypted": snapshot.data["Encrypted"],
                "BackupRetentionPeriod": p.get("BackupRetentionPeriod", was["BackupRetentionPeriod"]),
                "PreferredBackupWindow": p.get("PreferredBackupWindow", was["PreferredBackupWindow"]),
                "PreferredMaintenanceWindow": self._random_window(),
                "TagList": p["Tags"] if p.get("Tags") else copy.deepcopy(was["TagList"])}
            for field in ("DBName", "Iops", "ProcessorFeatures"):
                if field in was:
                    defaults[field] = was[field]
            if key:
                defaults["KmsKeyId"] = key
            data, group = self._settings(p, defaults)
            instance = self._enrol(name, data, group, p.get("Port", snapshot.data["Port"]))
            fault = self.lab.faults.hit("rds", "RestoreDBInstanceFromDBSnapshot", later=True)
            self.event("db-instance", name, f"Restored from snapshot {snapshot.id}", "restoration")
            files = _entered(snapshot.in_use())

            def work():
                with files:
                    carry_out()

            def carry_out():
                if fault:
                    self.lab.clock.sleep(STATE)
                    instance.status = "incompatible-restore"
                    self.event("db-instance", name, "DB instance is in incompatible-restore state", "failure")
                    return
                self._certify(instance)
                os.makedirs(instance.db.folder, exist_ok=True)
                subprocess.run(["cp", "-a", "--reflink=auto", snapshot.folder, instance.db.server.datadir], check=True)
                try:
                    instance.db.start(instance.params, instance.certificate)
                except ServerError as e:                        # wal_level=replica with a logical slot in the copy, for one
                    self._incompatible(instance, e)
                    return
                self.lab.clock.sleep(STATE)
                self._up(instance)
            self._run(instance, work)
            return {"DBInstance": self._instance_shown(instance)}
