/* Running the source's DDL: as the role and with the settings that it had there, inside the
 * transaction of the rows around it, and with the same values in the rows that it fills.
 *
 * A column added with a default that isn't volatile rewrites nothing: PostgreSQL computes it once
 * and keeps it for all rows that are there (pg_attribute.attmissingval). now() gives another value
 * here, so the source's is put into the rows. What is computed for each row (random(), nextval())
 * can't be had from the source: it stops, unless there are no rows. */
#include "appliers/postgres/applier_impl.h"

#include "engine/base/log.h"

/* Ours for a lane (applier_pg.c) are for finding single rows; a view or an index wants the usual.
 */
static const char own_settings[] =
    "{\"client_encoding\":\"UTF8\",\"enable_seqscan\":\"on\",\"enable_hashjoin\":\"on\","
    "\"enable_mergejoin\":\"on\",\"enable_bitmapscan\":\"on\",\"enable_material\":\"on\","
    "\"plan_cache_mode\":\"auto\"}";

static bool unfaithful(Err *err)
{
    if (err->transient || err->kind != ERR_TARGET)
        return false;
    err->kind = ERR_FAITHFUL;
    return false;
}

/* The same settings as they are now: JSON. */
static bool read_settings(PgApplier *a, const char *like, Buf *out, Err *err)
{
    return pg_value(&a->pg, out, err,
                    "select coalesce(json_object_agg(s.name, current_setting(s.name)), '{}')"
                    " from pg_settings s where lower(s.name) in"
                    " (select lower(k) from json_object_keys($1::json) k)",
                    1, &like);
}

/* For the transaction. What this server doesn't know is left out. */
static bool set_settings(PgApplier *a, const char *json, Err *err)
{
    AUTO_RESULT res =
        pg_rows(&a->pg, err,
                "select set_config(e.key, e.value, true) from json_each_text($1::json) e"
                " where exists (select from pg_settings s where lower(s.name) = lower(e.key))",
                json);

    return res ||
           (err_context(err, "taking over the settings of the source's session"), unfaithful(err));
}

static bool set_role(PgApplier *a, const char *role, Err *err)
{
    AUTO_RESULT res = pg_rows(&a->pg, err, "select set_config('role', $1, true)", role);

    if (res)
        return true;
    if (strcmp(err->code, "42501") == 0)
        err_hint(err, "GRANT %s TO the target's user of keybridge", role);
    err_context(err, "becoming the role that ran it on the source");
    return unfaithful(err);
}

static bool become(PgApplier *a, const char *role, bool *became, Err *err)
{
    AUTO_RESULT res = NULL;

    *became = false;
    if (!role)
        return true;
    res = pg_rows(&a->pg, err, "select rolname = current_user from pg_roles where rolname = $1",
                  role);
    if (!res)
        return false;
    if (PQntuples(res) == 0) {
        log_warn("the role that ran the DDL isn't on the target: run as ourselves",
                 F_STR("role", role));
        return true;
    }
    *became = span_is(pg_cell(res, 0, 0), "f");
    return !*became || set_role(a, role, err);
}

/* --- the rows that are there --------------------------------------------------------------------
 */

static bool has_rows(PgApplier *a, const char *schema, const char *table, bool *rows, Err *err)
{
    AUTO_BUF sql;
    AUTO_RESULT res = NULL;

    buf_init(&sql, 4096);
    buf_puts(&sql, "select 1 from only ");
    pg_put_table(&sql, schema, table);
    buf_puts(&sql, " limit 1");
    res = pg_rows(&a->pg, err, buf_str(&sql));
    *rows = res && PQntuples(res) > 0;
    return res != NULL;
}

static const char tables_sql[] =
    " from json_to_recordset($1::json) t(\"schema\" text, \"table\" text)"
    " join pg_namespace n on n.nspname = t.\"schema\""
    " join pg_class c on c.relnamespace = n.oid and c.relname = t.\"table\""
    " where c.relkind in ('r', 'm')";

