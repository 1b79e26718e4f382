"""What the parts of RDS share: the things themselves, names, pages, addresses, work in the background."""
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
import threading

from lab import database, parameters
from lab.clock import Closed
from lab.database import Database
from lab.errors import AwsError
from lab.protocol import stamp

STATE = 1.0                                    # seconds that a state lasts at speed 1


def letters(n):
    return "".join(random.choices(string.ascii_uppercase + string.digits, k=n))


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


class RdsBase:
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
        self.subnet_groups = {n: self._subnet_group(n, vpc) for n, vpc in (("default", "vpc-0default"),
                                                                           ("lab-private", "vpc-0private"))}
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

    @staticmethod
    def _passes(p, data, fields):
        for one in p.get("Filters", []):
            if one["Name"] not in fields:
                raise AwsError("InvalidParameterValue", f"Unrecognized filter name: {one['Name']}")
            if not any(data.get(f) in one["Values"] for f in fields[one["Name"]]):
                return False
        return True

    def _enrol(self, name, data, group, port):
        """Puts a new instance among the others; nothing of it runs yet."""
        resource = "db-" + letters(26)
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
