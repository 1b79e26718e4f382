#include "appliers/postgres/table.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIRST_USER_OID 16384

static void pg_table_free(Table *table)
{
    PgTable *t = (PgTable *)table;

    arena_fini(&t->arena);
    free(t);
}

/* --- reading the catalogue -------------------------------------------------------------------- */

/* Without what versions before 12 don't have: generated columns and collations that call different
 * texts equal. */
#define COLUMNS_SQL(generated, deterministic)                                                     \
    "with recursive base (attnum, oid, typtype, typbasetype, typelem, typlen, depth) as ("        \
    "  select a.attnum, t.oid, t.typtype, t.typbasetype, t.typelem, t.typlen, 0"                  \
    "    from pg_attribute a join pg_type t on t.oid = a.atttypid"                                \
    "   where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped"                       \
    "  union all"                                                                                 \
    "  select b.attnum, t.oid, t.typtype, t.typbasetype, t.typelem, t.typlen, b.depth + 1"        \
    "    from base b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd')"              \
    " select a.attname, a.atttypid, t.typarray, " generated ", a.attidentity = 'a',"              \
    "  b.oid, b.typtype, b.typelem <> 0 and b.typlen = -1 as is_array,"                           \
    "  " deterministic ", t.typdelim, e.nspname, e.oprname, a.attnotnull,"                        \
    "  case t.typtype when 'd' then '::' || format_type(b.oid, null) else '' end"                 \
    " from pg_attribute a"                                                                        \
    " join pg_type t on t.oid = a.atttypid"                                                       \
    " join base b on b.attnum = a.attnum and b.typtype <> 'd'"                                    \
    " left join pg_collation c on c.oid = a.attcollation"                                         \
    " left join lateral ("                                                                        \
    "   select n.nspname, o.oprname from pg_opclass oc"                                           \
    "     join pg_amop ao on ao.amopfamily = oc.opcfamily and ao.amoplefttype = oc.opcintype"     \
    "      and ao.amoprighttype = oc.opcintype"                                                   \
    "      and ao.amopstrategy = case when oc.opcmethod = 403 then 3 else 1 end"                  \
    "     join pg_operator o on o.oid = ao.amopopr join pg_namespace n on n.oid = o.oprnamespace" \
    "    where oc.opcmethod in (403, 405) and oc.opcdefault"                                      \
    "      and oc.opcintype = case b.oid when 1043 then 25 else b.oid end"                        \
    "    order by oc.opcmethod limit 1) e on true"                                                \
    " where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped"

static const char columns_sql[] =
    COLUMNS_SQL("a.attgenerated <> ''", "coalesce(c.collisdeterministic, true)");
static const char columns_sql_11[] = COLUMNS_SQL("false", "true");

/* Unique and exclusion indexes of the table and of its partitions' own. */
static const char indexes_sql[] =
    /* Not pg_partition_tree: it locks the partitions, which a lane may be truncating. */
    "with recursive tree (oid) as (select c.oid from pg_class c where c.oid = $1::oid and c.relkind = 'p'"
    "  union all select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.oid)"
    " select i.indrelid = $1::oid as own, i.indisprimary, i.indimmediate,"
    "  i.indpred is not null or i.indexprs is not null as partial, i.indisexclusion,"
    "  i.indexrelid,"
    "  (select pg_catalog.string_agg(a.attname, E'\\x01' order by a.attnum) from pg_attribute a"
    "    where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])),"
    "  (select pg_catalog.bool_and(a.attnotnull) from pg_attribute a where a.attrelid = i.indrelid"
    "     and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])),"
    "  not exists (select from pg_collation c where c.oid = any (i.indcollation::oid[])"
    "     and (pg_catalog.to_jsonb(c) ->> 'collisdeterministic')::bool is false)," /* 12 and later
                                                                                      have it */
    "  i.indexprs is not null,"
    "  coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)" /* 15 and later */
    " from pg_index i join pg_class c on c.oid = i.indexrelid"
    " where (i.indisunique or i.indisexclusion) and i.indislive"
    "  and (i.indrelid = $1::oid or (not c.relispartition and i.indrelid in (select oid from tree)))"
    " order by i.indisprimary desc, i.indexrelid";

static const char table_sql[] =
    "select c.oid, c.relkind,"
    "  exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgenabled in ('A', 'R')"
    "    and not t.tgisinternal) or"
    "  exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_enabled in ('A', 'R')),"
    "  exists (select from pg_constraint k where k.conrelid = c.oid and k.condeferrable)"
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where n.nspname = $1 and c.relname = $2";

