"""Random transactions. Their statements depend only on the rng and on the schema's model, never on what is in the tables: so a
seed gives the same statements again, whatever the interleaving made of them. Some fail (a unique value is taken, a lock isn't
given): that is part of it."""
from .values import long_text, name

MOST_WIDE = 150         # rows at once where values are long


class Block:
    """A savepoint around items; it ends by RELEASE or ROLLBACK TO."""

    def __init__(self, items, rollback):
        self.items, self.rollback = items, rollback


class Copy:
    def __init__(self, sql, data):
        self.sql, self.data = sql, data


class Transaction:
    def __init__(self, items, ending="commit", begin="begin", gid=None):
        self.items, self.ending, self.begin, self.gid = items, ending, begin, gid


class Single:
    """A statement outside transactions: what must be (COMMIT PREPARED), or may (autocommit)."""

    def __init__(self, sql):
        self.sql = sql


def values_for(rng, t, n):
    """Column names and expressions for a new row n."""
    found = dict(t.key_at(n))
    for c in t.columns:
        kind = rng.random()
        if c.default and kind < 0.3:
            found[c.column] = "default"
        elif kind < 0.15 and not c.not_null:
            found[c.column] = "null"
        else:
            found[c.column] = c.type.literal(rng)
    found.update(special(rng, t, n))
    return found


def special(rng, t, n):
    """Values under constraints."""
    found = {u: rng.choice(["null", str(rng.randrange(2 * t.pool))]) for u in t.unique}
    if t.position:
        found[t.position] = rng.choice(["null", str(rng.randrange(5 * t.pool))])
    if t.during:
        low = rng.randrange(10 * t.pool)
        found[t.during] = f"int4range({low}, {low + rng.randrange(1, 9)})"
    if t.parent:
        found["ref"] = "null" if rng.random() < 0.3 else t.parent.key_at(rng.randrange(t.parent.pool))[0][1]
    return found


def row_number(rng, t):
    """Small tables are fought for."""
    return rng.randrange(t.pool) if rng.random() < 0.9 else rng.randrange(100000, 200000)


def some(rng, t, most=5):
    """A condition that holds for some rows, whatever they are."""
    return f"(tableoid, ctid) in (select tableoid, ctid from {t.sql} order by md5(ctid::text || '{rng.randrange(10**6)}') limit {rng.randrange(1, most + 1)})"


def condition(rng, t, many=False):
    if many and rng.random() < 0.5:
        return some(rng, t, 500)
    if t.keys and rng.random() < 0.75:
        numbers = [row_number(rng, t) for _ in range(rng.choice([1, 1, 1, 2, 6]))]
        return " or ".join(f"({t.where(n)})" for n in numbers)
    return some(rng, t)


def insert_sql(rng, t, rows, more=""):
    columns = [c for c in rows[0] if rng.random() < 0.97 or c in t.required()]
    rng.shuffle(columns)
    if not columns:
        return f"insert into {t.sql} default values"
    body = ", ".join("(" + ", ".join(row[c] for c in columns) + ")" for row in rows)
    return f"insert into {t.sql} ({', '.join(map(name, columns))}) values {body}{more}"


def insert(rng, t):
    rows = [values_for(rng, t, row_number(rng, t)) for _ in range(rng.choice([1, 1, 1, 2, 5, 20]))]
    conflict = " on conflict do nothing" if rng.random() < 0.6 and not t.position else ""
    return insert_sql(rng, t, rows, conflict)


def upsert(rng, t):
    if not t.keys or not t.identity_is_primary:
        return insert(rng, t)
    sets = settings(rng, t)
    number = row_number(rng, t)
    action = f"do update set {sets}" if sets else "do nothing"
    return insert_sql(rng, t, [values_for(rng, t, number)], f" on conflict ({t.key_sql()}) {action}")


def case_of(rng, column, wide):
    """An expression with g that gives several values."""
    if column.type.make is long_text and not wide:
        return "'x' || g"
    branches = " ".join(f"when {i} then {column.type.literal(rng)}" for i in range(rng.randrange(1, 4)))
    last = column.type.literal(rng) if column.not_null else "null"
    return f"case g % 5 {branches} else {last} end"


