#include "appliers/postgres/pg.h"

#include <arpa/inet.h>
#include <poll.h>

static char tls_ca_file[4096];
static bool tls_insecure;

void pg_tls_setup(const char *ca_file, bool insecure)
{
    snprintf(tls_ca_file, sizeof(tls_ca_file), "%s", ca_file ? ca_file : "");
    tls_insecure = insecure;
}

/* Connection lost, server going away or starting, out of slots or locks: worth another try. */
bool pg_is_transient(const char *sqlstate)
{
    static const char *const codes[] = {"57P01", "57P02", "57P03", "53300", "40001",
                                        "40P01", "55P03", "55006", "57014", "53000"};

    if (strncmp(sqlstate, "08", 2) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (strcmp(sqlstate, codes[i]) == 0)
            return true;
    return false;
}

/* libpq ends its messages with newlines and spreads them over several lines. */
static void one_line(const char *message, char *out, size_t size)
{
    size_t len = 0;

    for (const char *at = message; *at && len + 1 < size; at++)
        out[len++] = *at == '\n' || *at == '\t' ? ' ' : *at;
    while (len && out[len - 1] == ' ')
        len--;
    out[len] = '\0';
}

bool pg_fail(Pg *pg, const PGresult *res, Err *err, const char *doing)
{
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const char *detail = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL) : NULL;
    const char *hint = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_HINT) : NULL;
    const char *fallback = pg->conn ? PQerrorMessage(pg->conn) : "not connected";
    bool lost = !pg->conn || PQstatus(pg->conn) == CONNECTION_BAD;
    char text[700];

    if (detail && strncmp(detail, "Failing row contains", 20) == 0)
        detail = NULL; /* row data doesn't belong into errors */
    one_line(primary ? primary : *fallback ? fallback : "unexpected answer", text, sizeof(text));
    if (detail)
        err_fail(err, pg->side, "%s: %s (%s)", doing, text, detail);
    else
        err_fail(err, pg->side, "%s: %s", doing, text);
    if (hint)
        err_hint(err, "%s", hint);
    err_code(err, state ? state : lost ? "08006" : "");
    err->transient = lost || pg_is_transient(err->code);
    return false;
}

void pg_put_name(Buf *sql, const char *name)
{
    buf_putc(sql, '"');
    for (; *name; name++) {
        if (*name == '"')
            buf_putc(sql, '"');
        buf_putc(sql, *name);
    }
    buf_putc(sql, '"');
}

void pg_put_table(Buf *sql, const char *schema, const char *name)
{
    pg_put_name(sql, schema);
    buf_putc(sql, '.');
    pg_put_name(sql, name);
}

void pg_put_literal(Buf *sql, Span text)
{
    bool escape = text.len && memchr(text.at, '\\', text.len);

    buf_puts(sql, escape ? " E'" : "'");
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] == '\'' || text.at[i] == '\\')
            buf_put_u8(sql, text.at[i]);
        buf_put_u8(sql, text.at[i]);
    }
    buf_putc(sql, '\'');
}

static void free_options(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}

static const char *option_of(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword; options++)
        if (strcmp(options->keyword, keyword) == 0)
            return options->val && *options->val ? options->val : NULL;
    return NULL;
}

/* What libpq's messages say about a bad string can hold the string, and so the password: keep only
 * the rule. */
static PQconninfoOption *parse_dsn(const char *dsn, Err *err)
{
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(dsn ? dsn : "", &why);

    PQfreemem(why);
    if (!options) {
        err_fail(err, ERR_CONFIG, "a connection string can't be understood");
        err_hint(err, "write postgres://user@host:5432/database?sslmode=… or key=value pairs");
    }
    return options;
}