/* Types whose values are equal exactly when their bytes are, in binary and in text form. numeric
 * (1.0 and 1.00), floats (0 and -0), bpchar, citext and others aren't: equal keys with different
 * bytes could meet in two lanes. */
static bool is_bytewise(uint32_t base, char typtype)
{
    static const uint32_t types[] = {16, 17, 18,   19,   20,   21,   23,
                                     25, 26, 1043, 1082, 1114, 1184, 2950};

    if (typtype == 'e')
        return true;
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i] == base)
            return true;
    return false;
}

typedef struct Catalogue {
    PGresult *columns;
    PGresult *indexes;
} Catalogue;

static void catalogue_drop(Catalogue *c)
{
    PQclear(c->columns);
    PQclear(c->indexes);
}

static bool cell_true(const PGresult *res, int row, int column)
{
    return *PQgetvalue(res, row, column) == 't';
}

static uint32_t cell_oid(const PGresult *res, int row, int column)
{
    return (uint32_t)strtoul(PQgetvalue(res, row, column), NULL, 10);
}

static int row_of_column(const PGresult *columns, const char *name)
{
    for (int row = 0; row < PQntuples(columns); row++)
        if (strcmp(PQgetvalue(columns, row, 0), name) == 0)
            return row;
    return -1;
}

static bool missing_columns(const PgTable *t, const PGresult *columns, Err *err)
{
    const Relation *rel = t->base.rel;
    Buf names ON_EXIT(buf_fini);
    unsigned count = 0;

    buf_init(&names, MIB(1));
    for (unsigned i = 0; i < rel->column_count; i++)
        if (row_of_column(columns, rel->columns[i].name) < 0)
            buf_printf(&names, "%s%s", count++ ? ", " : "", rel->columns[i].name);
    if (count == 0)
        return true;
    err_fail(err, ERR_FAITHFUL, "table %s on the target has no column%s %s, which the source sends",
             t->base.place, count > 1 ? "s" : "", buf_str(&names));
    err_code(err, "42703");
    return err_hint(err,
                    "add the column to the target's table as the source has it, then start again");
}

static const char *equal_of(PgTable *t, const PGresult *columns, int row)
{
    Buf out ON_EXIT(buf_fini);
    const char *schema =
        PQgetisnull(columns, row, 10) ? "pg_catalog" : PQgetvalue(columns, row, 10);
    const char *name = PQgetisnull(columns, row, 11) ? "=" : PQgetvalue(columns, row, 11);

    buf_init(&out, 1024);
    buf_puts(&out, " operator(");
    pg_put_name(&out, schema);
    buf_printf(&out, ".%s) ", name);
    return arena_str_of(&t->arena, buf_span(&out));
}

static void fill_columns(PgTable *t, const PGresult *columns)
{
    const Relation *rel = t->base.rel;

    for (unsigned i = 0; i < rel->column_count; i++) {
        PgColumn *c = &t->columns[i];
        int row = row_of_column(columns, rel->columns[i].name);
        char typtype = *PQgetvalue(columns, row, 6);

        c->type = cell_oid(columns, row, 1);
        c->generated = cell_true(columns, row, 3);
        c->always = cell_true(columns, row, 4);
        c->delimiter = *PQgetvalue(columns, row, 9);
        /* unnest takes arrays of arrays apart completely, and turns composites into columns. */
        if (!cell_true(columns, row, 7) && typtype != 'c' && typtype != 'p')
            c->array = cell_oid(columns, row, 2);
        c->has_equality = strcmp(PQgetvalue(columns, row, 10), "pg_catalog") == 0;
        c->equal = equal_of(t, columns, row);
        c->cast = arena_strdup(&t->arena, PQgetvalue(columns, row, 13));
    }
}

static int column_named(const Relation *rel, Span name)
{
    for (unsigned i = 0; i < rel->column_count; i++)
        if (span_is(name, rel->columns[i].name))
            return (int)i;
    return -1;
}

/* Calls `fn` for each column of an index (names joined by \x01); false when one isn't sent by the
 * source. */
static bool index_columns(const Relation *rel, const char *names, uint16_t *out, uint16_t *count)
{
    *count = 0;
    for (const char *at = names; *at;) {
        size_t len = strcspn(at, "\x01");
        int column = column_named(rel, span_of(at, len));

        if (column < 0)
            return false;
        out[(*count)++] = (uint16_t)column;
        at += len + (at[len] == '\x01');
    }
    return *count > 0;
}

