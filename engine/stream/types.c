#include "engine/stream/types.h"

/* Everything that decides what the binary form of a type looks like, in one line. */
#define DESCRIPTION                                                                                  \
    "pg_catalog.concat_ws(' ', n.nspname, t.typname, t.typtype, t.typlen, t.typelem, t.typbasetype," \
    " t.typsend, t.typreceive,"                                                                      \
    " (select pg_catalog.string_agg(a.attname || ':' || a.atttypid, ',' order by a.attnum)"          \
    "  from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid"             \
    "   and a.attnum > 0 and not a.attisdropped),"                                                   \
    " (select pg_catalog.string_agg(e.enumlabel, ',' order by e.enumsortorder)"                      \
    "  from pg_catalog.pg_enum e where e.enumtypid = t.oid),"                                        \
    " (select pg_catalog.string_agg(r.rngsubtype::text, ',')"                                        \
    "  from pg_catalog.pg_range r where r.rngtypid = t.oid))"

#define PUBLISHED                                                                       \
    "from pg_catalog.pg_publication_tables p"                                           \
    " join pg_catalog.pg_namespace n on n.nspname = p.schemaname"                       \
    " join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename" \
    " join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "

static const char published_columns[] =
    "select pg_catalog.array_agg(n.nspname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(c.relname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(a.attname::text order by c.oid, a.attnum)::text,"
    " pg_catalog.array_agg(a.atttypid order by c.oid, a.attnum)::text " PUBLISHED
    "where p.pubname = $1";

static const char differing_column[] =
    "select pg_catalog.format('%s.%s.%s is %s here and %s there', x.s, x.t, x.c,"
    "  pg_catalog.format_type(x.type, null), pg_catalog.format_type(a.atttypid, null))"
    " from unnest($1::text[], $2::text[], $3::text[], $4::oid[]) x(s, t, c, type)"
    " join pg_catalog.pg_namespace n on n.nspname = x.s"
    " join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relname = x.t"
    " join pg_catalog.pg_attribute a on a.attrelid = k.oid and a.attname = x.c and not a.attisdropped"
    " where a.atttypid <> x.type limit 1";

/* rngmultitypid came with 14: there is nothing to ask before. */
#define USED_TYPES(multirange)                                                                  \
    "with recursive used(oid) as (select distinct a.atttypid " PUBLISHED "where p.pubname = $1" \
    " union select r.oid from used u cross join lateral ("                                      \
    "  select typelem from pg_catalog.pg_type where oid = u.oid"                                \
    "  union all select typbasetype from pg_catalog.pg_type where oid = u.oid"                  \
    "  union all select a.atttypid from pg_catalog.pg_type t join pg_catalog.pg_attribute a"    \
    "   on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped"                     \
    "   where t.oid = u.oid and t.typtype = 'c'"                                                \
    "  union all select rngsubtype from pg_catalog.pg_range where rngtypid = u.oid" multirange  \
    " ) r(oid) where r.oid <> 0)"                                                               \
    " select pg_catalog.array_agg(t.oid order by t.oid)::text,"                                 \
    "  pg_catalog.array_agg(" DESCRIPTION " order by t.oid)::text"                              \
    " from used u join pg_catalog.pg_type t on t.oid = u.oid"                                   \
    " join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.oid >= 16384"

static const char used_types[] = USED_TYPES("");
static const char used_types_14[] =
    USED_TYPES(" union all select rngtypid from pg_catalog.pg_range where rngmultitypid = u.oid");

static const char differing_type[] =
    "select pg_catalog.format('type %s is \"%s\" here and \"%s\" there', x.oid, x.described,"
    "  coalesce(d.described, 'missing'))"
    " from unnest($1::oid[], $2::text[]) x(oid, described)"
    " left join lateral (select " DESCRIPTION " from pg_catalog.pg_type t"
    "  join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.oid = x.oid) d(described) on true"
    " where d.described is distinct from x.described limit 1";

/* What the source answered goes to the target as it is; the first difference comes back. */
static bool ask_target(Pg *target, const PGresult *from, const char *sql, int count, bool *same,
                       Buf *why, Err *err)
{
    const char *params[4];

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

bool types_compare(Pg *source, Pg *target, const char *publication, bool *same, Buf *why, Err *err)
{
    const char *sql = source->version >= 140000 ? used_types_14 : used_types;

    /* The planner overestimates these queries so much that compiling them takes ten times as long
     * as running them. */
    if (!pg_exec(source, "set jit = off", err) || !pg_exec(target, "set jit = off", err))
        return false;
    AUTO_RESULT columns = pg_rows(source, err, published_columns, publication);
    AUTO_RESULT types = columns ? pg_rows(source, err, sql, publication) : NULL;

    if (!types)
        return false;
    if (!ask_target(target, columns, differing_column, 4, same, why, err))
        return false;
    return !*same || ask_target(target, types, differing_type, 2, same, why, err);
}
