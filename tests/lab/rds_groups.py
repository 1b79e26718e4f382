"""Parameter groups, subnet and option groups, tags."""
import copy

from lab import parameters
from lab.errors import AwsError
from lab.rds_base import STATE

class RdsGroups:
    def CreateDBParameterGroup(self, p, caller):
        with self.lock:
            name = self._identifier(p["DBParameterGroupName"], "DBParameterGroupName", 255)
            if name in self.groups:
                raise AwsError("DBParameterGroupAlreadyExists", f"Parameter group {name} already exists")
            if p["DBParameterGroupFamily"] != f"postgres{self.major}":
                raise AwsError("InvalidParameterValue",
                               f"ParameterGroupFamily {p['DBParameterGroupFamily']} is not a valid parameter group family")
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
                raise AwsError("InvalidDBParameterGroupState",
                               f"One or more database instances are still members of this parameter group {group.name}, so "
                               "the group cannot be deleted")
            del self.groups[group.name]

    def _changeable(self, name):
        group = self._group(name)
        if group.name.startswith("default."):
            raise AwsError("InvalidParameterValue",
                           f"The parameter DBParameterGroupName must be provided and must not be a default group: {group.name}")
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
        return self._answer("DBSubnetGroups", self._page("DescribeDBSubnetGroups", p, found, lambda g: g["DBSubnetGroupName"]),
                            dict)

    def DescribeOptionGroups(self, p, caller):
        name = p.get("OptionGroupName")
        if name and name.lower() not in self.option_groups:
            raise AwsError("OptionGroupNotFoundFault", f"Specified OptionGroupName: {name} not found.", 404)
        found = [self.option_groups[name.lower()]] if name else list(self.option_groups.values())
        return self._answer("OptionGroupsList", self._page("DescribeOptionGroups", p, found, lambda g: g["OptionGroupName"]),
                            dict)
