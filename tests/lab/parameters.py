"""Parameter groups of the PostgreSQL family. The catalogue is the real server's own, plus RDS's own parameters."""
import re
import subprocess

from lab.errors import AwsError

# name -> (type, default, static, description)
RDS_OWN = {
    "rds.logical_replication": ("boolean", "0", True, "Enables logical decoding."),
    "rds.force_ssl": ("boolean", "0", False, "Force SSL connections."),       # 1 on RDS since 15; the lab's tests speak both
    "rds.log_retention_period": ("integer", "4320", False,
                                 "Amazon RDS will delete PostgreSQL log that are older than N minutes."),
    "rds.restrict_password_commands": ("boolean", None, True, "restricts password-related commands to members of rds_password"),
    "rds.iam_auth_for_replication": ("boolean", "0", False, "Allows IAM authentication for replication connections."),
}
# what RDS sets otherwise than the server's built-in value
RDS_DEFAULTS = {"max_replication_slots": "20", "max_wal_senders": "20", "max_logical_replication_workers": None,
                "wal_level": "replica", "max_connections": "200", "log_checkpoints": "1",
                "password_encryption": "scram-sha-256",
                "max_wal_size": "1GB"}
# RDS keeps these for itself
FIXED = re.compile(r"^(wal_level|listen_addresses|port|.*_directories|data_directory|config_file|hba_file|ident_file|"
                   r"external_pid_file|log_directory|log_file_mode|logging_collector|log_truncate_on_rotation|ssl_.*file|"
                   r"ssl_crl_dir|ssl|unix_socket_.*|archive_.*|restore_command|recovery_.*|primary_.*|fsync|full_page_writes|"
                   r"event_source|bonjour.*|cluster_name|log_filename|allow_system_table_mods|debug_assertions|"
                   r"krb_server_keyfile|dynamic_library_path|local_preload_libraries|jit_provider)$")
STRING_KINDS = {"BOOLEAN": "boolean", "INTEGER": "integer", "REAL": "float", "STRING": "string", "ENUM": "list"}


def catalogue(bindir):
    """name -> Parameter as DescribeDBParameters shows a default."""
    lines = subprocess.run([f"{bindir}/postgres", "--describe-config"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in lines.splitlines():
        name, context, _, kind, boot, low, high, description = line.split("\t")[:8]
        entry = {"ParameterName": name, "Description": description, "Source": "engine-default",
                 "ApplyType": "static" if context == "postmaster" else "dynamic", "DataType": STRING_KINDS[kind],
                 "IsModifiable": not FIXED.match(name), "ApplyMethod": "pending-reboot"}
        if kind == "BOOLEAN":
            entry["AllowedValues"] = "0,1"
        elif low and high:
            entry["AllowedValues"] = f"{low}-{high}"
        if RDS_DEFAULTS.get(name):
            entry.update(ParameterValue=RDS_DEFAULTS[name], Source="system")
        found[name] = entry
    for name, (kind, default, static, description) in RDS_OWN.items():
        found[name] = {"ParameterName": name, "Description": description, "Source": "system" if default else "engine-default",
                       "ApplyType": "static" if static else "dynamic", "DataType": kind, "IsModifiable": True,
                       "ApplyMethod": "pending-reboot", **({"ParameterValue": default} if default else {}),
                       **({"AllowedValues": "0,1"} if kind == "boolean" else {})}
    return found


class Group:
    def __init__(self, name, family, description, arn, known):
        self.name, self.family, self.description, self.arn = name, family, description, arn
        self.known = known
        self.set = {}                          # name -> (value, apply method), by the user

    def described(self):
        return {"DBParameterGroupName": self.name, "DBParameterGroupFamily": self.family, "Description": self.description,
                "DBParameterGroupArn": self.arn}

    def parameters(self):
        out = []
        for name in sorted(self.known):
            entry = dict(self.known[name])
            if name in self.set:
                entry.update(ParameterValue=self.set[name][0], Source="user", ApplyMethod=self.set[name][1])
            out.append(entry)
        return out

    def check(self, parameter):
        """(name, value, method, static) of one change, or the error."""
        name, value = parameter.get("ParameterName"), parameter.get("ParameterValue")
        known = self.known.get(name)
        if known is None:
            raise AwsError("InvalidParameterValue", f"Could not find parameter with name: {name}")
        if not known["IsModifiable"]:
            raise AwsError("InvalidParameterValue", f"The parameter {name} cannot be modified.")
        method = parameter.get("ApplyMethod")
        if value is None or method is None:
            raise AwsError("InvalidParameterCombination", f"The parameters ParameterName, ParameterValue and ApplyMethod must "
                           f"be given for {name}.")
        static = known["ApplyType"] == "static"
        if static and method == "immediate":
            raise AwsError("InvalidParameterCombination", "cannot use immediate apply method for static parameter")
        if not _fits(known, value):
            raise AwsError("InvalidParameterValue", f"Invalid parameter value: {value} for: {name} allowed values are: "
                           f"{known.get('AllowedValues', known['DataType'])}")
        return name, value, method, static


def _fits(known, value):
    if "{" in value:
        return True                            # a formula
    if known["DataType"] == "boolean":
        return value in ("0", "1", "on", "off", "true", "false")
    if known["DataType"] == "integer" and re.fullmatch(r"-?\d+-\d+", known.get("AllowedValues", "")):
        if not re.fullmatch(r"-?\d+", value):
            return False
        low, high = re.fullmatch(r"(-?\d+)-(\d+)", known["AllowedValues"]).groups()
        return int(low) <= int(value) <= int(high)
    return True


def server_settings(group):
    """What a server started with this group gets in its configuration."""
    values = {name: entry["ParameterValue"] for name, entry in ((e["ParameterName"], e) for e in group.parameters())
              if entry.get("ParameterValue") is not None and "{" not in entry["ParameterValue"]}
    values.pop("wal_level", None)
    on = values.get("rds.logical_replication") in ("1", "on", "true")
    values["wal_level"] = "logical" if on else "replica"
    for name in RDS_OWN:                       # shown by the server as RDS shows them
        if group.known[name]["DataType"] == "boolean" and name in values:
            values[name] = "on" if values[name] in ("1", "on", "true") else "off"
    return values


def dynamic_only(group, values):
    return {n: v for n, v in values.items() if n in group.known and group.known[n]["ApplyType"] == "dynamic"}
