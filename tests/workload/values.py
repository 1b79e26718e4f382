"""Random values for every type: texts as the server reads them, extremes among them. All from the rng that is given.

    t = Type("numeric", ...); t.text(rng) -> '1.50' or None for NULL; literal(t, text) -> "'1.50'::numeric"
"""
import json
import string


def quote(text):
    """A string constant, whatever standard_conforming_strings is."""
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


def name(text):
    """A quoted identifier."""
    return '"' + text.replace('"', '""') + '"'


class Type:
    """What a column can be: its name in SQL and a function from rng to a text."""

    def __init__(self, sql, make, user=False, probe=None):
        self.sql, self.make, self.user, self.probe = sql, make, user, probe

    def text(self, rng):
        return self.make(rng)

    def literal(self, rng):
        return f"{quote(self.text(rng))}::{self.sql}"

    def __repr__(self):
        return self.sql


def choice(*texts):
    return lambda rng: rng.choice(texts)


def mostly(make, *special):
    """Special values a quarter of the time."""
    return lambda rng: rng.choice(special) if rng.random() < 0.25 else make(rng)


# --- texts ------------------------------------------------------------------------------------------------------------

AWKWARD = ["", " ", "null", "NULL", "\\N", "\\.", "'", '"', "\\", "\\\\", "\t", "\n", "\r\n", "\x01", "{", "}", "{}", "{NULL}", ",",
           "(", ")", "(,)", "$1", "%s", "a'b\"c\\d", "\u00e9", "e\u0301", "\u4e2d\u6587", "\U0001f600", "\ufeff", "0", "-0", "x" * 200]
ALPHABET = string.ascii_letters + string.digits + " '\"\\{},()%$\n\t\u00e4\u00df\u0416\u4e2d\U0001f511"


def some_text(rng):
    if rng.random() < 0.3:
        return rng.choice(AWKWARD)
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(0, 30)))


def long_text(rng):
    """Kept out of line when it is long: compressible, or not."""
    kind = rng.random()
    if kind < 0.5:
        return some_text(rng)
    if kind < 0.75:
        return some_text(rng)[:20] + "ab" * rng.randrange(1000, 6000)
    return "%x" % rng.getrandbits(4 * rng.randrange(2500, 10000))


def limited(most):
    return lambda rng: some_text(rng)[:most]


def hexes(least, most):
    return lambda rng: "\\x" + rng.randbytes(rng.randrange(least, most + 1)).hex()


# --- numbers, times ---------------------------------------------------------------------------------------------------

def integers(bits):
    top = 1 << (bits - 1)
    return mostly(lambda rng: str(rng.randrange(-1000, 1000)), str(-top), str(top - 1), "0", "-1")


def numeric(rng):
    digits = "".join(rng.choice(string.digits) for _ in range(rng.randrange(1, 40)))
    tail = "".join(rng.choice(string.digits) for _ in range(rng.randrange(0, 30)))
    return rng.choice(["", "-"]) + digits + ("." + tail if tail else "")


def floats(rng):
    return repr(rng.uniform(-1, 1) * 10 ** rng.randrange(-30, 30))


def date(rng, year=None):
    year = year or rng.choice([rng.randrange(1900, 2100), rng.randrange(1, 9999), rng.randrange(10000, 200000)])
    return f"{year:04d}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"


def clock(rng):
    micros = rng.choice(["", ".000001", ".999999", f".{rng.randrange(10**6):06d}"])
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}{micros}"


def zone(rng):
    return rng.choice(["+00", "-03:30", "+05:45", "+14", "-12", "+15:59:59"])


def timestamp(rng):
    return f"{date(rng)} {clock(rng)}"


def interval(rng):
    return f"{rng.randrange(-100, 100)} years {rng.randrange(-20, 20)} mons {rng.randrange(-400, 400)} days " \
           f"{rng.choice(['', '-'])}{clock(rng)}"


