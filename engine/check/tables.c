#include "engine/check/tables.h"

/* Schemas that hold nothing of the user's: PostgreSQL's, ours, and what RDS and Aurora put into
 * every database. */
#define OTHERS_SCHEMAS                                                                          \
    " n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'keybridge', 'rdsadmin'," \
    " 'rds_tools', 'aws_commons', 'aws_s3', 'aws_lambda', 'aws_ml')"

#define FIRST_MADE 10000 /* pg_type.oid: below, it means the same type on every server */

static const char tables_sql[] =
    "select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence,"
    " greatest(c.reltuples, 0)::int8,"
    " coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8,"
    " coalesce(a.amname = 'heap', c.relkind = 'r'),"
    " exists (select from pg_depend d join pg_extension e on e.oid = d.refobjid where d.classid = 'pg_class'::regclass"
    "  and d.objid = c.oid and d.deptype = 'e' and e.extname = 'pg_cron')"
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_am a on a.oid = c.relam"
    " where c.relkind in ('r', 'f', 'm') and" OTHERS_SCHEMAS
    " order by n.nspname::text collate \"C\", c.relname::text collate \"C\"";

/* One row per column with everything that decides how its exact bytes are got. A domain goes by its
 * base type. */
static const char columns_sql[] =
    "with recursive up as ("
    " select oid as domain, typbasetype as at from pg_type where typtype = 'd'"
    " union all select up.domain, t.typbasetype from up join pg_type t on t.oid = up.at where t.typtype = 'd'),"
    " base as (select up.domain, up.at from up join pg_type t on t.oid = up.at where t.typtype <> 'd')"
    " select a.attrelid, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid,"
    " a.attnotnull, %s, t.oid, case when base.at is not null then format_type(base.at, null) end,"
    " sn.nspname, sp.proname,"
    " exists (select from pg_type e join pg_class rc on rc.oid = e.typrelid where rc.relkind <> 'c'"
    "  and e.oid in (t.oid, t.typelem)) or" /* or a part of it has no send function: aclitem[] */
    " exists (select from pg_type e where e.typsend = 0 and (e.oid = t.typelem or e.oid in"
    "  (select p.atttypid from pg_attribute p where p.attrelid = t.typrelid and p.attnum > 0"
    "   and not p.attisdropped)))"
    " from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
    " left join base on base.domain = a.atttypid"
    " join pg_type t on t.oid = coalesce(base.at, a.atttypid)"
    " left join pg_proc sp on sp.oid = t.typsend left join pg_namespace sn on sn.oid = sp.pronamespace"
    " where c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and" OTHERS_SCHEMAS
    " order by n.nspname::text collate \"C\", c.relname::text collate \"C\", a.attnum";

/* The best key of each table first. */
static const char keys_sql[] =
    "select i.indrelid, (select string_agg(k::text, ' ' order by o) from unnest(i.indkey::int2[])"
    "  with ordinality as u(k, o) where o <= i.indnkeyatts)"
    " from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind = 'r' and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null"
    " and i.indexprs is null and" OTHERS_SCHEMAS
    " and not exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])"
    "  and not a.attnotnull)"
    " order by n.nspname::text collate \"C\", c.relname::text collate \"C\", i.indisprimary desc, i.indisreplident desc,"
    " i.indnkeyatts, i.indexrelid";

static const char types_sql[] =
    "select coalesce(md5(string_agg(n.nspname || '.' || t.typname || '=' || t.oid, ',' order by t.oid)), 'none')"
    " from pg_type t join pg_namespace n on n.oid = t.typnamespace"
    " left join pg_type e on e.oid = t.typelem left join pg_class r on r.oid in (t.typrelid, e.typrelid)"
    " where (t.oid >= 16384 and coalesce(r.relkind, 'c') = 'c' and" OTHERS_SCHEMAS
    ") or (t.oid < 16384 and t.typtype = 'd' and n.nspname = 'information_schema')"; /* initdb's */

static uint64_t cell_u64(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? 0 : strtoull(PQgetvalue(res, row, column), NULL, 10);
}

static char *cell_dup(Arena *arena, const PGresult *res, int row, int column)
{
    return arena_str_of(arena, pg_cell(res, row, column));
}

