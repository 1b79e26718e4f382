"""RDS: instances, snapshots and what belongs to them, with states that last a while and real servers behind.

Method names of the class are the actions of the API; each takes the checked parameters and returns what the model's output
shape holds. What takes time runs in a background thread: state, wait, the real thing, next state.
"""
import base64
import contextlib
import copy
import json
import os
import random
import re
import secrets
import shutil
import socket
import string
import subprocess
import sys
import threading

from lab import database, parameters
from lab.clock import Closed
from lab.database import Database
from lab.errors import AwsError
from lab.pgserver import ServerError
from lab.protocol import stamp

STATE = 1.0                                    # seconds that a state lasts at speed 1
CAS = ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1", "rds-ca-2019"]
USABLE = ("available", "storage-optimization", "backing-up", "configuring-enhanced-monitoring",
          "configuring-iam-database-auth", "configuring-log-exports", "storage-initialization")

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


def _letters(n):
    return "".join(random.choices(string.ascii_uppercase + string.digits, k=n))


def _entered(context):
    """The context, entered now, to be left by a `with` in another thread."""
    stack = contextlib.ExitStack()
    stack.enter_context(context)
    return stack


class Instance:
    def __init__(self, data, address, params):
        self.data = data                       # a DBInstance, as the API shows it
        self.address = address
        self.params = params                   # what the running server has, or will start with
        self.db = None                         # Database, once it is being made
        self.certificate = None
        self.busy = False                      # a modification is under way or about to be
        self.gone = False

    @property
    def id(self):
        return self.data["DBInstanceIdentifier"]

    @property
    def status(self):
        return self.data["DBInstanceStatus"]

    @status.setter
    def status(self, value):
        self.data["DBInstanceStatus"] = value

    @property
    def group(self):
        return self.data["DBParameterGroups"][0]["DBParameterGroupName"]


