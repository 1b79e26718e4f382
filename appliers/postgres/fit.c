#include "appliers/postgres/fit.h"

#define FIRST_MADE 10000 /* pg_type.oid: below, it means the same type on every server */

enum { /* pg_type.oid of built-in types */
       NAME = 19,
       INT8 = 20,
       INT2 = 21,
       INT4 = 23,
       TEXT = 25,
       OID = 26,
       JSON = 114,
       CIDR = 650,
       INET = 869,
       BPCHAR = 1042,
       VARCHAR = 1043,
       TIME = 1083,
       TIMESTAMP = 1114,
       TIMESTAMPTZ = 1184,
       TIMETZ = 1266,
       BIT = 1560,
       VARBIT = 1562,
       NUMERIC = 1700,
       JSONB = 3802
};

/* The type under a domain, with the modifier that applies to it. generated came with 12. */
#define COLUMNS_SQL(generated)                                                                    \
    "with recursive base (attnum, oid, mod, typtype, typcategory, next, nextmod) as ("            \
    "  select a.attnum, t.oid, a.atttypmod, t.typtype, t.typcategory, t.typbasetype, t.typtypmod" \
    "    from pg_attribute a join pg_type t on t.oid = a.atttypid"                                \
    "   where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped"                       \
    "  union all"                                                                                 \
    "  select b.attnum, t.oid, b.nextmod, t.typtype, t.typcategory, t.typbasetype, t.typtypmod"   \
    "    from base b join pg_type t on t.oid = b.next where b.typtype = 'd')"                     \
    " select a.attname, a.atttypid, b.oid, b.mod, b.typtype, b.typcategory,"                      \
    "  format_type(a.atttypid, a.atttypmod)"                                                      \
    " from pg_attribute a join base b on b.attnum = a.attnum and b.typtype <> 'd'"                \
    " where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped and not " generated

static const char columns_sql[] = COLUMNS_SQL("(a.attgenerated <> '')");
static const char columns_sql_11[] = COLUMNS_SQL("false");

typedef struct Side {
    uint32_t type;
    int32_t mod;
} Side;

static bool is_text(uint32_t type)
{
    return type == TEXT || type == VARCHAR || type == BPCHAR || type == NAME;
}

static bool is_whole(uint32_t type)
{
    return type == INT2 || type == INT4 || type == INT8 || type == OID;
}

/* numeric's modifier: precision in the upper half, scale (11 bits, signed) in the lower, plus 4. */
static int numeric_scale(int32_t mod)
{
    return (((mod - 4) & 0x7ff) ^ 1024) - 1024;
}

static bool modifier_fits(uint32_t type, int32_t from, int32_t to)
{
    if (to < 0 || to == from)
        return true;
    switch (type) {
    case NUMERIC: /* too large is refused, too long a fraction rounded */
        return from >= 0 && numeric_scale(to) >= numeric_scale(from);
    case BPCHAR: /* both cut blanks at the end without a word */
    case VARCHAR:
    case TIME:
    case TIMETZ:
    case TIMESTAMP:
    case TIMESTAMPTZ:
        return from >= 0 && to > from;
    case BIT: /* another length is refused */
    case VARBIT:
        return true;
    default:
        return false;
    }
}

/* As text, from one built-in type to another: kept or refused. */
static bool type_fits(Side from, Side to)
{
    if (from.type == to.type)
        return modifier_fits(from.type, from.mod, to.mod);
    if (to.type == TEXT || (to.type == VARCHAR && to.mod < 0))
        return true;
    if (is_whole(from.type) && to.type == NUMERIC)
        return to.mod < 0 || numeric_scale(to.mod) >= 0;
    return (is_whole(from.type) && is_whole(to.type)) ||
           (from.type == NUMERIC && is_whole(to.type)) || /* a fraction is refused */
           (from.type == CIDR && to.type == INET) || (from.type == JSONB && to.type == JSON) ||
           (from.type == BIT && to.type == VARBIT);
}

static uint32_t cell_oid(const PGresult *res, int row, int column)
{
    return (uint32_t)strtoul(PQgetvalue(res, row, column), NULL, 10);
}

static const Column *column_named(const Relation *rel, const char *name)
{
    for (unsigned i = 0; i < rel->column_count; i++)
        if (strcmp(rel->columns[i].name, name) == 0)
            return &rel->columns[i];
    return NULL;
}

static bool column_fits(const Column *column, const PGresult *res, int row)
{
    Side from = {column->type_oid, column->type_mod};
    Side to = {cell_oid(res, row, 2), (int32_t)strtol(PQgetvalue(res, row, 3), NULL, 10)};
    char typtype = *PQgetvalue(res, row, 4), category = *PQgetvalue(res, row, 5);

    /* Of made types there is no more here than a number of the source: types_fit compares them. */
    if (from.type >= FIRST_MADE || from.type == 0)
        return true;
    if (to.type >= FIRST_MADE) /* citext, an enum */
        return is_text(from.type) && (category == 'S' || typtype == 'e');
    return type_fits(from, to);
}

static bool refuse_column(Pg *pg, const PgTable *t, const Column *column, const char *theirs,
                          Err *err)
{
    char type[16], mod[16];
    Buf mine ON_EXIT(buf_fini);
    const char *params[] = {type, mod};

    buf_init(&mine, 4096);
    snprintf(type, sizeof(type), "%u", column->type_oid);
    snprintf(mod, sizeof(mod), "%d", column->type_mod);
    if (!pg_value(pg, &mine, err, "select format_type($1::oid, $2::int4)", 2, params))
        return false;
    err_fail(err, ERR_FAITHFUL,
             "column %s of %s is %s on the source and %s on the target, which would change values",
             column->name, t->base.place, buf_str(&mine), theirs);
    err_code(err, "42804");
    return err_hint(
        err, "give the target's column the source's type, or one that holds all its values, then "
             "start again");
}

static bool form_fails(const PgTable *t, const Column *column, Err *err)
{
    err_fail(err, ERR_TARGET, "column %s of %s has another type on the source than on the target",
             column->name, t->base.place);
    err_code(err, VALUE_FORM);
    return err_transient(err);
}

bool pg_table_fits(Pg *pg, const PgTable *t, bool binary, Err *err)
{
    char oid[16];
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    snprintf(oid, sizeof(oid), "%u", t->oid);
    res = pg_rows(pg, err, pg->version < 120000 ? columns_sql_11 : columns_sql, oid);
    if (!res)
        return false;
    for (int row = 0; row < PQntuples(res); row++) {
        const Column *column = column_named(t->base.rel, PQgetvalue(res, row, 0));

        if (!column)
            continue;
        if (!column_fits(column, res, row))
            return refuse_column(pg, t, column, PQgetvalue(res, row, 6), err);
        if (binary && column->type_oid != cell_oid(res, row, 1))
            return form_fails(t, column, err);
    }
    return true;
}