static void set_key(PgTable *t, const uint16_t *columns, uint16_t count)
{
    uint16_t *key = arena_array(&t->arena, uint16_t, count);

    memcpy(key, columns, count * sizeof(*key));
    t->base.key = key;
    t->base.key_count = count;
    for (unsigned i = 0; i < count; i++)
        t->in_key[key[i]] = true;
}

/* By what a row is found: the source's identity; under FULL the target's primary key or first
 * unique index without NULLs, since the old row has all its values. */
static void find_key(PgTable *t, const PGresult *indexes)
{
    const Relation *rel = t->base.rel;
    uint16_t *columns = arena_array(&t->arena, uint16_t, rel->column_count + 1);
    uint16_t count = 0;

    t->base.inserts_only = rel->identity == 'n';
    if (rel->identity != 'f') {
        for (uint16_t i = 0; i < rel->column_count; i++)
            if (rel->columns[i].in_identity)
                columns[count++] = i;
        if (count)
            set_key(t, columns, count);
        else
            t->base.inserts_only = true;
        return;
    }
    for (int row = 0; row < PQntuples(indexes); row++) {
        bool fits = cell_true(indexes, row, 0) && cell_true(indexes, row, 2) &&
                    !cell_true(indexes, row, 3) && !cell_true(indexes, row, 4) &&
                    cell_true(indexes, row, 7);

        if (fits && index_columns(rel, PQgetvalue(indexes, row, 6), columns, &count)) {
            set_key(t, columns, count);
            return;
        }
    }
}

/* Does uniqueness of the key already imply that of this index? Then it adds no dependency between
 * rows. */
static bool is_implied(const PgTable *t, const PGresult *indexes, int row)
{
    const char *names = PQgetvalue(indexes, row, 6);

    if (cell_true(indexes, row, 3) || cell_true(indexes, row, 4) || !cell_true(indexes, row, 8))
        return false;
    for (unsigned i = 0; i < t->base.key_count; i++) {
        const char *key = t->base.rel->columns[t->base.key[i]].name;
        size_t len = strlen(key);
        bool found = false;

        for (const char *at = names; *at && !found;) {
            size_t part = strcspn(at, "\x01");

            found = part == len && memcmp(at, key, len) == 0;
            at += part + (at[part] == '\x01');
        }
        if (!found)
            return false;
    }
    return true;
}

static bool is_bytewise_column(const PgTable *t, const Catalogue *c, unsigned column)
{
    int row = row_of_column(c->columns, t->base.rel->columns[column].name);
    uint32_t sent = t->base.rel->columns[column].type_oid;

    return is_bytewise(cell_oid(c->columns, row, 5), *PQgetvalue(c->columns, row, 6)) &&
           cell_true(c->columns, row, 8) &&
           (!sent || sent >= FIRST_USER_OID || is_bytewise(sent, 'b'));
}

/* False: an index through which rows depend on each other in ways that their values' bytes don't
 * show. The predicate of a partial index may be ignored: rows only look more dependent then. */
static bool add_unique(PgTable *t, const Catalogue *c, int row, Unique *unique)
{
    uint16_t *columns = arena_array(&t->arena, uint16_t, t->base.rel->column_count + 1);

    if (cell_true(c->indexes, row, 4) || cell_true(c->indexes, row, 9) ||
        !cell_true(c->indexes, row, 8) ||
        !index_columns(t->base.rel, PQgetvalue(c->indexes, row, 6), columns, &unique->count))
        return false;
    for (unsigned i = 0; i < unique->count; i++)
        if (!is_bytewise_column(t, c, columns[i]))
            return false;
    unique->columns = columns;
    unique->nulls_equal = cell_true(c->indexes, row, 10);
    return true;
}

static bool can_spread(PgTable *t, const Catalogue *c)
{
    Unique *uniques = arena_array(&t->arena, Unique, (size_t)PQntuples(c->indexes) + 1);
    bool can = t->base.key_count > 0 && !t->base.triggers;

    for (unsigned i = 0; can && i < t->base.key_count; i++)
        can = is_bytewise_column(t, c, t->base.key[i]);
    for (int row = 0; can && row < PQntuples(c->indexes); row++)
        if (!is_implied(t, c->indexes, row))
            can = add_unique(t, c, row, &uniques[t->base.unique_count++]);
    t->base.uniques = uniques;
    if (!can)
        t->base.unique_count = 0;
    return can;
}