/* Before: whether USING computes what can't be computed again. */
static bool check_calls(PgApplier *a, const Ddl *ddl, Err *err)
{
    AUTO_RESULT res = NULL;
    AUTO_BUF sql;
    bool rows = false;

    buf_init(&sql, 4096);
    if (!ddl->calls || !ddl->tables)
        return true;
    res =
        pg_rows(&a->pg, err,
                "select distinct f from json_array_elements_text($1::json) f"
                " where f = any ('{now,transaction_timestamp,statement_timestamp,current_timestamp,"
                "current_date,current_time,localtime,localtimestamp}')"
                " or exists (select from pg_proc p where p.proname = f and p.provolatile = 'v')",
                ddl->calls);
    if (!res || PQntuples(res) == 0)
        return res != NULL;
    buf_printf(&sql, "select n.nspname, c.relname%s", tables_sql);
    AUTO_RESULT tables = pg_rows(&a->pg, err, buf_str(&sql), ddl->tables);
    if (!tables)
        return false;
    for (int i = 0; i < PQntuples(tables) && !rows; i++)
        if (!has_rows(a, PQgetvalue(tables, i, 0), PQgetvalue(tables, i, 1), &rows, err))
            return false;
    return !rows ||
           err_fail(err, ERR_FAITHFUL,
                    "it computes values by %s(), which gives others here than on the source",
                    PQgetvalue(res, 0, 0));
}

static bool read_before(PgApplier *a, const Ddl *ddl, Buf *before, Err *err)
{
    AUTO_BUF sql;

    buf_init(&sql, 4096);
    if (!ddl->tables)
        return true;
    buf_printf(
        &sql,
        "select coalesce(json_agg(json_build_object('oid', c.oid, 'natts', c.relnatts)), '[]')%s",
        tables_sql);
    return pg_value(&a->pg, before, err, buf_str(&sql), 1, &ddl->tables);
}

/* Columns that weren't there before. kind: v a value for each row, s one for all of them, -
 * neither. A node tree names each function by its oid; what has a node of its own is known by name.
 */
static const char added_sql[] =
    "select n.nspname, c.relname, a.attname, a.atthasmissing,"
    " (a.attmissingval::text::text[])[1],"
    " case when a.attgenerated <> '' then '-' when a.attidentity <> '' then 'v'"
    "  when e.tree is null then '-' when e.tree ~ '\\{NEXTVALUEEXPR ' then 'v'"
    "  else case (select max(case p.provolatile when 'v' then 2 when 's' then 1 else 0 end)"
    "    from regexp_matches(e.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m"
    "    join pg_proc p on p.oid = m[1]::oid)"
    "   when 2 then 'v' when 1 then 's' else case when e.tree ~ '\\{SQLVALUEFUNCTION |\\{COERCEVIAIO ' then 's'"
    "   else '-' end end end,"
    " m.value, m.\"column\" is not null"
    " from json_to_recordset($1::json) b(oid oid, natts int)"
    " join pg_class c on c.oid = b.oid join pg_namespace n on n.oid = c.relnamespace"
    " join pg_attribute a on a.attrelid = c.oid and a.attnum > b.natts and not a.attisdropped"
    " left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum"
    " join pg_type t on t.oid = a.atttypid"
    " cross join lateral (select coalesce(d.adbin::text, t.typdefaultbin::text) as tree) e"
    " left join json_to_recordset($2::json) m(\"schema\" text, \"table\" text, \"column\" text, value text)"
    "  on m.\"schema\" = n.nspname and m.\"table\" = c.relname and m.\"column\" = a.attname"
    " order by 1, 2, 3";
enum {
    ADDED_SCHEMA,
    ADDED_TABLE,
    ADDED_COLUMN,
    ADDED_HAS,
    ADDED_VALUE,
    ADDED_KIND,
    SOURCE_VALUE,
    SOURCE_HAS
};

/* Rows that are there get the source's value. */
static bool fill_column(PgApplier *a, const PGresult *res, int row, Err *err)
{
    AUTO_BUF sql;
    AUTO_RESULT done = NULL;
    const char *value = PQgetvalue(res, row, SOURCE_VALUE);

    buf_init(&sql, 4096);
    buf_puts(&sql, "update only ");
    pg_put_table(&sql, PQgetvalue(res, row, ADDED_SCHEMA), PQgetvalue(res, row, ADDED_TABLE));
    buf_puts(&sql, " set ");
    pg_put_name(&sql, PQgetvalue(res, row, ADDED_COLUMN));
    buf_puts(&sql, " = $1");
    done = pg_rows(&a->pg, err, buf_str(&sql), value);
    return done || unfaithful(err);
}

