"""Signatures, credentials, validation, pagination, faults: everything about a request but what it does."""
import datetime
import http.client
import json
import os
import time
import urllib.error
import urllib.request

import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.session
import dns.flags
import dns.message
import dns.query
import psycopg2
import pytest

from lab import models, protocol
from lab.errors import Invalid
from lab.pgserver import wait_for
from lab.rds_logs import log_portion
from lab.server import Lab

FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture(scope="module")
def lab(module_folder):
    with Lab(module_folder, speed=20) as lab:
        yield lab


@pytest.fixture(autouse=True)
def clean(lab):
    lab.faults.clear()
    lab.violations.clear()
    lab.requests.clear()
    yield
    assert not [v for v in lab.violations if v["kind"] != "request"], lab.violations


def fetch(url, data=None, headers={}, method=None):
    """(status, headers, body) of a plain request; 0 when the connection was dropped."""
    if isinstance(data, (dict, list)):
        data = json.dumps(data).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read()
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return 0, {}, b""


def signed(lab, body="Action=DescribeDBInstances&Version=2014-10-31", service="rds", region=None, key=None, secret=None,
           token=None,
           when=None, change=lambda request: None, headers=None, monkeypatch=None):
    """Signs with botocore's signer, lets the test change the signed request, sends it."""
    credentials = botocore.credentials.Credentials(key or lab.access_key, secret or lab.secret_key, token)
    request = botocore.awsrequest.AWSRequest("POST", lab.endpoint + "/", headers or {"Content-Type": FORM}, data=body.encode())
    if when:
        class Then(datetime.datetime):
            @classmethod
            def utcnow(cls):
                return when
        monkeypatch.setattr(botocore.auth.datetime, "datetime", Then)
    botocore.auth.SigV4Auth(credentials, service, region or lab.region).add_auth(request)
    if when:
        monkeypatch.undo()
    change(request)
    return fetch(request.url, request.data, dict(request.headers.items()))


def error(answer):
    body = answer[2].decode()
    return answer[0], body[body.index("<Code>") + 6:body.index("</Code>")] if "<Code>" in body else json.loads(body)["__type"]


# --- signatures

def test_a_good_signature_passes(lab):
    assert signed(lab)[0] == 200
    assert signed(lab, "{}", "kms",
                  headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "TrentService.ListKeys"})[0] == 200


@pytest.mark.parametrize("how,status,code", [
    (dict(secret="wrong"), 403, "SignatureDoesNotMatch"),
    (dict(key="AKIANOBODY"), 403, "InvalidClientTokenId"),
    (dict(token="made up"), 403, "InvalidClientTokenId"),
    (dict(region="us-east-1"), 403, "SignatureDoesNotMatch"),
    (dict(service="sts"), 403, "SignatureDoesNotMatch"),
    (dict(change=lambda r: r.headers.replace_header("Authorization", r.headers["Authorization"][:-1] + "x")), 403,
     "SignatureDoesNotMatch"),
    (dict(change=lambda r: setattr(r, "data", r.data + b"&MaxRecords=20")), 403, "SignatureDoesNotMatch"),
    (dict(change=lambda r: r.headers.add_header("X-Amz-Extra", "1")), 403, "SignatureDoesNotMatch"),
    (dict(change=lambda r: r.headers.__delitem__("Authorization")), 403, "MissingAuthenticationToken"),
    (dict(change=lambda r: r.headers.replace_header("Authorization", "AWS4-HMAC-SHA256 Credential=x")), 400,
     "IncompleteSignature"),
])
def test_bad_signatures(lab, how, status, code):
    assert error(signed(lab, **how)) == (status, code)
    assert lab.requests[-1]["error"] == code and lab.violations == []


@pytest.mark.parametrize("how,code",
                         [(dict(secret="wrong"), "InvalidSignatureException"),
                          (dict(key="AKIANOBODY"), "UnrecognizedClientException"),
                                      (dict(change=lambda r: r.headers.__delitem__("Authorization")),
                                       "MissingAuthenticationTokenException")])
