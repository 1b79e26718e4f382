"""Random changes of the schema. Each is statements for the server, made together with the change of the model that says what
writers may use from then on; a change that isn't possible is None."""
from .schema import Column, Table
from .values import KEYS, name, quote


class Change:
    def __init__(self, statements, done):
        self.statements, self.done = statements, done


def free_column(t, number):
    taken = {c.column for c in t.columns}
    return next(c for c in (f"new {number}", f'n"{number}', f"n{number}x") if c not in taken)


def add_column(rng, schema, number):
    t = rng.choice(schema.tables)
    type_ = rng.choice(schema.types)
    column = Column(free_column(t, number), type_)
    kind = rng.random()
    if kind < 0.4:
        column.default = type_.literal(rng)             # the rows that are there get it without being written
        column.not_null = kind < 0.2
    return Change([f"alter table {t.sql} add column {column.definition()}"], lambda: t.columns.append(column))


def loose(t):
    """Columns that nothing else is made of."""
    return [c for c in t.columns if not c.pinned]


def drop_column(rng, schema, _):
    t = rng.choice(schema.tables)
    if not loose(t):
        return None
    column = rng.choice(loose(t))
    return Change([f"alter table {t.sql} drop column {column.sql}"], lambda: t.columns.remove(column))


def rename_column(rng, schema, number):
    t = rng.choice(schema.tables)
    if not loose(t):
        return None
    column = rng.choice(loose(t))
    new = free_column(t, number)

    def done():
        column.column = new
    return Change([f"alter table {t.sql} rename column {column.sql} to {name(new)}"], done)


def swap_names(rng, schema, number):
    """Two columns exchange their names: values that go by position or by an old name end up in the other."""
    tables = [t for t in schema.tables if len(loose(t)) > 1]
    if not tables:
        return None
    t = rng.choice(tables)
    a, b = rng.sample(loose(t), 2)
    spare = name(f"swap {number}")

    def done():
        a.column, b.column = b.column, a.column
    return Change([f"alter table {t.sql} rename column {a.sql} to {spare}", f"alter table {t.sql} rename column {b.sql} to {a.sql}",
                   f"alter table {t.sql} rename column {spare} to {b.sql}"], done)


def rename_table(rng, schema, number):
    t = rng.choice(schema.tables)
    new = f"Renamed {number}"

    def done():
        t.table = new
    return Change([f"alter table {t.sql} rename to {name(new)}"], done)


def create_table(rng, schema, number):
    t = Table("public", f"late {number}")
    t.keys = [("id", KEYS[0], "{n}")]
    t.identity_is_primary = True
    t.columns = [Column(f"c{i}", rng.choice(schema.types)) for i in range(rng.randrange(4))]
    definitions = ["id integer primary key"] + [c.definition() for c in t.columns]
    return Change([f"create table {t.sql} ({', '.join(definitions)})"], lambda: schema.tables.append(t))


def drop_table(rng, schema, _):
    free = [t for t in schema.tables if not t.children and not any(o.parent is t for o in schema.tables)]
    if len(schema.tables) < 2 or not free:
        return None
    t = rng.choice(free)
    return Change([f"drop table {t.sql}"], lambda: schema.tables.remove(t))


def create_index(rng, schema, number):
    t = rng.choice(schema.tables)
    if not t.keys:
        return None
    return Change([f"create {rng.choice(['', 'unique '])}index {name(f'late {number}')} on {t.sql} ({t.key_sql()})"], lambda: None)


def add_label(rng, schema, number):
    mood = getattr(schema, "mood", None)
    if not mood:
        return None
    label = f"late {number}"
    where = rng.choice(["", f" before {quote(mood.labels[0])}"])

    def done():
        mood.labels.append(label)
    return Change([f"alter type {mood.sql} add value {quote(label)}{where}"], done)


def identity(rng, schema, _):
    tables = [t for t in schema.tables if t.identity_is_primary and not t.leaves and not t.children]
    if not tables:
        return None
    t = rng.choice(tables)
    new = "default" if t.identity == "full" else "full"

    def done():
        t.identity = new
    return Change([f"alter table {t.sql} replica identity {new}"], done)


def attach_partition(rng, schema, number):
    """A table with rows becomes a partition: of lists only, whose default must not have them."""
    tables = [t for t in schema.tables if t.by == "list"]
    if not tables:
        return None
    t = rng.choice(tables)
    leaf = f"{t.table}_p{number}"
    value = 100 + number

    def done():
        t.leaves.append(leaf)
    statements = [f"create table {name(t.schema)}.{name(leaf)} partition of {t.sql} for values in ({value})"]
    if t.identity == "full":
        statements.append(f"alter table {name(t.schema)}.{name(leaf)} replica identity full")
    return Change(statements, done)


MAKERS = [(add_column, 5), (drop_column, 3), (rename_column, 3), (swap_names, 2), (rename_table, 2), (create_table, 3), (drop_table, 1),
          (create_index, 1), (add_label, 2), (identity, 2), (attach_partition, 1)]


def change(rng, schema, number):
    """One that is possible; some kinds may not be, now and here."""
    makers, weights = zip(*MAKERS)
    while True:
        found = rng.choices(makers, weights)[0](rng, schema, number)
        if found:
            return found
