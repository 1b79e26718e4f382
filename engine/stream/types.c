#include "engine/stream/types.h"

/* OIDs below this are the same on every server of every version; what initdb makes (the information
 * schema's domains), extensions and users make has higher ones. */
#define FIRST_MADE "10000"

/* Everything that decides what the binary form of a made type looks like, in one line. */
#define DESCRIPTION                                                                                  \
    "pg_catalog.concat_ws(' ', n.nspname, t.typname, t.typtype, t.typlen, t.typelem, t.typbasetype," \
    " t.typtypmod, t.typsend, t.typreceive,"                                                         \
    " (select pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attname, a.atttypid, a.atttypmod),"  \
    "    ',' order by a.attnum) from pg_catalog.pg_attribute a where t.typtype = 'c'"                \
    "   and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped),"                       \
    " (select pg_catalog.string_agg(e.enumlabel, ',' order by e.enumsortorder)"                      \
    "  from pg_catalog.pg_enum e where e.enumtypid = t.oid),"                                        \
    " (select pg_catalog.string_agg(r.rngsubtype::text, ',')"                                        \
    "  from pg_catalog.pg_range r where r.rngtypid = t.oid),"                                        \
    " (select pg_catalog.string_agg(x.extname || ' ' || x.extversion, ',')"                          \
    "  from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid"             \
    "  where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid"              \
    "   and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e'))"

#define PUBLISHED                                                                       \
    "from pg_catalog.pg_publication_tables p"                                           \
    " join pg_catalog.pg_namespace n on n.nspname = p.schemaname"                       \
    " join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename" \
    " join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "

static const char published_columns[] =
    "select pg_catalog.array_agg(n.nspname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(c.relname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(a.attname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(a.atttypid order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, null) order by c.oid, a.attnum)::text"
    " " PUBLISHED "where p.pubname = $1";

static const char differing_column[] =
    "select case when x.named = y.named"
    "  then pg_catalog.format('%s.%s.%s is %s, which has another oid on the target', x.s, x.t, x.c,"
    "   x.named)"
    "  else pg_catalog.format('%s.%s.%s is %s on the source and %s on the target', x.s, x.t, x.c,"
    "   x.named, y.named) end"
    " from unnest($1::text[], $2::text[], $3::text[], $4::oid[], $5::text[]) x(s, t, c, type, named)"
    " join pg_catalog.pg_namespace n on n.nspname = x.s"
    " join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relname = x.t"
    " join pg_catalog.pg_attribute a on a.attrelid = k.oid and a.attname = x.c and not a.attisdropped"
    " cross join lateral (select pg_catalog.format_type(a.atttypid, null)) y(named)"
    " where a.atttypid <> x.type limit 1";

/* The types of all published columns and, nested, those that they are made of. rngmultitypid came
 * with 14: there is nothing to ask before. */
#define USED(multirange)                                                                             \
    "with recursive used(oid, nested) as (select distinct a.atttypid, false " PUBLISHED              \
    "where p.pubname = $1"                                                                           \
    " union select r.oid, r.nested or u.nested from used u cross join lateral ("                     \
    "  select typelem, true from pg_catalog.pg_type where oid = u.oid and typlen = -1"               \
    "  union all select typbasetype, false from pg_catalog.pg_type where oid = u.oid"                \
    "  union all select a.atttypid, true from pg_catalog.pg_type t"                                  \
    "   join pg_catalog.pg_attribute a"                                                              \
    "   on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped"                          \
    "   where t.oid = u.oid and t.typtype = 'c'"                                                     \
    "  union all select rngsubtype, true from pg_catalog.pg_range where rngtypid = u.oid" multirange \
    " ) r(oid, nested) where r.oid <> 0) "

#define USED_11 USED("")
#define USED_14 \
    USED(" union all select rngtypid, true from pg_catalog.pg_range where rngmultitypid = u.oid")

#define MADE_TYPES                                                                       \
    "select pg_catalog.array_agg(t.oid order by t.oid)::text,"                           \
    "  pg_catalog.array_agg(" DESCRIPTION " order by t.oid)::text"                       \
    " from (select distinct oid from used) u join pg_catalog.pg_type t on t.oid = u.oid" \
    " join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.oid >= " FIRST_MADE

