"""The values that tests carry through the stream: for every type of the server some that are at its edges.

BUILT_IN has an entry for every type in pg_type that a column can have; test_values.py fails when the server knows one
that isn't here. A value is the text that the type's input function takes. OWN are types that the tests make themselves.
"""
from psycopg2.extensions import AsIs

# No column can be filled: the server refuses every input, binary or text.
NO_INPUT = {"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin_bloom_summary",
            "pg_brin_minmax_multi_summary", "gtsvector"}

LONG = "långer tëxt ünd 日本 😀 " * 300

BUILT_IN = {
    "bool": ["t", "f"],
    "bytea": ["", r"\x00", r"\x0102ff7f80", r"\x5c5c27", r"\x" + "deadbeef00" * 300],
    "char": ["a", "", "'", "\\", "\t", "~"],
    "name": ["", "a", "Ünïcode \"q\" 'q' \\", "x" * 63],
    "int8": ["0", "-1", "2000001", "9223372036854775807", "-9223372036854775808"],
    "int2": ["0", "-1", "32767", "-32768"],
    "int2vector": ["", "1", "1 2 -32768 32767"],
    "int4": ["0", "-1", "2000001", "2147483647", "-2147483648"],
    "text": ["", "null", "NULL", "\\N", "\\.", "'", "\"", "\\", "a\tb\nc\rd\x0b\x08\x0c\x01\x7f", "{a,\"b\"}", "  blanks  ",
             "é日本😀", "e\u0301", "$1 %s {}", LONG],
    "oid": ["0", "1", "16384", "4294967295"],
    "tid": ["(0,0)", "(0,1)", "(4294967295,65535)"],
    "xid": ["0", "3", "4294967295"],
    "cid": ["0", "7", "4294967295"],
    "oidvector": ["", "26", "0 1 4294967295"],
    "json": ["null", "{}", "[]", '{"b": 1,  "a":\t2, "a": 3}', '"\\u0000 and \\ud83d\\ude00"', "1.0", "1e400", '"é"', "  [1 , 2]  ",
             '{"a": "' + "x" * 3000 + '"}'],
    "xml": ["<a/>", "plain text", "<a b='c'>&lt;é</a><b/>", "<![CDATA[ ]] ]]>"],
    "xid8": ["0", "18446744073709551615", "4294967296"],
    "point": ["(0,0)", "(-0,0)", "(1e308,-4.9e-324)", "(Infinity,-Infinity)", "(NaN,1)", "(0.1,0.30000000000000004)"],
    "lseg": ["[(0,0),(1,1)]", "[(0.1,-0),(1e-300,1e300)]"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1),(2,0.30000000000000004))", "[(1,2)]"],
    "box": ["(1,1),(0,0)", "(0.30000000000000004,1e308),(-1,-0)"],
    "polygon": ["((0,0),(1,1),(2,0.1))", "((1,1))"],
    "line": ["{1,-1,0}", "{0.1,0.2,0.30000000000000004}"],
    "float4": ["0", "-0", "1.5", "3.4028235e38", "-3.4028235e38", "1.4e-45", "1.17549435e-38", "0.1", "16777217", "NaN",
               "Infinity", "-Infinity"],
    "float8": ["0", "-0", "1.5", "1.7976931348623157e308", "-1.7976931348623157e308", "4.9e-324", "2.2250738585072014e-308",
               "0.1", "0.30000000000000004", "-216237.00000035969", "5.99", "9007199254740993", "0.611111104488373", "NaN",
               "Infinity", "-Infinity"],
    "circle": ["<(0,0),0>", "<(0.1,-0),1e308>", "<(1,2),0.30000000000000004>"],
    "money": ["0", "0.01", "-0.01", "92233720368547758.07", "-92233720368547758.08", "1234567.89"],
    "macaddr": ["00:00:00:00:00:00", "08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
    "inet": ["0.0.0.0", "192.168.1.5/24", "192.168.1.5/32", "0.0.0.0/0", "::", "::1/128", "2001:db8::ff:1/64", "::ffff:1.2.3.4"],
    "cidr": ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.5/32", "2001:db8::/32", "::/0"],
    "macaddr8": ["00:00:00:00:00:00:00:00", "08:00:2b:01:02:03:04:05", "ff:ff:ff:ff:ff:ff:ff:ff"],
    "aclitem": ["postgres=r/postgres", "=arwdDxt/postgres", "postgres=r*w*/postgres"],
    "bpchar": ["", "a", "a  ", "é'\"\\", "x" * 3000],
    "varchar": ["", "null", "a", "a  ", "é'\"\\", "x" * 3000],
    "date": ["infinity", "-infinity", "2000-01-01", "1970-01-01", "4713-01-01 BC", "0001-12-31 BC", "5874897-12-31", "12345-06-07",
             "2024-02-29"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.000001"],
    "timestamp": ["infinity", "-infinity", "2000-01-01 00:00:00", "4714-11-24 00:00:00 BC", "0044-03-15 12:00:00.000001 BC",
                  "294276-12-31 23:59:59.999999", "12345-06-07 08:09:10.111213", "2024-03-31 02:30:00"],
    "timestamptz": ["infinity", "-infinity", "2000-01-01 00:00:00+00", "4714-11-24 00:00:00+00 BC",
                    "0044-03-15 12:00:00.000001+05:53:28 BC", "294276-12-31 23:59:59.999999+00",
                    "12345-06-07 08:09:10.111213-03:30", "2024-10-27 02:30:00+02", "2024-10-27 02:30:00+01"],
    "interval": ["0", "1 year 2 mons 3 days 04:05:06.000007", "-1 year +2 days -03:04:05.000006", "1 mon -1 day", "1 day -00:00:01",
                 "-1 mons +1 day -00:00:00.000001", "178000000 years", "-178000000 years", "24:00:00", "2147483647:59:59.999999",
                 "100 days", "-1 day +24:00:00"],
    "timetz": ["00:00:00+00", "24:00:00+15:59:59", "23:59:59.999999-15:59:59", "12:34:56.000001+05:45", "01:02:03-00:44:30"],
    "bit": ["0", "1"],
    "varbit": ["", "1", "000000001", "101010101010101010101", "1" * 1000],
    "numeric": ["0", "0.000", "-0.1", "1.0", "1.00", "1e10", "12345678901234567890.12345678901234567890", "1e-400",
                "0.00000000000000006938893903907228", "0.611111104488373", "NaN", "Infinity", "-Infinity",
                "9" * 1000 + "." + "9" * 1000, "0." + "0" * 5000 + "1", "100000", "-10000.0001"],
    "refcursor": ["", "c", "é \"x\""],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"],
    "tsvector": ["", "'a'", "'a':1A,2B,16383 'b c':3 'it''s' '\\\\x':4C", "'é' '日本':5D"],
    "tsquery": ["", "'a'", "'a' & ('b':*A | !'c d') <-> 'e'", "!'it''s' <3> 'x':AB"],
    "jsonb": ["null", "{}", "[]", '{"b": 1, "a": 2}', "1.0", "1.00", "-0", "1e300", '"\\ud83d\\ude00 é"', '{"a": [1, {"b": null}]}',
              '{"a": "' + "x" * 3000 + '"}'],
    "jsonpath": ["$", '$.a[*] ? (@.b > 1 && @.c like_regex "^x" flag "i")', "strict $.\"a b\"[1 to last]"],
    "txid_snapshot": ["10:20:10,14,15", "1:1:"],
    "pg_snapshot": ["10:20:10,14,15", "1:1:", "4294967297:4294967299:4294967298"],
    "int4range": ["empty", "(,)", "[1,2)", "[-2147483648,2147483647)", "(,5)", "[5,)"],
    "numrange": ["empty", "(,)", "[1.0,1.00]", "(-1.50,2.500]", "[NaN,)", "[-Infinity,Infinity]"],
    "tsrange": ["empty", "(,)", "[-infinity,infinity]", "(0044-03-15 BC,294276-12-31 23:59:59.999999]"],
    "tstzrange": ["empty", "(,)", "[-infinity,infinity]", "(0044-03-15 00:00:00+00 BC,12345-01-01 00:00:00+03]"],
    "daterange": ["empty", "(,)", "[-infinity,infinity]", "[4713-01-01 BC,5874897-12-30)", "[infinity,)"],
    "int8range": ["empty", "(,)", "[-9223372036854775808,9223372036854775807)"],
    "int4multirange": ["{}", "{[1,2)}", "{(,1),[3,5),[7,)}"],
    "nummultirange": ["{}", "{[1.0,1.50],(2.00,3]}", "{(,)}"],
    "tsmultirange": ["{}", "{[-infinity,2000-01-01),[2001-01-01,infinity]}"],
    "tstzmultirange": ["{}", "{[2000-01-01 00:00:00+00,2001-01-01 00:00:00.000001+00)}"],
    "datemultirange": ["{}", "{[2000-01-01,2001-01-01),[2002-01-01,)}"],
    "int8multirange": ["{}", "{[1,2),[9223372036854775806,)}"],
    # by their names, see REG
    "regproc": ["-", "now", "pg_catalog.textin", "99999999"],
    "regprocedure": ["-", "textin(cstring)", "lower(text)", "99999999"],
    "regoper": ["0", "||/", "99999999"],
    "regoperator": ["0", "=(integer,integer)", "-(NONE,integer)", "99999999"],
    "regclass": ["-", "pg_class", "public.\"a \"\"table\"", "99999999"],
    "regtype": ["-", "integer", "timestamp with time zone", "public.mood", "odd.mood[]", "99999999"],
    "regrole": ["-", "postgres", "99999999"],
    "regnamespace": ["-", "pg_catalog", "public", "odd", "99999999"],
    "regcollation": ["-", "\"C\"", "99999999"],
    "regconfig": ["0", "simple", "99999999"],
    "regdictionary": ["0", "simple", "99999999"],
    # of the information schema
    "cardinal_number": ["0", "2147483647"],
    "character_data": ["", "é"],
    "sql_identifier": ["", "pg_class"],
    "time_stamp": ["2024-01-02 03:04:05.12+00"],
    "yes_or_no": ["YES", "NO"],
}

# Their binary form is the oid of an object, which is another one's on another server: they travel as names, in text.
REG = {t for t in BUILT_IN if t.startswith("reg")}
# What the two databases are given first. Names look alike on purpose.
OWN_SQL = r"""
create extension hstore; create extension citext; create extension ltree; create extension cube; create extension isn;
create extension seg;
create schema odd;
create type mood as enum ('sad', 'ok', 'it''s "fine"', 'a,b', 'ha\ppy', 'NULL');
create type odd.mood as enum ('ok', 'sad', 'NULL');
create type odd."text" as enum ('x', 'y');
create domain positive as int check (value > 0);
create domain very_positive as positive check (value > 10);
create domain exact as numeric(20, 6);
create domain tags as text[] check (array_ndims(value) is distinct from 3);
create domain "Odd ""d" as odd.mood;
create type pt as (x float8, "Y y" text, z numeric);
create type dropped as (a int, gone text, b text, c bytea);
alter type dropped drop attribute gone;
create type nested as (p pt, ps pt[], m odd.mood, d very_positive, dr dropped);
create domain pt_domain as pt;
create type float_range as range (subtype = float8, subtype_diff = float8mi);
create type text_range as range (subtype = text, collation = "C");
create type pt_range as range (subtype = pt);
create domain range_domain as float_range;
create type big; -- as an extension's: fixed length, its own functions
create function big_in(cstring) returns big immutable strict language internal as 'int8in';
create function big_out(big) returns cstring immutable strict language internal as 'int8out';
create function big_recv(internal) returns big immutable strict language internal as 'int8recv';
create function big_send(big) returns bytea immutable strict language internal as 'int8send';
create type big (input = big_in, output = big_out, receive = big_recv, send = big_send, internallength = 8, passedbyvalue, alignment = double);
create type plain; -- of any length, and without a binary form
create function plain_in(cstring) returns plain immutable strict language internal as 'textin';
create function plain_out(plain) returns cstring immutable strict language internal as 'textout';
create type plain (input = plain_in, output = plain_out, internallength = variable, storage = extended);
create table "a ""table" (id int primary key);
"""

OWN = {
    "mood": ["sad", "ok", "it's \"fine\"", "a,b", "ha\\ppy", "NULL"],
    "odd.mood": ["ok", "sad", "NULL"],
    "odd.text": ["x", "y"],
    "positive": ["1", "2147483647"],
    "very_positive": ["11", "2147483647"],
    "exact": ["1.000000", "-99999999999999.999999", "NaN"],
    "tags": ["{}", "{a,NULL,\"NULL\",\"\"}", "[0:1]={1,2}", "{{a,b},{c,\"d\\\"e\\\\\"}}"],
    "tags[]": ["{}", r'{"{}","{a,NULL,\"NULL\",\"\"}",NULL}', r'[0:0]={"[0:1]={1,2}"}'],
    '"Odd ""d"': ["ok", "sad"],
    "pt": ["(,,)", "(-0,\"\",1.00)", "(NaN,\"a,\"\"b\"\"\\\\ (c)\",NaN)", "(1e308,NULL,1e-30)", "(0.30000000000000004,é,0)"],
    "dropped": ["(,,)", "(1,\"a,b\",\"\\\\x0001\")"],
    "nested": ["(,,,,)", AsIs("""row(row(1, 'a,b', 1.0)::pt, array[row(-0.0::float8, '"x y"\\', 2)::pt, null], 'sad'::odd.mood, 12,
               row(1, 'b', '\\x00')::dropped)""")],
    "pt_domain": ["(1,a,1.0)", "(,,)"],
    "float_range": ["empty", "(,)", "[-0,0.30000000000000004]", "(-Infinity,Infinity)"],
    "text_range": ["empty", "(,)", "[\"a,b\",\"c\"\"d\"]", "[\"\",a)"],
    "pt_range": ["empty", "[\"(1,a,1.0)\",\"(2,b,2.00)\"]"],
    "range_domain": ["[0,1]", "empty"],
    "big": ["0", "-9223372036854775808", "9223372036854775807"],
    "plain": ["", "null", "a'b\"c\\d,{}\t\n", "x" * 3000],
    "hstore": ["", "a=>1", "a=>NULL, b=>\"NULL\", \"c d\"=>\"\", \"e\\\"\"=>\"f\\\\\""],
    "citext": ["", "Abc", "ABC", "null", "É"],
    "ltree": ["", "Top.Science.Astronomy", "a.b_c.D"],
    "lquery": ["Top.*{1,2}.!a|b%@*", "*"],
    "ltxtquery": ["Europe & Russia*@ & !Transportation"],
    "cube": ["(0)", "(1,2,3),(-4,5,6)", "(0.1,-0,1e308)"],
    "seg": ["1", "1.0", "~5.0", "1.5 .. 2.3", ">3", "<0.10", "1 .."],
    "isbn13": ["978-0-11-000533-1", "979-10-90636-07-1", "978-0-11-000533-4!"],
    "isbn": ["0-11-000533-3"],
    "issn": ["1436-4522"],
    "ean13": ["0-12-345678901-2", "978-0-393-04002-9"],
    "upc": ["220356483481"],
    # with modifiers
    "numeric(10,3)": ["1.000", "-9999999.999", "0.001", "NaN"],
    "varchar(5)": ["", "ab   ", "éé日本😀"],
    "char(5)": ["", "ab", "éé日本😀"],
    "bit(9)": ["000000001", "100000000", "111111111"],
    "varbit(17)": ["", "1", "10000000000000001"],
    "timestamp(3)": ["2024-01-01 00:00:00.123", "infinity"],
    "time(0)": ["24:00:00", "00:00:01"],
    "interval day to second(2)": ["1 day 00:00:00.12", "-00:00:00.01"],
}

def array_texts(values):
    """Array expressions over the parameters of one type's values, as SQL with %s and the list of parameters."""
    one = values[0]
    return [("array[]::{t}[]", []),
            ("array[" + ", ".join(["%s::{t}"] * len(values)) + ", null]", list(values)),
            ("array[null, null]::{t}[]", []),
            ("array_fill(%s::{t}, array[2, 3], array[-1, 7])", [one]),
            ("array[array[%s::{t}, null], array[%s::{t}, %s::{t}]]", [values[-1], one, values[len(values) // 2]])]
