"""An instance's settings: what a restore takes, what it falls back to, what only Modify can set, and their rules."""
import random
import re

from lab.errors import AwsError
from lab.protocol import stamp
from lab.rds_base import letters

CAS = ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1", "rds-ca-2019"]

# parameter of Modify -> field of DBInstance; the second set waits for the maintenance window unless ApplyImmediately
AT_ONCE = {n: n for n in (
    "BackupRetentionPeriod", "PreferredBackupWindow", "PreferredMaintenanceWindow", "AutoMinorVersionUpgrade",
    "CopyTagsToSnapshot", "PubliclyAccessible", "DeletionProtection", "CustomIamInstanceProfile")}
# also at once, with rules of their own: Rds._set_extras
EXTRAS = ("MonitoringInterval", "MonitoringRoleArn", "PromotionTier", "MaxAllocatedStorage", "EnablePerformanceInsights",
          "PerformanceInsightsKMSKeyId", "PerformanceInsightsRetentionPeriod", "DatabaseInsightsMode")
DEFERRED = {n: n for n in (
    "DBInstanceClass", "AllocatedStorage", "MultiAZ", "EngineVersion", "LicenseModel", "Iops", "StorageType",
    "StorageThroughput", "CACertificateIdentifier", "ProcessorFeatures", "DedicatedLogVolume", "NetworkType")}
DEFERRED["EnableIAMDatabaseAuthentication"] = "IAMDatabaseAuthenticationEnabled"


