"""Every value of every type, bit for bit, in both forms: inserted, updated, found by key and by whole row, deleted.

Compared by the servers themselves, by the type's output under pinned settings and by its send function.
"""
import re
import uuid

import psycopg2
import pytest

from kb import Failed
from valuekit import BUILT_IN, NO_INPUT, OWN, OWN_SQL, REG, array_texts

pytestmark = pytest.mark.matrix

COPIED = 104                        # rows that go by COPY
EXACT = "set timezone = 'UTC'; set extra_float_digits = 3; set bytea_output = hex; set intervalstyle = postgres; " \
        "set datestyle = 'ISO, YMD'; set lc_monetary = 'C'; set xmloption = content;"
COLUMN_TYPES = """select t.typname from pg_type t left join pg_class c on c.oid = t.typrelid where t.oid < 16384
    and t.typtype in ('b', 'd', 'e', 'm', 'r') and (t.typtype = 'd' or t.typcategory <> 'A' or t.typarray <> 0)
    and not (t.typtype = 'b' and t.typname like '\\_%%' and t.typelem <> 0) order by 1"""


def known_types(database):
    return {r[0] for r in database.sql(COLUMN_TYPES)}


def common_types(pair):
    return known_types(pair.source) & known_types(pair.target)


class Kind:
    """A type, its values, and the tables that hold them: p with another key, k keyed by the value, f without a key."""

    def __init__(self, number, label, sql_type, values):
        self.label, self.type, self.values = label, sql_type, values
        self.plain, self.keyed, self.full, self.source = (f"{x}{number}" for x in "pkfv")
        self.has_key = False

    def __repr__(self):
        return self.label




def kinds_of(pair, own, arrays, leave_out=()):
    found = []
    types = common_types(pair)
    schemas = dict(pair.source.sql("select typname, typnamespace::regnamespace::text from pg_type where oid < 16384"))
    for name, values in sorted(BUILT_IN.items()):
        if name in types and name not in leave_out:
            found.append((name, f'{schemas[name]}."{name}"', values))
    if own:
        found += [(n, n if re.search(r"[ (.\"]", n) else f"public.{n}", v) for n, v in OWN.items() if n not in leave_out]
    result = []
    for name, sql_type, values in found:
        result.append(Kind(len(result), name, sql_type, [("%s::" + sql_type, [v]) for v in values]))
        if arrays and name not in arrays_without(leave_out):
            made = [(text.format(t=sql_type), params) for text, params in array_texts(values)]
            result.append(Kind(len(result), name + "[]", sql_type + "[]", made))
    return result


def arrays_without(leave_out):
    return {x[:-2] for x in leave_out if x.endswith("[]")} | {"int2vector", "oidvector", "tags", "tags[]"}


def arrays_without_binary(database):
    """Types whose arrays have no binary form: their elements have no send function."""
    return {f"{n}[]" for (n,) in database.sql("select typname from pg_type where typsend = 0 and typtype <> 'p'")}


def try_sql(cur, text, args=None):
    """False: the server doesn't have what it takes (no operator, a row too large for an index)."""
    cur.execute("savepoint s")
    try:
        cur.execute(text, args)
    except psycopg2.Error:
        cur.execute("rollback to savepoint s")
        return False
    cur.execute("release savepoint s")
    return True