# --- documents, networks, geometry ------------------------------------------------------------------------------------

def document(rng, depth=0):
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return None
    if kind == 1:
        return rng.choice([True, False])
    if kind == 2:
        return rng.randrange(-10**6, 10**6)
    if kind in (3, 4):
        return some_text(rng).replace("\x01", "?")
    if kind == 5:
        return [document(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {some_text(rng).replace("\x01", "?"): document(rng, depth + 1) for _ in range(rng.randrange(4))}


def json_text(rng):
    if rng.random() < 0.1:
        return '{"a":  1, "a": 2, "b": 1.0000}'            # json keeps it as it is
    return json.dumps(document(rng), ensure_ascii=rng.random() < 0.5)


def xml(rng):
    return f"<a b=\"{rng.randrange(99)}\">{rng.choice(['', ' ', 'x &amp; y', '<c/>', '<!-- d -->', '&#233;'])}</a>{rng.choice(['', 'tail'])}"


def bits(least, most):
    return lambda rng: "".join(rng.choice("01") for _ in range(rng.randrange(least, most + 1)))


def inet(rng):
    if rng.random() < 0.3:
        return rng.choice(["::1", "2001:db8::/32", "::ffff:1.2.3.4", "fe80::1/64"])
    return ".".join(str(rng.randrange(256)) for _ in range(4)) + rng.choice(["", "/8", "/31", "/0"])


def cidr(rng):
    return rng.choice([f"{rng.randrange(256)}.{rng.randrange(256)}.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0"])


def number(rng):
    return rng.choice(["0", "-0", "1", "1e300", "-1.5", "0.1", repr(rng.uniform(-1e6, 1e6))])


def point(rng):
    return f"({number(rng)},{number(rng)})"


def points(least, most, opened, closed):
    return lambda rng: opened + ",".join(point(rng) for _ in range(rng.randrange(least, most + 1))) + closed


def tsvector(rng):
    return " ".join(f"'{w}':{rng.randrange(1, 200)}{rng.choice('ABCD')}" for w in rng.sample(["cat", "dog", "a b", "o''x", "zoo"], rng.randrange(4)))


# --- ranges -----------------------------------------------------------------------------------------------------------

def ranges(bound):
    """bound(rng, n) is a text that grows with n."""
    def make(rng):
        low = rng.randrange(1000)
        high = low + rng.randrange(50)
        if rng.random() < 0.15:
            return rng.choice(["empty", "(,)"])
        left = rng.choice(["[", "("]) + ("" if rng.random() < 0.1 else f'"{bound(low)}"')
        return left + "," + ("" if rng.random() < 0.1 else f'"{bound(high)}"') + rng.choice(["]", ")"])
    return make


def multiranges(bound):
    def make(rng):
        start, parts = 0, []
        for _ in range(rng.randrange(4)):
            start += rng.randrange(5, 50)
            parts.append(f'["{bound(start)}","{bound(start + 3)}")')
        return "{" + ",".join(parts) + "}"
    return make


def day(n):
    return f"{2000 + n // 300:04d}-{n // 28 % 12 + 1:02d}-{n % 28 + 1:02d}"


# --- arrays, rows -----------------------------------------------------------------------------------------------------

def element(text):
    return "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array_of(type_, nulls=0.2, delimiter=","):
    def one(rng):
        return None if rng.random() < nulls else type_.text(rng)

    def make(rng):
        shape = rng.random()
        if shape < 0.15:
            return "{}"
        if shape < 0.7:
            return "{" + delimiter.join(element(one(rng)) for _ in range(rng.randrange(1, 6))) + "}"
        rows, columns = rng.randrange(1, 4), rng.randrange(1, 4)
        body = delimiter.join("{" + delimiter.join(element(one(rng)) for _ in range(columns)) + "}" for _ in range(rows))
        low = rng.randrange(-3, 3)
        bounds = f"[{low}:{low + rows - 1}][0:{columns - 1}]=" if shape > 0.85 else ""
        return f"{bounds}{{{body}}}"
    return Type(type_.sql + "[]", make, type_.user)


def row_of(sql, types):
    def field(rng, type_):
        if rng.random() < 0.2:
            return ""
        return '"' + type_.text(rng).replace("\\", "\\\\").replace('"', '""') + '"'
    return Type(sql, lambda rng: "(" + ",".join(field(rng, t) for t in types) + ")", True)


# --- the table --------------------------------------------------------------------------------------------------------

BASE = [
    Type("smallint", integers(16)), Type("integer", integers(32)), Type("bigint", integers(64)),
    Type("numeric", mostly(numeric, "NaN", "Infinity", "-Infinity", "0", "0.00", "1e-30", "0.00000000000000006938893903907228")),
    Type("numeric(20,5)", mostly(lambda rng: f"{rng.randrange(-10**12, 10**12)}.{rng.randrange(10**5):05d}", "NaN", "0")),
    Type("real", mostly(floats, "NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1.4e-45")),
    Type("double precision", mostly(floats, "NaN", "Infinity", "-Infinity", "-0", "1.7976931348623157e308", "5e-324", "-216237.00000035969")),
    Type("boolean", choice("t", "f")),
    Type("text", some_text), Type("text", long_text), Type("varchar(40)", limited(40)), Type("char(8)", limited(8)),
    Type('"char"', choice("a", "", "\\377", "\\001")), Type("name", limited(15)),
    Type("bytea", mostly(hexes(0, 40), "\\x", "\\x00", "\\x5c")), Type("bytea", hexes(0, 9000)),
    Type("date", mostly(date, "infinity", "-infinity", "4713-01-01 BC", "0001-01-01", "5874897-12-31")),
    Type("timestamp", mostly(timestamp, "infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999")),
    Type("timestamptz", mostly(lambda rng: timestamp(rng) + zone(rng), "infinity", "-infinity", "4713-01-02 00:00:00+00 BC")),
    Type("timestamp(3)", timestamp), Type("time", mostly(clock, "24:00:00", "00:00:00")),
    Type("timetz", mostly(lambda rng: clock(rng) + zone(rng), "24:00:00-15:59:59")),
    Type("interval", mostly(interval, "00:00:00", "-178000000 years", "-1 mons +1 day -00:00:00.000001")),
    Type("uuid", lambda rng: f"{rng.getrandbits(128):032x}"),
    Type("json", json_text), Type("jsonb", json_text), Type("xml", xml), Type("jsonpath", choice("$", "$.a[*] ? (@ > 1)", 'strict $."x y"')),
    Type("bit(9)", bits(9, 9)), Type("varbit", bits(0, 70)), Type("bit varying(12)", bits(0, 12)),
    Type("inet", inet), Type("cidr", cidr), Type("macaddr", lambda rng: rng.randbytes(6).hex()), Type("macaddr8", lambda rng: rng.randbytes(8).hex()),
    Type("point", point), Type("line", choice("{1,-1,0}", "{0.1,2,-3e10}")), Type("lseg", points(2, 2, "[", "]")), Type("box", points(2, 2, "", "")),
    Type("path", points(1, 4, "[", "]")), Type("path", points(1, 4, "(", ")")), Type("polygon", points(1, 5, "(", ")")),
    Type("circle", lambda rng: f"<{point(rng)},{rng.randrange(100)}.5>"),
    Type("tsvector", tsvector), Type("tsquery", choice("cat & dog", "!a | b:*", "'o''x' <-> zoo:AB", "")),
    Type("money", mostly(lambda rng: f"{rng.randrange(-10**6, 10**6)}.{rng.randrange(100):02d}", "-92233720368547758.08", "0")),
    Type("pg_lsn", lambda rng: f"{rng.getrandbits(32):X}/{rng.getrandbits(32):X}"), Type("oid", lambda rng: str(rng.getrandbits(32))),
    Type("xid8", lambda rng: str(rng.getrandbits(60))), Type("txid_snapshot", choice("10:20:10,14,15", "1:1:")),
    Type("tid", lambda rng: f"({rng.getrandbits(32)},{rng.getrandbits(16)})"), Type("cid", lambda rng: str(rng.getrandbits(32))),
    Type("int2vector", choice("", "1 2 3", "-5")), Type("oidvector", choice("", "1 20 4000000000")), Type("regtype", choice("integer", "text", "-")),
    Type("int4range", ranges(str)), Type("int8range", ranges(lambda n: str(n * 10**12))), Type("numrange", ranges(lambda n: f"{n}.50")),
    Type("daterange", ranges(day)), Type("tstzrange", ranges(lambda n: f"{day(n)} 00:00:00.000001+05:45")), Type("tsrange", ranges(day)),
    Type("int4multirange", multiranges(str)), Type("nummultirange", multiranges(lambda n: f"{n}.0")), Type("datemultirange", multiranges(day)),
]
EXTENSIONS = {
    "hstore": Type("public.hstore", mostly(lambda rng: ",".join(f"{element(some_text(rng))}=>{element(rng.choice([None, some_text(rng)]))}"
                                                                for _ in range(rng.randrange(4))), ""), True),
    "citext": Type("public.citext", some_text, True),
    "ltree": Type("public.ltree", lambda rng: ".".join(rng.choice(["a", "B", "top_1"]) for _ in range(rng.randrange(1, 5))), True),
}


def arrays(types):
    return [array_of(t, delimiter=";" if t.sql == "box" else ",") for t in types
            if t.sql not in ('"char"', "int2vector", "oidvector") and t.make not in (long_text,)]


# --- keys -------------------------------------------------------------------------------------------------------------

class KeyType:
    """A type whose nth value is an expression of SQL, so that rows can be named: {n} is a number or a column."""

    def __init__(self, sql, template, user=False):
        self.sql, self.template, self.user = sql, template, user

    def at(self, n):
        return self.template.replace("{n}", f"({n})")


KEYS = [
    KeyType("integer", "{n}"), KeyType("bigint", "9007199254740993::bigint + {n}"), KeyType("bigint", "{n}::bigint"), KeyType("smallint", "({n} % 32000)::smallint"),
    KeyType("text", "('k''\"\\ ' || {n})"), KeyType("varchar(30)", "('v{' || {n} || '}')"), KeyType('text collate "C"', "('\u00e4' || {n})"),
    KeyType("uuid", "md5({n}::text)::uuid"), KeyType("numeric", "round({n}::numeric / 4, 2 + {n} % 3)"), KeyType("numeric(12,2)", "{n}::numeric / 4"),
    KeyType("double precision", "{n}::float8 / 3"), KeyType("date", "(date '1999-12-31' + ({n})::int)"),
    KeyType("timestamptz", "(timestamptz '2000-01-01 00:00:00+00' + {n} * interval '1.000001 s')"),
    KeyType("timestamp", "(timestamp '0044-03-15 00:00:00 BC' + {n} * interval '1 day')"), KeyType("bytea", "decode(md5({n}::text), 'hex')"),
    KeyType("char(12)", "('c' || {n})::char(12)"), KeyType("inet", "(inet '10.0.0.0' + ({n})::bigint)"), KeyType("oid", "({n} + 3000000000)::oid"),
    KeyType("interval", "({n} * interval '1 hour')"), KeyType("bit(32)", "({n})::int::bit(32)"), KeyType("jsonb", "to_jsonb({n})"),
    KeyType("int4range", "int4range(({n})::int, ({n})::int + 5)"), KeyType("integer[]", "array[({n})::int, -({n})::int]"),
    KeyType("name", "('n' || {n})::name"), KeyType("public.citext", "('C' || {n})::public.citext", True),
]
