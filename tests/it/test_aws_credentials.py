"""Where credentials come from: every link of the chain, their refresh, and what is said when there are none."""
import json
import stat
import subprocess

import pytest

from awskit import FakeAws, answer, awscall, plain_env
from lab.pgserver import free_port
from lab.server import Lab

port = lambda: free_port(23500, 23699)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("lab"))
    with Lab(folder, port=port(), dns_port=port(), db_port=port(), tls=False) as made:
        yield made
    assert made.violations == []


@pytest.fixture(autouse=True)
def clean(lab):
    lab.requests.clear()
    lab.faults.clear()


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".aws").mkdir()
    return tmp_path


def env(lab, home, **more):
    """Everything but credentials."""
    found = plain_env(lab.endpoint, home, AWS_REGION=lab.region)
    del found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]
    return {**found, **more}


def keys(lab):
    return {"AWS_ACCESS_KEY_ID": lab.access_key, "AWS_SECRET_ACCESS_KEY": lab.secret_key}


def config(home, text):
    (home / ".aws/config").write_text(text)


def credentials(home, text):
    (home / ".aws/credentials").write_text(text)


def static(lab):
    return f"aws_access_key_id = {lab.access_key}\naws_secret_access_key = {lab.secret_key}\n"


def who(*args, env, **more):
    done = awscall(*args, "identity", env=env, **more)
    assert done.code == 0, done
    return done.value["arn"]


def refused(*args, env):
    done = awscall("--attempts=2", *args, "identity", env=env)
    assert done.code != 0, done
    return done


def actions(lab):
    return [r["action"] for r in lab.requests]


USER = "arn:aws:iam::123456789012:user/lab"
ROLE = "arn:aws:iam::123456789012:role/keybridge"
ASSUMED = "arn:aws:sts::123456789012:assumed-role/keybridge/"


def test_environment(lab, home):
    assert who(env=env(lab, home, **keys(lab))) == USER
    done = refused(env=env(lab, home, AWS_ACCESS_KEY_ID="AKID"))
    assert done.code == 2
    assert done.value["error"] == ("STS GetCallerIdentity: credentials from the environment: AWS_ACCESS_KEY_ID is set but "
                                   "AWS_SECRET_ACCESS_KEY isn't") or done.value["error"] == \
        "credentials from the environment: AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY isn't"


def test_session_token_of_the_environment(lab, home):
    session = lab.sts.session("arn:x", 600)
    assert who(env=env(lab, home, AWS_ACCESS_KEY_ID=session.access, AWS_SECRET_ACCESS_KEY=session.secret,
                       AWS_SESSION_TOKEN=session.token)) == "arn:x"


def test_nothing_found(lab, home):
    done = refused(env=env(lab, home))
    assert done.code == 2 and done.value["kind"] == "config"
    text = done.value["error"]
    for words in ("no AWS credentials found", "environment: AWS_ACCESS_KEY_ID isn't set", "AWS_WEB_IDENTITY_TOKEN_FILE isn't set",
                  f"profile default: isn't in {home}/.aws/config or {home}/.aws/credentials", "container:",
                  "instance metadata: off by AWS_EC2_METADATA_DISABLED"):
        assert words in text, text
    assert "AWS_PROFILE" in done.value["hint"]


def test_static_profiles(lab, home):
    credentials(home, "[default]\n" + static(lab) + "[broken]\naws_access_key_id = AKID\n")
    assert who(env=env(lab, home)) == USER
    config(home, "[profile conf]\n" + static(lab) + "region = us-east-1\n")
    assert who("--region=eu-west-1", "--profile=conf", env=env(lab, home)) == USER
    assert who(env=env(lab, home, AWS_PROFILE="conf")) == USER
    done = refused(env=env(lab, home, AWS_PROFILE="broken"))
    assert "has only one of aws_access_key_id and aws_secret_access_key" in done.value["error"] and done.code == 2
    done = refused(env=env(lab, home, AWS_PROFILE="missing"))
    assert done.code == 2 and "profile missing isn't in" in done.value["error"]


def test_an_asked_profile_wins_over_the_environment(lab, home):
    session = lab.sts.session("arn:profile", 600)
    credentials(home, f"[p]\naws_access_key_id={session.access}\naws_secret_access_key={session.secret}\n"
                f"aws_session_token={session.token}\n")
    assert who("--profile=p", env=env(lab, home, **keys(lab))) == "arn:profile"
    assert who(env=env(lab, home, AWS_PROFILE="p", **keys(lab))) == USER       # as botocore does


