"""The AWS client against a server that says what a test wants: retries, clocks, lost answers, pages, limits, TLS, proxies."""
import datetime
import os
import re
import socket
import ssl
import subprocess
import time

import botocore.loaders
import botocore.model
import pytest

from awskit import IDENTITY, FakeAws, answer, awscall, error, plain_env, rds_answer

NONE = error("DBSnapshotNotFound", "no such snapshot", 404)


@pytest.fixture
def fake():
    made = []

    def make(*script, **more):
        made.append(FakeAws(*script, **more))
        return made[-1]
    yield make
    for one in made:
        one.close()


def snapshot(name, tags="", status="available"):
    return (f"<DBSnapshot><DBSnapshotIdentifier>{name}</DBSnapshotIdentifier><Status>{status}</Status>"
            f"<TagList>{tags}</TagList></DBSnapshot>")


def snapshots(*ones, marker=""):
    more = f"<Marker>{marker}</Marker>" if marker else ""
    return rds_answer("DescribeDBSnapshots", f"<DBSnapshots>{''.join(ones)}</DBSnapshots>{more}")


OURS = "<Tag><Key>keybridge:run</Key><Value>r-1</Value></Tag>"
THEIRS = "<Tag><Key>keybridge:run</Key><Value>r-2</Value></Tag>"


# --- retries ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fault", [error("Throttling"), error("RequestLimitExceeded", status=503), error("InternalFailure", status=500),
                                   answer("<html>busy</html>", status=502), answer("", status=504), answer("slow down", status=429),
                                   answer(drop=True)], ids=["throttled", "limit", "500", "502", "504", "429", "dropped"])
def test_transient_failures_are_retried(fake, tmp_path, fault):
    server = fake(fault, fault, always=IDENTITY)
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.value["account"] == "1", done
    assert len(server.requests) == 3


def test_signatures_are_fresh_at_each_attempt(fake, tmp_path):
    server = fake(error("Throttling", wait=1.1), always=IDENTITY)
    awscall("identity", env=plain_env(server.url, tmp_path))
    first, second = [r.headers["authorization"] for r in server.requests]
    assert first != second


@pytest.mark.parametrize("code,status", [("AccessDenied", 403), ("InvalidParameterValue", 400), ("InvalidClientTokenId", 403)])
def test_what_won_t_change_is_not_retried(fake, tmp_path, code, status):
    server = fake(always=error(code, "because", status))
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and len(server.requests) == 1
    assert done.value["code"] == code and done.value["transient"] is False
    assert done.value["error"] == f"STS GetCallerIdentity: {code}: because (request id r-{code})"