static bool cell_bool(const PGresult *res, int row, int column)
{
    return !PQgetisnull(res, row, column) && PQgetvalue(res, row, column)[0] == 't';
}

static void add_left_out(TableList *out, TableLeftOut *items, const char *schema, const char *name,
                         const char *why)
{
    items[out->left_out_count++] = (TableLeftOut){schema, name, why};
}

static Table *read_tables(Pg *pg, Arena *arena, TableList *out, Err *err)
{
    AUTO_RESULT res = pg_rows(pg, err, tables_sql);
    TableLeftOut *left_out;
    Table *tables;
    int rows;

    if (!res)
        return NULL;
    rows = PQntuples(res);
    tables = arena_array(arena, Table, rows + 1);
    left_out = arena_array(arena, TableLeftOut, rows + 1);
    for (int i = 0; i < rows; i++) {
        const char *schema = cell_dup(arena, res, i, 1), *name = cell_dup(arena, res, i, 2);
        char kind = PQgetvalue(res, i, 3)[0], persistence = PQgetvalue(res, i, 4)[0];

        if (kind == 'f')
            add_left_out(out, left_out, schema, name, "foreign table");
        else if (kind == 'm')
            add_left_out(out, left_out, schema, name, "materialized view");
        else if (cell_bool(res, i, 8))
            add_left_out(out, left_out, schema, name, "pg_cron's: its jobs stand still on a copy");
        else if (persistence == 't')
            add_left_out(out, left_out, schema, name, "temporary table");
        else
            tables[out->count++] =
                (Table){.oid = (uint32_t)cell_u64(res, i, 0),
                        .schema = schema,
                        .name = name,
                        .kind = persistence == 'u' ? TABLE_UNLOGGED : TABLE_ORDINARY,
                        .rows_estimate = cell_u64(res, i, 5),
                        .pages = cell_u64(res, i, 6),
                        .heap = cell_bool(res, i, 7)};
    }
    out->tables = tables;
    out->left_out = left_out;
    return tables;
}

/* Output of these is an OID to the binary form and a name to the text form; a copy made by names
 * has other OIDs. */
static bool is_reg_type(uint32_t type_oid, const char *type, const char *send)
{
    return strncmp(send, "reg", 3) == 0 ||
           (type_oid < FIRST_MADE && strncmp(type, "reg", 3) == 0); /* arrays */
}

static bool sends_oids(const char *send)
{
    static const char *const names[] = {"array_send", "record_send", "range_send",
                                        "multirange_send"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(send, names[i]) == 0)
            return true;
    return false;
}

/* The type's own send function where there is one: exact to the bit (-0, NaN's payload, numeric's
 * scale), and several times cheaper than text. Without one, format('%L') of the text output, which
 * tells NULL from 'NULL'. A cast to text isn't used: a type's owner can define casts, and they
 * would run as us. */
static void set_bytes(Arena *arena, TableColumn *column, uint32_t type_oid, const char *base,
                      const char *schema, const char *send, bool of_table)
{
    AUTO_BUF text;

    buf_init(&text, 4096);
    /* The row type of a table isn't in the digest of types: tables come and go. */
    /* 1790 is refcursor: its send function is text's, which takes no refcursor. */
    if (!send || is_reg_type(type_oid, base ? base : column->type, send) || of_table ||
        type_oid == 1790) {
        column->open = "pg_catalog.textsend(pg_catalog.format('%L',";
        column->close = "))";
        return;
    }
    if (type_oid == 17) { /* bytea is bytes already */
        column->open = base ? "(" : "";
        column->close = base ? ")::pg_catalog.bytea" : "";
        return;
    }
    pg_put_table(&text, schema, send);
    buf_puts(&text, base ? "((" : "(");
    column->open = arena_strdup(arena, buf_str(&text));
    column->close = base ? arena_printf(arena, ")::%s)", base) : ")";
    column->carries_oids = type_oid >= FIRST_MADE && sends_oids(send);
}