def test_bad_signatures_in_json(lab, how, code):
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "TrentService.ListKeys"}
    assert error(signed(lab, "{}", "kms", headers=headers, **how)) == (400, code)


@pytest.mark.parametrize("minutes,status", [(-14, 200), (14, 200), (-16, 403), (16, 403)])
def test_clock_skew(lab, monkeypatch, minutes, status):
    when = datetime.datetime.utcnow() + datetime.timedelta(minutes=minutes)
    answer = signed(lab, when=when, monkeypatch=monkeypatch)
    assert answer[0] == status
    assert "Date" in answer[1]
    if status != 200:
        assert error(answer)[1] == "SignatureDoesNotMatch" and (b"expired" in answer[2] or b"not yet current" in answer[2])


def test_presigned_query(lab):
    def get(change=lambda url: url, expires=60):
        request = botocore.awsrequest.AWSRequest("GET", lab.endpoint + "/?Action=GetCallerIdentity&Version=2011-06-15")
        botocore.auth.SigV4QueryAuth(botocore.credentials.Credentials(lab.access_key, lab.secret_key), "sts", lab.region,
                                     expires).add_auth(request)
        return fetch(change(request.url))
    assert get()[0] == 200
    assert error(get(lambda url: url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))) == (403, "SignatureDoesNotMatch")
    assert error(get(expires=-1)) == (400, "RequestExpired")


def test_a_path_with_a_query_is_signed(lab):
    route53 = lab.client("route53")
    zone = "/hostedzone/" + lab.zone.id
    assert route53.list_resource_record_sets(HostedZoneId=zone, StartRecordName="a b*.app.lab", MaxItems="2")["IsTruncated"] is False
    bad = lab.client("route53", aws_secret_access_key="wrong")
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        bad.list_hosted_zones()


# --- credentials that end

def test_assumed_role_and_its_end(lab):
    sts = lab.client("sts")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        sts.assume_role(RoleArn=f"arn:aws:iam::{lab.account}:role/other", RoleSessionName="test")
    given = sts.assume_role(RoleArn=lab.info()["role_arn"], RoleSessionName="test", DurationSeconds=900)["Credentials"]
    session = dict(aws_access_key_id=given["AccessKeyId"], aws_secret_access_key=given["SecretAccessKey"],
                   aws_session_token=given["SessionToken"])
    assert ":assumed-role/keybridge/test" in lab.client("sts", **session).get_caller_identity()["Arn"]
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidClientTokenId"):
        lab.client("sts", **{**session, "aws_session_token": "other"}).get_caller_identity()
    lab.clock.advance(901)
    with pytest.raises(botocore.exceptions.ClientError, match="ExpiredToken"):
        lab.client("rds", **session).describe_db_instances()
    with pytest.raises(botocore.exceptions.ClientError, match="ExpiredTokenException"):
        lab.client("kms", **session).list_keys()