class Values:
    """All tables of some kinds on both sides, and what happens to them."""

    def __init__(self, pair, kinds, text_only=False):
        self.pair, self.kinds = pair, kinds
        self.writer = pair.source.connect(autocommit=False)
        cur = self.writer.cursor()
        for kind in kinds:
            cur.execute(f"create temp table {kind.source} (k serial, v {kind.type})")
            for expression, params in kind.values:
                cur.execute(f"insert into {kind.source} (v) values ({expression})", params)
            kind.count = len(kind.values)
            kind.has_key = try_sql(
                cur, f"create temp table x_{kind.keyed} as select distinct on (v) v, k from {kind.source} "
                     f"where pg_column_size(v) < 1500 order by v, k") and try_sql(
                cur, f"create unique index on x_{kind.keyed} (v)")
        self.writer.commit()
        self.create()
        self.text_only = text_only
        self.mute = arrays_without_binary(pair.source)
        self.count_bytes = self.readers()

    def create(self):
        sql = ""
        for kind in self.kinds:
            sql += f"create table {kind.plain} (id int primary key, n int, v {kind.type});" \
                   f"create table {kind.full} (v {kind.type}, n int); alter table {kind.full} replica identity full;"
            if kind.has_key:
                sql += f"create table {kind.keyed} (v {kind.type} primary key, n int);"
        self.pair.both(sql)

    def readers(self):
        """For each kind the expression of its exact content."""
        with self.writer.cursor() as cur:
            cur.execute("set search_path = pg_catalog")
            result = {}
            for kind in self.kinds:
                cur.execute("""select b.typsend::oid, b.typsend::regproc::text, (select case a.typtype when 'p' then
                    format_type(b.oid, null) else format_type(a.oid, null) end from pg_proc f join pg_type a on a.oid = f.proargtypes[0]
                    where f.oid = b.typsend),
                    b.oid < 10000 or (b.typtype in ('b', 'e') and b.typelem = 0), b.typname like 'reg%%' or b.typname like '\\_reg%%'
                    from pg_type t, lateral (with recursive d as (select t.oid, t.typbasetype union all
                    select x.oid, x.typbasetype from d join pg_type x on x.oid = d.typbasetype) select oid from d
                    where typbasetype = 0) base join pg_type b on b.oid = base.oid
                    where t.oid = (select atttypid from pg_attribute where attrelid = %s::regclass and attname = 'v')""",
                            (f"public.{kind.plain}",))
                oid, send, base, plain, reg = cur.fetchone()
                bits = f"encode({send}(v::{base}), 'hex')" if oid and not reg and (plain or not self.text_only) and \
                    kind.label not in self.mute else "''"
                result[kind] = f"md5(format('%L', v)) || coalesce(md5({bits}), '-')"
            cur.execute("reset search_path")
        self.writer.commit()
        return result

    # what is done

    def pick(self, kind, number):
        return f"(select v from {kind.source} where k = ({number}) %% {kind.count} + 1)"

    def do(self, each):
        with self.writer.cursor() as cur:
            for kind in self.kinds:
                for statement in each(kind):
                    cur.execute(statement, ())
        self.writer.commit()

    def insert(self, kind):
        yield f"insert into {kind.plain} select g, g, case when g %% 7 > 0 then {self.pick(kind, 'g')} end " \
              f"from generate_series(1, {COPIED}) g"
        yield f"insert into {kind.full} select v, k from {kind.source} union all select v, k from {kind.source} " \
              "union all select null, 0"
        if kind.has_key:
            yield f"insert into {kind.keyed} select v, k from x_{kind.keyed}"

    def many(self, kind):
        yield f"update {kind.plain} set v = {self.pick(kind, 'id + 1')}, n = n + 1 where id %% 2 = 0"
        yield f"insert into {kind.plain} select g, g, {self.pick(kind, 'g')} from generate_series(1001, 1020) g"
        yield f"update {kind.full} set n = n + 1000 where n %% 2 = 0"
        if kind.has_key:
            yield f"update {kind.keyed} set n = n + 1000"

    def few(self, kind):
        yield f"update {kind.plain} set v = {self.pick(kind, 'id + 3')} where id in (1, 3)"
        yield f"insert into {kind.plain} values (2001, 1, {self.pick(kind, '0')}), (2002, 2, null)"
        yield f"update {kind.full} set v = {self.pick(kind, '1')} where n = 1"
        yield f"delete from {kind.full} where ctid = (select min(ctid) from {kind.full} where n > 1000)"
        if kind.has_key:
            yield f"delete from {kind.keyed} where n = (select max(n) from {kind.keyed}) and (select count(*) from {kind.keyed}) > 1"
            yield f"update {kind.keyed} set n = n - 1 where n = (select min(n) from {kind.keyed})"

    def keys(self, kind):
        yield f"delete from {kind.plain} where id between 10 and 60"
        yield f"delete from {kind.plain} where id = 2001"
        yield f"delete from {kind.full} where n %% 3 = 1"
        if kind.has_key:
            yield f"update {kind.keyed} set v = (select v from x_{kind.keyed} order by k desc limit 1) where n = " \
                  f"(select min(n) from {kind.keyed} where (select count(*) from x_{kind.keyed}) > 1)"
            yield f"delete from {kind.keyed} where n <> (select min(n) from {kind.keyed})"

    # what must be the same

    def digests(self, database):
        found = {}
        with database.connect() as con, con.cursor() as cur:
            cur.execute(EXACT)
            for kind in self.kinds:
                for table, rest in ((kind.plain, "id, n"), (kind.full, "n"), (kind.keyed, "n")):
                    if table == kind.keyed and not kind.has_key:
                        continue
                    cur.execute(f"select count(*), md5(coalesce(string_agg(h, ',' order by h collate \"C\"), '')) from "
                                f"(select concat_ws('|', {rest}, {self.count_bytes[kind]}) h from public.{table}) x")
                    found[table] = (kind, *cur.fetchone())
        return found

    def same(self, after):
        mine, theirs = self.digests(self.pair.source), self.digests(self.pair.target)
        bad = [f"{table} of {mine[table][0]}: {mine[table][1]} rows on the source, {theirs[table][1]} on the target\n" +
               self.show(table, mine[table][0]) for table in mine if mine[table] != theirs[table]]
        if bad:
            raise Failed(f"after {after} these differ:\n" + "\n".join(bad[:20]))

    def show(self, table, kind):
        def rows(database):
            with database.connect() as con, con.cursor() as cur:
                cur.execute(EXACT)
                cur.execute(f"select left(concat_ws('|', n, left(format('%%L', v), 120), {self.count_bytes[kind]}), 300) "
                            f"from public.{table} order by 1", ())
                return [r[0] for r in cur.fetchall()]
        a, b = rows(self.pair.source), rows(self.pair.target)
        return "\n".join(f"   {x}\n   {y}" for x, y in zip(a, b) if x != y)[:1500]

    def run(self, form):
        for step in (self.insert, self.many, self.few, self.keys):
            self.do(step)
            done = self.pair.replicate("--lanes=1", timeout=180)
            assert done.code == 0, (step.__name__, done)
            assert chosen(done) == form, why(done)
            self.same(step.__name__)
        self.writer.close()