def test_files_named_by_the_environment(lab, home):
    (home / "c").write_text("[default]\n" + static(lab))
    assert who(env=env(lab, home, AWS_SHARED_CREDENTIALS_FILE=str(home / "c"))) == USER
    assert who(env=env(lab, home, AWS_CONFIG_FILE="~/c")) == USER
    (home / "c").write_text("nonsense\n")
    done = refused(env=env(lab, home, AWS_CONFIG_FILE="~/c"))
    assert done.code == 2 and done.value["error"] == f"AWS: {home}/c:1: a setting before the first section"


# --- roles ------------------------------------------------------------------------------------------------------------

def test_role_from_another_profile(lab, home):
    credentials(home, "[base]\n" + static(lab))
    config(home, f"[profile r]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = me\nexternal_id = e-1\n"
           f"duration_seconds = 900\n[profile chain]\nrole_arn = {ROLE}\nsource_profile = r\n")
    assert who("--profile=r", env=env(lab, home)) == ASSUMED + "me"
    assumed = next(r for r in lab.requests if r["action"] == "AssumeRole")["params"]
    assert assumed == {"RoleArn": ROLE, "RoleSessionName": "me", "ExternalId": "e-1", "DurationSeconds": 900}
    assert who("--profile=chain", env=env(lab, home)) == ASSUMED + "keybridge"
    assert actions(lab)[-3:] == ["AssumeRole", "AssumeRole", "GetCallerIdentity"]


def test_role_with_its_own_keys_and_from_sources(lab, home):
    config(home, f"[profile self]\nrole_arn = {ROLE}\nsource_profile = self\n" + static(lab) +
           f"[profile e]\nrole_arn = {ROLE}\ncredential_source = Environment\n"
           f"[profile i]\nrole_arn = {ROLE}\ncredential_source = Ec2InstanceMetadata\n"
           f"[profile c]\nrole_arn = {ROLE}\ncredential_source = EcsContainer\n"
           f"[profile n]\nrole_arn = {ROLE}\ncredential_source = Nowhere\n")
    info = lab.info()
    assert who("--profile=self", env=env(lab, home)) == ASSUMED + "keybridge"
    assert who(env=env(lab, home, AWS_PROFILE="i", AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=info["imds"])
               ) == ASSUMED + "keybridge"
    assert who(env=env(lab, home, AWS_PROFILE="c", AWS_CONTAINER_CREDENTIALS_FULL_URI=info["container_uri"],
                       AWS_CONTAINER_AUTHORIZATION_TOKEN=info["container_token"])) == ASSUMED + "keybridge"
    done = refused("--profile=n", env=env(lab, home))
    assert "credential_source Nowhere isn't Environment, EcsContainer or Ec2InstanceMetadata" in done.value["error"]
    done = refused("--profile=i", env=env(lab, home))
    assert "no credentials to assume the role of profile i with in Ec2InstanceMetadata" in done.value["error"]


@pytest.mark.parametrize("text,words", [
    (f"[profile p]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = arn:aws:iam::1:mfa/x\n[profile base]\nregion=x\n", "wants an MFA code"),
    (f"[profile p]\nrole_arn = {ROLE}\n", "neither source_profile and credential_source"),
    (f"[profile p]\nrole_arn = {ROLE}\nsource_profile = q\n[profile q]\nrole_arn = {ROLE}\nsource_profile = p\n", "leads back to p"),
    (f"[profile p]\nrole_arn = {ROLE}\nsource_profile = q\n[profile q]\nregion = x\n", "no credentials to assume the role of profile p with in q"),
    ("[profile p]\nsso_session = s\n", "IAM Identity Center"),
    ("[profile p]\nregion = x\n", "has no keys, role_arn or credential_process"),
], ids=["mfa", "no-source", "circle", "empty-source", "sso", "nothing"])
def test_profiles_that_can_t_work(lab, home, text, words):
    config(home, text)
    done = refused("--profile=p", env=env(lab, home))
    assert done.code == 2 and words in done.value["error"], done


def test_a_role_that_isn_t_ours(lab, home):
    credentials(home, "[base]\n" + static(lab))
    config(home, "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/other\nsource_profile = base\n")
    done = refused("--profile=r", env=env(lab, home))
    assert done.code == 6 and done.value["code"] == "AccessDenied" and "trust policy" in done.value["hint"]
    assert "assuming role arn:aws:iam::123456789012:role/other: AccessDenied" in done.value["error"]


