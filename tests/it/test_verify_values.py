"""keybridge verify judges every type's values: equal ones are equal whatever the oids, and one other value is found."""
import pytest

from test_values import Values, kinds_of, strangers, twins       # noqa: F401  pylint: disable=unused-import

pytestmark = pytest.mark.matrix


def judged(pair, code):
    done = pair.command("verify", "--json", code=code, timeout=180)
    return {t["table"]: t for t in done.json()["databases"][0]["tables"]}


def changes(kind):
    """Another value for the row with id 1, which has the second one."""
    if kind.count == 1:
        return "null", []
    return kind.values[0]


@pytest.mark.parametrize("oids", ["twins", "strangers"])
def test_trap_168_169_each_type_is_judged(request, oids):
    """Nothing is rounded, cast or skipped: infinities, BC, -0, scales, \\u0000 in json, one element of an array."""
    pair = request.getfixturevalue(oids)
    values = Values(pair, kinds_of(pair, own=True, arrays=True), text_only=oids == "strangers")
    pair.prepare()
    values.do(values.insert)
    assert pair.replicate(timeout=180).code == 0
    tables = judged(pair, 0)
    wrong = [(k, tables[t]) for k in values.kinds for t in (k.plain, k.full) if tables[t]["verdict"] != "equal"]
    assert not wrong, wrong
    with pair.target.connect() as con, con.cursor() as cur:
        for kind in values.kinds:
            expression, params = changes(kind)
            cur.execute(f"update {kind.plain} set v = {expression} where id = 1", params)
            cur.execute(f"delete from {kind.full} where ctid = (select ctid from {kind.full} where n = 1 limit 1)")
    tables = judged(pair, 1)
    missed = [(k, tables[k.plain]) for k in values.kinds
              if [(r["kind"], r["key"], r.get("columns")) for r in tables[k.plain]["rows"]] != [("changed", "id=1", "v")]]
    assert not missed, missed[:5]
    assert all(tables[k.full]["missing"] == 1 for k in values.kinds)
    values.writer.close()


def test_trap_169_a_type_that_has_no_binary_form_inside(pair):
    """The send function of such an array or row fails: text is compared instead."""
    pair.both("create type holder as (a aclitem); create table t (id int primary key, v aclitem[], c holder, r refcursor);"
              "insert into t values (1, '{=r/postgres}', row('=r/postgres')), (2, null, null)")
    assert judged(pair, 0)["t"]["verdict"] == "equal"
    pair.target.sql("update t set v = '{=w/postgres}'")
    assert judged(pair, 1)["t"]["changed"] == 2