static const char differing_type[] =
    "select pg_catalog.format('type %s is \"%s\" on the source and \"%s\" on the target', x.oid,"
    "  x.described, coalesce(d.described, 'missing'))"
    " from unnest($1::oid[], $2::text[]) x(oid, described)"
    " left join lateral (select " DESCRIPTION " from pg_catalog.pg_type t"
    "  join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.oid = x.oid) d(described) on true"
    " where d.described is distinct from x.described limit 1";

/* Built-in types whose binary form has been the same since 9.6, up to 18. Not interval when one
 * side is 17 or later: what is infinity there was an ordinary value before. */
#define STEADY_TYPES                                                                            \
    "'bool', 'bytea', 'char', 'name', 'int8', 'int2', 'int4', 'text', 'oid', 'tid', 'xid',"     \
    " 'cid', 'json', 'jsonb', 'point', 'lseg', 'path', 'box', 'polygon', 'line', 'circle',"     \
    " 'float4', 'float8', 'money', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bpchar', 'varchar'," \
    " 'date', 'time', 'timestamp', 'timestamptz', 'timetz', 'bit', 'varbit', 'numeric',"        \
    " 'refcursor', 'uuid', 'pg_lsn', 'xid8', 'tsvector', 'tsquery'"

/* Types whose binary form isn't faithful, whoever the target is. $2: its encoding; $3, $4: the
 * major versions of source and target. */
#define UNFAITHFUL                                                                               \
    "select pg_catalog.format('%s %s', pg_catalog.format_type(t.oid, null), x.why)"              \
    " from used u join pg_catalog.pg_type t on t.oid = u.oid cross join lateral (select case"    \
    "  when t.oid < " FIRST_MADE " and t.typname ~ '^reg[a-z]+$'"                                \
    "   then 'names an object: its binary form is an oid of the source'"                         \
    "  when t.typtype <> 'd' and u.nested and (t.typsend = 0 or t.typreceive = 0)"               \
    "   then 'has no binary form, and stands inside of another type'"                            \
    "  when t.oid in (22, 30) then 'can''t be received in binary form when it is empty'"         \
    "  when t.oid = 142 and $2 <> 'UTF8' then 'gets an encoding declaration in binary form'"     \
    "  when $3::int4 <> $4::int4 and t.typtype = 'b' and t.typelem = 0"                          \
    "    and not (t.oid < " FIRST_MADE " and (t.typname in (" STEADY_TYPES ")"                   \
    "     or t.typname = 'interval' and ($3::int4 >= 17) = ($4::int4 >= 17)))"                   \
    "   then pg_catalog.format('may have another binary form in version %s than in %s', $3, $4)" \
    "  end) x(why) where x.why is not null order by t.oid limit 1"

/* How values of made types that travel by name are put together. Enums aren't here: a label that is
 * missing is refused when it comes. */
#define SHAPE                                                                                \
    "pg_catalog.concat_ws(' ', case t.typtype when 'd' then 'domain over '"                  \
    "   || pg_catalog.format_type(t.typbasetype, t.typtypmod) end,"                          \
    " (select '(' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || ' '"         \
    "    || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum) || ')'" \
    "  from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid"     \
    "   and a.attnum > 0 and not a.attisdropped),"                                           \
    " (select 'range of ' || pg_catalog.format_type(r.rngsubtype, null)"                     \
    "  from pg_catalog.pg_range r where r.rngtypid = t.oid))"

#define SHAPES                                                                           \
    "select pg_catalog.array_agg(n.nspname::text order by t.oid)::text,"                 \
    "  pg_catalog.array_agg(t.typname::text order by t.oid)::text,"                      \
    "  pg_catalog.array_agg(" SHAPE " order by t.oid)::text"                             \
    " from (select distinct oid from used) u join pg_catalog.pg_type t on t.oid = u.oid" \
    " join pg_catalog.pg_namespace n on n.oid = t.typnamespace"                          \
    " where t.oid >= " FIRST_MADE " and t.typtype in ('c', 'd', 'r')"

