"""The ways in which values were bent elsewhere, one by one: in binary and in text, by COPY and single rows, found again by the whole row."""
import pytest

from test_values import chosen

pytestmark = pytest.mark.matrix

COPIES = 40             # of each value: enough for COPY


def carry(pair, column, *values, default=""):
    """Each value through every path in both forms; both sides are compared by text and bytes, by us and by keybridge verify."""
    pair.both(f"create table t (id int generated always as identity primary key, n int, v {column} {default});"
              f"create table f (n int, v {column}); alter table f replica identity full")
    pair.prepare()
    for form in ("binary", "text"):
        if form == "text":
            pair.both("create table named (v regclass)")            # one column that has no faithful binary form
        with pair.source.connect() as con, con.cursor() as cur:
            for value in values:
                cur.execute(f"insert into t (n, v) select g, {value} from generate_series(1, {COPIES}) g")
                cur.execute(f"insert into f values (1, {value}), (2, {value}), (3, {value})")
        done = pair.replicate("--lanes=1", "--ddl=stop", code=0)
        assert chosen(done) == form, done
        pair.same()
        with pair.source.connect() as con, con.cursor() as cur:
            for value in values:
                cur.execute(f"update t set v = {value} where id = (select min(id) from t)")
            cur.execute("update t set v = (select x.v from t x where x.id = t.id + 41) where n > 10; update t set n = 0 where n = 7;"
                        "update f set n = 4 where n = 2; delete from f where n = 1")
        pair.replicate("--ddl=stop", code=0)
        pair.same()
        assert pair.command("verify", "--json", code=0).json()["databases"][0]["equal"]


def test_trap_058_large_integers_stay_integers(pair):
    carry(pair, "int8", "2000001", "9223372036854775807", "-9223372036854775808", "1000000000000000000")


def test_trap_059_numeric_precision(pair):
    carry(pair, "numeric check (v > 0)", "0.00000000000000006938893903907228", "0.611111104488373", "1.000", "1e-300", "1e300 + 1e-300")


def test_trap_060_float_extremes(pair):
    carry(pair, "float8", "-216237.00000035969", "1.7976931348623157e308", "4.9e-324", "2.2250738585072011e-308", "'-0'::float8",
          "0.1::float8 + 0.2::float8", "'-Infinity'::float8")


def test_trap_061_bytea(pair):
    pair.source.sql(f"alter database {pair.id} set bytea_output = 'escape'")
    pair.target.sql(f"alter database {pair.id} set bytea_output = 'escape'")
    carry(pair, "bytea", r"''", r"'\x00'", r"'\x5c5c78'", r"'\\x41'::bytea", r"decode('27225c00ff', 'hex')", "null")


def test_trap_062_null_and_the_words_for_it(pair):
    carry(pair, "text", "'null'", "'NULL'", "''", "null", r"'\N'", "' '")
    assert pair.target.sql("select v is null, v, count(*) from t group by 1, 2 order by 1, 2") == \
        pair.source.sql("select v is null, v, count(*) from t group by 1, 2 order by 1, 2")


def test_trap_063_infinity_bc_and_far_years(pair):
    carry(pair, "tstzrange", "'[-infinity,infinity]'", "'[4714-11-24 00:00:00+00 BC,0044-03-15 00:00:00+00 BC)'",
          "'(,294276-12-31 23:59:59.999999+00]'", "'[12345-01-01 00:00:00+00,infinity)'", "'empty'")


def test_trap_065_midnight_at_the_end_and_odd_offsets(pair):
    carry(pair, "timetz", "'24:00:00+00'", "'24:00:00-15:59:59'", "'00:00:00+15:59:59'", "'12:00:00.000001+05:53:28'")


def test_trap_067_numbers_that_are_none(pair):
    carry(pair, "numeric", "'NaN'", "'Infinity'", "'-Infinity'", "0.000")


def test_trap_068_money(pair):
    pair.source.sql(f"alter database {pair.id} set lc_monetary = 'C.UTF-8'")
    carry(pair, "money default 0", "null", "0::money", "'-92233720368547758.08'", "'92233720368547758.07'", "0.01::numeric::money")


