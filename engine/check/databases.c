#include "engine/check/databases.h"

static const char *database_of(const char *dsn, Arena *arena)
{
    PQconninfoOption *options = PQconninfoParse(dsn, NULL);
    const char *found = NULL;

    for (const PQconninfoOption *o = options; o && o->keyword; o++)
        if (strcmp(o->keyword, "dbname") == 0 && o->val && *o->val)
            found = arena_strdup(arena, o->val);
    PQconninfoFree(options);
    return found;
}

static bool just(Arena *arena, const char *name, DatabaseList *out)
{
    const char **names = arena_array(arena, const char *, 1);

    names[0] = name;
    *out = (DatabaseList){names, 1};
    return true;
}

static bool all_of(const char *source_dsn, const Stop *stop, Arena *arena, DatabaseList *out,
                   Err *err)
{
    AUTO_PG source = {0};
    AUTO_RESULT res = NULL;
    const char **names;

    if (!pg_open(&source, source_dsn, ERR_SOURCE,
                 &(PgOptions){.database = "postgres", .stop = stop}, err))
        return false;
    res = pg_rows(
        &source, err,
        "select datname from pg_database where datallowconn and not datistemplate and datname <> 'rdsadmin'"
        " order by datname::text collate \"C\"");
    if (!res)
        return false;
    names = arena_array(arena, const char *, PQntuples(res) + 1);
    for (int i = 0; i < PQntuples(res); i++)
        names[i] = arena_str_of(arena, pg_cell(res, i, 0));
    *out = (DatabaseList){names, (size_t)PQntuples(res)};
    return true;
}

bool databases_of(const char *source_dsn, const char *target_dsn, const char *only,
                  const Stop *stop, Arena *arena, DatabaseList *out, Err *err)
{
    const char *mine, *other;

    *out = (DatabaseList){NULL, 0};
    if (!source_dsn || !target_dsn) {
        err_fail(err, ERR_USAGE, "the %s isn't given", source_dsn ? "target" : "source");
        return err_hint(
            err,
            "--source postgres://… --target postgres://…, or KEYBRIDGE_SOURCE and KEYBRIDGE_TARGET");
    }
    mine = database_of(source_dsn, arena);
    other = database_of(target_dsn, arena);
    if (only)
        return just(arena, only, out);
    if (mine && other && strcmp(mine, other) != 0)
        return just(arena, NULL, out);
    if (mine || other)
        return just(arena, mine ? mine : other, out);
    return all_of(source_dsn, stop, arena, out, err);
}
