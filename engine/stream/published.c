#include "engine/stream/published.h"

#define OPERATIONS                                                                                \
    "select 'it doesn''t publish ' || concat_ws(', ', case when not pubinsert then 'INSERT' end," \
    " case when not pubupdate then 'UPDATE' end, case when not pubdelete then 'DELETE' end,"      \
    " case when not pubtruncate then 'TRUNCATE' end) x from pg_catalog.pg_publication"            \
    " where pubname = $1 and not (pubinsert and pubupdate and pubdelete and pubtruncate)"

/* Row filters and column lists came with 15. */
#define PARTS(what, column)                                                                   \
    " union all select 'only some " what                                                      \
    " of ' || pg_catalog.string_agg(prrelid::pg_catalog.regclass::text, ', ' order by 1)"     \
    " from pg_catalog.pg_publication_rel join pg_catalog.pg_publication p on p.oid = prpubid" \
    " where pubname = $1 and " column " is not null having count(*) > 0"

static const char before_15[] = "select pg_catalog.string_agg(x, '; ') from (" OPERATIONS ") l";
static const char now[] =
    "select pg_catalog.string_agg(x, '; ') from (" OPERATIONS PARTS("rows", "prqual")
        PARTS("columns", "prattrs") ") l";

bool published_limits(Pg *source, const char *publication, Buf *out, Err *err)
{
    AUTO_RESULT res = pg_rows(source, err, source->version < 150000 ? before_15 : now, publication);

    if (res && PQntuples(res) == 1 && !PQgetisnull(res, 0, 0))
        buf_put_span(out, pg_cell(res, 0, 0));
    return res && buf_ok(out, "the list of what isn't published", err);
}
