"""Keys: what RDS asks about them, and their own calls."""
import json
import re
import threading
import uuid

from lab.errors import AwsError
from lab.protocol import stamp


class Kms:
    def __init__(self, lab):
        self.lab = lab
        self.lock = threading.RLock()
        self.keys = {}                         # id -> metadata
        self.aliases = {}                      # alias/name -> id
        self.aws_key = self._new("Default key that protects my RDS database volumes when no other key is defined", "AWS")
        self.aliases["alias/aws/rds"] = self.aws_key["KeyId"]

    def _new(self, description, manager="CUSTOMER"):
        key_id = str(uuid.uuid4())
        self.keys[key_id] = {
            "AWSAccountId": self.lab.account, "KeyId": key_id, "Arn": f"{self._arn}:key/{key_id}",
            "CreationDate": stamp(self.lab.clock.now()), "Enabled": True, "Description": description,
            "KeyUsage": "ENCRYPT_DECRYPT", "KeyState": "Enabled", "Origin": "AWS_KMS", "KeyManager": manager,
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"], "MultiRegion": False}
        return self.keys[key_id]

    @property
    def _arn(self):
        return f"arn:aws:kms:{self.lab.region}:{self.lab.account}"

    def create(self, alias, description=""):
        """A key with an alias, for setting up; returns its ARN."""
        with self.lock:
            key = self._new(description or alias)
            self.aliases["alias/" + alias] = key["KeyId"]
            return key["Arn"]

    def find(self, name):
        """The metadata of a key named by id, ARN, alias or alias ARN; None when there is none here."""
        with self.lock:
            match = re.fullmatch(r"arn:aws[\w-]*:kms:([\w-]+):(\d+):(.*)", name)
            if match:
                if match.group(1) != self.lab.region or match.group(2) != self.lab.account:
                    return None
                name = match.group(3)
            name = name[4:] if name.startswith("key/") else name
            return self.keys.get(self.aliases.get(name, name))

    def usable(self, name):
        """The ARN of a key that RDS may use, else the error that RDS answers."""
        key = self.find(name)
        if key is None or key["KeyState"] != "Enabled":
            raise AwsError("KMSKeyNotAccessibleFault",
                           f"The specified KMS key [{key['Arn'] if key else name}] does not exist, is not enabled or you "
                           "do not have permissions to access it.")
        return key["Arn"]

    def set_state(self, name, state):
        with self.lock:
            key = self.find(name)
            key["KeyState"] = state
            key["Enabled"] = state == "Enabled"

    def _must(self, name):
        key = self.find(name)
        if key is None:
            what = "Alias" if "alias/" in name else "Key"
            arn = name if name.startswith("arn:") else f"{self._arn}:{'' if what == 'Alias' else 'key/'}{name}"
            raise AwsError("NotFoundException", f"{what} '{arn}' does not exist" if what == "Key"
                           else f"Alias {arn} is not found.")
        return key

    def _must_be_own(self, name):
        key = self._must(name)
        if key["KeyManager"] == "AWS":
            raise AwsError("AccessDeniedException", f"{key['Arn']} is managed by AWS", 400)
        return key

    # calls

    def CreateKey(self, p, caller):
        with self.lock:
            key = self._new(p.get("Description", ""))
            if p.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT" or p.get("KeyUsage", "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT":
                spec = p.get("KeySpec", "RSA_2048")
                key.update(KeySpec=spec, CustomerMasterKeySpec=spec, KeyUsage=p.get("KeyUsage", "ENCRYPT_DECRYPT"))
                key.pop("EncryptionAlgorithms")
            return {"KeyMetadata": dict(key)}

    def DescribeKey(self, p, caller):
        return {"KeyMetadata": dict(self._must(p["KeyId"]))}

    def CreateAlias(self, p, caller):
        with self.lock:
            key = self._must(p["TargetKeyId"])
            if p["AliasName"] in self.aliases:
                raise AwsError("AlreadyExistsException", f"An alias with the name {self._arn}:{p['AliasName']} already exists")
            self.aliases[p["AliasName"]] = key["KeyId"]

    def ListAliases(self, p, caller):
        with self.lock:
            wanted = self._must(p["KeyId"])["KeyId"] if "KeyId" in p else None
            names = sorted(a for a, k in self.aliases.items() if wanted in (None, k))
            return self._page(p, names, "Aliases", lambda a: {
                "AliasName": a, "AliasArn": f"{self._arn}:{a}", "TargetKeyId": self.aliases[a]})

    def ListKeys(self, p, caller):
        with self.lock:
            return self._page(p, sorted(self.keys), "Keys", lambda k: {"KeyId": k, "KeyArn": self.keys[k]["Arn"]})

    def _page(self, p, names, member, make):
        names = [n for n in names if n > p.get("Marker", "")]
        limit = p.get("Limit", 50)
        answer = {member: [make(n) for n in names[:limit]], "Truncated": len(names) > limit}
        if answer["Truncated"]:
            answer["NextMarker"] = names[limit - 1]
        return answer

    def DisableKey(self, p, caller):
        self.set_state(self._must_be_own(p["KeyId"])["KeyId"], "Disabled")

    def EnableKey(self, p, caller):
        self.set_state(self._must_be_own(p["KeyId"])["KeyId"], "Enabled")

    def ScheduleKeyDeletion(self, p, caller):
        key = self._must_be_own(p["KeyId"])
        self.set_state(key["KeyId"], "PendingDeletion")
        days = p.get("PendingWindowInDays", 30)
        key["DeletionDate"] = stamp(self.lab.clock.now() + days * 86400)
        return {"KeyId": key["Arn"], "DeletionDate": key["DeletionDate"], "KeyState": "PendingDeletion",
                "PendingWindowInDays": days}

    def GetKeyRotationStatus(self, p, caller):
        return {"KeyRotationEnabled": self._must(p["KeyId"])["KeyManager"] == "AWS"}

    def ListGrants(self, p, caller):
        self._must(p["KeyId"])
        return {"Grants": [], "Truncated": False}

    def GetKeyPolicy(self, p, caller):
        self._must(p["KeyId"])
        if p["PolicyName"] != "default":
            raise AwsError("NotFoundException", "No such policy exists")
        return {"Policy": json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [{
            "Sid": "Enable IAM User Permissions", "Effect": "Allow", "Action": "kms:*", "Resource": "*",
            "Principal": {"AWS": f"arn:aws:iam::{self.lab.account}:root"}}]}, indent=2)}
