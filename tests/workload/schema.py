"""Random schemas: types, tables with every kind of key and identity, partitions, inheritance, foreign keys, constraints."""
from .values import KEYS, Type, array_of, arrays, choice, ranges, row_of, name, quote

SCHEMAS = ["public", "s p.ace"]
LABELS = ["sad", "ok", "it's", 'say "hi"', "", "back\\slash", "\u4e2d"]
HASHABLE = ("integer", "bigint", "text", "uuid", "numeric", "date", "timestamptz", "bytea", "varchar(30)", "inet", "integer[]", "jsonb")


class Column:
    def __init__(self, column, type_, not_null=False, default=None, extra=""):
        self.column, self.type, self.not_null, self.default, self.extra = column, type_, not_null, default, extra
        self.pinned = False         # something else is made of it

    @property
    def sql(self):
        return name(self.column)

    def definition(self):
        parts = [self.sql, self.type.sql, self.extra]
        if self.default:
            parts.append(f"default {self.default}")
        return " ".join(p for p in parts + (["not null"] if self.not_null else []) if p)


class Table:
    """One table and what may be done with it. Rows have a number n, from which its key's expressions are made."""

    def __init__(self, schema, table):
        self.schema, self.table = schema, table
        self.keys = []              # (column, KeyType, with {n}: what stands for n)
        self.columns = []           # values that are free
        self.unique = []            # integer columns with a unique index: NULL or a small number
        self.position = None        # a column under a deferrable unique constraint
        self.during = None          # an int4range under an exclusion constraint
        self.always = None          # identity columns GENERATED ALWAYS: never named by an INSERT
        self.identity = "default"
        self.parent = None          # by foreign key
        self.leaves = []            # partitions' names
        self.children = []          # tables that inherit
        self.by = None              # how it is partitioned
        self.pool = 40
        self.updatable = True       # UPDATE and DELETE are published

    @property
    def sql(self):
        return f"{name(self.schema)}.{name(self.table)}"

    def key_at(self, n):
        """Key columns' names and their expressions for row n."""
        return [(column, type_.at(number.replace("{n}", str(n)))) for column, type_, number in self.keys]

    def where(self, n):
        return " and ".join(f"{name(c)} = {e}" for c, e in self.key_at(n))

    def key_sql(self):
        return ", ".join(name(c) for c, _, _ in self.keys)

    def required(self):
        """Columns that an INSERT must give."""
        return {c for c, _, _ in self.keys} | {c.column for c in self.columns if c.not_null and not c.default}

    def table_column(self, column):
        return f"{name(self.table)}.{name(column)}"

    def sql_of(self, value, column):
        """A column of the row itself must be qualified where EXCLUDED is in sight."""
        return self.table_column(column.column) if value == column.sql else value

    def all_columns(self):
        """Names of the columns that an INSERT may give."""
        found = [c for c, _, _ in self.keys] + [c.column for c in self.columns] + list(self.unique)
        return found + [c for c in (self.position, self.during, self.parent and "ref") if c]