static uint64_t print_of(const PgTable *t)
{
    const Relation *rel = t->base.rel;
    uint64_t print = XXH3_64bits_withSeed(t->base.place, strlen(t->base.place), rel->column_count);

    for (unsigned i = 0; i < t->base.key_count; i++) {
        const char *name = rel->columns[t->base.key[i]].name;

        print = XXH3_64bits_withSeed(name, strlen(name), print);
    }
    for (unsigned u = 0; u < t->base.unique_count; u++)
        for (unsigned i = 0; i < t->base.uniques[u].count; i++) {
            const char *name = rel->columns[t->base.uniques[u].columns[i]].name;

            print = XXH3_64bits_withSeed(name, strlen(name),
                                         print + u + (t->base.uniques[u].nulls_equal ? 1000 : 0));
        }
    return print * 4 + (t->base.spread ? 1 : 0) + (t->base.triggers ? 2 : 0);
}

static PgTable *table_new(const Relation *rel)
{
    static atomic_uint numbers;
    PgTable *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    arena_init(&t->arena, 1024);
    t->base.rel = rel;
    t->base.free = pg_table_free;
    t->base.place = arena_printf(&t->arena, "%s.%s", rel->schema, rel->name);
    t->columns = arena_array(&t->arena, PgColumn, rel->column_count + 1);
    t->in_key = arena_array(&t->arena, bool, rel->column_count + 1);
    t->number = atomic_fetch_add(&numbers, 1);
    return t;
}

/* Planning these takes far longer than running them, and a batch may touch hundreds of tables that
 * nobody has looked at yet. */
static bool prepare(Pg *pg, Err *err)
{
    const struct {
        const char *name, *sql;
    } all[] = {{"find table", table_sql},
               {"columns", pg->version < 120000 ? columns_sql_11 : columns_sql},
               {"indexes", indexes_sql}};

    for (size_t i = 0; i < ARRAY_LEN(all) && !pg->describes; i++) {
        PGresult *res ON_EXIT(pg_result_drop) =
            PQprepare(pg->conn, all[i].name, all[i].sql, 0, NULL);

        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            return pg_fail(pg, res, err, "preparing to describe tables");
    }
    pg->describes = true;
    return true;
}

static PGresult *look_up(Pg *pg, const char *name, int count, const char *const *params, Err *err)
{
    PGresult *res = PQexecPrepared(pg->conn, name, count, params, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK)
        return res;
    pg_fail(pg, res, err, "describing a table");
    PQclear(res);
    return NULL;
}

static bool find_table(Pg *pg, PgTable *t, Err *err)
{
    char kind;
    const char *params[] = {t->base.rel->schema, t->base.rel->name};
    PGresult *res ON_EXIT(pg_result_drop) = look_up(pg, "find table", 2, params, err);

    if (!res)
        return false;
    if (PQntuples(res) == 0) {
        err_fail(err, ERR_FAITHFUL, "table %s isn't on the target", t->base.place);
        err_code(err, "42P01");
        return err_hint(
            err, "create the table on the target as the source has it, with the rows that it had "
                 "before this position, then start again; or take it out of the publication");
    }
    kind = *PQgetvalue(res, 0, 1);
    if (kind != 'r' && kind != 'p') {
        err_fail(err, ERR_FAITHFUL, "%s on the target isn't a table (relkind %c)", t->base.place,
                 kind);
        return err_hint(err, "only ordinary and partitioned tables can be written");
    }
    t->oid = cell_oid(res, 0, 0);
    t->partitioned = kind == 'p';
    t->plain_with = pg->version < 120000;
    t->base.triggers = cell_true(res, 0, 2);
    t->base.deferrable = cell_true(res, 0, 3);
    return true;
}

/* An identity column that only an UPDATE of its own could change needs each row by itself. */
static bool can_be_bag(const PgTable *t)
{
    if (t->base.key_count || t->base.inserts_only || t->base.triggers ||
        t->base.rel->column_count == 0)
        return false;
    for (unsigned i = 0; i < t->base.rel->column_count; i++)
        if (t->columns[i].always)
            return false;
    return true;
}