def test_attempts_end(fake, tmp_path):
    server = fake(always=error("Throttling", "Rate exceeded"))
    done = awscall("--attempts=4", "identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and len(server.requests) == 4
    assert done.value["error"] == "STS GetCallerIdentity: Throttling: Rate exceeded (request id r-Throttling, attempt 4)"
    assert done.value["transient"] is True
    server = fake(always=error("Throttling"))
    awscall("identity", env=plain_env(server.url, tmp_path, AWS_MAX_ATTEMPTS="2"))
    assert len(server.requests) == 2


def test_the_quota_ends_retries_of_a_service_that_is_down(fake, tmp_path):
    server = fake(always=error("InternalFailure", status=500))
    done = awscall("--attempts=100", "--retry-ms=1", "--stop-ms=5000", "wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 130
    # 500 tokens at 5 each are 100 retries; afterwards every look is one request
    looks = done.err.count("looked at again")
    assert looks >= 2 and len(server.requests) <= 100 + looks + 2, (looks, len(server.requests))


def test_retry_after_is_honoured(fake, tmp_path):
    server = fake(error("Throttling", Retry_After="1"), always=IDENTITY)
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.seconds >= 1
    server = fake(error("InternalFailure", status=500, x_amz_retry_after="700"), always=IDENTITY)
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and 0.7 <= done.seconds < 5


def test_nobody_there(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    done = awscall("--attempts=2", "identity", env=plain_env(f"http://127.0.0.1:{port}", tmp_path))
    assert done.code == 6 and done.value["code"] == "ConnectionError" and done.value["transient"] is True
    assert re.match(rf"STS GetCallerIdentity: http://127.0.0.1:{port}/: Failed to connect", done.value["error"]), done


def test_no_answer_in_time(fake, tmp_path):
    server = fake(always=answer(wait=5))
    done = awscall("--attempts=2", "--timeout-ms=300", "identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "Timeout" and done.seconds < 3


def test_a_stop_needs_no_time(fake, tmp_path):
    server = fake(always=answer(wait=10))
    done = awscall("--stop-ms=300", "identity", env=plain_env(server.url, tmp_path))
    assert done.code == 130 and done.value["kind"] == "stopped" and done.seconds < 1.5, done
    server = fake(always=snapshots(snapshot("x", status="creating")))
    done = awscall("--stop-ms=300", "--poll-ms=60000", "wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 130 and done.seconds < 1.5
    assert done.value["error"] == "stopped while waiting for snapshot x"
    server = fake(always=error("Throttling"))
    done = awscall("--stop-ms=300", "--retry-ms=60000", "identity", env=plain_env(server.url, tmp_path))
    assert done.code == 130 and done.seconds < 1.5


# --- answers that aren't ----------------------------------------------------------------------------------------------

def test_answers_are_bounded(fake, tmp_path):
    server = fake(always=answer("x" * (9 << 20)))
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and "the answer is larger than 8388608 bytes" in done.value["error"] and len(server.requests) == 1


@pytest.mark.parametrize("body,words", [("", "an answer isn't XML"), ("{}", "an answer isn't XML"),
                                        ('<!DOCTYPE x [<!ENTITY y "z">]><x>&y;</x>', "document type declaration"),
                                        ("<GetCallerIdentityResponse/>", "the answer has no account")])
def test_nonsense_is_an_error(fake, tmp_path, body, words):
    server = fake(always=answer(body))
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 7 and done.value["kind"] == "protocol" and words in done.value["error"], done


def test_a_cut_answer_is_a_lost_one(fake, tmp_path):
    server = fake(answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<GetCaller"), always=IDENTITY)
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and len(server.requests) == 2


def test_redirects_are_not_followed(fake, tmp_path):
    other = fake(always=IDENTITY)
    server = fake(always=answer("", status=302, Location=other.url))
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "HTTP 302" and not other.requests


# --- clocks -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [3600, -1800])
def test_a_wrong_clock_is_corrected(fake, tmp_path, offset):
    def judge(request):
        sent = datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        late = abs(sent.timestamp() - time.time() - server.offset)
        return IDENTITY if late < 300 else error("SignatureDoesNotMatch", "Signature expired: 2026 is now earlier than", 403)
    server = fake(always=judge)
    server.offset = offset
    done = awscall("identity", "then", "identity", env=plain_env(server.url, tmp_path))
    assert done.code == 0, done
    assert len(server.requests) == 3                    # the second call knows
    assert "clock differs" in done.err


def test_a_wrong_secret_is_not_a_wrong_clock(fake, tmp_path):
    server = fake(always=error("SignatureDoesNotMatch", "The request signature we calculated does not match\n\nThe Canonical String "
                               "for this request should have been\n'x-amz-security-token:TOKEN-LEAK'", 403))
    done = awscall("identity", env=plain_env(server.url, tmp_path, AWS_SESSION_TOKEN="TOKEN-LEAK"))
    assert done.code == 6 and len(server.requests) == 1
    assert "TOKEN-LEAK" not in str(done.values) + done.err
    assert "secret access key" in done.value["hint"]


# --- making things once -----------------------------------------------------------------------------------------------

MADE = rds_answer("CreateDBSnapshot", snapshot("x", OURS, "creating"))
EXISTS = error("DBSnapshotAlreadyExists")


def test_a_lost_answer_is_looked_up(fake, tmp_path):
    server = fake(answer(drop=True), answer(drop=True), EXISTS, snapshots(snapshot("x", OURS, "creating")))
    done = awscall("--run=r-1", "create-snapshot", "db", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.value["name"] == "x", done
    assert server.actions()[-2:] == ["CreateDBSnapshot", "DescribeDBSnapshots"]


def test_after_the_last_attempt_too(fake, tmp_path):
    server = fake(error("InternalFailure", status=500), snapshots(snapshot("x", OURS)))
    done = awscall("--run=r-1", "--attempts=1", "create-snapshot", "db", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.value["name"] == "x", done


def test_nothing_was_made(fake, tmp_path):
    server = fake(error("InternalFailure", "oh", 500), NONE)
    done = awscall("--run=r-1", "--attempts=1", "create-snapshot", "db", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "InternalFailure" and done.value["transient"] is True
    assert done.value["error"] == "RDS CreateDBSnapshot: InternalFailure: oh (request id r-InternalFailure)"


@pytest.mark.parametrize("tags", ["", THEIRS])
def test_a_thing_of_others_is_not_taken(fake, tmp_path, tags):
    server = fake(EXISTS, snapshots(snapshot("x", tags)))
    done = awscall("--run=r-1", "create-snapshot", "db", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "DBSnapshotAlreadyExists" and "not of this run" in done.value["hint"]


def test_without_a_run_nothing_is_taken(fake, tmp_path):
    server = fake(EXISTS, snapshots(snapshot("x", OURS)))
    done = awscall("create-snapshot", "db", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "DBSnapshotAlreadyExists"
    assert "keybridge" not in str(server.requests[0].form)


def test_a_lost_rename(fake, tmp_path):
    def db(name, resource):
        return rds_answer("DescribeDBInstances", f"<DBInstances><DBInstance><DBInstanceIdentifier>{name}</DBInstanceIdentifier>"
                          f"<DbiResourceId>{resource}</DbiResourceId></DBInstance></DBInstances>")
    gone = error("DBInstanceNotFound", status=404)
    env = lambda server: plain_env(server.url, tmp_path)
    server = fake(gone, db("b", "db-1"))
    assert awscall("rename", "a", "b", "db-1", env=env(server)).code == 0
    busy = error("InvalidDBInstanceState")
    server = fake(answer(drop=True), busy, gone, db("a", "db-1"), gone, gone, db("b", "db-1"))
    assert awscall("rename", "a", "b", "db-1", env=env(server)).code == 0
    server = fake(error("InternalFailure", status=500), busy, gone, db("a", "db-1").copy() | {"body": db("a", "db-1")["body"].replace(
        "</DBInstance>", "<DBInstanceStatus>renaming</DBInstanceStatus></DBInstance>")})
    assert awscall("rename", "a", "b", "db-1", env=env(server)).code == 0
    server = fake(answer(drop=True), error("AccessDenied"), always=gone)
    done = awscall("rename", "a", "b", "db-1", env=env(server))
    assert done.code == 6 and done.value["code"] == "AccessDenied"
    server = fake(gone, db("b", "db-2"))
    done = awscall("rename", "a", "b", "db-1", env=env(server))
    assert done.code == 6 and done.value["code"] == "DBInstanceNotFound"
    server = fake(gone, gone)
    assert awscall("rename", "a", "b", "db-1", env=env(server)).code == 6


def test_deletes_of_what_is_gone(fake, tmp_path):
    server = fake(NONE)
    assert awscall("delete-snapshot", "x", env=plain_env(server.url, tmp_path)).code == 0
    server = fake(error("InvalidDBInstanceState"), rds_answer("DescribeDBInstances", "<DBInstances><DBInstance><DBInstanceIdentifier>x"
                  "</DBInstanceIdentifier><DBInstanceStatus>deleting</DBInstanceStatus></DBInstance></DBInstances>"))
    assert awscall("delete-instance", "x", env=plain_env(server.url, tmp_path)).code == 0
    server = fake(error("InvalidDBInstanceState"), rds_answer("DescribeDBInstances", "<DBInstances><DBInstance><DBInstanceIdentifier>x"
                  "</DBInstanceIdentifier><DBInstanceStatus>modifying</DBInstanceStatus></DBInstance></DBInstances>"))
    done = awscall("delete-instance", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "InvalidDBInstanceState"


# --- pages ------------------------------------------------------------------------------------------------------------

def test_pages(fake, tmp_path):
    server = fake(snapshots(snapshot("a"), snapshot("b"), marker="m/1+="), snapshots(marker="m 2"), snapshots(snapshot("c")))
    done = awscall("snapshots", "db", "manual", env=plain_env(server.url, tmp_path))
    assert done.value == ["a", "b", "c"]
    assert [r.form.get("Marker") for r in server.requests] == [None, "m/1+=", "m 2"]
    assert server.requests[1].form["DBInstanceIdentifier"] == "db" and server.requests[1].form["SnapshotType"] == "manual"


def test_pages_that_don_t_end(fake, tmp_path):
    server = fake(always=snapshots(snapshot("a"), marker="same"))
    done = awscall("snapshots", "-", "-", env=plain_env(server.url, tmp_path))
    assert done.code == 7 and done.value["error"] == "RDS DescribeDBSnapshots: the pages don't come to an end"


def log_part(text, marker, more):
    return rds_answer("DownloadDBLogFilePortion", f"<LogFileData>{text}</LogFileData><Marker>{marker}</Marker>"
                      f"<AdditionalDataPending>{'true' if more else 'false'}</AdditionalDataPending>")


def test_a_log_in_portions(fake, tmp_path):
    server = fake(log_part("one\n&lt;two&gt;\n", "5:10", True), log_part("esc &#27;[0m raw \x1b[1m latin \udce9\n".encode("utf-8", "surrogateescape")
                  .decode("latin-1"), "6:20", True), log_part("", "7:30", True), log_part("end", "8:40", False))
    done = awscall("log", "db", "error/postgresql.log", env=plain_env(server.url, tmp_path))
    assert done.code == 0, done
    assert done.value.startswith("one\n<two>\nesc ?????[0m raw ?[1m latin ") and done.value.endswith("\nend")
    assert [r.form["Marker"] for r in server.requests] == ["0", "5:10", "6:20", "7:30"]
    server = fake(always=log_part("x", "5:10", True))
    done = awscall("log", "db", "f", env=plain_env(server.url, tmp_path))
    assert done.code == 7 and "more of f is pending but the marker stays at 5:10" in done.value["error"]


def test_record_pages_and_zones(fake, tmp_path):
    space = 'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"'
    zone = lambda i, name, private="false": (f"<HostedZone><Id>/hostedzone/{i}</Id><Name>{name}</Name><CallerReference>r</CallerReference>"
                                             f"<Config><PrivateZone>{private}</PrivateZone></Config></HostedZone>")
    zones = lambda inner, more="": answer(f"<ListHostedZonesResponse {space}><HostedZones>{inner}</HostedZones>{more}</ListHostedZonesResponse>")
    first = zones(zone("Z1", "example.com."), "<IsTruncated>true</IsTruncated><NextMarker>Z2</NextMarker>")
    second = zones(zone("Z2", "db.example.com.") + zone("Z3", "db.example.com.", "true"), "<IsTruncated>false</IsTruncated>")
    env = lambda s: plain_env(s.url, tmp_path)
    server = fake(first, second)
    done = awscall("zone", "EXAMPLE.com", env=env(server))
    assert done.value == {"id": "Z1", "name": "example.com.", "private": False}
    assert [(r.path, r.query) for r in server.requests] == [("/2013-04-01/hostedzone", ""), ("/2013-04-01/hostedzone", "marker=Z2")]
    server = fake(first, second)
    assert awscall("zone-of", "x.y.Example.com.", env=env(server)).value["id"] == "Z1"
    server = fake(first, second)
    done = awscall("zone-of", "a.db.example.com", env=env(server))
    assert done.code == 2 and "Z2 (public), Z3 (private)" in done.value["error"]
    server = fake(first, second)
    done = awscall("zone-of", "other.com", env=env(server))
    assert done.code == 6 and done.value["code"] == "NoSuchHostedZone"
    record = lambda name, more: f"<ResourceRecordSet><Name>{name}</Name><Type>CNAME</Type>{more}</ResourceRecordSet>"
    plain = "<TTL>60</TTL><ResourceRecords><ResourceRecord><Value>v</Value></ResourceRecord></ResourceRecords>"
    page = lambda inner, more="<IsTruncated>false</IsTruncated>": answer(
        f"<ListResourceRecordSetsResponse {space}><ResourceRecordSets>{inner}</ResourceRecordSets>{more}</ListResourceRecordSetsResponse>")
    weighted = lambda s: record("w.example.com.", f"<SetIdentifier>{s}</SetIdentifier><Weight>1</Weight>" + plain)
    server = fake(page(weighted("blue"), "<IsTruncated>true</IsTruncated><NextRecordName>w.example.com.</NextRecordName>"
                       "<NextRecordType>CNAME</NextRecordType><NextRecordIdentifier>green</NextRecordIdentifier>"), page(weighted("green")))
    done = awscall("record", "Z1", "w.example.com", "CNAME", "green", env=env(server))
    assert done.value["set_id"] == "green" and done.value["weight"] == 1
    assert server.requests[1].query == "identifier=green&name=w.example.com.&type=CNAME"
    server = fake(page(weighted("blue") + weighted("green")))
    done = awscall("record", "Z1", "w.example.com", "CNAME", env=env(server))
    assert done.code == 2 and "is a set of records, not one: blue, green" in done.value["error"]
    server = fake(page(record("\\052.example.com.", plain)))
    assert awscall("record", "Z1", "*.example.com", "CNAME", env=env(server)).value["name"] == "*.example.com."
    server = fake(page(record("new.example.com.", plain + "<CidrRoutingConfig><CollectionId>c</CollectionId></CidrRoutingConfig>")))
    done = awscall("upsert", "Z1", "new.example.com", "CNAME", "-", "v", env=env(server))
    assert done.code == 6 and "attribute CidrRoutingConfig that would be lost" in done.value["error"] and len(server.requests) == 1


def test_an_upsert_repeats_everything(fake, tmp_path):
    space = 'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"'
    there = answer(f"<ListResourceRecordSetsResponse {space}><ResourceRecordSets><ResourceRecordSet><Name>w.example.com.</Name>"
                   "<Type>CNAME</Type><SetIdentifier>a&amp;b</SetIdentifier><Weight>0</Weight><TTL>300</TTL><ResourceRecords>"
                   "<ResourceRecord><Value>old</Value></ResourceRecord></ResourceRecords><HealthCheckId>h-1</HealthCheckId>"
                   "</ResourceRecordSet></ResourceRecordSets><IsTruncated>false</IsTruncated></ListResourceRecordSetsResponse>")
    change = lambda status: answer(f"<R {space}><ChangeInfo><Id>/change/C1</Id><Status>{status}</Status></ChangeInfo></R>")
    server = fake(there, change("PENDING"), change("PENDING"), error("PriorRequestNotComplete"), change("INSYNC"))
    done = awscall("upsert", "Z1", "w.example.com", "CNAME", "a&b", "new<host>", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.value == "C1", done
    body = server.requests[1].body.decode()
    assert ("<Action>UPSERT</Action><ResourceRecordSet><Name>w.example.com.</Name><Type>CNAME</Type><SetIdentifier>a&amp;b</SetIdentifier>"
            "<Weight>0</Weight><TTL>300</TTL><ResourceRecords><ResourceRecord><Value>new&lt;host&gt;</Value></ResourceRecord>"
            "</ResourceRecords><HealthCheckId>h-1</HealthCheckId></ResourceRecordSet>") in body
    assert server.requests[-1].path == "/2013-04-01/change/C1"
    assert all("/us-east-1/route53/aws4_request" in r.headers["authorization"] for r in server.requests)


# --- waiting ----------------------------------------------------------------------------------------------------------

def test_waiting_survives_faults_and_ends_on_failure(fake, tmp_path):
    server = fake(snapshots(snapshot("x", status="creating")), always=None)
    server.script += [error("InternalFailure", status=500)] * 9 + [snapshots(snapshot("x"))]
    done = awscall("wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.states == ["creating", "available"], done
    server = fake(snapshots(snapshot("x", status="copying")), snapshots(snapshot("x", status="failed")))
    done = awscall("wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "failed"
    assert done.value["error"] == 'waiting for snapshot x: it is "failed"'
    server = fake(snapshots(snapshot("x", status="copying")), NONE)
    done = awscall("wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "DBSnapshotNotFound"


def test_nonsense_in_between_and_always(fake, tmp_path):
    server = fake(answer("<html>"), answer("<html>"), snapshots(snapshot("x")))
    assert awscall("wait-snapshot", "x", env=plain_env(server.url, tmp_path)).code == 0
    server = fake(always=answer("<html>"))
    done = awscall("--poll-ms=10", "wait-snapshot", "x", env=plain_env(server.url, tmp_path))
    assert done.code == 7 and len(server.requests) == 5
    assert done.value["error"].startswith("waiting for snapshot x: RDS DescribeDBSnapshots: an answer isn't XML")


def test_settled_means_for_a_while(fake, tmp_path):
    def db(status, pending=""):
        return rds_answer("DescribeDBInstances", "<DBInstances><DBInstance><DBInstanceIdentifier>x</DBInstanceIdentifier><DBInstanceStatus>"
                          f"{status}</DBInstanceStatus><Endpoint><Address>h</Address><Port>1</Port></Endpoint><PendingModifiedValues>"
                          f"{pending}</PendingModifiedValues></DBInstance></DBInstances>")
    server = fake(db("available"), db("available", "<StorageType>gp3</StorageType>"), db("modifying"), always=db("available"))
    done = awscall("--poll-ms=100", "wait-instance", "x", "settled", env=plain_env(server.url, tmp_path))
    assert done.code == 0 and done.states == ["available", "available", "modifying", "available", "available"], done
    server = fake(db("available"))
    assert awscall("wait-instance", "x", env=plain_env(server.url, tmp_path)).code == 0 and len(server.requests) == 1


# --- TLS and proxies --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fake", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return folder / "crt", context


def test_tls_is_verified(fake, tmp_path, certificate):
    path, context = certificate
    server = fake(always=IDENTITY, tls=context)
    done = awscall("identity", env=plain_env(server.url, tmp_path))
    assert done.code == 6 and done.value["code"] == "TlsError" and done.value["transient"] is False
    assert "AWS_CA_BUNDLE" in done.value["hint"] and not server.requests
    assert awscall("identity", env=plain_env(server.url, tmp_path, AWS_CA_BUNDLE=str(path))).code == 0
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(f"[default]\nca_bundle = {path}\n")
    assert awscall("identity", env=plain_env(server.url, tmp_path)).code == 0
    done = awscall("identity", env=plain_env(server.url.replace("127.0.0.1", "127.0.0.2"), tmp_path, AWS_CA_BUNDLE=str(path)))
    assert done.code == 6                               # another name than the certificate's


def test_proxies_of_the_environment(fake, tmp_path):
    proxy = fake(always=IDENTITY)
    env = plain_env("http://sts.invalid", tmp_path, http_proxy=proxy.url)
    done = awscall("identity", env=env)
    assert done.code == 0 and proxy.requests[0].headers["host"] == "sts.invalid"
    assert proxy.requests[0].path.startswith("http://sts.invalid/")
    done = awscall("--attempts=1", "identity", env={**env, "no_proxy": "sts.invalid"})
    assert done.code == 6 and len(proxy.requests) == 1
    # credentials of the machine never go through one
    imds = fake(always=answer("", status=404))
    env = {**env, "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url}
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    done = awscall("identity", env=env)
    assert done.code == 2 and imds.requests and len(proxy.requests) == 1


# --- requests against the models --------------------------------------------------------------------------------------

# Parameters of 2026 that Debian's models don't have yet; the lab's models.py lists the same.
NEWER = {"AllocatedStorage", "BackupRetentionPeriod", "PreferredBackupWindow", "CACertificateIdentifier", "DedicatedLogVolume",
         "EngineLifecycleSupport", "ManageMasterUserPassword", "MasterUserSecretKmsKeyId", "DatabaseInsightsMode"}


def allowed(shape, prefix=""):
    """Every spelling that the model takes, with numbers as N."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from allowed(member, f"{prefix}.{member.serialization.get('name', name)}".lstrip("."))
    elif shape.type_name == "list":
        inner = "" if shape.serialization.get("flattened") else "." + shape.member.serialization.get("name", "member")
        yield from allowed(shape.member, f"{prefix}{inner}.N")
    else:
        yield prefix, shape


def check_form(form):
    service = "sts" if form["Version"] == "2011-06-15" else "rds"
    model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"), service)
    assert form["Version"] == model.api_version
    known = dict(allowed(model.operation_model(form["Action"]).input_shape)) if model.operation_model(form["Action"]).input_shape else {}
    for name, value in form.items():
        if name in ("Action", "Version"):
            continue
        spelling = re.sub(r"\.\d+(?=\.|$)", ".N", name)
        if spelling in NEWER and spelling not in known:
            continue
        assert spelling in known, f"{form['Action']} has no parameter {name}"
        kind = known[spelling].type_name
        if kind in ("integer", "long"):
            assert re.fullmatch(r"-?\d+", value), (name, value)
        elif kind == "boolean":
            assert value in ("true", "false"), (name, value)
    required = set(model.operation_model(form["Action"]).input_shape.required_members) if known else set()
    top = {name.split(".")[0] for name in form}
    assert required <= top, required - top


@pytest.mark.parametrize("call", [
    ("identity",), ("restore-full", "new", "snap"), ("modify-full", "db"), ("create-snapshot", "db", "s", "k=v", "k2=v2"),
    ("copy-snapshot", "a", "b", "key", "og", "k=v"), ("delete-snapshot", "s"), ("snapshot", "s"), ("snapshots", "db", "manual"),
    ("instance", "db"), ("instances",), ("rename", "a", "b", "r"), ("reboot", "db"), ("delete-instance", "db", "final"),
    ("delete-instance", "db"), ("add-role", "db", "arn:r", "s3Import"), ("tags", "arn:x"), ("add-tags", "arn:x", "a=b", "c="),
    ("group", "g"), ("create-group", "g", "postgres15", "a=b"), ("modify-group", "g", "a=1", "b=2"), ("delete-group", "g"),
    ("parameters", "g", "user"), ("logs", "db", "postgres"), ("log", "db", "f"), ("events", "db", "db-instance")], ids=lambda c: c[0])
def test_requests_fit_the_models(fake, tmp_path, call):
    server = fake(always=error("AccessDenied", status=403))
    done = awscall("--run=r-1", *call, env=plain_env(server.url, tmp_path))
    assert done.code == 6 and server.requests
    check_form(server.requests[0].form)
    request = server.requests[0]
    assert request.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    assert request.headers["host"] == server.url[len("http://"):]
    assert "tde-secret" not in done.err + str(done.values) and "new-secret" not in done.err + str(done.values)


def test_twenty_parameters_a_call(fake, tmp_path):
    server = fake(always=rds_answer("ModifyDBParameterGroup", "<DBParameterGroupName>g</DBParameterGroupName>"))
    done = awscall("modify-group", "g", *[f"p{i}=v" for i in range(45)], env=plain_env(server.url, tmp_path))
    assert done.code == 0
    sent = [[v for k, v in r.form.items() if k.endswith("ParameterName")] for r in server.requests]
    assert [len(s) for s in sent] == [20, 20, 5] and sum(sent, []) == [f"p{i}" for i in range(45)]
    for request in server.requests:
        check_form(request.form)
