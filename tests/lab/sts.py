"""Who is who: the lab's access keys, STS, and the two places where a machine finds credentials (IMDSv2, containers)."""
import json
import secrets
import string
import threading
import uuid

from lab.errors import AwsError
from lab.protocol import iso, stamp
from lab.sigv4 import Key

ROLE = "keybridge"                             # the one role that may be assumed, and that the machine has
IMDS_ROLE_PATH = "/latest/meta-data/iam/security-credentials/"


def _letters(n):
    return "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(n))


class Sts:
    def __init__(self, lab, access, secret, lifetime):
        self.lab = lab
        self.lock = threading.Lock()
        self.lifetime = lifetime               # of credentials from IMDS and the container endpoint, seconds
        self.keys = {access: Key(access, secret, f"arn:aws:iam::{lab.account}:user/lab")}
        self.web_token = f"lab.{secrets.token_hex(16)}.sig"
        self.container_token = secrets.token_hex(16)
        self.imds_tokens = {}                  # token -> end

    def session(self, arn, seconds):
        """Credentials that end. Known to the signature check from now on."""
        key = Key("ASIA" + _letters(16), secrets.token_urlsafe(30), arn, "IQoJ" + secrets.token_urlsafe(120),
                  self.lab.clock.now() + seconds)
        with self.lock:
            self.keys[key.access] = key
        return key

    # calls

    def GetCallerIdentity(self, p, caller):
        return {"UserId": "AROALABLABLABLABLABLA:session" if caller.token else "AIDALABLABLABLABLABLA",
                "Account": self.lab.account, "Arn": caller.arn}

    def AssumeRole(self, p, caller):
        role = f"arn:aws:iam::{self.lab.account}:role/{ROLE}"
        if p["RoleArn"] != role:
            raise AwsError("AccessDenied", f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: "
                           f"{p['RoleArn']}", 403)
        return self._assumed(p)

    def AssumeRoleWithWebIdentity(self, p, caller):
        if p["WebIdentityToken"] != self.web_token:
            raise AwsError("InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if "
                           "you sent an Access Token)")
        if p["RoleArn"] != f"arn:aws:iam::{self.lab.account}:role/{ROLE}":
            raise AwsError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403)
        return {**self._assumed(p), "SubjectFromWebIdentityToken": "system:serviceaccount:lab:keybridge",
                "Audience": "sts.amazonaws.com", "Provider": "https://oidc.lab"}

    def _assumed(self, p):
        arn = f"arn:aws:sts::{self.lab.account}:assumed-role/{ROLE}/{p['RoleSessionName']}"
        key = self.session(arn, p.get("DurationSeconds", 3600))
        return {"Credentials": {"AccessKeyId": key.access, "SecretAccessKey": key.secret, "SessionToken": key.token,
                                "Expiration": stamp(key.expires)},
                "AssumedRoleUser": {"AssumedRoleId": f"AROALABLABLABLABLABLA:{p['RoleSessionName']}", "Arn": arn}}

    # IMDSv2 and the container endpoint: plain HTTP, no signatures. Each returns (status, body as str or dict).

    def imds(self, method, path, headers):
        now = self.lab.clock.now()
        if path == "/latest/api/token":
            ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if method != "PUT":
                return 405, ""
            if not ttl.isdigit() or not 1 <= int(ttl) <= 21600 or "x-forwarded-for" in headers:
                return 400, ""
            token = secrets.token_urlsafe(40)
            self.imds_tokens[token] = now + int(ttl)
            return 200, token
        if self.imds_tokens.get(headers.get("x-aws-ec2-metadata-token"), 0) <= now:
            return 401, ""
        if path.rstrip("/") == IMDS_ROLE_PATH.rstrip("/"):
            return 200, ROLE
        if path == IMDS_ROLE_PATH + ROLE:
            key = self.session(f"arn:aws:sts::{self.lab.account}:assumed-role/{ROLE}/i-0lab0lab0lab0lab0", self.lifetime)
            return 200, {"Code": "Success", "LastUpdated": iso(stamp(now))[:19] + "Z", "Type": "AWS-HMAC",
                         "AccessKeyId": key.access, "SecretAccessKey": key.secret, "Token": key.token,
                         "Expiration": iso(stamp(key.expires))[:19] + "Z"}
        if path == "/latest/meta-data/placement/region":
            return 200, self.lab.region
        if path == "/latest/meta-data/placement/availability-zone":
            return 200, self.lab.region + "a"
        if path == "/latest/dynamic/instance-identity/document":
            return 200, json.dumps({"accountId": self.lab.account, "region": self.lab.region,
                                    "instanceId": "i-0lab0lab0lab0lab0", "availabilityZone": self.lab.region + "a"})
        return 404, ""

    def container(self, method, headers):
        if headers.get("authorization") != self.container_token:
            return 403, {"message": "Forbidden"}
        key = self.session(f"arn:aws:sts::{self.lab.account}:assumed-role/{ROLE}/{uuid.uuid4().hex}", self.lifetime)
        return 200, {"RoleArn": f"arn:aws:iam::{self.lab.account}:role/{ROLE}", "AccessKeyId": key.access,
                     "SecretAccessKey": key.secret, "Token": key.token, "Expiration": iso(stamp(key.expires))[:19] + "Z"}
