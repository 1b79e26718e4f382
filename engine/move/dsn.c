#include "engine/move/dsn.h"

#include <libpq-fe.h>

#include "engine/base/buf.h"

static void drop_options(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}
#define AUTO_OPTIONS ON_EXIT(drop_options) PQconninfoOption *

/* keyword='value', quoted as libpq wants it. */
static void put_pair(Buf *buf, const char *keyword, const char *value)
{
    if (buf->len)
        buf_putc(buf, ' ');
    buf_printf(buf, "%s='", keyword);
    for (; *value; value++) {
        if (*value == '\'' || *value == '\\')
            buf_putc(buf, '\\');
        buf_putc(buf, *value);
    }
    buf_putc(buf, '\'');
}

static const char *take(Arena *arena, Buf *buf)
{
    const char *text = arena_str_of(arena, buf_span(buf));

    buf_wipe(buf);
    return text;
}

const char *dsn_with_database(Arena *arena, const char *dsn, const char *database, Err *err)
{
    char *why = NULL;
    AUTO_OPTIONS options = PQconninfoParse(dsn, &why);
    Buf buf;

    PQfreemem(why); /* it can hold the string, and so the password */
    if (!options) {
        err_fail(err, ERR_CONFIG, "a connection string can't be understood");
        err_hint(err, "write postgres://user@host:5432/database?sslmode=… or key=value pairs");
        return NULL;
    }
    buf_init(&buf, 65536);
    for (const PQconninfoOption *o = options; o->keyword; o++)
        if (o->val && *o->val && strcmp(o->keyword, "dbname") != 0)
            put_pair(&buf, o->keyword, o->val);
    put_pair(&buf, "dbname", database);
    return take(arena, &buf);
}

const char *dsn_of_parts(Arena *arena, const char *host, unsigned port, const char *user,
                         const char *password, const char *database)
{
    char number[16];
    Buf buf;

    buf_init(&buf, 65536);
    put_pair(&buf, "host", host);
    if (port) {
        snprintf(number, sizeof(number), "%u", port);
        put_pair(&buf, "port", number);
    }
    if (user)
        put_pair(&buf, "user", user);
    if (password)
        put_pair(&buf, "password", password);
    if (database)
        put_pair(&buf, "dbname", database);
    return take(arena, &buf);
}

static const char *value_in(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *o = options; o && o->keyword; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val && *o->val ? o->val : NULL;
    return NULL;
}

const char *dsn_part(Arena *arena, const char *dsn, const char *keyword)
{
    char *why = NULL;
    AUTO_OPTIONS given = PQconninfoParse(dsn, &why);
    AUTO_OPTIONS standard = PQconndefaults();
    const char *value = value_in(given, keyword);

    PQfreemem(why);
    if (!value)
        value = value_in(standard, keyword);
    return value ? arena_strdup(arena, value) : NULL;
}