class Schema:
    def __init__(self, rng, types, extensions, size, major):
        self.rng, self.available, self.extensions, self.major = rng, types, extensions, major
        self.user_types = rng.random() < 0.5
        self.statements = []        # for both sides
        self.types = []
        self.tables = []
        self.make_types()
        for number in range(size):
            self.make_table(number)

    def add(self, statement):
        self.statements.append(statement)

    # types

    def make_types(self):
        rng = self.rng
        base = list(self.available)
        self.add(f"create schema {name(SCHEMAS[1])}")
        for extension in sorted(self.extensions) if self.user_types else []:
            self.add(f"create extension {extension} schema public")
        if self.user_types:
            base += [self.extensions[e] for e in sorted(self.extensions)]
            own = self.own_types(rng)
            base += own + own           # more often
        self.types = base + rng.sample(arrays(base), 15)

    def own_types(self, rng):
        space = name(SCHEMAS[1])
        labels = rng.sample(LABELS, rng.randrange(2, len(LABELS) + 1))
        self.add(f"create type {space}.{name('Mood s')} as enum ({', '.join(map(quote, labels))})")
        mood = self.mood = Type(f"{space}.{name('Mood s')}", choice(*labels), True)
        mood.labels, mood.make = labels, lambda rng: rng.choice(labels)         # labels may be added
        fields = rng.sample([t for t in self.available if t.sql != "cid"], rng.randrange(1, 5)) + [mood]
        self.add(f"create type public.pair as ({', '.join(f'f{i} {t.sql}' for i, t in enumerate(fields))})")
        pair = row_of("public.pair", fields)
        self.add("create type public.nest as (a integer, b public.pair, c text[])")
        texts = Type("text", choice("x", 'q"', "", "b\\"))
        nest = row_of("public.nest", [Type("integer", choice("1", "-2")), pair, array_of(texts)])
        self.add("create domain public.short as text check (length(value) < 1000)")
        short = Type("public.short", texts.make, True)
        self.add(f"create domain {space}.shorter as public.short not null default 'd'" if rng.random() < 0.5
                 else f"create domain {space}.shorter as public.short")
        shorter = Type(f"{space}.shorter", texts.make, True)
        self.add("create domain public.numbers as integer[]")
        numbers = array_of(Type("integer", choice("1", "2")))
        numbers = Type("public.numbers", numbers.make, True)
        self.add("create type public.frange as range (subtype = float8)")
        frange = Type("public.frange", ranges(lambda n: f"{n}.25"), True)
        return [mood, pair, nest, short, shorter, numbers, frange]

    # tables

    def table_name(self, number):
        return self.rng.choice(["t{}", "Table {}", "TABLE {}", 'q"{}', "sel.ect{}", "\u00e4\u4e2d {}", "a'b\\{}"]).format(number)

    def make_table(self, number):
        rng = self.rng
        t = Table(rng.choice(SCHEMAS), self.table_name(number))
        t.pool = rng.choice([5, 40, 40, 300])
        kind = rng.choices(["pk", "full", "index", "none"], [70, 12, 8, 10])[0]
        partitioned = kind == "pk" and rng.random() < 0.25
        self.choose_key(t, kind, partitioned)
        self.choose_columns(t, kind)
        self.choose_constraints(t, kind, partitioned)
        self.create(t, kind, partitioned)
        self.tables.append(t)

    def key_types(self, among=None):
        known = [k for k in KEYS if (not k.user or (self.user_types and "citext" in self.extensions))]
        return [k for k in known if among is None or k.sql in among]

    def choose_key(self, t, kind, partitioned):
        rng = self.rng
        if kind == "none" or (kind == "full" and rng.random() < 0.5):
            return
        kinds = self.key_types(HASHABLE if partitioned else None)
        first = rng.choice(kinds if rng.random() < 0.7 else kinds[:3])
        if rng.random() < 0.3 or partitioned and rng.random() < 0.5:
            t.keys.append(("part", KEYS[0], "{n} % 3"))
        t.keys.append((rng.choice(["id", "Key", 'k"k']), first, "{n}"))
        if rng.random() < 0.15:
            t.keys.append(("extra key", rng.choice(self.key_types(["text", "date", "numeric"])), "{n} % 5"))

    def choose_columns(self, t, kind):
        rng = self.rng
        for i in range(rng.choice([0, 1, 2, 3, 4, 6, 12]) if kind == "pk" else rng.randrange(1, 6)):
            type_ = rng.choice(self.types)
            column = Column(rng.choice(["c{}", "Col {}", 'c"{}', "\u00fc{}"]).format(i), type_, not_null=rng.random() < 0.15)
            if rng.random() < 0.15:
                column.default = type_.literal(rng)
            t.columns.append(column)

    def choose_constraints(self, t, kind, partitioned):
        rng = self.rng
        if kind in ("none",) or partitioned:
            return
        if rng.random() < 0.3:
            t.unique.append("u")
        if rng.random() < 0.1:
            t.unique.append("partial u")
        if rng.random() < 0.12:
            t.position = "pos"
        if rng.random() < 0.1:
            t.during = "during"
        if rng.random() < 0.1:
            t.always = "always"
        parents = [p for p in self.tables if p.keys and len(p.keys) == 1 and p.identity_is_primary]
        if kind == "pk" and parents and rng.random() < 0.45:
            t.parent = rng.choice(parents)

    def create(self, t, kind, partitioned):
        rng = self.rng
        t.identity_is_primary = kind == "pk"
        parts = [f"{name(c)} {k.sql}{' not null' if kind == 'index' else ''}" for c, k, _ in t.keys]
        parts += [c.definition() for c in t.columns]
        parts += [f"{name(u)} integer" for u in t.unique]
        if t.position:
            parts.append(f"pos integer unique deferrable initially {rng.choice(['deferred', 'immediate'])}")
        if t.during:
            parts.append("during int4range, exclude using gist (during with &&)")
        if t.always:
            parts.append("always integer generated always as identity")
        if t.parent:
            parts.append(self.reference(t))
        if rng.random() < 0.2 and t.columns and self.major >= 12:
            parts.append(f"gen integer generated always as ({self.generated(t)}) stored")
        if kind == "pk":
            parts.append(f"primary key ({t.key_sql()})")
        rng.shuffle(parts)
        how = self.partition_by(t) if partitioned else ""
        self.add(f"create table {t.sql} ({', '.join(parts)}) {how}")
        if partitioned:
            self.make_partitions(t, how)
        self.finish(t, kind)

    def generated(self, t):
        column = self.rng.choice(t.columns)
        column.pinned = True
        if column.type.sql in ("text", "varchar(40)", "bytea"):
            return f"coalesce(octet_length({column.sql}), -1)"
        return f"case when {column.sql} is null then 1 else 2 end"

    def reference(self, t):
        """A foreign key on a single-column primary key, with all that it may do."""
        rng = self.rng
        _, type_, _ = t.parent.keys[0]
        deletes = rng.choice(["cascade", "cascade", "set null", "no action", "restrict"])
        updates = rng.choice(["cascade", "cascade", "no action"])
        late = rng.choice(["", "deferrable", "deferrable initially deferred"])
        return f"ref {type_.sql} references {t.parent.sql} on delete {deletes} on update {updates} {late}"

    # partitions, children

    def partition_by(self, t):
        column, type_, _ = t.keys[0]
        if type_.sql == "integer" and self.rng.random() < 0.7:
            t.by = self.rng.choice(["list", "range"])
            return f"partition by {t.by} ({name(column)})"
        return f"partition by hash ({name(column)})"

    def make_partitions(self, t, how):
        def leaf(suffix, bounds):
            leaf_name = f"{t.table}_{suffix}"
            self.add(f"create table {name(t.schema)}.{name(leaf_name)} partition of {t.sql} {bounds}")
            t.leaves.append(leaf_name)
        if " hash " in how:
            for i in range(3):
                leaf(i, f"for values with (modulus 3, remainder {i})")
        elif " list " in how:
            leaf("zero", "for values in (0)")
            leaf("one", "for values in (1)")
            leaf("rest", "default")
        else:
            leaf("low", "for values from (minvalue) to (1)")
            leaf("mid", "for values from (1) to (20)")
            leaf("top", "for values from (20) to (maxvalue)")

    def finish(self, t, kind):
        """Indexes, identity, storage, triggers."""
        rng = self.rng
        if "u" in t.unique:
            self.add(f"create unique index on {t.sql} (u)")
        if "partial u" in t.unique:
            self.add(f"create unique index on {t.sql} (({name('partial u')} + 1)) where {name('partial u')} > 3")
        if kind == "index":
            self.add(f"create unique index {name(t.table + '_ident')} on {t.sql} ({t.key_sql()})")
            self.add(f"alter table {t.sql} replica identity using index {name(t.table + '_ident')}")
            t.identity = "index"
        elif kind == "full" or (kind == "pk" and rng.random() < 0.15):
            t.identity = "full"
            for target in [t.sql] + [f"{name(t.schema)}.{name(leaf)}" for leaf in t.leaves]:
                self.add(f"alter table {target} replica identity full")
        if kind == "full" and t.keys:
            self.add(f"create unique index on {t.sql} ({t.key_sql()})")
        if kind == "none":
            t.updatable = False
            if rng.random() < 0.5:
                self.add(f"alter table {t.sql} replica identity nothing")
        for column in t.columns:
            if column.type.sql in ("text", "bytea", "jsonb", "xml") and rng.random() < 0.5:
                self.add(f"alter table {t.sql} alter {column.sql} set storage external")
        if rng.random() < 0.12 and t.columns and kind != "none":
            self.make_trigger(t)
        if kind == "pk" and not t.leaves and rng.random() < 0.12:
            child = f"{name(t.schema)}.{name(t.table + ' child')}"
            self.add(f"create table {child} (more text, primary key ({t.key_sql()})) inherits ({t.sql})")
            if t.identity == "full":
                self.add(f"alter table {child} replica identity full")
            t.children.append(t.table + " child")

    def make_trigger(self, t):
        """One that writes elsewhere and changes the row: on the target neither may fire."""
        number = len(self.tables)
        column = self.rng.choice(t.columns)
        column.pinned = True
        self.add(f"create table public.trail_{number} (id bigint generated by default as identity primary key, what text, n integer)")
        value = quote(column.type.literal(self.rng))
        self.add(f"""create function public.watch_{number}() returns trigger language plpgsql as $$
            begin
                insert into public.trail_{number} (what) values (tg_op);
                if tg_op <> 'DELETE' and random() < 0.3 then execute 'select ' || {value} into new.{column.sql}; end if;
                if tg_op = 'DELETE' then return old; end if;
                return new;
            end $$""")
        self.add(f"create trigger watch before insert or update or delete on {t.sql} for each row execute function public.watch_{number}()")
