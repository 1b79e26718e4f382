"""Connections to servers with TLS: verified by default for whatever isn't this machine, refused clearly when that fails."""
import os

import pytest

from kb import PASSWORD, wait_until
from lab.tls import Authority

NAME = "db.keybridge.test"                      # resolved by nobody: hostaddr leads to the server


@pytest.fixture(scope="module")
def authorities(scratch):
    """The one that signs the servers' certificates, and another."""
    return Authority(f"{scratch}/ca"), Authority(f"{scratch}/other-ca")


def secured(server, authority, name=NAME):
    certificate, key = authority.issue(name, "127.0.0.1")
    server.put_file("server.crt", certificate)
    server.put_file("server.key", key)
    server.set(ssl=True, ssl_cert_file="server.crt", ssl_key_file="server.key")
    server.write_hba(["hostssl all all 127.0.0.1/32 scram-sha-256", "hostssl replication all 127.0.0.1/32 scram-sha-256"])
    server.reload()
    wait_until(lambda: server.one("show ssl") == "on", what="TLS to be on")
    return server


@pytest.fixture
def tls_pair(fresh_server, make_pair, authorities):
    pair = make_pair(secured(fresh_server("source"), authorities[0]), secured(fresh_server("target"), authorities[0]))
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    return pair


def where(database, host=NAME, more=""):
    return f"host={host} hostaddr=127.0.0.1 port={database.server.port} user=postgres password='{PASSWORD}' dbname={database.name} {more}"


def env(pair, **more):
    return {"KEYBRIDGE_SOURCE": where(pair.source, **more), "KEYBRIDGE_TARGET": where(pair.target, **more)}


def test_verified_by_default(tls_pair, authorities):
    """No sslmode anywhere: the name decides, and every connection is encrypted."""
    run = tls_pair.start("--tls-ca", authorities[0].bundle, env=env(tls_pair))
    tls_pair.caught_up()
    for database in (tls_pair.source, tls_pair.target):
        ours = database.sql("select s.ssl from pg_stat_activity a join pg_stat_ssl s using (pid) "
                            "where a.datname = current_database() and a.application_name like 'keybridge%%'")
        assert ours and all(ssl for (ssl,) in ours)
    assert run.stop().code == 130
    tls_pair.same()


@pytest.mark.parametrize("side, code", [("source", 4), ("target", 5)])
def test_another_authority_is_refused(tls_pair, authorities, side, code):
    good = {"KEYBRIDGE_SOURCE": where(tls_pair.source, more=f"sslrootcert={authorities[0].bundle}"),
            "KEYBRIDGE_TARGET": where(tls_pair.target, more=f"sslrootcert={authorities[0].bundle}")}
    bad = {f"KEYBRIDGE_{side.upper()}": where(getattr(tls_pair, side), more=f"sslmode=verify-full sslrootcert={authorities[1].bundle}")}
    done = tls_pair.replicate(env={**good, **bad}, code=code)
    assert done.error() == f"keybridge replicate: connecting to the {side}: " \
        f'connection to server at "127.0.0.1", port {getattr(tls_pair, side).server.port} failed: ' \
        "SSL error: certificate verify failed"
    assert done.hint() == "give the certificates that sign the server's with --tls-ca (on RDS: the Region's bundle)"
    assert tls_pair.target.one("select count(*) from t") == 0


def test_another_name_is_refused(tls_pair, authorities):
    done = tls_pair.replicate("--tls-ca", authorities[0].bundle, env=env(tls_pair, host="db2.keybridge.test"), code=4)
    assert 'server certificate for "db.keybridge.test"' in done.error() and 'does not match host name "db2.keybridge.test"' in done.error()
    assert done.hint() == "connect by the name in the server's certificate"


def test_no_authority_is_refused(tls_pair):
    done = tls_pair.replicate(env=env(tls_pair), code=4)
    assert "root certificate file" in done.error() and "--tls-ca" in done.hint()


def test_this_machine_needs_no_certificate(tls_pair):
    """127.0.0.1 is encrypted when the server wants it; nothing is verified."""
    tls_pair.replicate(code=0)
    tls_pair.same()


def plain_is_refused(pair, **how):
    done = pair.replicate(env=how, code=4)
    assert done.error().endswith("failed: server does not support SSL, but SSL was required"), done
    assert done.hint() == "turn TLS on at the server, or allow plain connections with --tls-insecure"


def test_a_server_without_tls(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    plain_is_refused(pair, **env(pair))
    pair.replicate("--tls-insecure", env=env(pair), code=0)
    pair.same()


@pytest.mark.parametrize("how", ["PGHOST", "service", "PGSERVICE", "list", "hostaddr"])
def test_where_the_host_is_said_makes_no_difference(pair, how):
    """The host may come from libpq's own places, or beside one of this machine: it is verified all the same."""
    pair.prepare()
    service = os.path.join(pair.kb.folder, "services")
    with open(service, "w", encoding="utf-8") as f:
        f.write(f"[away]\nhost={NAME}\nhostaddr=127.0.0.1\nport={pair.source.server.port}\nuser=postgres\n")
    rest = f"dbname={pair.id} password='{PASSWORD}'"
    more, source = {
        "PGHOST": ({"PGHOST": NAME, "PGHOSTADDR": "127.0.0.1", "PGPORT": pair.source.server.port, "PGUSER": "postgres"}, rest),
        "service": ({}, f"service=away {rest}"),
        "PGSERVICE": ({"PGSERVICE": "away"}, rest),
        "list": ({}, f"host=/nowhere,{NAME} hostaddr=,127.0.0.1 port={pair.source.server.port} user=postgres {rest}"),
        "hostaddr": ({}, f"host=localhost hostaddr=::ffff:127.0.0.1 port={pair.source.server.port} user=postgres {rest}"),
    }[how]
    plain_is_refused(pair, KEYBRIDGE_SOURCE=source, PGSERVICEFILE=service, **more)


def test_sslmode_of_the_environment_is_heard(pair):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.replicate(env={**env(pair), "PGSSLMODE": "disable"}, code=0)
    pair.same()