static bool read_columns(Pg *pg, Arena *arena, Table *tables, size_t count, uint32_t **attnums,
                         Err *err)
{
    char sql[4096];
    AUTO_RESULT res = NULL;
    TableColumn *columns;
    int rows;

    snprintf(sql, sizeof(sql), columns_sql,
             pg->version >= 120000 ? "a.attgenerated <> ''" : "false");
    res = pg_rows(pg, err, sql);
    if (!res)
        return false;
    rows = PQntuples(res);
    columns = arena_array(arena, TableColumn, rows + 1);
    *attnums = arena_array(arena, uint32_t, rows + 1);
    for (int i = 0, at = 0; i < rows; i++) {
        uint32_t oid = (uint32_t)cell_u64(res, i, 0);
        TableColumn *column = &columns[i];

        /* Both lists have the same order; tables that came or went between the two statements are
         * stepped over. */
        while ((size_t)at < count && tables[at].oid != oid)
            at++;
        if ((size_t)at == count) {
            at = 0;
            while ((size_t)at < count && tables[at].oid != oid)
                at++;
            if ((size_t)at == count) {
                at = 0;
                continue;
            }
        }
        column->name = cell_dup(arena, res, i, 2);
        column->type = cell_dup(arena, res, i, 3);
        column->type_oid = (uint32_t)cell_u64(res, i, 4);
        column->not_null = cell_bool(res, i, 5);
        column->generated = cell_bool(res, i, 6);
        set_bytes(arena, column, (uint32_t)cell_u64(res, i, 7),
                  PQgetisnull(res, i, 8) ? NULL : PQgetvalue(res, i, 8), PQgetvalue(res, i, 9),
                  PQgetisnull(res, i, 10) ? NULL : PQgetvalue(res, i, 10), cell_bool(res, i, 11));
        (*attnums)[i] = (uint32_t)cell_u64(res, i, 1);
        if (!tables[at].columns)
            tables[at].columns = column;
        tables[at].column_count++;
    }
    return true;
}

static bool set_key(Arena *arena, Table *table, const uint32_t *attnums, const char *text)
{
    uint32_t *key = arena_array(arena, uint32_t, table->column_count + 1);
    uint32_t count = 0;

    while (*text && count < table->column_count) {
        char *end;
        uint32_t attnum = (uint32_t)strtoul(text, &end, 10), i = 0;

        while (i < table->column_count && attnums[i] != attnum)
            i++;
        if (i == table->column_count)
            return false;
        key[count++] = i;
        text = *end ? end + 1 : end;
    }
    table->key = key;
    table->key_count = count;
    return true;
}

static bool read_keys(Pg *pg, Arena *arena, Table *tables, size_t count, const uint32_t *attnums,
                      Err *err)
{
    AUTO_RESULT res = pg_rows(pg, err, keys_sql);
    const TableColumn *first = NULL;
    size_t at = 0;

    if (!res)
        return false;
    for (size_t i = 0; i < count && !first; i++)
        first = tables[i].columns;
    for (int i = 0; i < PQntuples(res); i++) {
        uint32_t oid = (uint32_t)cell_u64(res, i, 0);
        size_t from = at;

        while (at < count && tables[at].oid != oid)
            at++;
        if (at == count) {
            at = from;
            continue;
        }
        if (tables[at].columns && !tables[at].key_count && !PQgetisnull(res, i, 1))
            set_key(arena, &tables[at], attnums + (tables[at].columns - first),
                    PQgetvalue(res, i, 1));
    }
    return true;
}

static bool read_text(Pg *pg, Arena *arena, const char *sql, const char **out, Err *err)
{
    AUTO_BUF text;

    buf_init(&text, 4096);
    if (!pg_value(pg, &text, err, sql, 0, NULL))
        return false;
    *out = arena_strdup(arena, buf_str(&text));
    return true;
}

bool tables_read(Pg *pg, Arena *arena, TableList *out, Err *err)
{
    uint32_t *attnums = NULL;
    Table *tables;

    *out = (TableList){0};
    tables = read_tables(pg, arena, out, err);
    return (tables && read_columns(pg, arena, tables, out->count, &attnums, err) &&
            read_keys(pg, arena, tables, out->count, attnums, err) &&
            read_text(pg, arena, "select getdatabaseencoding()", &out->encoding, err) &&
            read_text(pg, arena, types_sql, &out->type_oids, err)) ||
           err_context(err, "reading the list of tables");
}