static bool is_loopback(const char *host, size_t len)
{
    char one[64];
    struct in_addr v4;

    if (len == 0 || host[0] == '/' || host[0] == '@')
        return true;
    if (len >= sizeof(one))
        return false;
    memcpy(one, host, len);
    one[len] = '\0';
    return strcmp(one, "localhost") == 0 || strcmp(one, "::1") == 0 ||
           (inet_pton(AF_INET, one, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

/* Whether one of the hosts of a list, as libpq takes it, is another machine. */
static bool any_away(const char *list)
{
    while (list) {
        const char *end = strchrnul(list, ',');

        if (!is_loopback(list, (size_t)(end - list)))
            return true;
        list = *end ? end + 1 : NULL;
    }
    return false;
}

static bool leads_away(const PQconninfoOption *options)
{
    return any_away(option_of(options, "host")) || any_away(option_of(options, "hostaddr"));
}

bool pg_place(const char *dsn, Buf *out, Err *err)
{
    PQconninfoOption *options ON_EXIT(free_options) = parse_dsn(dsn, err);
    const char *host, *port, *database;

    if (!options)
        return false;
    host = option_of(options, "host");
    if (!host)
        host = option_of(options, "hostaddr");
    if (!host)
        host = option_of(options, "service");
    port = option_of(options, "port");
    database = option_of(options, "dbname");
    buf_printf(out, "%s:%s/%s", host ? host : "local", port ? port : "5432",
               database ? database : "");
    return true;
}

typedef struct Params {
    const char *keys[64];
    const char *values[64];
    size_t count;
} Params;

static void add(Params *params, const char *key, const char *value)
{
    if (params->count + 1 < ARRAY_LEN(params->keys)) {
        params->keys[params->count] = key;
        params->values[params->count++] = value;
    }
}

/* Nobody has said how to use TLS, and the connection string itself names another machine. */
static bool must_verify(const PQconninfoOption *given)
{
    return !tls_insecure && !option_of(given, "sslmode") && !getenv("PGSSLMODE") &&
           !option_of(given, "service") && !getenv("PGSERVICE") && leads_away(given);
}

static bool fill_params(Params *params, const PQconninfoOption *given, const PgOptions *options)
{
    for (const PQconninfoOption *o = given; o->keyword; o++)
        if (o->val && *o->val && !(options->database && strcmp(o->keyword, "dbname") == 0))
            add(params, o->keyword, o->val);
    if (options->database)
        add(params, "dbname", options->database);
    add(params, "application_name", options->application ? options->application : "keybridge");
    if (options->replication)
        add(params, "replication", "database");
    /* A peer that is gone without a word is noticed within half a minute, not after two hours. */
    if (!option_of(given, "keepalives_idle"))
        add(params, "keepalives_idle", "15");
    if (!option_of(given, "keepalives_interval"))
        add(params, "keepalives_interval", "5");
    if (!option_of(given, "keepalives_count"))
        add(params, "keepalives_count", "3");
    if (!option_of(given, "tcp_user_timeout"))
        add(params, "tcp_user_timeout", "30000");
    if (!option_of(given, "connect_timeout"))
        add(params, "connect_timeout", "10");
    if (must_verify(given))
        add(params, "sslmode", "verify-full");
    if (!option_of(given, "sslrootcert") && *tls_ca_file)
        add(params, "sslrootcert", tls_ca_file);
    return true;
}

/* Host and sslmode can come from the environment or a service file as well, which only libpq reads:
 * it is asked, before anything is sent, where it goes and how. */
static PGconn *start_connection(Params *params, const PQconninfoOption *given)
{
    PGconn *conn = PQconnectStartParams(params->keys, params->values, 0);
    PQconninfoOption *all ON_EXIT(free_options) = conn ? PQconninfo(conn) : NULL;
    const char *mode = all ? option_of(all, "sslmode") : NULL;

    if (!conn || !all)
        abort();
    if (tls_insecure || option_of(given, "sslmode") || !mode || strcmp(mode, "prefer") != 0 ||
        !leads_away(all))
        return conn;
    PQfinish(conn);
    add(params, "sslmode", "verify-full");
    conn = PQconnectStartParams(params->keys, params->values, 0);
    if (!conn)
        abort();
    return conn;
}

/* PQconnectStart, so that a request to stop is heard while a host doesn't answer. libpq's own
 * connect_timeout counts only in PQconnectdb, so the deadline is kept here. */
static bool connect_wait(Pg *pg, const Stop *stop, int timeout_s, Err *err)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;

    for (int waited_ms = 0; next != PGRES_POLLING_OK;) {
        struct pollfd fds[2] = {
            {.fd = PQsocket(pg->conn), .events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT},
            {.fd = stop ? stop->fd : -1, .events = POLLIN}};

        if (next == PGRES_POLLING_FAILED)
            return false;
        if (poll(fds, 2, 250) == 0)
            waited_ms += 250;
        if (stop && stop_requested(stop))
            return stop_fail(err, "connecting");
        if (waited_ms >= timeout_s * 1000) {
            err_fail(err, pg->side, "connecting to %s: no answer within %d s",
                     pg->side == ERR_SOURCE ? "the source" : "the target", timeout_s);
            err_code(err, "08001");
            err_hint(err, "check host, port, security group and that the server is up");
            return err_transient(err);
        }
        if (fds[0].revents)
            next = PQconnectPoll(pg->conn);
    }
    return true;
}

static const struct {
    const char *part;
    const char *code;
    const char *hint;
    bool transient;
} connect_hints[] = {
    {"password authentication failed", "28P01",
     "check user and password (PGPASSFILE, service file, KEYBRIDGE_SOURCE, KEYBRIDGE_TARGET)",
     false},
    {"no password supplied", "28P01",
     "give a password with PGPASSFILE, PGPASSWORD, a service file or the connection string", false},
    {"no pg_hba.conf entry", "28000",
     "the server's pg_hba.conf or its TLS requirement refuses this user, host or database", false},
    {"must be superuser or replication role", "42501",
     "give the user the right to replicate: ALTER ROLE … REPLICATION, on RDS GRANT rds_replication TO …",
     false},
    {"permission denied to start WAL sender", "42501",
     "give the user the right to replicate: ALTER ROLE … REPLICATION, on RDS GRANT rds_replication TO …",
     false},
    {"permission denied", "42501", "the user lacks a privilege", false},
    {"root certificate file", "08001",
     "give the certificates that sign the server's with --tls-ca (on RDS: the Region's bundle)",
     false},
    {"certificate verify failed", "08001",
     "give the certificates that sign the server's with --tls-ca (on RDS: the Region's bundle)",
     false},
    {"server certificate for", "08001", "connect by the name in the server's certificate", false},
    {"server does not support SSL", "08001",
     "turn TLS on at the server, or allow plain connections with --tls-insecure", false},
    {"does not exist", "3D000", "check the database and user in the connection string", false},
    {"could not translate host name", "08001", "check the host's name and the resolver", true},
    {"Connection refused", "08001", "check that the server is up and listens on this host and port",
     true},
    {"too many clients", "53300", "raise max_connections, lower --apply-lanes or wait", true},
    {"remaining connection slots", "53300", "raise max_connections, lower --apply-lanes or wait",
     true},
    {"starting up", "57P03", "the server is starting; it will be tried again", true},
    {"shutting down", "57P03", "the server is going down; it will be tried again", true},
    {"recovery mode", "57P03", "the server is recovering; it will be tried again", true},
};

/* A failed connection has no result and so no SQLSTATE: the text is all there is. */
static bool connect_fail(Pg *pg, Err *err)
{
    const char *what = pg->side == ERR_SOURCE ? "the source" : "the target";
    const char *message = PQerrorMessage(pg->conn);
    char text[700];

    /* An unescaped / or @ makes a part of the password the port, and libpq would quote it. */
    if (strstr(message, "connection option")) {
        err_fail(err, ERR_CONFIG,
                 "connecting to %s: a setting in the connection string can't be right", what);
        return err_hint(err,
                        "in a URL, / @ : %% in user and password are written %%2F %%40 %%3A %%25");
    }
    one_line(message, text, sizeof(text));
    err_fail(err, pg->side, "connecting to %s: %s", what, text);
    err_code(err, "08001");
    err->transient = true;
    for (size_t i = 0; i < ARRAY_LEN(connect_hints); i++) {
        if (!strstr(message, connect_hints[i].part))
            continue;
        err_code(err, connect_hints[i].code);
        err_hint(err, "%s", connect_hints[i].hint);
        err->transient = connect_hints[i].transient;
        break;
    }
    return false;
}

/* One text per setting because a server below the version that knows it refuses the whole
 * statement. Roles and databases can set any of these to something that bends values or ends
 * sessions (traps 30, 40, 64, 66, 176). */
bool pg_pin_settings(Pg *pg, const char *encoding, Err *err)
{
    static const char common[] =
        "set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0;"
        "set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC';"
        "set extra_float_digits = 3; set bytea_output = 'hex'; set search_path = pg_catalog;"
        "set array_nulls = on; set xmloption = content; set standard_conforming_strings = on;"
        "set row_security = off; set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;"
        "set lc_monetary = 'C'; set default_transaction_deferrable = off;"
        "set quote_all_identifiers = off; set transform_null_equals = off; set exit_on_error = off";
    Buf sql ON_EXIT(buf_fini);

    buf_init(&sql, 4096);
    /* By itself: a statement in the same transaction would still be serializable and deferrable
     * where the role's transactions are, and wait for a safe snapshot or, on a standby, fail. */
    if (!pg_exec(pg, common, err))
        return err_context(err, "setting up the session");
    /* No parameters: a walsender doesn't know the extended protocol. */
    buf_puts(&sql, "select pg_catalog.set_config('client_encoding', ");
    if (encoding)
        pg_put_literal(&sql, span_str(encoding));
    else
        buf_puts(&sql, "pg_catalog.getdatabaseencoding()");
    buf_puts(&sql, ", false)");
    if (!buf_ok(&sql, "session settings", err) || !pg_exec(pg, buf_str(&sql), err))
        return err_context(err, "setting up the session");
    if (pg->version >= 140000 && !pg_exec(pg, "set idle_session_timeout = 0", err))
        return false;
    return pg->version < 170000 || pg_exec(pg, "set transaction_timeout = 0", err);
}

static void ignore_notice(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

bool pg_open(Pg *pg, const char *dsn, ErrKind side, const PgOptions *options, Err *err)
{
    static const PgOptions none = {0};
    PQconninfoOption *given ON_EXIT(free_options) = parse_dsn(dsn, err);
    Params params = {.count = 0};
    const char *timeout;

    *pg = (Pg){.side = side};
    if (!given)
        return false;
    if (!options)
        options = &none;
    fill_params(&params, given, options);
    timeout = option_of(given, "connect_timeout");
    pg->conn = start_connection(&params, given);
    if (PQstatus(pg->conn) == CONNECTION_BAD ||
        !connect_wait(pg, options->stop, timeout ? (int)strtol(timeout, NULL, 10) : 10, err)) {
        if (!err_is_set(err))
            connect_fail(pg, err);
        pg_close(pg);
        return false;
    }
    pg->version = PQserverVersion(pg->conn);
    PQsetNoticeReceiver(pg->conn, ignore_notice, NULL);
    if (!options->replication && !pg_pin_settings(pg, NULL, err)) {
        pg_close(pg);
        return false;
    }
    return true;
}

void pg_close(Pg *pg)
{
    if (pg->conn)
        PQfinish(pg->conn);
    pg->conn = NULL;
}

/* The start of a statement names it well enough in an error. */
static const char *sql_start(const char *sql, char out[100])
{
    one_line(sql, out, 100);
    return out;
}

bool pg_exec(Pg *pg, const char *sql, Err *err)
{
    AUTO_RESULT res = PQexec(pg->conn, sql);
    char start[100];

    if (PQresultStatus(res) == PGRES_COMMAND_OK || PQresultStatus(res) == PGRES_TUPLES_OK)
        return true;
    return pg_fail(pg, res, err, sql_start(sql, start));
}

PGresult *pg_query(Pg *pg, Err *err, const char *sql, int count, const char *const *params)
{
    PGresult *res = PQexecParams(pg->conn, sql, count, NULL, params, NULL, NULL, 0);
    char start[100];

    if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
        return res;
    pg_fail(pg, res, err, sql_start(sql, start));
    PQclear(res);
    return NULL;
}

bool pg_value(Pg *pg, Buf *out, Err *err, const char *sql, int count, const char *const *params)
{
    AUTO_RESULT res = pg_query(pg, err, sql, count, params);
    char start[100];

    if (!res)
        return false;
    if (PQntuples(res) != 1 || PQnfields(res) < 1)
        return err_fail(err, pg->side, "%s: %d rows where one was expected", sql_start(sql, start),
                        PQntuples(res));
    buf_clear(out);
    buf_put_span(out, pg_cell(res, 0, 0));
    return buf_ok(out, "a value from the server", err);
}
