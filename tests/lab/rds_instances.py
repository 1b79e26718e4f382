"""Instances: create, describe, reboot, delete, roles."""
import re
import sys

from lab import parameters
from lab.errors import AwsError
from lab.pgserver import ServerError
from lab.rds_base import STATE
from lab.rds_settings import EXTRAS

USABLE = ("available", "storage-optimization", "backing-up", "configuring-enhanced-monitoring",
          "configuring-iam-database-auth", "configuring-log-exports", "storage-initialization")


class RdsInstances:
    def CreateDBInstance(self, p, caller):
        with self.lock:
            name = self._new_instance_name(p["DBInstanceIdentifier"])
            if p["Engine"] != "postgres":
                raise AwsError("InvalidParameterValue", f"Invalid DB engine: {p['Engine']}")
            if "EngineVersion" in p and p["EngineVersion"] not in (self.version, self.major):
                raise AwsError("InvalidParameterCombination", f"Cannot find version {p['EngineVersion']} for postgres")
            user, password = p.get("MasterUsername"), p.get("MasterUserPassword")
            if not user or not password:
                raise AwsError("InvalidParameterValue", "The parameter MasterUsername and MasterUserPassword must be provided "
                               "and must not be blank.")
            if user in ("rdsadmin", "admin", "public") or user.startswith("pg_") or not re.fullmatch(r"[a-zA-Z_]\w{0,62}", user):
                raise AwsError("InvalidParameterValue",
                               f"MasterUsername {user} cannot be used as it is a reserved word used by the engine")
            self._check_password(password)
            if p.get("AllocatedStorage", 0) < 20:
                raise AwsError("InvalidParameterValue", f"Invalid storage size for engine name postgres and storage type gp3: "
                               f"{p.get('AllocatedStorage', 0)}")
            encrypted = p.get("StorageEncrypted", False)
            if "KmsKeyId" in p and not encrypted:
                raise AwsError("InvalidParameterCombination",
                               "Invalid storage encryption flag. Set StorageEncrypted to use KmsKeyId.")
            defaults = {
                "DBInstanceClass": p["DBInstanceClass"], "MasterUsername": user, "AllocatedStorage": p["AllocatedStorage"],
                "StorageEncrypted": encrypted, "BackupRetentionPeriod": p.get("BackupRetentionPeriod", 1),
                "PreferredBackupWindow": p.get("PreferredBackupWindow", "03:00-03:30"),
                "PreferredMaintenanceWindow": p.get("PreferredMaintenanceWindow", self._random_window()),
                "TagList": p.get("Tags", [])}
            if p.get("DBName"):
                defaults["DBName"] = p["DBName"]
            if encrypted:
                defaults["KmsKeyId"] = self.lab.kms.usable(p.get("KmsKeyId", "alias/aws/rds"))
            data, group = self._settings(p, defaults)
            self._set_extras(data, {k: p[k] for k in (*EXTRAS, "ManageMasterUserPassword") if k in p})
            instance = self._enrol(name, data, group, p.get("Port", self.lab.db_port))
            self.event("db-instance", name, "DB instance created", "creation")

            def work():
                self._certify(instance)
                instance.db.create(user, password, p.get("DBName"), instance.params, instance.certificate)
                self.lab.clock.sleep(STATE)
                self._up(instance)
            self._run(instance, work)
            return {"DBInstance": self._instance_shown(instance)}

    def DescribeDBInstances(self, p, caller):
        with self.lock:
            found = [self._instance(p["DBInstanceIdentifier"])] if "DBInstanceIdentifier" in p else list(self.instances.values())
            fields = {"db-instance-id": ("DBInstanceIdentifier", "DBInstanceArn"), "dbi-resource-id": ("DbiResourceId",),
                      "engine": ("Engine",), "db-cluster-id": (), "domain": ()}
            found = [i for i in found if self._passes(p, i.data, fields)]
            return self._answer("DBInstances", self._page("DescribeDBInstances", p, found, lambda i: i.id),
                                self._instance_shown)

    def RebootDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            if p.get("ForceFailover") and not instance.data["MultiAZ"]:
                raise AwsError("InvalidParameterCombination",
                               "Force failover cannot be specified because instance isn't configured for MultiAZ")
            instance.status = "rebooting"
            group = self._group(instance.group)
            instance.params = parameters.server_settings(group)

            def work():
                self.event("db-instance", instance.id, "DB instance shutdown", "availability")
                try:
                    instance.db.restart(instance.params, instance.certificate)
                except ServerError as e:
                    self._incompatible(instance, e)
                    return
                self.lab.clock.sleep(STATE)
                self.event("db-instance", instance.id, "DB instance restarted", "availability")
                with self.lock:
                    instance.data["DBParameterGroups"][0]["ParameterApplyStatus"] = self._apply_status(instance)
                    if instance.status == "rebooting":
                        instance.status = "available"
            self._run(instance, work)
            return {"DBInstance": self._instance_shown(instance)}

    def _incompatible(self, instance, error):
        with self.lock:
            if instance.status != "deleting":
                instance.status = "incompatible-parameters"
        self.event("db-instance", instance.id, "Database instance put into incompatible-parameters state", "failure")
        print(f"lab: {instance.id}: {error}", file=sys.stderr, flush=True)

    def _apply_status(self, instance):
        return "in-sync" if parameters.server_settings(self._group(instance.group)) == instance.params else "pending-reboot"

    def DeleteDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            skip, final = p.get("SkipFinalSnapshot", False), p.get("FinalDBSnapshotIdentifier")
            if skip and final:
                raise AwsError("InvalidParameterCombination", "FinalDBSnapshotIdentifier can not be specified when deleting a "
                               "DB instance with SkipFinalSnapshot.")
            if not skip and not final:
                raise AwsError("InvalidParameterCombination",
                               "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
            if instance.data["DeletionProtection"]:
                raise AwsError("InvalidParameterCombination", "Cannot delete protected DB Instance, please disable deletion "
                               "protection and try again.")
            if instance.status == "deleting":
                raise AwsError("InvalidDBInstanceState", f"Instance {instance.id} is already being deleted.")
            if final and (instance.status not in USABLE or instance.busy):
                raise AwsError("InvalidDBInstanceState", f"Instance {instance.id} is not in available state.")
            snapshot = self._new_snapshot(instance, final, []) if final else None
            before, instance.status = instance.status, "deleting"

            def work():
                if snapshot:
                    self._take(instance, snapshot)
                self.lab.clock.sleep(STATE)
                instance.gone = True
                if before == "creating":
                    self.lab.clock.sleep(STATE / 10)
                instance.db.remove()
                with self.lock:
                    self.instances.pop(instance.id, None)
                self.event("db-instance", instance.id, "DB instance deleted", "deletion")
                self.lab.write_hosts()
            self._run(instance, work)
            return {"DBInstance": self._instance_shown(instance)}

    def AddRoleToDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            roles = instance.data["AssociatedRoles"]
            if any(r["RoleArn"] == p["RoleArn"] or r["FeatureName"] == p["FeatureName"] for r in roles):
                raise AwsError("DBInstanceRoleAlreadyExists",
                               f"Role {p['RoleArn']} or feature {p['FeatureName']} is already associated")
            if p["FeatureName"] not in ("s3Import", "s3Export", "Lambda"):
                raise AwsError("InvalidParameterValue", f"The feature-name {p['FeatureName']} isn't supported by postgres")
            role = {"RoleArn": p["RoleArn"], "FeatureName": p["FeatureName"], "Status": "PENDING"}
            roles.append(role)

            def work():
                self.lab.clock.sleep(STATE / 2)
                role["Status"] = "ACTIVE"
            self._run(instance, work)

    def RemoveRoleFromDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            roles = instance.data["AssociatedRoles"]
            kept = [r for r in roles if (r["RoleArn"], r["FeatureName"]) != (p["RoleArn"], p["FeatureName"])]
            if kept == roles:
                raise AwsError("DBInstanceRoleNotFound", f"Role {p['RoleArn']} is not associated", 404)
            instance.data["AssociatedRoles"] = kept