@pytest.fixture
def bare(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return monkeypatch


def test_botocore_gets_credentials_from_imds(lab, bare):
    bare.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", lab.endpoint + "/")
    found = botocore.session.Session().get_credentials()
    assert found.method == "iam-role" and signed(lab, key=found.access_key, secret=found.secret_key, token=found.token)[0] == 200
    assert fetch(lab.endpoint + "/latest/meta-data/iam/security-credentials/")[0] == 401     # IMDSv1 isn't spoken
    assert fetch(lab.endpoint + "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "0"}, method="PUT")[0] == 400


def test_botocore_gets_credentials_from_the_container_endpoint(lab, bare):
    bare.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", lab.info()["container_uri"])
    bare.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", lab.sts.container_token)
    found = botocore.session.Session().get_credentials()
    assert found.method == "container-role" and signed(lab, key=found.access_key, secret=found.secret_key, token=found.token)[0] == 200
    assert fetch(lab.info()["container_uri"])[0] == 403
    lab.faults.add("status", service="container", status=500, times=1)
    assert fetch(lab.info()["container_uri"])[0] == 500


def test_web_identity(lab):
    sts = lab.client("sts", aws_access_key_id=None, aws_secret_access_key=None,
                     config=botocore.config.Config(signature_version=botocore.UNSIGNED))
    with open(lab.token_file) as f:
        token = f.read()
    given = sts.assume_role_with_web_identity(RoleArn=lab.info()["role_arn"], RoleSessionName="web", WebIdentityToken=token)["Credentials"]
    assert signed(lab, key=given["AccessKeyId"], secret=given["SecretAccessKey"], token=given["SessionToken"])[0] == 200
    assert token not in json.dumps(lab.requests)
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidIdentityToken"):
        sts.assume_role_with_web_identity(RoleArn=lab.info()["role_arn"], RoleSessionName="web", WebIdentityToken="nonsense")


# --- validation: refused, and kept as a violation

@pytest.mark.parametrize("body,code", [
    ("Action=DescribeDbInstances&Version=2014-10-31", "InvalidAction"),
    ("Action=DescribeDBInstances&Version=2013-01-10", "InvalidAction"),
    ("Action=DescribeDBInstances&Version=2014-10-31&Marke=x", "ValidationError"),
    ("Action=DescribeDBInstances&Version=2014-10-31&MaxRecords=many", "ValidationError"),
    ("Action=DescribeDBInstances&Version=2014-10-31&Filters.Filter.1.Name=engine&Filters.Filter.1.Values.member.1=postgres",
     "ValidationError"),
    ("Action=DescribeDBInstances&Version=2014-10-31&Filters.Filter.2.Name=engine", "ValidationError"),
    ("Action=CreateDBSnapshot&Version=2014-10-31&DBInstanceIdentifier=x", "MissingParameter"),
    ("Action=RestoreDBInstanceFromDBSnapshot&Version=2014-10-31&DBInstanceIdentifier=a&DBSnapshotIdentifier=b&KmsKeyId=alias%2Flab-b", "ValidationError"),
    ("Action=CreateDBInstance&Version=2014-10-31&DBInstanceIdentifier=a&Engine=postgres&DBInstanceClass=db.x&MultiAZ=yes",
     "ValidationError"),
    ("Action=DescribeEvents&Version=2014-10-31&SourceType=instance", "ValidationError"),
    ("Action=DescribeDBInstances&Version=2014-10-31&Version=2014-10-31", "ValidationError"),
])
def test_requests_outside_the_model(lab, body, code):
    assert error(signed(lab, body)) == (400, code)
    assert [v["kind"] for v in lab.violations] == ["request"]


@pytest.mark.parametrize("target,body,code",
                         [("TrentService.DescribeKeys", "{}", "InvalidAction"),
                          ("TrentService.DescribeKey", "{}", "MissingParameter"),
                                              ("TrentService.ListKeys", "[]", "SerializationException"),
                                              ("TrentService.ListKeys", '{"Limits": 1}', "ValidationError")])
def test_json_requests_outside_the_model(lab, target, body, code):
    assert error(signed(lab, body, "kms", headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target})) == (400, code)
    assert len(lab.violations) == 1


def test_unknown_members_are_caught_in_xml(lab):
    operation = models.operation("route53", "ChangeResourceRecordSets")
    space = 'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"'
    for body in (f"<ChangeResourceRecordSetsRequest "
                 f"{space}><ChangeBatch><Change/></ChangeBatch></ChangeResourceRecordSetsRequest>",
                 "<ChangeResourceRecordSetsRequest><ChangeBatch/></ChangeResourceRecordSetsRequest>", f"<ChangeBatch {space}/>",
                 "<"):
        with pytest.raises(Invalid):
            protocol.rest_params(operation, {"Id": "Z"}, {}, body)


def test_answers_outside_the_model_are_caught(lab):
    operation = models.operation("rds", "DescribeDBInstances")
    with pytest.raises(KeyError):
        protocol.query_answer(operation, {"DBInstances": [{"NoSuchField": 1}]}, "id")
    kind, body = protocol.query_answer(operation, {"DBInstances": [{"MultiAZ": True}]}, "id")
    assert protocol.read_back(operation, 200, {}, body, {"DBInstances": [{"MultiAZ": True}]}) is None
    assert "MultiAZ" in protocol.read_back(operation, 200, {}, body, {"DBInstances": [{"MultiAZ": False}]})


# --- pagination

def test_every_page_of_parameters_once(lab):
    rds = lab.client("rds")
    pages = list(rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName="default.postgres15",
                                                                      PaginationConfig={"PageSize": 20}))
    names = [p["ParameterName"] for page in pages for p in page["Parameters"]]
    assert len(pages) > 10 and len(names) == len(set(names)) == len(lab.rds.known_parameters)
    assert {"rds.logical_replication", "max_connections"} <= set(names)
    for bad in (dict(MaxRecords=19), dict(MaxRecords=101), dict(Marker="nonsense")):
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidParameterValue"):
            rds.describe_db_parameters(DBParameterGroupName="default.postgres15", **bad)