static const char differing_shape[] =
    "select pg_catalog.format('type %I.%I is %s on the source and %s on the target', x.s, x.t,"
    "  x.shape, d.shape)"
    " from unnest($1::text[], $2::text[], $3::text[]) x(s, t, shape)"
    " join pg_catalog.pg_namespace xn on xn.nspname = x.s"
    " join lateral (select " SHAPE " from pg_catalog.pg_type t"
    "  where t.typnamespace = xn.oid and t.typname = x.t) d(shape) on true"
    " where d.shape <> x.shape limit 1";

static const char *const made_types[] = {USED_11 MADE_TYPES, USED_14 MADE_TYPES};
static const char *const unfaithful[] = {USED_11 UNFAITHFUL, USED_14 UNFAITHFUL};
static const char *const shapes[] = {USED_11 SHAPES, USED_14 SHAPES};

/* What the source answered goes to the target as it is; the first difference comes back. */
static bool ask_target(Pg *target, const PGresult *from, const char *sql, int count, bool *same,
                       Buf *why, Err *err)
{
    const char *params[5];

    *same = true;
    for (int i = 0; i < count; i++) {
        if (PQgetisnull(from, 0, i)) /* nothing to compare */
            return true;
        params[i] = PQgetvalue(from, 0, i);
    }
    AUTO_RESULT res = pg_query(target, err, sql, count, params);

    if (!res)
        return false;
    *same = PQntuples(res) == 0;
    if (!*same)
        buf_put_span(why, pg_cell(res, 0, 0));
    return true;
}

/* The planner overestimates these queries so much that compiling them takes ten times as long as
 * running them. */
static bool no_jit(Pg *source, Pg *target, Err *err)
{
    return pg_exec(source, "set jit = off", err) && pg_exec(target, "set jit = off", err);
}

static bool are_faithful(Pg *source, Pg *target, const char *publication, bool *faithful, Buf *why,
                         Err *err)
{
    char mine[16], theirs[16];
    AUTO_BUF encoding;

    buf_init(&encoding, 64);
    if (!pg_value(target, &encoding, err, "select pg_catalog.getdatabaseencoding()", 0, NULL))
        return false;
    snprintf(mine, sizeof(mine), "%d", source->version / 10000);
    snprintf(theirs, sizeof(theirs), "%d", target->version / 10000);
    AUTO_RESULT res = pg_rows(source, err, unfaithful[source->version >= 140000], publication,
                              buf_str(&encoding), mine, theirs);

    if (!res)
        return false;
    *faithful = PQntuples(res) == 0;
    if (!*faithful)
        buf_put_span(why, pg_cell(res, 0, 0));
    return true;
}

bool types_compare(Pg *source, Pg *target, const char *publication, bool *same, Buf *why, Err *err)
{
    if (!no_jit(source, target, err))
        return false;
    AUTO_RESULT columns = pg_rows(source, err, published_columns, publication);
    AUTO_RESULT types =
        columns ? pg_rows(source, err, made_types[source->version >= 140000], publication) : NULL;

    if (!types)
        return false;
    if (!ask_target(target, columns, differing_column, 5, same, why, err))
        return false;
    if (*same && !ask_target(target, types, differing_type, 2, same, why, err))
        return false;
    return !*same || are_faithful(source, target, publication, same, why, err);
}

bool types_fit(Pg *source, Pg *target, const char *publication, Err *err)
{
    if (!no_jit(source, target, err))
        return false;
    AUTO_RESULT mine = pg_rows(source, err, shapes[source->version >= 140000], publication);
    AUTO_BUF why;
    bool same;

    buf_init(&why, 4096);
    if (!mine || !ask_target(target, mine, differing_shape, 3, &same, &why, err))
        return false;
    if (same)
        return true;
    err_fail(err, ERR_FAITHFUL, "%s", buf_str(&why));
    err_code(err, "42804");
    return err_hint(err,
                    "values would be refused, or rounded on the way: give the target's type the "
                    "source's definition, then start again");
}