class Snapshot:
    def __init__(self, data, folder, origin):
        self.data = data
        self.folder = folder
        self.origin = origin                   # the instance's DBInstance at that moment: what a restore may look up
        self.gone = False
        self._users, self._lock = 0, threading.Lock()

    @contextlib.contextmanager
    def in_use(self):
        """Its files stay while this lasts, even when the snapshot is deleted meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield self
        finally:
            with self._lock:
                self._users -= 1
            self.tidy()

    def tidy(self):
        with self._lock:
            if self.gone and self._users == 0:
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def id(self):
        return self.data["DBSnapshotIdentifier"]


class Rds:
    def __init__(self, lab):
        self.lab = lab
        self.lock = threading.RLock()
        self.instances, self.snapshots, self.groups = {}, {}, {}
        self.reserved = set()                  # names that a rename is on its way to
        self.events = []                       # (time, source type, source id, message, categories)
        self.tags = {}                         # ARN -> tags, of parameter, subnet and option groups
        self.suffix = "".join(random.choices(string.ascii_lowercase + string.digits, k=12))
        self.admin_password = secrets.token_urlsafe(24)
        self.version = database.version(lab.bindir)
        self.major = self.version.split(".")[0]
        self.known_parameters = parameters.catalogue(lab.bindir)
        self._claims = []
        self._add_group(f"default.postgres{self.major}", f"Default parameter group for postgres{self.major}")
        self.subnet_groups = {n: self._subnet_group(n, v) for n, v in (("default", "vpc-0default"), ("lab-private", "vpc-0private"))}
        self.option_groups = {n: self._option_group(n) for n in (f"default:postgres-{self.major}", "lab-options")}

    # small things

    def arn(self, kind, name):
        return f"arn:aws:rds:{self.lab.region}:{self.lab.account}:{kind}:{name}"

    def _add_group(self, name, description):
        group = parameters.Group(name, f"postgres{self.major}", description, self.arn("pg", name), self.known_parameters)
        self.groups[name] = group
        return group

    def _subnet_group(self, name, vpc):
        subnets = [{"SubnetIdentifier": f"subnet-{name}-{z}", "SubnetStatus": "Active",
                    "SubnetAvailabilityZone": {"Name": self.lab.region + z}} for z in "ab"]
        return {"DBSubnetGroupName": name, "DBSubnetGroupDescription": name, "VpcId": vpc, "SubnetGroupStatus": "Complete",
                "Subnets": subnets, "DBSubnetGroupArn": self.arn("subgrp", name), "SupportedNetworkTypes": ["IPV4"]}

    def _option_group(self, name):
        return {"OptionGroupName": name, "OptionGroupDescription": name, "EngineName": "postgres",
                "MajorEngineVersion": self.major, "Options": [], "AllowsVpcAndNonVpcInstanceMemberships": True,
                "OptionGroupArn": self.arn("og", name)}

    def event(self, kind, source, message, *categories):
        self.events.append((self.lab.clock.now(), kind, source, message, list(categories)))

    def endpoint_name(self, identifier):
        return f"{identifier}.{self.suffix}.{self.lab.region}.rds.lab"

    def address_of(self, name):
        """The address of an instance's endpoint name, None when no instance has it."""
        with self.lock:
            for instance in self.instances.values():
                if name == self.endpoint_name(instance.id) and instance.status != "creating":
                    return instance.address
        return None

    def names(self):
        with self.lock:
            return {self.endpoint_name(i.id): i.address for i in self.instances.values() if i.status != "creating"}

    def _claim_address(self, port):
        """A loopback address on which the port is free, ours until the lab ends."""
        for last in range(11, 250):
            address = f"127.0.0.{last}"
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0keybridge-test-address-{address}:{port}")
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            return address
        raise AwsError("InsufficientDBInstanceCapacity", "the lab has no free loopback address")

    def _page(self, action, p, items, key):
        """(this page of items sorted by key, the Marker for the next or None)"""
        most = p.get("MaxRecords", 100)
        if not 20 <= most <= 100:
            raise AwsError("InvalidParameterValue", f"Invalid value {most} for MaxRecords. Must be between 20 and 100")
        after = None
        if p.get("Marker"):
            try:
                whose, after = json.loads(base64.urlsafe_b64decode(p["Marker"]))
            except ValueError:
                whose = None
            if whose != action:
                raise AwsError("InvalidParameterValue", "The marker is invalid.")
        items = sorted((i for i in items if after is None or key(i) > after), key=key)
        if len(items) <= most:
            return items, None
        return items[:most], base64.urlsafe_b64encode(json.dumps([action, key(items[most - 1])]).encode()).decode()

    def _answer(self, member, page, make):
        items, marker = page
        return {member: [make(i) for i in items], **({"Marker": marker} if marker else {})}

    def _instance(self, name):
        name = name.lower()
        prefix = self.arn("db", "")
        instance = self.instances.get(name[len(prefix):] if name.startswith(prefix) else name)
        if instance is None:
            raise AwsError("DBInstanceNotFound", f"DBInstance {name} not found.", 404)
        return instance

    def _snapshot(self, name):
        prefix = self.arn("snapshot", "")
        snapshot = self.snapshots.get((name[len(prefix):] if name.startswith(prefix) else name).lower())
        if snapshot is None:
            raise AwsError("DBSnapshotNotFound", f"DBSnapshot not found: {name}", 404)
        return snapshot

    def _group(self, name):
        group = self.groups.get(name.lower())
        if group is None:
            raise AwsError("DBParameterGroupNotFound", f"DBParameterGroup not found: {name}", 404)
        return group

    @staticmethod
    def _identifier(name, what, longest=63):
        name = name.lower()
        if len(name) > longest or not re.fullmatch(r"[a-z](-?[a-z0-9])*", name):
            raise AwsError("InvalidParameterValue", f"The parameter {what} is not a valid identifier. Identifiers must begin "
                           "with a letter; must contain only ASCII letters, digits, and hyphens; and must not end with a "
                           "hyphen or contain two consecutive hyphens.")
        return name

    def _new_instance_name(self, name):
        name = self._identifier(name, "DBInstanceIdentifier")
        if name in self.instances or name in self.reserved:
            raise AwsError("DBInstanceAlreadyExists", "DB instance already exists")
        return name

    def _must_be_available(self, instance):
        if instance.status not in ("available", "storage-optimization") or instance.busy:
            raise AwsError("InvalidDBInstanceState", f"Instance {instance.id} is not in available state.")

    def _instance_shown(self, instance):
        data = copy.deepcopy(instance.data)
        if instance.status == "creating":
            data.pop("Endpoint", None)
        elif data["BackupRetentionPeriod"] > 0:
            data["LatestRestorableTime"] = stamp(self.lab.clock.now() // 300 * 300)
        return data

    def _run(self, instance, work):
        """work in the background; an instance that is deleted meanwhile ends it quietly."""
        def guarded():
            try:
                work()
            except Closed:
                raise
            except Exception as e:
                with self.lock:
                    instance.busy = False
                    if instance.gone or instance.status == "deleting":
                        return
                    instance.status = "failed"
                self.lab.internal(f"instance {instance.id}: {e}")
        self.lab.background(guarded)

    # settings common to create and restore

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

    def _enrol(self, name, data, group, port):
        """Puts a new instance among the others; nothing of it runs yet."""
        resource = "db-" + _letters(26)
        data.update(DBInstanceIdentifier=name, DbiResourceId=resource, DBInstanceArn=self.arn("db", name))
        instance = Instance(data, self._claim_address(port), parameters.server_settings(group))
        address = instance.address if self.lab.endpoint_style == "ip" else self.endpoint_name(name)
        data["Endpoint"] = {"Address": address, "Port": port, "HostedZoneId": "Z2R2ITUGPM61AM"}
        instance.db = Database(os.path.join(self.lab.folder, "instances", resource), bindir=self.lab.bindir,
                               address=instance.address, port=port, admin_password=self.admin_password)
        self.instances[name] = instance
        return instance

    def _certify(self, instance):
        if self.lab.authority:
            instance.certificate = self.lab.authority.issue(self.endpoint_name(instance.id), instance.address)

    def _up(self, instance):
        """After the server came up: the first backup, then available."""
        self.lab.write_hosts()
        if instance.data["BackupRetentionPeriod"] > 0:
            instance.status = "backing-up"
            self.event("db-instance", instance.id, "Backing up DB instance", "backup")
            self.lab.clock.sleep(STATE / 2)
            self.event("db-instance", instance.id, "Finished DB Instance backup", "backup")
        with self.lock:
            if instance.status in ("creating", "backing-up"):
                instance.status = "available"
        self.lab.write_hosts()

    # instances

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
                raise AwsError("InvalidParameterValue", f"MasterUsername {user} cannot be used as it is a reserved word used by the engine")
            self._check_password(password)
            if p.get("AllocatedStorage", 0) < 20:
                raise AwsError("InvalidParameterValue", f"Invalid storage size for engine name postgres and storage type gp3: "
                               f"{p.get('AllocatedStorage', 0)}")
            encrypted = p.get("StorageEncrypted", False)
            if "KmsKeyId" in p and not encrypted:
                raise AwsError("InvalidParameterCombination", "Invalid storage encryption flag. Set StorageEncrypted to use KmsKeyId.")
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
            raise AwsError("InvalidParameterCombination", "A MonitoringRoleARN value is required if you specify a MonitoringInterval value other than 0.")
        if p.get("MonitoringRoleArn") and not (p.get("MonitoringInterval") or data.get("MonitoringInterval")):
            raise AwsError("InvalidParameterCombination", "You must specify a MonitoringInterval value other than 0 when you specify a MonitoringRoleARN value.")
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
                key = self.lab.kms.usable(p.get("PerformanceInsightsKMSKeyId", data.get("PerformanceInsightsKMSKeyId", "alias/aws/rds")))
                if data.get("PerformanceInsightsKMSKeyId", key) != key:
                    raise AwsError("InvalidParameterCombination", "You can't change the Performance Insights KMS key")
                data["PerformanceInsightsKMSKeyId"] = key
                data["PerformanceInsightsRetentionPeriod"] = p.get("PerformanceInsightsRetentionPeriod", data.get("PerformanceInsightsRetentionPeriod", 7))
        if p.get("ManageMasterUserPassword"):
            key = self.lab.kms.usable(p.get("MasterUserSecretKmsKeyId", "alias/aws/rds"))
            data["MasterUserSecret"] = {"SecretStatus": "active", "KmsKeyId": key, "SecretArn":
                                        f"arn:aws:secretsmanager:{self.lab.region}:{self.lab.account}:secret:rds!db-{_letters(8).lower()}"}
        elif "ManageMasterUserPassword" in p:
            data.pop("MasterUserSecret", None)

    def DescribeDBInstances(self, p, caller):
        with self.lock:
            found = [self._instance(p["DBInstanceIdentifier"])] if "DBInstanceIdentifier" in p else list(self.instances.values())
            fields = {"db-instance-id": ("DBInstanceIdentifier", "DBInstanceArn"), "dbi-resource-id": ("DbiResourceId",),
                      "engine": ("Engine",), "db-cluster-id": (), "domain": ()}
            found = [i for i in found if self._passes(p, i.data, fields)]
            return self._answer("DBInstances", self._page("DescribeDBInstances", p, found, lambda i: i.id), self._instance_shown)

    @staticmethod
    def _passes(p, data, fields):
        for one in p.get("Filters", []):
            if one["Name"] not in fields:
                raise AwsError("InvalidParameterValue", f"Unrecognized filter name: {one['Name']}")
            if not any(data.get(f) in one["Values"] for f in fields[one["Name"]]):
                return False
        return True

    def ModifyDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            now, later = self._plan_changes(instance, p)
            instance.data["PendingModifiedValues"] = {**instance.data["PendingModifiedValues"], **later}
            if "group" in now:
                instance.data["DBParameterGroups"] = [{"DBParameterGroupName": now["group"], "ParameterApplyStatus": "applying"}]
            answer = self._instance_shown(instance)
            if now:
                instance.busy = True
                new_name = p["NewDBInstanceIdentifier"].lower() if "rename" in now else None
                if new_name:
                    self.reserved.add(new_name)
                self._run(instance, lambda: self._change(instance, now, p, new_name))
            return {"DBInstance": answer}

    def _plan_changes(self, instance, p):
        """({what is to be done now}, PendingModifiedValues), every value checked before anything is changed."""
        data, immediately = instance.data, p.get("ApplyImmediately", False)
        trial = copy.deepcopy(data)
        now, pending = {}, {}
        if "EngineVersion" in p and p["EngineVersion"] != self.version:
            raise AwsError("InvalidParameterCombination", f"Cannot upgrade postgres from {self.version} to {p['EngineVersion']}")
        for name, field in DEFERRED.items():
            if name in p and p[name] != data.get(field):
                trial[field] = p[name]
                (now if immediately else pending)[field] = p[name]
        if p.get("AllocatedStorage", data["AllocatedStorage"]) < data["AllocatedStorage"]:
            raise AwsError("InvalidParameterCombination", f"Requested size for instance {instance.id} is smaller than the current one")
        for name, field in AT_ONCE.items():
            if name in p:
                trial[field] = p[name]
                now[field] = p[name]
        self._set_extras(trial, p)
        if set(EXTRAS) & set(p):
            now["extras"] = True
        self._check_windows(trial)
        if {"StorageType", "Iops", "StorageThroughput", "AllocatedStorage"} & set(p):
            self._check_storage(trial, p)
        self._ca(trial["CACertificateIdentifier"])
        if "VpcSecurityGroupIds" in p:
            self._check_security_groups(p["VpcSecurityGroupIds"])
            now["security"] = p["VpcSecurityGroupIds"]
        if "DBParameterGroupName" in p:
            now["group"] = self._group(p["DBParameterGroupName"]).name
        if "OptionGroupName" in p:
            if p["OptionGroupName"].lower() not in self.option_groups:
                raise AwsError("OptionGroupNotFoundFault", f"Specified OptionGroupName: {p['OptionGroupName']} not found.", 404)
            now["options"] = p["OptionGroupName"].lower()
        if "DBSubnetGroupName" in p:
            if p["DBSubnetGroupName"].lower() not in self.subnet_groups:
                raise AwsError("DBSubnetGroupNotFoundFault", f"DB subnet group '{p['DBSubnetGroupName']}' does not exist.", 404)
            if p["DBSubnetGroupName"].lower() == data["DBSubnetGroup"]["DBSubnetGroupName"]:
                raise AwsError("InvalidVPCNetworkStateFault", "The specified DB instance is already in the target DB subnet group.")
            (now if immediately else pending)["DBSubnetGroupName"] = p["DBSubnetGroupName"].lower()
        if "CloudwatchLogsExportConfiguration" in p:
            config = p["CloudwatchLogsExportConfiguration"]
            self._log_types(config.get("EnableLogTypes", []) + config.get("DisableLogTypes", []))
            now["logs"] = config
        if "MasterUserPassword" in p:
            self._check_password(p["MasterUserPassword"])
            now["password"] = p["MasterUserPassword"]
        if "DBPortNumber" in p and p["DBPortNumber"] != data["Endpoint"]["Port"]:
            now["port"] = p["DBPortNumber"]
        if "ManageMasterUserPassword" in p:
            now["MasterUserSecret"] = trial.get("MasterUserSecret")
        if "NewDBInstanceIdentifier" in p:
            new = self._new_instance_name(p["NewDBInstanceIdentifier"])
            if immediately:
                now["rename"] = new
            else:
                pending["DBInstanceIdentifier"] = new
        return now, pending

    def _change(self, instance, now, p, new_name):
        data = instance.data
        with self.lock:
            # what a caller sees in the first moments: the old status, the change pending
            shown = {"password": ("MasterUserPassword", "****"), "port": ("Port", now.get("port")),
                     "rename": ("DBInstanceIdentifier", new_name)}
            pending = {f: now[f] for f in DEFERRED.values() if f in now and f not in ("DedicatedLogVolume", "NetworkType")}
            pending.update({field: value for key, (field, value) in shown.items() if key in now})
            data["PendingModifiedValues"].update(pending)
        self.lab.clock.sleep(STATE / 10)
        with self.lock:
            instance.status = "renaming" if new_name else "modifying"
        self.lab.clock.sleep(STATE)
        if "password" in now:
            instance.db.set_password(data["MasterUsername"], now["password"])
        with self.lock:
            self._change_fields(instance, now, p)
        if new_name:
            self._rename(instance, new_name)
        if "port" in now:
            instance.db.server.port = now["port"]
            instance.db.restart(instance.params, instance.certificate)
            data["Endpoint"]["Port"] = now["port"]
        with self.lock:
            for field in pending:
                data["PendingModifiedValues"].pop(field, None)
            instance.busy = False
            if instance.status in ("modifying", "renaming"):
                instance.status = "available"
        self.lab.write_hosts()

    def _change_fields(self, instance, now, p):
        data = instance.data
        for field in list(DEFERRED.values()) + list(AT_ONCE.values()):
            if field in now:
                data[field] = now[field]
        if "AllocatedStorage" in now or "StorageType" in now or "Iops" in now:
            self._check_storage(data, p)
            self.event("db-instance", instance.id, "Finished applying modification to allocated storage", "configuration change")
        self._set_extras(data, {k: v for k, v in p.items() if k != "ManageMasterUserPassword"})
        if "MasterUserSecret" in now:
            data["MasterUserSecret"] = now["MasterUserSecret"]
            if now["MasterUserSecret"] is None:
                del data["MasterUserSecret"]
        if "security" in now:
            data["VpcSecurityGroups"] = [{"VpcSecurityGroupId": s, "Status": "active"} for s in now["security"]]
        if "options" in now:
            data["OptionGroupMemberships"] = [{"OptionGroupName": now["options"], "Status": "in-sync"}]
        if "DBSubnetGroupName" in now:
            data["DBSubnetGroup"] = self.subnet_groups[now["DBSubnetGroupName"]]
        if "logs" in now:
            on = set(data.get("EnabledCloudwatchLogsExports", [])) | set(now["logs"].get("EnableLogTypes", []))
            data["EnabledCloudwatchLogsExports"] = sorted(on - set(now["logs"].get("DisableLogTypes", [])))
        if "group" in now:
            data["DBParameterGroups"] = [{"DBParameterGroupName": now["group"], "ParameterApplyStatus": "pending-reboot"}]

    def _rename(self, instance, new_name):
        old = instance.id
        with self.lock:
            del self.instances[old]
            self.reserved.discard(new_name)
            instance.data.update(DBInstanceIdentifier=new_name, DBInstanceArn=self.arn("db", new_name))
            self.instances[new_name] = instance
            if self.lab.endpoint_style == "name":
                instance.data["Endpoint"]["Address"] = self.endpoint_name(new_name)
        self._certify(instance)
        instance.db.restart(instance.params, instance.certificate)      # a rename restarts the server
        self.event("db-instance", new_name, f"Renamed instance from {old} to {new_name}", "configuration change")
        self.event("db-instance", new_name, "DB instance restarted", "availability")

    def RebootDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            if p.get("ForceFailover") and not instance.data["MultiAZ"]:
                raise AwsError("InvalidParameterCombination", "Force failover cannot be specified because instance isn't configured for MultiAZ")
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
                raise AwsError("InvalidParameterCombination", "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
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
                raise AwsError("DBInstanceRoleAlreadyExists", f"Role {p['RoleArn']} or feature {p['FeatureName']} is already associated")
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

    # snapshots

    def _new_snapshot(self, instance, name, tags):
        name = self._identifier(name, "DBSnapshotIdentifier", 255)
        if name in self.snapshots:
            raise AwsError("DBSnapshotAlreadyExists", f"Cannot create the snapshot because a snapshot with the identifier {name} already exists.")
        source = instance.data
        data = {"DBSnapshotIdentifier": name, "DBInstanceIdentifier": instance.id, "DBSnapshotArn": self.arn("snapshot", name),
                "Status": "creating", "PercentProgress": 0, "SnapshotType": "manual", "Encrypted": source["StorageEncrypted"],
                "Port": source["Endpoint"]["Port"], "VpcId": source["DBSubnetGroup"]["VpcId"], "SnapshotTarget": "region",
                "OptionGroupName": source["OptionGroupMemberships"][0]["OptionGroupName"],
                "TagList": tags + ([t for t in source["TagList"] if t["Key"] not in {g["Key"] for g in tags}]
                                   if source["CopyTagsToSnapshot"] else [])}
        for field in ("Engine", "EngineVersion", "AllocatedStorage", "AvailabilityZone", "InstanceCreateTime", "MasterUsername",
                      "LicenseModel", "Iops", "StorageType", "StorageThroughput", "KmsKeyId", "ProcessorFeatures", "DbiResourceId",
                      "IAMDatabaseAuthenticationEnabled", "DedicatedLogVolume"):
            if field in source:
                data[field] = copy.deepcopy(source[field])
        snapshot = Snapshot(data, os.path.join(self.lab.folder, "snapshots", _letters(12).lower()), copy.deepcopy(source))
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
                raise AwsError("DBSnapshotAlreadyExists", f"Cannot create the snapshot because a snapshot with the identifier {name} already exists.")
            if source.data["Status"] != "available":
                raise AwsError("InvalidDBSnapshotState", f"Cannot copy the snapshot because it is in {source.data['Status']} state.")
            old_key = self.lab.kms.usable(source.data["KmsKeyId"]) if source.data["Encrypted"] else None
            key = self.lab.kms.usable(p["KmsKeyId"]) if p.get("KmsKeyId") else old_key
            data = copy.deepcopy(source.data)
            data.update(DBSnapshotIdentifier=name, DBSnapshotArn=self.arn("snapshot", name), Status="copying", PercentProgress=0,
                        SnapshotType="manual", Encrypted=key is not None, SourceDBSnapshotIdentifier=source.data["DBSnapshotArn"],
                        SnapshotCreateTime=stamp(self.lab.clock.now()),
                        TagList=p.get("Tags") or (data["TagList"] if p.get("CopyTags") else []))
            data.pop("KmsKeyId", None)
            if key:
                data["KmsKeyId"] = key
            if p.get("OptionGroupName"):
                data["OptionGroupName"] = p["OptionGroupName"]
            snapshot = Snapshot(data, os.path.join(self.lab.folder, "snapshots", _letters(12).lower()), copy.deepcopy(source.origin))
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
                raise AwsError("InvalidDBSnapshotState", f"Cannot delete the snapshot because it is not currently in the available state.")
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
                raise AwsError("InvalidParameterValue", f"Invalid storage size: {size}. It must be the snapshot's {has} or at least 10 % more")
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

    # parameter groups

    def CreateDBParameterGroup(self, p, caller):
        with self.lock:
            name = self._identifier(p["DBParameterGroupName"], "DBParameterGroupName", 255)
            if name in self.groups:
                raise AwsError("DBParameterGroupAlreadyExists", f"Parameter group {name} already exists")
            if p["DBParameterGroupFamily"] != f"postgres{self.major}":
                raise AwsError("InvalidParameterValue", f"ParameterGroupFamily {p['DBParameterGroupFamily']} is not a valid parameter group family")
            group = self._add_group(name, p["Description"])
            self.tags[group.arn] = p.get("Tags", [])
            return {"DBParameterGroup": group.described()}

    def DescribeDBParameterGroups(self, p, caller):
        with self.lock:
            found = [self._group(p["DBParameterGroupName"])] if "DBParameterGroupName" in p else list(self.groups.values())
            return self._answer("DBParameterGroups", self._page("DescribeDBParameterGroups", p, found, lambda g: g.name),
                                lambda g: g.described())

    def DescribeDBParameters(self, p, caller):
        with self.lock:
            found = self._group(p["DBParameterGroupName"]).parameters()
            if p.get("Source"):
                found = [e for e in found if e["Source"] == p["Source"]]
            return self._answer("Parameters", self._page("DescribeDBParameters", p, found, lambda e: e["ParameterName"]), dict)

    def ModifyDBParameterGroup(self, p, caller):
        with self.lock:
            group = self._changeable(p["DBParameterGroupName"])
            if not 1 <= len(p["Parameters"]) <= 20:
                raise AwsError("InvalidParameterValue", "between 1 and 20 parameters may be modified at once")
            changes = [group.check(one) for one in p["Parameters"]]
            for name, value, method, _ in changes:
                group.set[name] = (value, method)
            self._spread(group, [c[0] for c in changes if c[2] == "immediate"])
            return {"DBParameterGroupName": group.name}

    def ResetDBParameterGroup(self, p, caller):
        with self.lock:
            group = self._changeable(p["DBParameterGroupName"])
            names = [one["ParameterName"] for one in p.get("Parameters", [])]
            for name in list(group.set) if p.get("ResetAllParameters", True) and not names else names:
                group.set.pop(name, None)
            self._spread(group, [])
            return {"DBParameterGroupName": group.name}

    def DeleteDBParameterGroup(self, p, caller):
        with self.lock:
            group = self._changeable(p["DBParameterGroupName"])
            users = [i.id for i in self.instances.values() if i.group == group.name]
            if users:
                raise AwsError("InvalidDBParameterGroupState", f"One or more database instances are still members of this parameter group {group.name}, so the group cannot be deleted")
            del self.groups[group.name]

    def _changeable(self, name):
        group = self._group(name)
        if group.name.startswith("default."):
            raise AwsError("InvalidParameterValue", f"The parameter DBParameterGroupName must be provided and must not be a default group: {group.name}")
        return group

    def _spread(self, group, immediately):
        """Running members get the named dynamic parameters; whatever else differs waits for a reboot."""
        wanted = parameters.server_settings(group)
        for instance in [i for i in self.instances.values() if i.group == group.name and i.db.server.is_up()]:
            membership = instance.data["DBParameterGroups"][0]
            if membership["ParameterApplyStatus"] == "pending-reboot" and instance.params.get("wal_level") is None:
                continue
            membership["ParameterApplyStatus"] = "applying"

            def work(instance=instance, membership=membership):
                self.lab.clock.sleep(STATE / 5)
                with self.lock:
                    changed = {n: wanted[n] for n in immediately if n in wanted}
                    instance.params.update(changed)
                    if changed and instance.db.server.is_up():
                        instance.db.reload(instance.params, instance.certificate)
                    membership["ParameterApplyStatus"] = self._apply_status(instance)
            self._run(instance, work)

    # logs and events

    def DescribeDBLogFiles(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
        found = [{"LogFileName": name, "Size": size, "LastWritten": int(when * 1000)} for name, _, size, when in instance.db.logs()
                 if p.get("FilenameContains", "") in name and size >= p.get("FileSize", 0) and when * 1000 >= p.get("FileLastWritten", 0)]
        return self._answer("DescribeDBLogFiles", self._page("DescribeDBLogFiles", p, found, lambda f: f["LogFileName"]), dict)

    def DownloadDBLogFilePortion(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            if instance.status == "creating":
                raise AwsError("DBInstanceNotReady", f"DB instance {instance.id} is not ready", 400)
        paths = {name: path for name, path, _, _ in instance.db.logs()}
        if p["LogFileName"] not in paths:
            raise AwsError("DBLogFileNotFoundFault", f"DBLog File: {p['LogFileName']}, is not found on the DB instance", 404)
        with open(paths[p["LogFileName"]], "rb") as f:
            data = f.read()
        return log_portion(data, p.get("Marker"), p.get("NumberOfLines"))

    def DescribeEvents(self, p, caller):
        with self.lock:
            if "SourceIdentifier" in p and "SourceType" not in p:
                raise AwsError("InvalidParameterCombination", "The parameter SourceType must be provided if SourceIdentifier is")
            end = p["EndTime"].timestamp() if "EndTime" in p else self.lab.clock.now() + 1
            start = p["StartTime"].timestamp() if "StartTime" in p else self.lab.clock.now() - 60 * p.get("Duration", 60)
            found = []
            for number, (when, kind, source, message, categories) in enumerate(self.events):
                if not start <= when <= end or p.get("SourceType", kind) != kind:
                    continue
                if p.get("SourceIdentifier", source).lower() != source:
                    continue
                if p.get("EventCategories") and not set(p["EventCategories"]) & set(categories):
                    continue
                found.append((number, {"SourceIdentifier": source, "SourceType": kind, "Message": message, "Date": stamp(when),
                                       "EventCategories": categories, "SourceArn": self.arn(
                                           {"db-instance": "db", "db-snapshot": "snapshot"}[kind], source)}))
            return self._answer("Events", self._page("DescribeEvents", p, found, lambda e: e[0]), lambda e: e[1])

    # tags, subnet groups, option groups

    def _tags(self, arn):
        kind, _, name = arn.partition(f"arn:aws:rds:{self.lab.region}:{self.lab.account}:")[2].partition(":")
        if kind == "db":
            return self._instance(name).data["TagList"]
        if kind == "snapshot":
            return self._snapshot(name).data["TagList"]
        if kind in ("pg", "subgrp", "og"):
            return self.tags.setdefault(arn, [])
        raise AwsError("InvalidParameterValue", f"Invalid resource name: {arn}")

    def ListTagsForResource(self, p, caller):
        with self.lock:
            return {"TagList": copy.deepcopy(self._tags(p["ResourceName"]))}

    def AddTagsToResource(self, p, caller):
        with self.lock:
            tags = self._tags(p["ResourceName"])
            new = {t["Key"] for t in p["Tags"]}
            if any(k.startswith("aws:") for k in new):
                raise AwsError("InvalidParameterValue", "Tag keys may not begin with aws:")
            tags[:] = [t for t in tags if t["Key"] not in new] + p["Tags"]

    def RemoveTagsFromResource(self, p, caller):
        with self.lock:
            tags = self._tags(p["ResourceName"])
            tags[:] = [t for t in tags if t["Key"] not in p["TagKeys"]]

    def DescribeDBSubnetGroups(self, p, caller):
        name = p.get("DBSubnetGroupName")
        if name and name.lower() not in self.subnet_groups:
            raise AwsError("DBSubnetGroupNotFoundFault", f"DB subnet group '{name}' does not exist.", 404)
        found = [self.subnet_groups[name.lower()]] if name else list(self.subnet_groups.values())
        return self._answer("DBSubnetGroups", self._page("DescribeDBSubnetGroups", p, found, lambda g: g["DBSubnetGroupName"]), dict)

    def DescribeOptionGroups(self, p, caller):
        name = p.get("OptionGroupName")
        if name and name.lower() not in self.option_groups:
            raise AwsError("OptionGroupNotFoundFault", f"Specified OptionGroupName: {name} not found.", 404)
        found = [self.option_groups[name.lower()]] if name else list(self.option_groups.values())
        return self._answer("OptionGroupsList", self._page("DescribeOptionGroups", p, found, lambda g: g["OptionGroupName"]), dict)

    # for tests

    def server_do(self, name, action):
        """What happens to a server without RDS having been asked: crash, stop, pause."""
        server = self._instance(name).db.server
        if action in ("stop", "immediate"):
            server.stop("fast" if action == "stop" else "immediate")
        elif action in ("pause", "resume"):
            server.pause() if action == "pause" else server.resume()
        elif action in ("kill9", "start", "restart"):
            getattr(server, action)()
        else:
            raise ValueError(f"unknown action {action!r}: kill9, immediate, stop, start, restart, pause, resume")
        return {"pid": server.pid, "up": server.is_up()}

    def state(self):
        with self.lock:
            return {
                "instances": {i.id: {"status": i.status, "address": i.address, "host": i.db.server.host, "port": i.db.server.port,
                                     "endpoint": i.data["Endpoint"]["Address"], "name": self.endpoint_name(i.id),
                                     "admin_dsn": i.db.server.dsn(), "datadir": i.db.server.datadir, "pid": i.db.server.pid, "up": i.db.server.is_up(),
                                     "kms_key": i.data.get("KmsKeyId"), "logs": i.db.log_folder}
                              for i in self.instances.values()},
                "snapshots": {s.id: {"status": s.data["Status"], "percent": s.data["PercentProgress"], "folder": s.folder,
                                     "kms_key": s.data.get("KmsKeyId")} for s in self.snapshots.values()}}

    def close(self):
        with self.lock:
            instances = list(self.instances.values())
        for instance in instances:
            instance.gone = True
            if instance.db:
                instance.db.server.stop("immediate")
        for claim in self._claims:
            claim.close()


MEGABYTE = 1 << 20


def log_portion(data, marker, lines):
    """A DownloadDBLogFilePortion answer: from the marker onwards, or the newest lines when there is none."""
    limit = lines if lines else 10000
    if limit < 0:
        raise AwsError("InvalidParameterValue", f"Invalid NumberOfLines {lines}")
    if marker is None:
        start = _start_of_last_lines(data, limit)
    elif marker == "0":
        start = 0
    else:
        match = re.fullmatch(r"lab:(\d+):x", marker)            # not to be understood by anybody but us
        if not match or int(match.group(1)) > len(data):
            raise AwsError("InvalidParameterValue", f"Invalid marker {marker}")
        start = int(match.group(1))
    end = start
    for _ in range(limit):
        line = data.find(b"\n", end)
        if line < 0 or line + 1 - start > MEGABYTE:
            break
        end = line + 1
    if end == start:                                            # one long line, or the unfinished last one
        end = min(len(data), start + MEGABYTE)
    while end < len(data) and data[end] & 0xC0 == 0x80:         # not inside a UTF-8 character
        end -= 1
    text = data[start:end].decode(errors="replace")
    text = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
    return {"LogFileData": text, "Marker": f"lab:{end}:x", "AdditionalDataPending": end < len(data)}


def _start_of_last_lines(data, limit):
    at = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(limit):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return max(0, len(data) - MEGABYTE)
    return max(at + 1, len(data) - MEGABYTE)