/* Is there an index that begins with a column of the key? */
static bool find_index(Pg *pg, PgTable *t, const char *oid, Err *err)
{
    PGresult *res ON_EXIT(pg_result_drop) = pg_rows(
        pg, err,
        "select distinct a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid"
        " and a.attnum = i.indkey[0] where i.indrelid = $1::oid and i.indisvalid and i.indpred is null",
        oid);

    if (!res)
        return false;
    t->base.unindexed = !t->base.inserts_only;
    for (int row = 0; row < PQntuples(res); row++)
        for (unsigned i = 0; i < t->base.key_count; i++)
            if (strcmp(PQgetvalue(res, row, 0), t->base.rel->columns[t->base.key[i]].name) == 0)
                t->base.unindexed = false;
    return true;
}

static bool describe(Pg *pg, PgTable *t, Err *err)
{
    Catalogue c ON_EXIT(catalogue_drop) = {NULL, NULL};
    char oid[16];
    const char *params[] = {oid};

    if (!prepare(pg, err) || !find_table(pg, t, err))
        return false;
    snprintf(oid, sizeof(oid), "%u", t->oid);
    c.columns = look_up(pg, "columns", 1, params, err);
    if (!c.columns)
        return false;
    c.indexes = look_up(pg, "indexes", 1, params, err);
    if (!c.indexes || !missing_columns(t, c.columns, err))
        return false;
    fill_columns(t, c.columns);
    find_key(t, c.indexes);
    if (!find_index(pg, t, oid, err))
        return false;
    t->base.spread = can_spread(t, &c);
    t->base.bag = can_be_bag(t);
    t->base.ordered = t->base.triggers || (t->base.key_count == 0 && !t->base.bag);
    t->base.fingerprint = print_of(t);
    return true;
}

bool pg_table_describe(Pg *pg, const Relation *rel, PgTable **table, Err *err)
{
    PgTable *t = table_new(rel);

    if (!describe(pg, t, err)) {
        pg_table_free(&t->base);
        return false;
    }
    *table = t;
    return true;
}

/* --- statements ------------------------------------------------------------------------------- */

void pg_put_target(Buf *sql, const PgTable *t)
{
    /* Inheritance children are tables of their own in the stream; a partitioned table can only be
     * written whole. */
    if (!t->partitioned)
        buf_puts(sql, "only ");
    pg_put_table(sql, t->base.rel->schema, t->base.rel->name);
}

static void put_column(Buf *sql, const PgShape *shape, unsigned i)
{
    pg_put_name(sql, shape->table->base.rel->columns[i].name);
}

/* Parameter n of a shape: $n, or the column of the unnested arrays. */
static void put_param(Buf *sql, const PgShape *shape, int n)
{
    buf_printf(sql, shape->many ? "u.c%d" : "$%d", n);
}

static uint32_t param_type(const PgShape *shape, unsigned i)
{
    const PgColumn *c = &shape->table->columns[i];

    return shape->many ? c->array : c->type;
}

/* Numbers all parameters; key_first is where those of the key begin. */
static void number_params(const PgShape *shape, uint32_t *types, int *count, int *key_first)
{
    int n = 0;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++)
        if (shape->uses[i] & USE_VALUE)
            types[n++] = param_type(shape, i);
    *key_first = n;
    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++)
        if (shape->uses[i] & USE_KEY)
            types[n++] = param_type(shape, i);
    *count = n;
}

static void put_unnest(Buf *sql, int count)
{
    buf_puts(sql, " rows from (");
    for (int n = 1; n <= count; n++)
        buf_printf(sql, "%spg_catalog.unnest($%d)", n > 1 ? ", " : "", n);
    buf_puts(sql, ") as u (");
    for (int n = 1; n <= count; n++)
        buf_printf(sql, "%sc%d", n > 1 ? ", " : "", n);
    buf_putc(sql, ')');
}

static void put_names(Buf *sql, const PgShape *shape, const char *prefix)
{
    const char *comma = "";

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++)
        if (shape->uses[i] & USE_VALUE) {
            buf_printf(sql, "%s%s", comma, prefix);
            put_column(sql, shape, i);
            comma = ", ";
        }
}

static void put_insert(Buf *sql, const PgShape *shape, int count)
{
    buf_puts(sql, "insert into ");
    pg_put_table(sql, shape->table->base.rel->schema, shape->table->base.rel->name);
    if (count == 0) {
        buf_puts(sql, " default values");
        return;
    }
    buf_puts(sql, " (");
    put_names(sql, shape, "");
    buf_puts(sql, shape->many ? ") overriding system value select "
                              : ") overriding system value values (");
    for (int n = 1; n <= count; n++) {
        buf_puts(sql, n > 1 ? ", " : "");
        put_param(sql, shape, n);
    }
    if (shape->many) {
        buf_puts(sql, " from");
        put_unnest(sql, count);
    } else {
        buf_putc(sql, ')');
    }
}