static int table_order(const Table *a, const char *schema, const char *name)
{
    int order = strcmp(a->schema, schema);

    return order ? order : strcmp(a->name, name);
}

const Table *tables_find(const TableList *list, const char *schema, const char *name)
{
    size_t low = 0, high = list->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = table_order(&list->tables[middle], schema, name);

        if (order == 0)
            return &list->tables[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *table_drift_name(TableDriftKind kind)
{
    static const char *const names[] = {
        [DRIFT_TABLE_MISSING] = "missing table",   [DRIFT_TABLE_EXTRA] = "extra table",
        [DRIFT_COLUMN_MISSING] = "missing column", [DRIFT_COLUMN_EXTRA] = "extra column",
        [DRIFT_COLUMN_TYPE] = "other column type", [DRIFT_TABLE_KIND] = "other kind of table",
        [DRIFT_ENCODING] = "other encoding",
    };

    return names[kind];
}

typedef struct DriftAdd {
    Arena *arena;
    TableDrift *items;
    size_t count;
    size_t room;
} DriftAdd;

static void add_drift(DriftAdd *add, TableDrift item)
{
    if (add->count == add->room) {
        size_t room = add->room ? add->room * 2 : 16;
        TableDrift *items = arena_array(add->arena, TableDrift, room);

        if (add->count)
            memcpy(items, add->items, add->count * sizeof(*items));
        add->items = items;
        add->room = room;
    }
    add->items[add->count++] = item;
}

static const TableColumn *find_column(const Table *table, const char *name)
{
    for (uint32_t i = 0; i < table->column_count; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return &table->columns[i];
    return NULL;
}

static const char *kind_name(TableKind kind)
{
    return kind == TABLE_UNLOGGED ? "unlogged" : "logged";
}

static void compare_tables(DriftAdd *add, const Table *s, const Table *t)
{
    if (s->kind != t->kind)
        add_drift(add, (TableDrift){DRIFT_TABLE_KIND, s->schema, s->name, NULL, kind_name(s->kind),
                                    kind_name(t->kind)});
    for (uint32_t i = 0; i < s->column_count; i++) {
        const TableColumn *mine = &s->columns[i];
        const TableColumn *other =
            i < t->column_count && strcmp(t->columns[i].name, mine->name) == 0
                ? &t->columns[i]
                : find_column(t, mine->name);

        if (!other)
            add_drift(add, (TableDrift){DRIFT_COLUMN_MISSING, s->schema, s->name, mine->name,
                                        mine->type, NULL});
        else if (strcmp(mine->type, other->type) != 0)
            add_drift(add, (TableDrift){DRIFT_COLUMN_TYPE, s->schema, s->name, mine->name,
                                        mine->type, other->type});
    }
    for (uint32_t i = 0; i < t->column_count; i++)
        if (!find_column(s, t->columns[i].name))
            add_drift(add, (TableDrift){DRIFT_COLUMN_EXTRA, s->schema, s->name, t->columns[i].name,
                                        NULL, t->columns[i].type});
}

void tables_compare(const TableList *source, const TableList *target, Arena *arena,
                    TableDriftList *out)
{
    DriftAdd add = {.arena = arena};
    size_t s = 0, t = 0;

    if (strcmp(source->encoding, target->encoding) != 0)
        add_drift(&add,
                  (TableDrift){DRIFT_ENCODING, "", "", NULL, source->encoding, target->encoding});
    while (s < source->count || t < target->count) {
        const Table *a = s < source->count ? &source->tables[s] : NULL;
        const Table *b = t < target->count ? &target->tables[t] : NULL;
        int order = !a ? 1 : !b ? -1 : table_order(a, b->schema, b->name);

        if (order < 0)
            add_drift(&add,
                      (TableDrift){DRIFT_TABLE_MISSING, a->schema, a->name, NULL, "table", NULL});
        else if (order > 0)
            add_drift(&add,
                      (TableDrift){DRIFT_TABLE_EXTRA, b->schema, b->name, NULL, NULL, "table"});
        else
            compare_tables(&add, a, b);
        s += order <= 0;
        t += order >= 0;
    }
    *out = (TableDriftList){add.items, add.count};
}
