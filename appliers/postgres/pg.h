/* pg.h - libpq with our errors: connect, ask, quote.
 *
 * A Pg belongs to one thread. Errors have the kind of its side (ERR_SOURCE or ERR_TARGET), the
 * SQLSTATE as code, and are transient when reconnecting can cure them.
 */
#ifndef PG_H
#define PG_H

#include <libpq-fe.h>

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/stop.h"

typedef struct Pg {
    PGconn *conn;
    ErrKind side;
    int version;    /* PQserverVersion: 150020 */
    bool describes; /* the statements of pg_table_describe are prepared */
} Pg;

static inline void pg_result_drop(PGresult **res)
{
    PQclear(*res);
}
#define AUTO_RESULT ON_EXIT(pg_result_drop) PGresult *

typedef struct PgOptions {
    const char *application; /* application_name; NULL: keybridge */
    const char *database;    /* instead of the connection string's; NULL: that one */
    bool replication;        /* a walsender connection: replication=database */
    const Stop *stop;        /* may be NULL; connecting gives up when it comes */
} PgOptions;

/* For the process: the [tls] options. Without it, and for any host that isn't loopback or a socket,
 * sslmode is verify-full unless the connection string, PGSSLMODE or the service says otherwise;
 * wherever libpq has the host from. (prefer is what libpq has when nobody says anything: only the
 * connection string itself can ask for it.) */
void pg_tls_setup(const char *ca_file, bool insecure);

/* Connects (10 s a host unless the string says otherwise) and, except for replication, pins the
 * settings that change values or end sessions: timeouts off, UTC/ISO styles, extra_float_digits,
 * hex bytea, search_path pg_catalog, client_encoding = the database's own encoding, array_nulls,
 * xmloption, standard_conforming_strings. */
MUST_USE bool pg_open(Pg *pg, const char *dsn, ErrKind side, const PgOptions *options, Err *err);
/* For a replication connection, whose text values the walsender makes, before it begins to stream.
 * encoding: of the client; NULL: the database's own. */
MUST_USE bool pg_pin_settings(Pg *pg, const char *encoding, Err *err);
void pg_close(Pg *pg); /* fine on a zeroed one */
#define AUTO_PG ON_EXIT(pg_close) Pg

/* One statement (or several without results); true when the command succeeded. */
MUST_USE bool pg_exec(Pg *pg, const char *sql, Err *err);
/* Rows expected; NULL: see err. Parameters are text, NULL is SQL NULL. */
MUST_USE PGresult *pg_query(Pg *pg, Err *err, const char *sql, int count,
                            const char *const *params);
#define pg_rows(pg, err, sql, ...)                                                               \
    pg_query((pg), (err), (sql),                                                                 \
             (int)(sizeof((const char *[]){NULL __VA_OPT__(, ) __VA_ARGS__}) / sizeof(char *)) - \
                 1,                                                                              \
             &((const char *const[]){NULL __VA_OPT__(, ) __VA_ARGS__})[1])
/* One text value of one row, "" when it is NULL; ERR_BUG-free: no row is an error that names the
 * query. */
MUST_USE bool pg_value(Pg *pg, Buf *out, Err *err, const char *sql, int count,
                       const char *const *params);

/* Fill err from what the connection or the result says; returns false. `doing` is "reading the
 * publication". */
bool pg_fail(Pg *pg, const PGresult *res, Err *err, const char *doing);
/* SQLSTATEs (and lost connections) that reconnecting or trying again can cure. */
bool pg_is_transient(const char *sqlstate);

static inline Span pg_cell(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column)
               ? SPAN_NONE
               : span_of(PQgetvalue(res, row, column), (size_t)PQgetlength(res, row, column));
}

void pg_put_name(Buf *sql, const char *name);                      /* "a""b" */
void pg_put_table(Buf *sql, const char *schema, const char *name); /* "s"."t" */
void pg_put_literal(Buf *sql, Span text); /* only where no parameter is possible */
/* Where a DSN points, without user or password: "host:port/db", for logs and errors. */
MUST_USE bool pg_place(const char *dsn, Buf *out, Err *err);

#endif