def test_pages_of_groups_zones_and_records(lab):
    rds, route53 = lab.client("rds"), lab.client("route53")
    for n in range(25):
        rds.create_db_parameter_group(DBParameterGroupName=f"g{n}", DBParameterGroupFamily="postgres15", Description="x")
    pages = list(rds.get_paginator("describe_db_parameter_groups").paginate(PaginationConfig={"PageSize": 20}))
    assert [len(p["DBParameterGroups"]) for p in pages] == [20, 6]
    zones = [route53.create_hosted_zone(Name=f"z{n}.test", CallerReference=str(n))["HostedZone"] for n in range(5)]
    seen = [z["Name"] for page in route53.get_paginator("list_hosted_zones").paginate(PaginationConfig={"PageSize": 2}) for z in page["HostedZones"]]
    assert sorted(seen) == ["app.lab."] + [f"z{n}.test." for n in range(5)]
    by_name = route53.list_hosted_zones_by_name(DNSName="z3.test", MaxItems="1")
    assert by_name["HostedZones"][0]["Name"] == "z3.test." and by_name["NextDNSName"] == "z4.test."
    route53.change_resource_record_sets(HostedZoneId=zones[0]["Id"], ChangeBatch={"Changes": [
        {"Action": "CREATE",
         "ResourceRecordSet": {"Name": f"r{n}.z0.test", "Type": "CNAME", "TTL": 5, "ResourceRecords": [{"Value": "x.test"}]}}
        for n in range(7)]})
    pages = list(route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zones[0]["Id"],
                                                                             PaginationConfig={"PageSize": 3}))
    assert [len(p["ResourceRecordSets"]) for p in pages] == [3, 3, 3]


@pytest.mark.parametrize("lines", [1, 3, None])
def test_log_portions_join_to_the_whole(lines):
    data = "".join(f"line {n} é\n" for n in range(200)).encode() + b"unfinished"
    text, marker = "", "0"
    while True:
        part = log_portion(data, marker, lines)
        text, marker = text + part["LogFileData"], part["Marker"]
        if not part["AdditionalDataPending"]:
            break
    assert text.encode() == data


