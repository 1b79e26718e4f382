"""keybridge bench, small: what it measures is the machine's matter, that it compares and tidies up isn't."""
import json

import pytest

MADE = ("select datname from pg_database where datname like 'keybridge\\_bench%%' union all "
        "select slot_name from pg_replication_slots where slot_name like 'keybridge\\_bench%%' union all "
        "select subname from pg_subscription")


def bench(pair, *args, code=0):
    return pair.command("bench", *args, code=code)


def left(pair):
    return [row for server in (pair.source, pair.target) for row in server.sql(MADE)]


@pytest.mark.slow
def test_drain(pair):
    done = json.loads(bench(pair, "drain", "--json", "--scale=1", "--only=tpcb,bulk,many").out)
    assert [r["backlog"] for r in done] == ["tpcb", "bulk", "many"]
    for result in done:
        assert result["native"]["seconds"] > 0 and result["keybridge"]["rss_mib"] > 1
        assert abs(result["ratio"] - result["keybridge"]["seconds"] / result["native"]["seconds"]) < 0.02   # rounded
        assert result["keybridge"]["source_cpu"] >= 0 and result["native"]["target_cpu"] >= 0
    assert left(pair) == []


def test_lag(pair):
    done = json.loads(bench(pair, "lag", "--json", "--rate=100", "--seconds=2").out)
    for name in ("native", "keybridge"):
        assert 190 <= done[name]["count"] <= 201
        assert 0 < done[name]["p50_us"] <= done[name]["p99_us"] <= done[name]["max_us"]
    assert left(pair) == []


def test_what_is_there_is_left_alone(pair):
    pair.source.sql("create database keybridge_bench")
    try:
        refused = bench(pair, "drain", "--scale=1", "--only=insert", code=7)
        assert "database keybridge_bench is there already" in refused.err
        assert pair.source.one("select count(*) from pg_database where datname = 'keybridge_bench'") == 1
    finally:
        pair.source.sql("drop database keybridge_bench")


def test_wrong_use(pair):
    assert "names no backlog" in bench(pair, "drain", "--only=nothing", code=2).err
    bench(pair, "verify", code=2)
    assert left(pair) == []