def chosen(done):
    """The form that the log says values travel in."""
    lines = [x for x in done.err.splitlines() if "value format chosen" in x]
    assert lines, done
    return re.search(r"format=(\w+)", lines[-1]).group(1)


def why(done):
    return [x for x in done.err.splitlines() if "value format chosen" in x][-1]


def type_oids(database):
    """Of the tests' own types, not of tables."""
    return database.sql("select t.typname, t.oid from pg_type t left join pg_class c on c.oid = t.typrelid where t.oid >= 16384 "
                        "and coalesce(c.relkind, 'c') = 'c' and t.typcategory <> 'A' order by 2")


def burn_oids(database, count):
    database.sql("select pg_nextoid('pg_type', 'oid', 'pg_type_oid_index') from generate_series(1, %s)", (count,))


def alike(make_pair, source, target, statements):
    """A pair on which the same statements gave types of the same oids, as a physical copy has them."""
    if source.major != target.major:
        pytest.skip("a physical copy has its source's version")
    for _ in range(5):
        pair = make_pair(source, target)
        next_oids = [d.one("select pg_nextoid('pg_type', 'oid', 'pg_type_oid_index')::int8") for d in (pair.source, pair.target)]
        behind = pair.source if next_oids[0] < next_oids[1] else pair.target
        burn_oids(behind, abs(next_oids[0] - next_oids[1]))
        pair.both(statements)
        if type_oids(pair.source) == type_oids(pair.target):
            return pair
    raise Failed("the oids of the two servers' types don't come to be equal")


def same_version(pair):
    return len({d.one("show server_version_num") for d in (pair.source, pair.target)}) == 1


@pytest.fixture
def twins(source_server, target_server, make_pair):
    return alike(make_pair, source_server, target_server, OWN_SQL)


@pytest.fixture
def strangers(pair):
    """The target has other oids, as when it was loaded from a dump."""
    burn_oids(pair.target, 10000)
    pair.both(OWN_SQL)
    return pair


def test_every_type_of_the_server_has_values(pair):
    for database in (pair.source, pair.target):
        missing = known_types(database) - set(BUILT_IN) - NO_INPUT
        assert not missing, f"types without values in valuekit.py: {missing}"


def test_types_that_take_no_input(pair):
    """Why NO_INPUT may be left out: there is no way to write them."""
    for name in NO_INPUT & common_types(pair):
        pair.target.sql(f"create table n_{name} (v {name})")
        with pytest.raises(psycopg2.errors.FeatureNotSupported, match="cannot accept a value|not implemented"):
            pair.target.sql(f"insert into n_{name} values ('x')")


def test_binary(twins):
    """A copy has the same oids: every type that has a faithful binary form goes in it, own ones too."""
    leave_out = REG | {"int2vector", "oidvector"} | arrays_without_binary(twins.source)
    values = Values(twins, kinds_of(twins, own=True, arrays=True, leave_out=leave_out))
    twins.prepare()
    values.run("binary")


def test_text(strangers):
    """Other oids on the target: all goes as text."""
    values = Values(strangers, kinds_of(strangers, own=True, arrays=True), text_only=True)
    strangers.prepare()
    assert type_oids(strangers.source) != type_oids(strangers.target)
    values.run("text")
