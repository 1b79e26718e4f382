"""Both sides hold the same, to the bit: every row of every table as text under pinned settings and, where a type's binary form
has no OIDs of this server in it, as binary. The servers compute; only what differs is fetched."""
from .values import name

PINNED = "set timezone = 'UTC'; set extra_float_digits = 3; set bytea_output = hex; set intervalstyle = postgres; " \
         "set datestyle = 'ISO, YMD'; set xmloption = content; set lc_monetary = 'C'; set statement_timeout = 0; " \
         "set search_path = pg_catalog; set quote_all_identifiers = off"
TABLES = r"""select n.nspname, c.relname, array_agg(a.attname order by a.attname), array_agg(format_type(a.atttypid, a.atttypmod) order by a.attname),
        array_agg(case when t.typsend::oid <> 0 and not exists (select from has_oids h where h.oid = t.oid) then t.typsend::text end order by a.attname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'keybridge')
    group by 1, 2 order by 1, 2"""
# Arrays and rows name their elements' types by OID, and so do ranges of such; those of the server's own are the same everywhere.
HAS_OIDS = """with recursive has_oids (oid) as (
        select oid from pg_type where typtype = 'c' or (typelem >= 16384 and typlen = -1)
        union select t.oid from has_oids h join pg_type t on t.typbasetype = h.oid or (t.typelem = h.oid and t.typlen = -1)
            or t.oid in (select r.rngtypid from pg_range r where r.rngsubtype = h.oid)) """


class Table:
    def __init__(self, schema, table, columns, types, sends):
        self.sql = f"{name(schema)}.{name(table)}"
        self.columns, self.types, self.sends = columns, types, sends

    def row(self, binary):
        """A row as one text in which nothing is ambiguous."""
        parts = []
        for column, send in zip(self.columns, self.sends):
            parts.append(f"coalesce(quote_literal({name(column)}::text), 'null')")
            if binary and send:
                parts.append(f"coalesce(encode({send}({name(column)}), 'hex'), '-')")
        return " || '|' || ".join(parts) if parts else "''"


def tables(cur):
    cur.execute(HAS_OIDS + TABLES)
    return [Table(*row) for row in cur.fetchall()]


def digest(cur, table):
    cur.execute(f"select count(*), md5(string_agg(h, '' order by h)) from (select md5({table.row(True)}) h from only {table.sql}) x")
    return cur.fetchone()


def rows(cur, table):
    cur.execute(f"select {table.row(True)} from only {table.sql}")
    return [r[0] for r in cur.fetchall()]


def first_difference(mine, theirs):
    """Rows that only one side has, some of them."""
    counts = {}
    for row in mine:
        counts[row] = counts.get(row, 0) + 1
    for row in theirs:
        counts[row] = counts.get(row, 0) - 1
    only_source = [r[:1500] for r, n in counts.items() if n > 0]
    only_target = [r[:1500] for r, n in counts.items() if n < 0]
    text = f"{len(only_source)} only on the source, {len(only_target)} only on the target"
    for side, found in (("source", only_source), ("target", only_target)):
        text += "".join(f"\n    {side}: {r}" for r in sorted(found)[:5])
    return text


def differences(source, target):
    """In words, one for each table that differs. Two connections in autocommit."""
    found = []
    for con in (source, target):
        con.set_client_encoding("UTF8")
    with source.cursor() as a, target.cursor() as b:
        for cur in (a, b):
            cur.execute(PINNED)
        mine, theirs = ({t.sql: t for t in tables(cur)} for cur in (a, b))
        for sql in sorted(set(mine) ^ set(theirs)):
            found.append(f"table {sql} is only on the {'source' if sql in mine else 'target'}")
        for sql in sorted(set(mine) & set(theirs)):
            left, right = mine[sql], theirs[sql]
            if (left.columns, left.types) != (right.columns, right.types):
                found.append(f"{sql}: columns are {list(zip(left.columns, left.types))} and {list(zip(right.columns, right.types))}")
                continue
            one, other = digest(a, left), digest(b, right)
            if one != other:
                found.append(f"{sql}: {one[0]} rows and {other[0]}: {first_difference(rows(a, left), rows(b, right))}")
    return found