static bool check_column(PgApplier *a, const PGresult *res, int row, Err *err)
{
    char kind = *PQgetvalue(res, row, ADDED_KIND);
    bool on_source = span_is(pg_cell(res, row, SOURCE_HAS), "t");
    bool same = span_is(pg_cell(res, row, ADDED_HAS), "t") &&
                span_equal(pg_cell(res, row, ADDED_VALUE), pg_cell(res, row, SOURCE_VALUE));
    bool rows;

    if ((kind == '-' && !on_source) || (on_source && kind != 'v' && same))
        return true;
    if (!has_rows(a, PQgetvalue(res, row, ADDED_SCHEMA), PQgetvalue(res, row, ADDED_TABLE), &rows,
                  err))
        return false;
    if (!rows)
        return true;
    if (on_source && kind != 'v')
        return fill_column(a, res, row, err);
    return err_fail(
        err, ERR_FAITHFUL,
        "the rows of %s.%s get values in %s that are computed for each of them, and the source doesn't send them",
        PQgetvalue(res, row, ADDED_SCHEMA), PQgetvalue(res, row, ADDED_TABLE),
        PQgetvalue(res, row, ADDED_COLUMN));
}

static bool check_added(PgApplier *a, const Ddl *ddl, const char *before, Err *err)
{
    AUTO_RESULT res = NULL;

    if (!ddl->tables)
        return true;
    res = pg_rows(&a->pg, err, added_sql, before, ddl->missing ? ddl->missing : "[]");
    for (int i = 0; res && i < PQntuples(res); i++)
        if (!check_column(a, res, i, err))
            return false;
    return res != NULL;
}

/* --- running ------------------------------------------------------------------------------------
 */

static bool run_text(PgApplier *a, const Ddl *ddl, Err *err)
{
    static const Expect expect = {.doing = "the target refused", .rows = -1};

    /* What waits for the end of the transaction would keep its table from being altered. */
    if (!pg_exec(&a->pg, "set constraints all immediate", err) ||
        !pg_exec(&a->pg, "set constraints all deferred", err))
        return unfaithful(err);
    /* The extended protocol takes a single statement only: nothing can hide behind a semicolon. */
    return (link_send(a, ddl->text, &expect, err) && link_settle(a, err) && link_plain(a, err)) ||
           unfaithful(err);
}

/* While search_path is the source's, nothing but the command itself and SET, which looks no name
 * up, may run. */
static bool run_as(PgApplier *a, const Ddl *ddl, const char *settings, const char *role, Err *err)
{
    bool became;

    return become(a, ddl->role, &became, err) && set_settings(a, settings, err) &&
           run_text(a, ddl, err) && pg_exec(&a->pg, "set local search_path = pg_catalog", err) &&
           (!became || set_role(a, role, err));
}

bool schema_ddl(Applier *self, const Ddl *ddl, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    const char *settings = ddl->settings ? ddl->settings : "{}";
    AUTO_BUF theirs;
    AUTO_BUF own;
    AUTO_BUF role;
    AUTO_BUF before;

    buf_init(&theirs, MIB(1));
    buf_init(&own, MIB(1));
    buf_init(&role, 4096);
    buf_init(&before, MIB(64));
    return link_plain(a, err) && read_settings(a, settings, &theirs, err) &&
           read_settings(a, own_settings, &own, err) &&
           pg_value(&a->pg, &role, err, "select current_setting('role')", 0, NULL) &&
           check_calls(a, ddl, err) && read_before(a, ddl, &before, err) &&
           set_settings(a, own_settings, err) && run_as(a, ddl, settings, buf_str(&role), err) &&
           check_added(a, ddl, buf_str(&before), err) && set_settings(a, buf_str(&theirs), err) &&
           set_settings(a, buf_str(&own), err);
}
