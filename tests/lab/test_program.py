"""lab.py as a program: its line, endpoint names, the hosts file under nss_wrapper, and nothing left behind."""
import glob
import json
import os
import signal
import subprocess
import sys
import urllib.request

import boto3
import pytest

from lab import pgserver
from lab.pgserver import wait_for

LAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lab.py")
WRAPPER = glob.glob("/usr/lib/*/libnss_wrapper.so")


def start(folder, *options):
    process = subprocess.Popen([sys.executable, LAB, "--dir", folder, "--speed", "20", *options], stdout=subprocess.PIPE,
                               text=True)
    return process, json.loads(process.stdout.readline())


def make_instance(info, name="src"):
    rds = boto3.session.Session().client("rds", endpoint_url=info["endpoint"], region_name=info["region"],
                                         aws_access_key_id=info["access_key"], aws_secret_access_key=info["secret_key"])
    rds.create_db_instance(DBInstanceIdentifier=name, Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20,
                           MasterUsername="boss", MasterUserPassword="boss-password", BackupRetentionPeriod=0)
    shown = lambda: rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
    wait_for("the instance", lambda: shown()["DBInstanceStatus"] == "available", 30)
    return shown()["Endpoint"]


def server_pid(info):
    with urllib.request.urlopen(info["endpoint"] + "/_lab/state") as answer:
        return json.load(answer)["instances"]["src"]["pid"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL, "shutdown"])
def test_nothing_is_left_behind(folder, end):
    process, info = start(folder)
    endpoint = make_instance(info)
    assert endpoint["Port"] == info["db_port"] and endpoint["Address"].startswith("127.0.0.")
    pid = server_pid(info)
    if end == "shutdown":
        urllib.request.urlopen(urllib.request.Request(info["endpoint"] + "/_lab/shutdown", b"", method="POST"))
    else:
        process.send_signal(end)
    assert process.wait(30) == (-9 if end == signal.SIGKILL else 0)
    wait_for("the server to end", lambda: not pgserver._alive(pid), 20)


@pytest.mark.skipif(not WRAPPER, reason="libnss-wrapper isn't installed")
def test_names_through_libc(folder):
    process, info = start(folder, "--endpoint-style", "name")
    try:
        endpoint = make_instance(info)
        assert endpoint["Address"].startswith("src.") and endpoint["Address"].endswith(".eu-west-1.rds.lab")
        env = {**os.environ, "LD_PRELOAD": WRAPPER[0], "NSS_WRAPPER_HOSTS": info["hosts"], "PGPASSWORD": "boss-password"}
        done = subprocess.run(["psql", "-Atc", "select inet_server_addr()",
                               f"host={endpoint['Address']} port={endpoint['Port']} user=boss dbname=postgres "
                               f"sslmode=verify-full sslrootcert={info['ca']}"],
                              env=env, capture_output=True, text=True)
        assert done.stdout.startswith("127.0.0."), done.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0