def test_log_portions_are_cut_at_a_megabyte():
    data = (b"x" * 99 + b"\n") * 30000
    part = log_portion(data, "0", 10000)
    assert len(part["LogFileData"]) == 1000000 and part["AdditionalDataPending"]
    part = log_portion("é".encode() * 2000000, "0", None)
    assert 0 < len(part["LogFileData"].encode()) <= 1 << 20 and part["AdditionalDataPending"]
    assert log_portion(data[:1000], None, 2)["LogFileData"] == ("x" * 99 + "\n") * 2
    assert log_portion(b"", "0", None) == {"LogFileData": "", "Marker": "lab:0:x", "AdditionalDataPending": False}


# --- faults

def post_faults(lab, *faults):
    assert fetch(lab.endpoint + "/_lab/faults", list(faults))[0] == 200


def test_throttling_and_statuses(lab):
    post_faults(lab, {"kind": "throttle", "action": "DescribeDBInstances", "times": 2},
                {"kind": "status", "action": "DescribeDBInstances", "status": 503})
    assert [signed(lab)[0] for _ in range(4)] == [400, 400, 503, 200]
    post_faults(lab, {"kind": "throttle", "service": "kms"}, {"kind": "html", "times": 1},
                {"kind": "error", "code": "AccessDenied", "after": 1})
    with pytest.raises(botocore.exceptions.ClientError, match="ThrottlingException"):
        lab.client("kms").list_keys()
    assert signed(lab)[0] == 503
    assert signed(lab)[0] == 200 and error(signed(lab)) == (403, "AccessDenied") and signed(lab)[0] == 200
    assert [f["hits"] for f in json.loads(fetch(lab.endpoint + "/_lab/faults")[2])] == [2, 1, 1, 1, 1]
    assert fetch(lab.endpoint + "/_lab/faults", {"kind": "nonsense"})[0] == 400


def test_a_client_retries_through_faults(lab):
    rds = lab.client("rds", config=botocore.config.Config(retries={"mode": "standard", "max_attempts": 4}))
    post_faults(lab, {"kind": "throttle"}, {"kind": "html"}, {"kind": "drop"})
    assert rds.describe_db_instances()["DBInstances"] == []


def test_lost_answer_was_carried_out(lab):
    post_faults(lab, {"kind": "lost", "action": "CreateDBParameterGroup"}, {"kind": "drop", "action": "CreateDBParameterGroup"})
    make = "Action=CreateDBParameterGroup&Version=2014-10-31&DBParameterGroupFamily=postgres15&Description=x&DBParameterGroupName="
    assert signed(lab, make + "lost")[0] == 0 and signed(lab, make + "dropped")[0] == 0
    assert "lost" in lab.rds.groups and "dropped" not in lab.rds.groups


def test_slow_and_expired(lab):
    post_faults(lab, {"kind": "slow", "seconds": 0.3}, {"kind": "expired"})
    start = time.monotonic()
    assert signed(lab)[0] == 200 and time.monotonic() - start > 0.3
    assert error(signed(lab)) == (403, "ExpiredToken")


