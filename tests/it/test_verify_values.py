"""keybridge verify judges every type's values: equal ones are equal whatever the oids, and one other value is found."""
import pytest

pytestmark = pytest.mark.matrix


def judged(pair, code):
    done = pair.command("verify", "--json", code=code, timeout=180)
    return {t["table"]: t for t in done.json()["databases"][0]["tables"]}


def test_trap_169_a_type_that_has_no_binary_form_inside(pair):
    """The send function of such an array or row fails: text is compared instead."""
    pair.both("create type holder as (a aclitem); create table t (id int primary key, v aclitem[], c holder, r refcursor);"
              "insert into t values (1, '{=r/postgres}', row('=r/postgres')), (2, null, null)")
    assert judged(pair, 0)["t"]["verdict"] == "equal"
    pair.target.sql("update t set v = '{=w/postgres}'")
    assert judged(pair, 1)["t"]["changed"] == 2
