/* One connection in libpq's pipeline mode: statements are sent without waiting for the ones before,
 * and settled together. The socket is non-blocking and every wait also reads: a blocking pipeline
 * deadlocks once both sides' buffers are full of what the other doesn't read (PostgreSQL
 * documentation, Pipeline Mode). */
#include "appliers/postgres/applier_impl.h"

#include <errno.h>
#include <poll.h>

#define FLUSH_BYTES KIB(64)
#define STMTS_MOST  2000

bool link_lost(PgApplier *a, Err *err, const char *doing)
{
    a->broken = true;
    return pg_fail(&a->pg, NULL, err, doing);
}

/* Until the socket is readable (or writable, when asked). */
static bool wait_socket(PgApplier *a, bool writing, Err *err)
{
    struct pollfd fds[2] = {
        {.fd = PQsocket(a->pg.conn), .events = (short)(POLLIN | (writing ? POLLOUT : 0))},
        {.fd = a->closing ? a->closing->fd : -1, .events = POLLIN}};

    if (fds[0].fd < 0)
        return link_lost(a, err, "waiting for the target");
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return err_errno(err, ERR_SYSTEM, "poll");
    if (fds[1].revents) {
        a->broken = true;
        return stop_fail(err, "waiting for the target");
    }
    if (fds[0].revents & (POLLIN | POLLERR | POLLHUP) && !PQconsumeInput(a->pg.conn))
        return link_lost(a, err, "reading from the target");
    return true;
}

bool link_flush(PgApplier *a, Err *err)
{
    a->unflushed = 0;
    for (;;) {
        int left = PQflush(a->pg.conn);

        if (left == 0)
            return true;
        if (left < 0)
            return link_lost(a, err, "writing to the target");
        if (!wait_socket(a, true, err))
            return false;
    }
}

bool link_push(PgApplier *a, size_t bytes, Err *err)
{
    a->unflushed += bytes;
    return a->unflushed < FLUSH_BYTES || link_flush(a, err);
}

bool link_pipeline(PgApplier *a, Err *err)
{
    if (a->broken)
        return link_lost(a, err, "writing to the target");
    if (PQpipelineStatus(a->pg.conn) != PQ_PIPELINE_OFF || PQenterPipelineMode(a->pg.conn))
        return true;
    return link_lost(a, err, "entering pipeline mode");
}

bool link_plain(PgApplier *a, Err *err)
{
    if (!link_settle(a, err))
        return false;
    return PQpipelineStatus(a->pg.conn) == PQ_PIPELINE_OFF || PQexitPipelineMode(a->pg.conn) ||
           link_lost(a, err, "leaving pipeline mode");
}

bool link_expect(PgApplier *a, const Expect *expect, Err *err)
{
    (void)err;
    if (a->expect_count == a->expect_room) {
        a->expect_room = a->expect_room ? a->expect_room * 2 : 64;
        a->expects = realloc(a->expects, a->expect_room * sizeof(*a->expects));
        if (!a->expects)
            abort();
    }
    a->expects[a->expect_count++] = *expect;
    return true;
}

bool link_send(PgApplier *a, const char *sql, const Expect *expect, Err *err)
{
    if (!link_pipeline(a, err))
        return false;
    if (!PQsendQueryParams(a->pg.conn, sql, 0, NULL, NULL, NULL, NULL, 0))
        return link_lost(a, err, sql);
    return link_expect(a, expect, err);
}

bool link_result(PgApplier *a, PGresult **res, Err *err)
{
    while (PQisBusy(a->pg.conn))
        if (!wait_socket(a, false, err))
            return false;
    *res = PQgetResult(a->pg.conn);
    return true;
}

/* --- judging results -------------------------------------------------------------------------- */

static void put_where(Buf *out, const Expect *e)
{
    if (e->table) {
        buf_printf(out, "%s %s", e->doing, e->table->place);
        pg_put_key(out, e->table, e->key);
    } else {
        buf_puts(out, e->doing);
    }
}

/* A refusal by the data or the schema won't go away by itself, one by the server's state may. */
static bool is_about_data(const char *sqlstate)
{
    static const char *const classes[] = {"22", "23", "42", "21", "27", "44",
                                          "P0", "0A", "2F", "38", "39"};

    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if (strncmp(sqlstate, classes[i], 2) == 0 && strcmp(sqlstate, "42501") != 0)
            return true;
    return false;
}

/* What the types' receive functions say of bytes that aren't theirs: a type was made or changed
 * since the stream began. Text may do, and whether it does is seen then. */
static bool is_about_form(const char *sqlstate)
{
    return strcmp(sqlstate, "22P03") == 0 || /* invalid binary representation */
           strcmp(sqlstate, "42804") == 0 || /* an array's or row's parts are of another type */
           strcmp(sqlstate, "08P01") == 0;   /* more or fewer bytes than the type takes */
}

static bool refused(PgApplier *a, const PGresult *res, const Expect *e, Err *err)
{
    Buf where ON_EXIT(buf_fini);

    buf_init(&where, 4096);
    put_where(&where, e);
    pg_fail(&a->pg, res, err, buf_str(&where));
    if (e->table && a->binary && is_about_form(err->code)) {
        err_code(err, VALUE_FORM);
        return err_transient(err);
    }
    if ((e->table || e->is_check) && is_about_data(err->code)) {
        err->kind = ERR_FAITHFUL;
        if (!*err->hint)
            err_hint(
                err,
                "compare this row and the table's definition on both sides; repair the target, then start again");
    }
    return false;
}