def test_trap_069_bits(pair):
    carry(pair, "varbit", "B'000000001'", "B'100000000'", "B''", "B'10101010101'", "repeat('1', 999)::varbit")


def test_trap_070_arrays_and_what_is_in_them(pair):
    carry(pair, "text[]", "'[0:1]={1,2}'", "'{{a,b},{c,NULL}}'", "array['NULL', null, '', E'a\\\\\"b,{}']", "'{}'", "'[-2:-2][5:5]={{x}}'", "null")


def test_trap_072_quotes_and_backslashes(pair):
    for side in (pair.source, pair.target):
        side.sql(f"alter database {pair.id} set standard_conforming_strings = off")
    carry(pair, "text", "E'\\\\'", "E'\\''", "E'\\\\\\''", "E'a\\\\nb'", "$$\"'`$1%s{}$$", "E'\\t\\n\\r\\b\\f\\v'")


def test_trap_074_null_is_not_the_default(pair):
    carry(pair, "int default 5", "null", "5", "0")
    assert pair.target.one("select count(*) from t where v is null") > 0


def rows_as_bytes(database, table):
    """Psycopg decodes nothing of these."""
    return database.sql(f"select md5(textsend(x::text)) from {table} x order by 1")


def make_ascii(server, kb, made, encoding="sql_ascii"):
    pair = made(server[0], server[1])
    for s, e in zip(server, encoding if isinstance(encoding, tuple) else (encoding, encoding)):
        s.sql(f"drop database {pair.id}")
        s.sql(f"create database {pair.id} template template0 encoding '{e}' locale 'C'")
    return pair


def test_trap_073_bytes_without_an_encoding(source_server, target_server, kb, make_pair):
    """SQL_ASCII on both sides: any bytes go over as they are, as value, key and name."""
    pair = make_ascii((source_server, target_server), kb, make_pair)
    pair.both("create table t (k text primary key, v text, a text[])")
    pair.prepare()
    pair.source.sql(rf"insert into t select chr(g), E'\xff\xfe' || chr(g), array[E'\xe9', null] from generate_series(1, 127) g")
    pair.source.sql(rf"insert into t values (E'\xe9', E'\xc3\xa9', null); update t set v = v || E'\x80' where k > 'x'; delete from t where k = E'\xe9'")
    pair.replicate(code=0)
    assert rows_as_bytes(pair.source, "t") == rows_as_bytes(pair.target, "t")


def test_trap_073_bytes_that_the_target_refuses(source_server, target_server, kb, make_pair):
    """From SQL_ASCII to UTF8: what is UTF-8 goes over; anything else stops the stream before it, with what to do."""
    pair = make_ascii((source_server, target_server), kb, make_pair, ("sql_ascii", "utf8"))
    pair.both("create table t (id int primary key, v text)")
    pair.prepare()
    pair.source.sql(r"insert into t values (1, E'\xc3\xa9')")
    pair.replicate(code=0)
    assert rows_as_bytes(pair.source, "t") == rows_as_bytes(pair.target, "t")
    pair.source.sql(r"insert into t values (2, E'\xe9')")
    done = pair.replicate(code=7)
    assert "UTF8" in done.error() and "0xe9" in done.error() and "encoding" in done.hint(), done
    assert pair.target.one("select count(*) from t") == 1


def test_text_that_the_target_cannot_hold(source_server, target_server, kb, make_pair):
    """From UTF8 to LATIN1: a letter that LATIN1 lacks stops the stream, every other one is converted."""
    pair = make_ascii((source_server, target_server), kb, make_pair, ("utf8", "latin1"))
    pair.both("create table t (id int primary key, v text)")
    pair.prepare()
    pair.source.sql("insert into t values (1, 'é ÿ')")
    pair.replicate(code=0)
    assert pair.target.sql("select v from t") == [("é ÿ",)]
    pair.source.sql("insert into t values (2, '日本')")
    done = pair.replicate(code=7)
    assert "LATIN1" in done.error() and "encoding" in done.hint(), done