def psycopg2_fails(dsn):
    try:
        psycopg2.connect(dsn, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return True
    return False


def test_faults_of_the_work_itself(lab):
    rds, kms = lab.client("rds"), lab.client("kms")
    rds.create_db_instance(DBInstanceIdentifier="src", Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20,
                           BackupRetentionPeriod=0,
                           MasterUsername="boss", MasterUserPassword="boss-password", StorageEncrypted=True, KmsKeyId=lab.key_a)
    assert "boss-password" not in json.dumps(lab.requests)
    state = lambda: json.loads(fetch(lab.endpoint + "/_lab/state")[2])
    wait_for("src", lambda: state()["instances"]["src"]["status"] == "available", 30)
    status = lambda name: rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"][0]["Status"]

    post_faults(lab, {"kind": "snapshot-fails"})
    rds.create_db_snapshot(DBInstanceIdentifier="src", DBSnapshotIdentifier="s0")
    wait_for("the failure", lambda: status("s0") == "failed")
    wait_for("src again", lambda: state()["instances"]["src"]["status"] == "available")
    rds.create_db_snapshot(DBInstanceIdentifier="src", DBSnapshotIdentifier="s1")
    wait_for("s1", lambda: status("s1") == "available")

    post_faults(lab, {"kind": "copy-fails"})
    rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="c1", KmsKeyId=lab.key_b)
    wait_for("the failure", lambda: status("c1") == "failed")
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidDBSnapshotState"):
        rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="d", DBSnapshotIdentifier="c1")
    post_faults(lab, {"kind": "key-disabled"})
    rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="c2", KmsKeyId=lab.key_b)
    wait_for("the failure", lambda: status("c2") == "failed")
    assert kms.describe_key(KeyId=lab.key_b)["KeyMetadata"]["KeyState"] == "Disabled"
    with pytest.raises(botocore.exceptions.ClientError, match="KMSKeyNotAccessibleFault"):
        rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="c3", KmsKeyId=lab.key_b)
    kms.enable_key(KeyId=lab.key_b)
    same = rds.copy_db_snapshot(SourceDBSnapshotIdentifier="s1", TargetDBSnapshotIdentifier="c3")["DBSnapshot"]
    assert same["KmsKeyId"] == lab.key_a                        # no key named: the old one stays
    rds.delete_db_snapshot(DBSnapshotIdentifier="c3")           # cancels the copy

    server = state()["instances"]["src"]
    do = lambda action: fetch(lab.endpoint + "/_lab/servers", {"instance": "src", "action": action})
    assert do("pause")[0] == 200 and psycopg2_fails(server["admin_dsn"])
    assert do("resume")[0] == 200 and not psycopg2_fails(server["admin_dsn"])
    assert do("kill9")[0] == 200 and psycopg2_fails(server["admin_dsn"])
    assert do("start")[0] == 200 and not psycopg2_fails(server["admin_dsn"])
    assert do("explode")[0] == 400

    post_faults(lab, {"kind": "restore-incompatible"})
    rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="d", DBSnapshotIdentifier="s1")
    wait_for("the failure", lambda: state()["instances"]["d"]["status"] == "incompatible-restore")


def test_control(lab):
    signed(lab)
    entry = json.loads(fetch(lab.endpoint + "/_lab/requests")[2])[-1]
    assert (entry["service"], entry["action"], entry["status"], entry["key"]) == ("rds", "DescribeDBInstances", 200,
                                                                                  lab.access_key)
    before = lab.clock.now()
    assert json.loads(fetch(lab.endpoint + "/_lab/advance", {"seconds": 60})[2])["now"] > before + 59
    assert fetch(lab.endpoint + "/_lab/violations", method="DELETE")[0] == 200 and fetch(lab.endpoint + "/_lab/nothing")[0] == 404
    assert json.loads(fetch(lab.endpoint + "/_lab/info")[2])["endpoint"] == lab.endpoint


def test_an_answer_too_big_for_udp_is_truncated(lab):
    route53 = lab.client("route53")
    values = [{"Value": f'"{n:0200d}"'} for n in range(20)]
    change = route53.change_resource_record_sets(HostedZoneId=lab.zone.id, ChangeBatch={"Changes": [{
        "Action": "UPSERT", "ResourceRecordSet": {"Name": "big.app.lab", "Type": "TXT", "TTL": 1, "ResourceRecords": values}}]})
    wait_for("INSYNC", lambda: route53.get_change(Id=change["ChangeInfo"]["Id"])["ChangeInfo"]["Status"] == "INSYNC")
    query = dns.message.make_query("big.app.lab.", "TXT")
    assert dns.query.udp(query, lab.dns_host, port=lab.dns_port, timeout=5).flags & dns.flags.TC
    assert len(dns.query.tcp(query, lab.dns_host, port=lab.dns_port, timeout=5).answer[0]) == 20
    assert dns.query.udp(dns.message.make_query("big.app.lab.", "A"), lab.dns_host, port=lab.dns_port, timeout=5).rcode() == 0