def insert_many(rng, t, most=400):
    wide = rng.random() < 0.3
    count = rng.randrange(5, min(most, MOST_WIDE) if wide else most)
    start = rng.choice([rng.randrange(t.pool), rng.randrange(10**6, 2 * 10**6)])
    found = dict(t.key_at("g"))
    found.update({c.column: case_of(rng, c, wide) for c in t.columns if rng.random() < 0.9 or c.not_null})
    found.update({u: f"nullif(g + {rng.randrange(10**6)}, 0)" for u in t.unique if rng.random() < 0.5})
    if t.position:
        found[t.position] = f"g + {rng.randrange(10**6)}"
    if t.during:
        found[t.during] = "int4range((g * 10)::int, (g * 10)::int + 5)"
    if not found:
        return insert(rng, t)
    return f"insert into {t.sql} ({', '.join(map(name, found))}) select {', '.join(found.values())} " \
           f"from generate_series({start}, {start + count}) g" + (" on conflict do nothing" if not t.position else "")


def settings(rng, t, touch=False):
    """What an UPDATE sets; may be nothing."""
    found = []
    for c in t.columns:
        if rng.random() < 0.4:
            value = c.sql if touch else "null" if rng.random() < 0.15 and not c.not_null else c.type.literal(rng)
            found.append(f"{c.sql} = {t.sql_of(value, c)}")
    if not touch:
        found += [f"{name(c)} = {e}" for c, e in special(rng, t, 0).items() if rng.random() < 0.4]
    elif t.keys:
        found.append(f"{name(t.keys[0][0])} = {t.table_column(t.keys[0][0])}")
    return ", ".join(found)


def update(rng, t):
    sets = settings(rng, t, touch=rng.random() < 0.1)
    if not sets or not t.updatable:
        return insert(rng, t)
    return f"update {only(rng, t)}{t.sql} set {sets} where {condition(rng, t)}"


def only(rng, t):
    return "only " if t.children and rng.random() < 0.3 else ""


def update_key(rng, t):
    if not t.keys or not t.updatable:
        return insert(rng, t)
    new = t.key_at(row_number(rng, t))
    if rng.random() < 0.5:
        new = [rng.choice(new)]
    sets = [f"{name(c)} = {e}" for c, e in new]
    more = settings(rng, t) if rng.random() < 0.3 else ""
    return f"update {t.sql} set {', '.join(sets + ([more] if more else []))} where {t.where(row_number(rng, t))}"


def shift(rng, t):
    """All rows of a deferrable unique column move by one."""
    if not t.position or not t.updatable:
        return update(rng, t)
    return f"update {t.sql} set pos = pos + {rng.choice([1, -1, 7])}" + (f" where pos < {rng.randrange(5 * t.pool)}" if rng.random() < 0.5 else "")


def swap(rng, t):
    """A unique value goes to another row, or two rows exchange theirs."""
    if not t.unique or not t.keys or not t.updatable:
        return update_key(rng, t)
    u = name(t.unique[0])
    a, b = row_number(rng, t), row_number(rng, t)
    x, y = rng.randrange(2 * t.pool), rng.randrange(2 * t.pool)
    return Block([f"update {t.sql} set {u} = null where {t.where(a)} or {u} in ({x}, {y})",
                  f"update {t.sql} set {u} = {x} where {t.where(b)}",
                  f"update {t.sql} set {u} = {y} where {t.where(a)}"], False)


def replace(rng, t):
    """A row goes and comes again, in another state."""
    if not t.keys or not t.updatable:
        return insert(rng, t)
    n = row_number(rng, t)
    return Block([f"delete from {t.sql} where {t.where(n)}", insert_sql(rng, t, [values_for(rng, t, n)])], False)


def delete(rng, t):
    if not t.updatable:
        return insert(rng, t)
    return f"delete from {only(rng, t)}{t.sql} where {condition(rng, t)}"


