"""ModifyDBInstance: what happens at once, what waits for the maintenance window, and renaming."""
import copy

from lab.errors import AwsError
from lab.rds_base import STATE
from lab.rds_settings import AT_ONCE, DEFERRED, EXTRAS

class RdsModify:
    def ModifyDBInstance(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            self._must_be_available(instance)
            now, later = self._plan_changes(instance, p)
            instance.data["PendingModifiedValues"] = {**instance.data["PendingModifiedValues"], **later}
            if "group" in now:
                instance.data["DBParameterGroups"] = [{"DBParameterGroupName": now["group"],
                                                       "ParameterApplyStatus": "applying"}]
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
            raise AwsError("InvalidParameterCombination",
                           f"Cannot upgrade postgres from {self.version} to {p['EngineVersion']}")
        for name, field in DEFERRED.items():
            if name in p and p[name] != data.get(field):
                trial[field] = p[name]
                (now if immediately else pending)[field] = p[name]
        if p.get("AllocatedStorage", data["AllocatedStorage"]) < data["AllocatedStorage"]:
            raise AwsError("InvalidParameterCombination",
                           f"Requested size for instance {instance.id} is smaller than the current one")
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
                raise AwsError("InvalidVPCNetworkStateFault",
                               "The specified DB instance is already in the target DB subnet group.")
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
            self.event("db-instance", instance.id, "Finished applying modification to allocated storage",
                       "configuration change")
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