static bool miscounted(const Expect *e, int64_t got, Err *err)
{
    Buf where ON_EXIT(buf_fini);

    buf_init(&where, 4096);
    put_where(&where, e);
    if (e->is_progress) {
        err_fail(err, ERR_TARGET,
                 "another session has written the progress of this stream meanwhile");
        err_code(err, "progress");
        return err_transient(err);
    }
    err_fail(err, ERR_FAITHFUL, "%s: %" PRId64 " rows were found where the source changed %" PRId64,
             buf_str(&where), got, e->rows);
    err_code(err, "row-count");
    return err_hint(
        err,
        "the target's rows aren't the source's any more: somebody wrote to the target, or the start "
        "position is wrong; run keybridge verify, repair the rows, then start again");
}

bool link_judge(PgApplier *a, const PGresult *res, const Expect *e, Err *err)
{
    ExecStatusType status = PQresultStatus(res);
    int64_t rows;

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        return refused(a, res, e, err);
    if (e->is_commit && strcmp(PQcmdStatus((PGresult *)(uintptr_t)res), "COMMIT") != 0)
        return err_fail(err, ERR_BUG, "a failed transaction was to be committed");
    if (e->rows < 0)
        return true;
    rows = strtoll(PQcmdTuples((PGresult *)(uintptr_t)res), NULL, 10);
    if (rows != e->rows)
        return miscounted(e, rows, err);
    if (e->table)
        a->written += (uint64_t)rows;
    return true;
}

/* All results of one statement. */
static bool take_one(PgApplier *a, const Expect *e, bool *ok, Err *err)
{
    for (bool first = true;; first = false) {
        PGresult *res ON_EXIT(pg_result_drop) = NULL;

        if (!link_result(a, &res, err))
            return false;
        if (!res)
            return !first || link_lost(a, err, e->doing);
        if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED)
            continue;
        if (*ok && !link_judge(a, res, e, err))
            *ok = false;
        if (PQstatus(a->pg.conn) == CONNECTION_BAD) {
            a->broken = true;
            return *ok ? link_lost(a, err, e->doing) : false;
        }
    }
}

static bool take_sync(PgApplier *a, Err *err)
{
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    if (!link_result(a, &res, err))
        return false;
    return (res && PQresultStatus(res) == PGRES_PIPELINE_SYNC) ||
           link_lost(a, err, "waiting for the target");
}

bool link_settle(PgApplier *a, Err *err)
{
    bool ok = true;
    Err later = ERR_INIT; /* once one has failed, what follows is only consequence */

    if (a->broken)
        return link_lost(a, err, "waiting for the target");
    if (PQpipelineStatus(a->pg.conn) == PQ_PIPELINE_OFF)
        return true;
    if (!PQpipelineSync(a->pg.conn))
        return link_lost(a, err, "writing to the target");
    if (!link_flush(a, err))
        return false;
    for (size_t i = 0; i < a->expect_count; i++)
        if (!take_one(a, &a->expects[i], &ok, ok ? err : &later))
            return false;
    a->expect_count = 0;
    return take_sync(a, ok ? err : &later) && ok;
}

/* --- prepared statements ---------------------------------------------------------------------- */

static Stmt *stmt_new(PgApplier *a, const PgShape *shape, const uint8_t *key, size_t key_len,
                      Err *err)
{
    unsigned columns = shape->table->base.rel->column_count;
    Buf sql ON_EXIT(buf_fini);
    Expect expect = {
        .doing = "preparing a statement for", .table = &shape->table->base, .rows = -1};
    Stmt *stmt = calloc(1, sizeof(*stmt) + key_len);

    if (!stmt)
        abort();
    stmt->types = calloc(2 * columns + 1, sizeof(*stmt->types));
    if (!stmt->types)
        abort();
    memcpy(stmt->key, key, key_len);
    stmt->key_len = key_len;
    snprintf(stmt->name, sizeof(stmt->name), "k%u", a->stmt_next++);
    HASH_ADD_KEYPTR(hh, a->stmts, stmt->key, stmt->key_len, stmt);
    a->stmt_count++;
    buf_init(&sql, MIB(4));
    pg_shape_sql(shape, &sql, stmt->types, &stmt->params);
    if (!buf_ok(&sql, "a statement", err))
        return NULL;
    if (!PQsendPrepare(a->pg.conn, stmt->name, buf_str(&sql), stmt->params, stmt->types)) {
        link_lost(a, err, "preparing a statement");
        return NULL;
    }
    return link_expect(a, &expect, err) ? stmt : NULL;
}

Stmt *link_stmt(PgApplier *a, const PgShape *shape, Err *err)
{
    uint16_t columns = shape->table->base.rel->column_count;
    uint8_t key[sizeof(StmtKey) + 1700];
    StmtKey head = {.table = shape->table->number,
                    .verb = (uint8_t)shape->verb,
                    .many = shape->many,
                    .count = columns};
    Stmt *stmt;

    if (columns > 1700) {
        err_fail(err, ERR_PROTOCOL, "table %s has %u columns", shape->table->base.place, columns);
        return NULL;
    }
    memcpy(key, &head, sizeof(head));
    memcpy(key + sizeof(head), shape->uses, columns);
    HASH_FIND(hh, a->stmts, key, sizeof(head) + columns, stmt);
    if (stmt)
        return stmt;
    if (a->stmt_count >= STMTS_MOST) {
        Expect expect = {.doing = "deallocating statements", .rows = -1};

        if (!link_send(a, "deallocate all", &expect, err))
            return NULL;
        link_forget(a);
    }
    return stmt_new(a, shape, key, sizeof(head) + columns, err);
}

void link_forget(PgApplier *a)
{
    Stmt *stmt, *next;

    HASH_ITER(hh, a->stmts, stmt, next)
    {
        HASH_DEL(a->stmts, stmt);
        free(stmt->types);
        free(stmt);
    }
    a->stmt_count = 0;
    a->progress_ready = false;
}