def test_sts_that_fails_for_a_moment(lab, home):
    credentials(home, "[base]\n" + static(lab))
    config(home, f"[profile r]\nrole_arn = {ROLE}\nsource_profile = base\n")
    lab.faults.add("status", action="AssumeRole", times=1)
    lab.faults.add("drop", action="AssumeRole", times=1)
    assert who("--profile=r", env=env(lab, home)) == ASSUMED + "keybridge"


def test_web_identity(lab, home):
    info = lab.info()
    base = env(lab, home, AWS_WEB_IDENTITY_TOKEN_FILE=info["web_identity_token_file"], AWS_ROLE_ARN=ROLE)
    assert who(env=base) == ASSUMED + "keybridge"
    assert who(env={**base, "AWS_ROLE_SESSION_NAME": "pod"}) == ASSUMED + "pod"
    first = lab.requests[0]
    assert first["action"] == "AssumeRoleWithWebIdentity" and first["key"] is None
    config(home, f"[profile w]\nrole_arn = {ROLE}\nweb_identity_token_file = {info['web_identity_token_file']}\n")
    assert who("--profile=w", env=env(lab, home)) == ASSUMED + "keybridge"
    done = refused(env={**base, "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "none")})
    assert done.code == 2 and f"reading the token file {home}/none: No such file" in done.value["error"]
    del base["AWS_ROLE_ARN"]
    assert "AWS_ROLE_ARN isn't" in refused(env=base).value["error"]
    (home / "t").write_text("wrong\n")
    done = refused(env=env(lab, home, AWS_WEB_IDENTITY_TOKEN_FILE=str(home / "t"), AWS_ROLE_ARN=ROLE))
    assert done.value["code"] == "InvalidIdentityToken" and "wrong" not in done.value["error"]


# --- programs, containers, machines -----------------------------------------------------------------------------------

def test_credential_process(lab, home):
    script = home / "give me"
    session = lab.sts.session("arn:process", 3600)
    given = {"Version": 1, "AccessKeyId": session.access, "SecretAccessKey": session.secret, "SessionToken": session.token,
             "Expiration": "2099-01-01T00:00:00Z"}
    script.write_text(f"#!/bin/sh\n[ \"$1\" = 'a b' ] && cat <<'END'\n{json.dumps(given)}\nEND\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    config(home, f"[profile p]\ncredential_process = \"{script}\" 'a b'\n[profile v]\ncredential_process = echo '{{\"Version\": 2}}'\n"
           "[profile f]\ncredential_process = false\n[profile j]\ncredential_process = echo nothing\n")
    assert who("--profile=p", env=env(lab, home)) == "arn:process"
    for profile, words in (("v", "version other than 1"), ("f", "failed with status 1"), ("j", "isn't JSON")):
        assert words in refused(f"--profile={profile}", env=env(lab, home)).value["error"]


def test_container(lab, home):
    info = lab.info()
    base = env(lab, home, AWS_CONTAINER_CREDENTIALS_FULL_URI=info["container_uri"])
    assert who(env={**base, "AWS_CONTAINER_AUTHORIZATION_TOKEN": info["container_token"]}).startswith(ASSUMED)
    (home / "t").write_text(info["container_token"] + "\n")
    assert who(env={**base, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(home / "t"), "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not this"}
               ).startswith(ASSUMED)
    done = refused(env={**base, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "wrong"})
    assert done.code == 6 and "answers with status 403" in done.value["error"]
    done = refused(env={**base, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\nX: b"})
    assert "contains a line end" in done.value["error"]
    for uri, words in (("http://example.com/x", "plain http to example.com"), ("http://169.254.170.9/", "plain http to 169.254.170.9"),
                       ("file:///etc/passwd", "AWS_CONTAINER_CREDENTIALS_FULL_URI isn't one")):
        assert words in refused(env=env(lab, home, AWS_CONTAINER_CREDENTIALS_FULL_URI=uri)).value["error"]
    assert "_RELATIVE_URI isn't one" in refused(env=env(lab, home, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="@evil/")).value["error"]
    lab.faults.add("status", service="container", times=2)
    assert who(env={**base, "AWS_CONTAINER_AUTHORIZATION_TOKEN": info["container_token"]}).startswith(ASSUMED)


def test_machine(lab, home):
    base = env(lab, home, AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=lab.info()["imds"] + "/")
    assert who(env=base) == ASSUMED + "i-0lab0lab0lab0lab0"
    assert actions(lab) == ["PUT /latest/api/token", "GET /latest/meta-data/iam/security-credentials/",
                            "GET /latest/meta-data/iam/security-credentials/keybridge", "GetCallerIdentity"]
    fake = FakeAws(answer("token"), answer("", status=404))
    try:
        done = refused(env={**base, "AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url})
        assert done.code == 6 and "instance metadata" in done.value["error"] and "status 404" in done.value["error"]
        assert fake.requests[0].method == "PUT" and fake.requests[0].headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
        assert fake.requests[1].headers["x-aws-ec2-metadata-token"] == "token"
    finally:
        fake.close()


# --- refresh ----------------------------------------------------------------------------------------------------------

def test_keys_are_renewed_before_they_end(lab, home):
    lab.sts.lifetime = 4                        # refreshed at half time, since that is below a quarter of an hour
    try:
        base = env(lab, home, AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=lab.info()["imds"])
        calls = ["identity"] + ["then", "sleep", "1500", "then", "identity"] * 4
        done = awscall(*calls, env=base)
        assert done.code == 0, done
        used = [r["key"] for r in lab.requests if r["action"] == "GetCallerIdentity"]
        assert len(used) == 5 and 2 <= len(set(used)) <= 4 and not any(r["error"] for r in lab.requests)
    finally:
        lab.sts.lifetime = 3600


def test_threads_share_what_is_renewed(lab, home):
    lab.sts.lifetime = 2
    try:
        base = env(lab, home, AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=lab.info()["imds"])
        done = awscall("threads", "8", env=base)
        assert done.code == 0, done
        asked = len([r for r in lab.requests if r["action"].endswith("security-credentials/keybridge")])
        assert actions(lab).count("GetCallerIdentity") == 160 and 2 <= asked <= 8
    finally:
        lab.sts.lifetime = 3600


def test_a_refresh_that_fails_leaves_the_old_keys(lab, home):
    given = {"Version": 1, "AccessKeyId": lab.access_key, "SecretAccessKey": lab.secret_key}
    script = home / "once"                      # works once, with keys that are due at half their 24 seconds
    script.write_text(f"#!/bin/sh\n[ -e {home}/done ] && exit 1\ntouch {home}/done\n"
                      f"date -u -d '+24 seconds' +'{json.dumps(given)[:-1]}, \"Expiration\": \"%Y-%m-%dT%H:%M:%SZ\"}}'\n")
    script.chmod(0o755)
    config(home, f"[profile p]\ncredential_process = {script}\n")
    done = awscall("--profile=p", "identity", "then", "sleep", "12500", "then", "identity", env=env(lab, home))
    assert done.code == 0 and "could not be refreshed" in done.err, done


def test_expired_keys_are_replaced_when_they_can_be(lab, home):
    base = env(lab, home, AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=lab.info()["imds"])
    lab.faults.add("expired", action="GetCallerIdentity", times=1)
    done = awscall("identity", env=base)
    assert done.code == 0
    used = [r["key"] for r in lab.requests if r["action"] == "GetCallerIdentity"]
    assert len(used) == 2 and used[0] != used[1]
    lab.faults.add("expired", action="GetCallerIdentity", times=99)
    done = refused(env=env(lab, home, **keys(lab)))
    assert done.code == 6 and done.value["code"] == "ExpiredToken" and "log in again" in done.value["hint"]
    assert [f["hits"] for f in lab.faults.list()][-1] == 1              # the environment's keys don't change: no second try


def test_a_new_login_is_seen(lab, home):
    old, new = lab.sts.session("arn:old", 3), lab.sts.session("arn:new", 3600)
    text = lambda s: f"[default]\naws_access_key_id={s.access}\naws_secret_access_key={s.secret}\naws_session_token={s.token}\n"
    credentials(home, text(old))
    (home / "new").write_text(text(new))
    config(home, "")
    script = f"sleep 2; cp {home}/new {home}/.aws/credentials"
    login = subprocess.Popen(["sh", "-c", script])
    done = awscall("identity", "then", "sleep", "4000", "then", "identity", env=env(lab, home))
    login.wait()
    assert done.code == 0 and [v["arn"] for v in done.values if isinstance(v, dict)] == ["arn:old", "arn:new"], done


def test_secrets_are_never_shown(lab, home):
    session = lab.sts.session("arn:x", 600)
    for fault in ("throttle", "status", "html", "drop", "expired"):
        lab.faults.add(fault, action="GetCallerIdentity", times=1)
    done = awscall("identity", env=env(lab, home, AWS_ACCESS_KEY_ID=session.access, AWS_SECRET_ACCESS_KEY="wrong" + session.secret,
                                       AWS_SESSION_TOKEN=session.token, AWSCALL_DEBUG="1"))
    assert done.code == 6
    for secret in (session.secret, session.token):
        assert secret not in done.err and secret not in str(done.values)