static void put_where_key(Buf *sql, const PgShape *shape, int key_first)
{
    const char *and = " where ";
    int n = key_first;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++) {
        if (!(shape->uses[i] & USE_KEY))
            continue;
        buf_printf(sql, "%st.", and);
        put_column(sql, shape, i);
        buf_puts(sql, shape->table->columns[i].cast);
        buf_puts(sql, shape->table->columns[i].equal);
        put_param(sql, shape, ++n);
        buf_puts(sql, shape->table->columns[i].cast);
        and = " and ";
    }
}

static void put_set(Buf *sql, const PgShape *shape)
{
    const char *comma = " set ";
    int n = 0;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++) {
        if (!(shape->uses[i] & USE_VALUE))
            continue;
        n++;
        if (shape->verb == PG_UPDATE_OR_REKEY && shape->table->columns[i].always)
            continue; /* can't be set */
        buf_puts(sql, comma);
        put_column(sql, shape, i);
        buf_puts(sql, " = ");
        put_param(sql, shape, n);
        comma = ", ";
    }
}

static void put_update(Buf *sql, const PgShape *shape, int count, int key_first)
{
    buf_puts(sql, "update ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    put_set(sql, shape);
    if (shape->many) {
        buf_puts(sql, " from");
        put_unnest(sql, count);
    }
    put_where_key(sql, shape, key_first);
}

static void put_delete(Buf *sql, const PgShape *shape, int count, int key_first)
{
    buf_puts(sql, "delete from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    if (shape->many) {
        buf_puts(sql, " using");
        put_unnest(sql, count);
    }
    put_where_key(sql, shape, key_first);
}

/* An update that leaves everything as it is: the row must be there all the same. */
static void put_touch(Buf *sql, const PgShape *shape, int count, int key_first)
{
    buf_puts(sql, "select 1 from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    if (shape->many) {
        buf_puts(sql, ",");
        put_unnest(sql, count);
    }
    put_where_key(sql, shape, key_first);
}

/* Of the key alone: an identity column beside it is looked for only to see whether it changed. */
static void put_where_row(Buf *sql, const PgShape *shape, int key_first)
{
    const char *and = " where ";
    int n = key_first;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++) {
        if (!(shape->uses[i] & USE_KEY))
            continue;
        n++;
        if (!shape->table->in_key[i])
            continue;
        buf_printf(sql, "%st.", and);
        put_column(sql, shape, i);
        buf_printf(sql, "%s$%d", shape->table->columns[i].equal, n);
        and = " and ";
    }
}

/* Columns of the whole row in a fixed order, those with USE_KEY: as parameters, or of x. */
static void put_row(Buf *sql, const PgShape *shape, int key_first, bool params, const char *as)
{
    const char *comma = "row(";
    int n = key_first;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++) {
        if (!(shape->uses[i] & USE_KEY))
            continue;
        buf_puts(sql, comma);
        n++;
        if (params) {
            put_param(sql, shape, n);
        } else {
            buf_puts(sql, "x.");
            put_column(sql, shape, i);
        }
        comma = ", ";
    }
    buf_printf(sql, ")::pg_catalog.%s", as);
}

#define AS_RECORD "record"
#define AS_TEXT   "text collate pg_catalog.\"C\""

static void put_alike(Buf *sql, const PgShape *shape, int key_first, bool as_text)
{
    const char *and = "";
    int n = key_first;

    if (shape->table->base.rel->column_count == 0)
        buf_puts(sql, "true"); /* without columns one row is like any other */
    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++) {
        bool equality = !as_text && shape->table->columns[i].has_equality;

        if (!(shape->uses[i] & USE_KEY))
            continue;
        buf_puts(sql, and);
        buf_puts(sql, "x.");
        put_column(sql, shape, i);
        buf_printf(sql,
                   equality ? " is not distinct from $%d"
                            : "::pg_catalog.text is not distinct from $%d::pg_catalog.text",
                   ++n);
        and = " and ";
    }
}

/* One of possibly several equal rows. First by its image, bit for bit, because = calls different
 * values equal (1.0 and 1.00, 0 and -0, citext); then by its text, because one value can have two
 * images (composites, arrays); only then by equality. The branches of an append run in their order
 * (no parallel plans in these sessions), and the limit ends it at the first row. */