class RdsSettings:
    def _settings(self, p, defaults):
        """Checked values of what both calls accept; defaults: what else it is."""
        group = self._group(p.get("DBParameterGroupName", f"default.postgres{self.major}"))
        subnet = p.get("DBSubnetGroupName", "default").lower()
        if subnet not in self.subnet_groups:
            raise AwsError("DBSubnetGroupNotFoundFault", f"DB subnet group '{subnet}' does not exist.", 404)
        options = p.get("OptionGroupName", f"default:postgres-{self.major}").lower()
        if options not in self.option_groups:
            raise AwsError("OptionGroupNotFoundFault", f"Specified OptionGroupName: {options} not found.", 404)
        security = p.get("VpcSecurityGroupIds") or ["sg-0default"]
        self._check_security_groups(security)
        storage = p.get("StorageType") or ("io1" if "Iops" in p else "gp3")
        data = {
            **defaults,
            "DBParameterGroups": [{"DBParameterGroupName": group.name, "ParameterApplyStatus": "in-sync"}],
            "DBSecurityGroups": [], "VpcSecurityGroups": [{"VpcSecurityGroupId": s, "Status": "active"} for s in security],
            "DBSubnetGroup": self.subnet_groups[subnet],
            "OptionGroupMemberships": [{"OptionGroupName": options, "Status": "in-sync"}],
            "MultiAZ": p.get("MultiAZ", False), "StorageType": storage,
            "PubliclyAccessible": p.get("PubliclyAccessible", subnet == "default"),
            "NetworkType": p.get("NetworkType", "IPV4"),
            "IAMDatabaseAuthenticationEnabled": p.get("EnableIAMDatabaseAuthentication", False),
            "DeletionProtection": p.get("DeletionProtection", False),
            "CopyTagsToSnapshot": p.get("CopyTagsToSnapshot", False),
            "CACertificateIdentifier": self._ca(p.get("CACertificateIdentifier", CAS[0])),
            "AutoMinorVersionUpgrade": p.get("AutoMinorVersionUpgrade", True),
            "DedicatedLogVolume": p.get("DedicatedLogVolume", False),
            "EngineLifecycleSupport": p.get("EngineLifecycleSupport", "open-source-rds-extended-support"),
            "AvailabilityZone": p.get("AvailabilityZone", self.lab.region + "a"),
            "LicenseModel": p.get("LicenseModel", "postgresql-license"),
            "Engine": "postgres", "EngineVersion": self.version, "BackupTarget": "region",
            "ReadReplicaDBInstanceIdentifiers": [], "ReadReplicaDBClusterIdentifiers": [], "DomainMemberships": [],
            "AssociatedRoles": [], "StatusInfos": [], "DBInstanceAutomatedBackupsReplications": [],
            "PendingModifiedValues": {}, "MonitoringInterval": 0, "PerformanceInsightsEnabled": False,
            "DbInstancePort": 0, "CustomerOwnedIpEnabled": False, "ActivityStreamStatus": "stopped",
            "InstanceCreateTime": stamp(self.lab.clock.now()), "DBInstanceStatus": "creating",
        }
        if p.get("EnableCloudwatchLogsExports"):
            data["EnabledCloudwatchLogsExports"] = self._log_types(p["EnableCloudwatchLogsExports"])
        if p.get("ProcessorFeatures"):
            data["ProcessorFeatures"] = p["ProcessorFeatures"]
        if data["DBInstanceClass"] and not data["DBInstanceClass"].startswith("db."):
            raise AwsError("InvalidParameterValue", f"Invalid DB Instance class: {data['DBInstanceClass']}")
        self._check_storage(data, p)
        self._check_windows(data)
        return data, group

    def _check_storage(self, data, p):
        kind = data["StorageType"]
        if kind == "standard":
            raise AwsError("StorageTypeNotSupported", "Storage type standard is no longer available")
        if kind not in ("gp2", "gp3", "io1", "io2"):
            raise AwsError("InvalidParameterValue", f"Invalid storage type: {kind}")
        iops = p.get("Iops", data.get("Iops"))
        if kind in ("io1", "io2"):
            if not iops:
                raise AwsError("InvalidParameterCombination", f"You must specify IOPS for storage type {kind}")
            data["Iops"] = iops
        elif kind == "gp2":
            data.pop("Iops", None)
        else:
            if ("Iops" in p or "StorageThroughput" in p) and data["AllocatedStorage"] < 400:
                raise AwsError("InvalidParameterCombination", "You can't specify IOPS or storage throughput for engine "
                               "postgres and a storage size less than 400.")
            data["Iops"] = p.get("Iops", 3000)
        data.pop("StorageThroughput", None)
        if kind == "gp3":
            data["StorageThroughput"] = p.get("StorageThroughput", 125 if data["AllocatedStorage"] < 400 else 500)

    def _check_windows(self, data):
        if not re.fullmatch(r"\d\d:\d\d-\d\d:\d\d", data.get("PreferredBackupWindow", "00:00-00:30")):
            raise AwsError("InvalidParameterValue", f"Invalid backup window format: {data['PreferredBackupWindow']}")
        day = "(mon|tue|wed|thu|fri|sat|sun)"
        if not re.fullmatch(rf"{day}:\d\d:\d\d-{day}:\d\d:\d\d", data["PreferredMaintenanceWindow"]):
            raise AwsError("InvalidParameterValue", f"Invalid maintenance window format: {data['PreferredMaintenanceWindow']}")
        if not 0 <= data["BackupRetentionPeriod"] <= 35:
            raise AwsError("InvalidParameterValue", f"Invalid backup retention period: {data['BackupRetentionPeriod']}. "
                           "Retention period must be between 0 and 35")

    def _check_security_groups(self, ids):
        for one in ids:
            if not re.fullmatch(r"sg-[0-9a-z]+", one):
                raise AwsError("InvalidParameterValue", f"Invalid security group , groupId= {one}, groupName=.")

    def _ca(self, name):
        if name not in CAS:
            raise AwsError("CertificateNotFound", f"Certificate not found: {name}", 404)
        return name

    def _log_types(self, types):
        for one in types:
            if one not in ("postgresql", "upgrade"):
                raise AwsError("InvalidParameterCombination", f"You cannot use the log types '{one}' with engine version "
                               f"postgres {self.version}. For supported log types, see the documentation.")
        return sorted(types)

    @staticmethod
    def _random_window():
        hour = random.randrange(0, 8)
        return "{0}:{1:02d}:{2}0-{0}:{1:02d}:{3}0".format(random.choice(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
                                                          hour, *random.choice([(0, 3), (1, 4), (2, 5)]))

    @staticmethod
    def _check_password(password):
        if not 8 <= len(password) <= 128 or re.search(r'[/"@ ]', password) or not password.isprintable():
            raise AwsError("InvalidParameterValue", "The parameter MasterUserPassword is not a valid password. Only printable "
                           "ASCII characters besides '/', '@', '\"', ' ' may be used.")

    def _set_extras(self, data, p):
        """What can be set at create or by Modify, never by a restore."""
        if p.get("MonitoringInterval", 0) not in (0, 1, 5, 10, 15, 30, 60):
            raise AwsError("InvalidParameterValue", "The monitoring interval must be one of 0, 1, 5, 10, 15, 30, 60")
        if p.get("MonitoringInterval") and not (p.get("MonitoringRoleArn") or data.get("MonitoringRoleArn")):
            raise AwsError("InvalidParameterCombination",
                           "A MonitoringRoleARN value is required if you specify a MonitoringInterval value other than 0.")
        if p.get("MonitoringRoleArn") and not (p.get("MonitoringInterval") or data.get("MonitoringInterval")):
            raise AwsError("InvalidParameterCombination",
                           "You must specify a MonitoringInterval value other than 0 when you specify a MonitoringRoleARN "
                           "value.")
        if "MaxAllocatedStorage" in p:
            if p["MaxAllocatedStorage"] < data["AllocatedStorage"]:
                raise AwsError("InvalidParameterCombination", "Max storage size must be greater than storage size")
            data["MaxAllocatedStorage"] = p["MaxAllocatedStorage"]
            if p["MaxAllocatedStorage"] == data["AllocatedStorage"]:
                del data["MaxAllocatedStorage"]                 # that is how autoscaling is turned off
        for name in ("MonitoringInterval", "MonitoringRoleArn", "DatabaseInsightsMode", "PromotionTier"):
            if name in p:
                data[name] = p[name]
        if data.get("MonitoringInterval") == 0:
            data.pop("MonitoringRoleArn", None)
        on = p.get("EnablePerformanceInsights", data.get("PerformanceInsightsEnabled"))
        details = [n for n in ("PerformanceInsightsKMSKeyId", "PerformanceInsightsRetentionPeriod") if n in p]
        if details and not on:
            raise AwsError("InvalidParameterCombination", f"{details[0]} needs Performance Insights to be enabled")
        if "EnablePerformanceInsights" in p or details:
            data["PerformanceInsightsEnabled"] = on
            for name in ("PerformanceInsightsKMSKeyId", "PerformanceInsightsRetentionPeriod"):
                if not on:
                    data.pop(name, None)
            if on:
                key = self.lab.kms.usable(p.get("PerformanceInsightsKMSKeyId",
                                                data.get("PerformanceInsightsKMSKeyId", "alias/aws/rds")))
                if data.get("PerformanceInsightsKMSKeyId", key) != key:
                    raise AwsError("InvalidParameterCombination", "You can't change the Performance Insights KMS key")
                data["PerformanceInsightsKMSKeyId"] = key
                data["PerformanceInsightsRetentionPeriod"] = p.get("PerformanceInsightsRetentionPeriod",
                                                                   data.get("PerformanceInsightsRetentionPeriod", 7))
        if p.get("ManageMasterUserPassword"):
            key = self.lab.kms.usable(p.get("MasterUserSecretKmsKeyId", "alias/aws/rds"))
            data["MasterUserSecret"] = {"SecretStatus": "active", "KmsKeyId": key, "SecretArn":
                                        f"arn:aws:secretsmanager:{self.lab.region}:{self.lab.account}:secret:rds!db-{letters(8).lower()}"}
        elif "ManageMasterUserPassword" in p:
            data.pop("MasterUserSecret", None)