def copy(rng, t):
    """COPY writes many rows in one record of the WAL."""
    if t.keys and not all(k.sql in ("integer", "bigint") and k.template == "{n}" and n == "{n}" for _, k, n in t.keys):
        return insert_many(rng, t)
    lines = []
    columns = [c for c, _, _ in t.keys] + [c.column for c in t.columns]
    if not columns or t.during or t.always:
        return insert(rng, t)
    start = rng.choice([rng.randrange(t.pool), rng.randrange(10**6, 2 * 10**6)])
    for i in range(rng.randrange(1, 60)):
        row = [str(start + i) for _ in t.keys]
        row += ["\\N" if rng.random() < 0.15 and not c.not_null else escape(c.type.text(rng)) for c in t.columns]
        lines.append("\t".join(row) + "\n")
    return Copy(f"copy {t.sql} ({', '.join(map(name, columns))}) from stdin", "".join(lines))


def escape(text):
    for a, b in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(a, b)
    return text


def truncate(rng, t, schema):
    tables = {t.sql} | {rng.choice(schema.tables).sql for _ in range(rng.choice([0, 0, 1, 3]))}
    referenced = any(other.parent and other.parent.sql in tables for other in schema.tables)
    cascade = " cascade" if referenced or rng.random() < 0.5 else ""
    return f"truncate {', '.join(sorted(tables))}{rng.choice([' restart identity', ''])}{cascade}"


def message(rng):
    return f"select pg_logical_emit_message({rng.choice(['true', 'false'])}, 'workload', repeat('m', {rng.choice([0, 1, 100, 10000])}))"


def aside(rng):
    """What isn't published."""
    return rng.choice([
        "create temp table if not exists aside (a integer, b text) on commit drop",
        "select pg_sleep(0.01)", "select pg_advisory_xact_lock(7)",
        f"select txid_current(), {rng.randrange(100)}"])


MAKERS = [(insert, 20), (insert_many, 5), (update, 22), (delete, 8), (upsert, 8), (update_key, 8), (swap, 5), (replace, 5), (shift, 3), (copy, 4)]


def statement(rng, schema):
    kind = rng.random()
    t = rng.choice(schema.tables)
    if kind < 0.02:
        return message(rng)
    if kind < 0.04:
        return aside(rng)
    if kind < 0.055:
        return truncate(rng, t, schema)
    maker = rng.choices([m for m, _ in MAKERS], [w for _, w in MAKERS])[0]
    return maker(rng, t)


def items(rng, schema, count, depth=0):
    found = []
    while count > 0:
        if depth < 3 and rng.random() < 0.25:
            inside = rng.randrange(1, 5)
            found.append(Block(items(rng, schema, inside, depth + 1), rng.random() < 0.4))
            count -= inside
        else:
            found.append(Block([statement(rng, schema)], False) if rng.random() < 0.5 else statement(rng, schema))
            count -= 1
    return found


def big(rng, schema):
    """Thousands of changes: streamed before it commits, spilled to the spool."""
    t = rng.choice([t for t in schema.tables if not t.during] or schema.tables)
    found = [Block([insert_many(rng, t, rng.choice([1500, 3000, 5000]))], False)]
    if t.updatable:
        found.append(Block([f"update {t.sql} set {settings(rng, t) or name(t.all_columns()[0]) + ' = ' + name(t.all_columns()[0])} "
                            f"where {some(rng, t, 2000)}"], rng.random() < 0.3))
        found.append(Block([f"delete from {t.sql} where {some(rng, t, 3000)}"], rng.random() < 0.3))
    found += items(rng, schema, 2)
    rng.shuffle(found)
    return found


def transaction(rng, schema, gid):
    """One transaction; gid names it when it is prepared."""
    size = rng.choice([1, 1, 1, 2, 3, 5, 10, 25])
    body = big(rng, schema) if rng.random() < 0.05 else items(rng, schema, size)
    begin = rng.choice(["begin"] * 6 + ["begin isolation level repeatable read", "begin isolation level serializable"])
    kind = rng.random()
    if kind < 0.08:
        return Transaction(body, "rollback", begin)
    if kind < 0.16:
        return Transaction(body, "prepare", begin, gid)
    return Transaction(body, "commit", begin)
