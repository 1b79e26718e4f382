"""Transactions that can't be applied: where the stream stops, what an operator may let it skip, and what is kept of that."""
import json
import re

import pytest

pytestmark = pytest.mark.matrix


def diverged(pair):
    """Four transactions, of which the second can't be applied: a row of it is missing on the target."""
    pair.both("create table t (id int primary key, v text); create table u (id int primary key)")
    pair.prepare()
    pair.source.sql("insert into t select g, 'v' from generate_series(1, 20) g")
    pair.replicate(code=0)
    pair.target.sql("delete from t where id = 7")
    for text in ("insert into u values (1)", "begin; insert into u values (2); update t set v = 'x' where id = 7; delete from t where id = 8; commit",
                 "insert into u values (3)", "update t set v = null where id = 1"):
        pair.source.sql(text)


def commit_of(done):
    return re.search(r"committed at ([0-9A-F]+/[0-9A-F]+)", done.error()).group(1)


def letters(pair):
    return pair.target.sql("select part, commit_position, sqlstate, error, changes from keybridge.dead_letter order by id")


def test_the_named_one_is_skipped_whole(pair):
    diverged(pair)
    stopped = pair.replicate(code=7)
    commit = commit_of(stopped)
    assert "updating public.t key (id)=(7)" in stopped.error()
    pair.replicate("--skip-txn=0/1234,FF/1", code=7)
    assert pair.target.sql("select id from u order by id") == [(1,)] and not letters(pair)
    done = pair.replicate(f"--skip-txn=0/1234,{commit}", "--json", code=1)
    assert done.json()["skipped"] == 1 and "1 transaction couldn't be applied and was skipped" in done.error() and "dead_letter" in done.hint()
    assert pair.target.sql("select id from u order by id") == [(1,), (3,)]             # nothing of it, and all behind it
    assert pair.target.sql("select count(*), count(v) from t") == [(19, 18)]
    [(part, position, state, error, changes)] = letters(pair)
    assert (part, position, state) == (1, commit, "row-count") and "key (id)=(7)" in error
    changes = json.loads(changes)
    assert [(c["change"], c["table"]) for c in changes] == [("insert", "public.u"), ("update", "public.t"), ("delete", "public.t")]
    assert changes[2]["old"] and "v" not in changes[2]["old"]
    done = pair.replicate("--json", code=0)                                                # not again, and no longer an error
    assert done.json()["skipped"] == 0 and len(letters(pair)) == 1


def test_what_can_be_applied_is_not_skipped(pair):
    """--skip-txn is a permission, no order: the operator may have repaired the row meanwhile."""
    diverged(pair)
    commit = commit_of(pair.replicate(code=7))
    pair.target.sql("insert into t values (7, 'repaired')")
    pair.replicate(f"--skip-txn={commit}", code=0)
    pair.same()
    assert not letters(pair)


def test_any_may_be_skipped(pair):
    diverged(pair)
    pair.source.sql("delete from t where id = 7")
    done = pair.replicate("--apply-skip-failed", code=1)
    assert "skipped       2" in done.out and "2 transactions couldn't be applied and were skipped" in done.error()
    assert len(letters(pair)) == 2
    pair.target.sql("insert into u values (2); delete from t where id = 8")             # what the letters say
    pair.same()


@pytest.mark.parametrize("option", ["--skip-txn=nonsense", "--skip-txn=0/1,,0/2"])
def test_bad_position(pair, option):
    pair.prepare()
    assert "--skip-txn" in pair.replicate(option, code=2).error()


def test_a_big_one_is_kept_whole(pair):
    """Bigger than its memory and than one row of the table: in parts, of which each is JSON."""
    pair.both("create table t (id int primary key, v text); create table u (id int primary key)")
    pair.prepare()
    pair.target.sql("insert into t values (30000, 'stranger')")
    pair.source.sql("begin; insert into t select g, repeat(md5(g::text), 8) from generate_series(1, 40000) g; truncate u; insert into u values (2); commit")
    pair.source.sql("insert into u values (3)")
    pair.replicate("--spool-memory=256KiB", code=7)
    done = pair.replicate("--spool-memory=256KiB", "--apply-skip-failed", code=1)
    assert pair.target.sql("select id from u") == [(3,)] and pair.target.one("select count(*) from t") == 1
    found = letters(pair)
    assert len(found) > 2 and [f[0] for f in found] == list(range(1, len(found) + 1)) and len({f[1] for f in found}) == 1
    changes = [c for f in found for c in json.loads(f[4])]
    assert len(changes) == 40002 and "changes=40002" in done.err
    assert changes[-2] == {"change": "truncate", "tables": ["public.u"], "cascade": False, "restart_identity": False}
    assert all(set(c["new"]) == {"id", "v"} for c in changes[:40000])