static void put_match(Buf *sql, const PgShape *shape, int key_first)
{
    buf_puts(sql, "with m (o, c) as ");
    buf_puts(sql, shape->table->plain_with ? "(" : "materialized (");
    for (int branch = 0; branch < 3; branch++) {
        buf_puts(sql, branch ? " union all (" : "(");
        buf_puts(sql, "select x.tableoid, x.ctid from ");
        pg_put_target(sql, shape->table);
        buf_puts(sql, " as x where ");
        if (branch || shape->table->base.rel->column_count == 0) {
            put_alike(sql, shape, key_first, branch == 1);
        } else {
            put_row(sql, shape, key_first, false, AS_RECORD);
            buf_puts(sql, " operator(pg_catalog.*=) ");
            put_row(sql, shape, key_first, true, AS_RECORD);
        }
        buf_puts(sql, " limit 1)");
    }
    buf_puts(sql, " limit 1) ");
    buf_puts(sql, shape->verb == PG_MATCH_UPDATE ? "update " : "delete from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    if (shape->verb == PG_MATCH_UPDATE)
        put_set(sql, shape);
    buf_puts(sql, shape->verb == PG_MATCH_UPDATE ? " from m" : " using m");
    buf_puts(sql,
             " where t.ctid operator(pg_catalog.=) m.c and t.tableoid operator(pg_catalog.=) m.o");
}

/* Many rows of a table without a key, each one of several equal ones: the k-th that is wanted of a
 * kind is the k-th there is. Their text tells them apart where = doesn't (1.0 and 1.00, 0 and -0,
 * citext), and unlike their images it can be hashed, so that the table is read once. */
static void put_match_many(Buf *sql, const PgShape *shape, int count, int key_first)
{
    const char *as = shape->table->plain_with ? " as (" : " as materialized (";
    bool update = shape->verb == PG_MATCH_UPDATE;

    buf_printf(sql, "with w%sselect u.*, ", as);
    put_row(sql, shape, key_first, true, AS_TEXT);
    buf_puts(sql, " as t from");
    put_unnest(sql, count);
    buf_printf(
        sql, "), u%sselect w.*, pg_catalog.row_number() over (partition by w.t) as k from w), x%s",
        as, as);
    buf_puts(sql, "select x.tableoid as o, x.ctid as c, ");
    put_row(sql, shape, key_first, false, AS_TEXT);
    buf_puts(sql, " as t from ");
    pg_put_target(sql, shape->table);
    buf_printf(sql,
               " as x), m%sselect x.*, pg_catalog.row_number() over (partition by x.t) as k from x"
               " where x.t in (select u.t from u)) ",
               as);
    buf_puts(sql, update ? "update " : "delete from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    if (update)
        put_set(sql, shape);
    buf_puts(sql, update ? " from u, m" : " using u, m");
    buf_puts(sql,
             " where m.t operator(pg_catalog.=) u.t and m.k operator(pg_catalog.=) u.k"
             " and t.ctid operator(pg_catalog.=) m.c and t.tableoid operator(pg_catalog.=) m.o");
}

static void put_moved_row(const PgShape *shape, Buf *sql)
{
    const PgTable *t = shape->table;
    Buf picks ON_EXIT(buf_fini);
    int n = 0;

    buf_init(&picks, MIB(1));
    buf_puts(sql, "insert into ");
    pg_put_table(sql, t->base.rel->schema, t->base.rel->name);
    buf_puts(sql, " (");
    for (unsigned i = 0; i < t->base.rel->column_count; i++) {
        if (t->columns[i].generated)
            continue;
        buf_puts(sql, picks.len ? ", " : "");
        pg_put_name(sql, t->base.rel->columns[i].name);
        buf_puts(&picks, picks.len ? ", " : "");
        if (shape->uses[i] & USE_VALUE) {
            buf_printf(&picks, "$%d", ++n);
        } else {
            buf_puts(&picks, "d.");
            pg_put_name(&picks, t->base.rel->columns[i].name);
        }
    }
    buf_puts(sql, ") overriding system value select ");
    buf_put_span(sql, buf_span(&picks));
    buf_puts(sql, " from d");
}

/* The source changed a GENERATED ALWAYS identity column, which no UPDATE may set: the row is taken
 * out and put in again with its other values. */
static void rekey_sql(const PgShape *shape, Buf *sql, int key_first)
{
    buf_puts(sql, "with d as (delete from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    put_where_row(sql, shape, key_first);
    buf_puts(sql, " returning t.*) ");
    put_moved_row(shape, sql);
}

/* Without the old row nobody knows whether such a column changed: an update when it didn't, else
 * the same again. */
static void update_or_rekey_sql(const PgShape *shape, Buf *sql, int key_first)
{
    bool any = false;

    for (unsigned i = 0; i < shape->table->base.rel->column_count; i++)
        any |= shape->uses[i] & USE_VALUE && !shape->table->columns[i].always;
    buf_puts(sql, any ? "with u as (update " : "with u as (select 1 from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    if (any)
        put_set(sql, shape);
    put_where_key(sql, shape, key_first);
    buf_puts(sql, any ? " returning 1), d as (delete from " : "), d as (delete from ");
    pg_put_target(sql, shape->table);
    buf_puts(sql, " as t");
    put_where_row(sql, shape, key_first);
    buf_puts(sql, " and not exists (select from u) returning t.*), i as (");
    put_moved_row(shape, sql);
    buf_puts(sql, " returning 1) select from u union all select from i");
}

void pg_shape_sql(const PgShape *shape, Buf *sql, uint32_t *types, int *count)
{
    int key_first;

    number_params(shape, types, count, &key_first);
    switch (shape->verb) {
    case PG_INSERT:
        put_insert(sql, shape, *count);
        break;
    case PG_UPDATE:
        put_update(sql, shape, *count, key_first);
        break;
    case PG_DELETE:
        put_delete(sql, shape, *count, key_first);
        break;
    case PG_TOUCH:
        put_touch(sql, shape, *count, key_first);
        break;
    case PG_MATCH_UPDATE:
    case PG_MATCH_DELETE:
        if (shape->many)
            put_match_many(sql, shape, *count, key_first);
        else
            put_match(sql, shape, key_first);
        break;
    case PG_REKEY:
        rekey_sql(shape, sql, key_first);
        break;
    case PG_UPDATE_OR_REKEY:
        update_or_rekey_sql(shape, sql, key_first);
        break;
    }
}

void pg_copy_sql(const PgTable *t, const uint8_t *uses, bool binary, Buf *sql)
{
    PgShape shape = {.table = t, .verb = PG_INSERT, .uses = uses};

    buf_puts(sql, "copy ");
    pg_put_table(sql, t->base.rel->schema, t->base.rel->name);
    buf_puts(sql, " (");
    put_names(sql, &shape, "");
    buf_puts(sql, binary ? ") from stdin (format binary)" : ") from stdin");
}

/* --- messages --------------------------------------------------------------------------------- */

static int64_t signed_of(Value v)
{
    uint64_t bits = v.len && v.at[0] & 0x80 ? UINT64_MAX : 0;

    for (uint32_t i = 0; i < v.len; i++)
        bits = bits << 8 | v.at[i];
    return (int64_t)bits;
}

static bool is_number(uint32_t type, uint32_t len)
{
    return (type == 20 && len == 8) || (type == 21 && len == 2) || (type == 23 && len == 4);
}

static void put_value(Buf *out, uint32_t type, Value v)
{
    uint32_t shown = v.len < 60 ? v.len : 60;

    if (!value_is_known(v)) {
        buf_puts(out, "?");
    } else if (v.kind == VALUE_NULL) {
        buf_puts(out, "null");
    } else if (v.kind == VALUE_TEXT || type == 25 || type == 1043 || type == 1042 || type == 19) {
        buf_put(out, v.at, shown);
    } else if (is_number(type, v.len)) {
        buf_printf(out, "%" PRId64, signed_of(v));
    } else {
        buf_puts(out, "\\x");
        for (uint32_t i = 0; i < shown; i++)
            buf_printf(out, "%02x", v.at[i]);
    }
    if (value_is_known(v) && shown < v.len)
        buf_puts(out, "…");
}

void pg_put_key(Buf *out, const Table *table, const Value *key)
{
    if (!key || table->key_count == 0)
        return;
    buf_puts(out, " key (");
    for (unsigned i = 0; i < table->key_count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", table->rel->columns[table->key[i]].name);
    buf_puts(out, ")=(");
    for (unsigned i = 0; i < table->key_count; i++) {
        buf_puts(out, i ? ", " : "");
        put_value(out, table->rel->columns[table->key[i]].type_oid, key[table->key[i]]);
    }
    buf_putc(out, ')');
}
