/* Rows into statements. Three forms, by how many rows there are and what their types allow:
 *   one    a prepared statement for each row, pipelined: few rows, and types that can't travel in
 * arrays many   INSERT, UPDATE or DELETE against unnested arrays, one for each thousands of rows
 *   copy   COPY, binary or text: the fastest for inserts, at two more round trips
 */
#include "appliers/postgres/applier_impl.h"

#include <poll.h>

#define MANY_LEAST   5
#define COPY_LEAST   100
#define MANY_ROWS    4000
#define MANY_BYTES   MIB(1)
#define COLUMNS_MOST 1700

typedef struct Job {
    PgApplier *a;
    PgTable *t;
    PgVerb verb;
    uint8_t uses[COLUMNS_MOST];
    uint8_t kinds[COLUMNS_MOST]; /* 1 << ValueKind of all rows' values; many and copy */
    const char *doing;
    bool exact; /* this row is written by itself, in its place: whatever it takes */
} Job;

/* --- which columns -----------------------------------------------------------------------------
 */

static bool use_key(Job *job, const Value *key, Err *err)
{
    const Table *table = &job->t->base;

    for (unsigned i = 0; i < table->key_count; i++) {
        unsigned column = table->key[i];

        if (!value_is_known(key[column])) {
            err_fail(err, ERR_FAITHFUL,
                     "%s %s: the value of key column %s isn't in the source's message", job->doing,
                     table->place, table->rel->columns[column].name);
            return err_hint(
                err,
                "the key is so long that it is stored out of line, and this source doesn't send it "
                "again when it didn't change: give the table a shorter key or REPLICA IDENTITY FULL");
        }
        job->uses[column] |= USE_KEY;
    }
    return true;
}

static bool uses_insert(Job *job, const Value *image, Err *err)
{
    const Relation *rel = job->t->base.rel;

    memset(job->uses, 0, rel->column_count);
    for (unsigned i = 0; i < rel->column_count; i++) {
        if (job->t->columns[i].generated)
            continue;
        if (!value_is_known(image[i]))
            return err_fail(err, ERR_FAITHFUL,
                            "inserting into %s: the source didn't send column %s",
                            job->t->base.place, rel->columns[i].name);
        job->uses[i] |= USE_VALUE;
    }
    return true;
}

/* An update writes the columns it knows, but for the key's that stay. A GENERATED ALWAYS identity
 * column can't be in SET: it is looked for instead, so that a change of it can't be lost silently.
 */
static bool uses_update(Job *job, const Value *key, const Value *image, bool *rekey, Err *err)
{
    const Table *table = &job->t->base;
    bool any = false, beside = false;

    *rekey = false;
    memset(job->uses, 0, table->rel->column_count);
    if (!use_key(job, key, err))
        return false;
    for (unsigned i = 0; i < table->rel->column_count; i++) {
        const PgColumn *c = &job->t->columns[i];
        bool stays = job->t->in_key[i] && value_equal(key[i], image[i]);

        if (!value_is_known(image[i]) || c->generated || stays)
            continue;
        if (c->always && job->t->in_key[i]) {
            *rekey = true;
        } else if (c->always) {
            job->uses[i] |= USE_KEY;
            beside = true;
            if (job->exact)
                job->uses[i] |= USE_VALUE;
            continue;
        }
        job->uses[i] |= USE_VALUE;
        any = true;
    }
    job->verb = *rekey                 ? PG_REKEY
                : beside && job->exact ? PG_UPDATE_OR_REKEY
                : any                  ? PG_UPDATE
                                       : PG_TOUCH;
    return true;
}

/* The key parameter of a column: the old value, but for identity columns that are only looked for.
 */
static Value key_value(const Job *job, unsigned column, const Value *key, const Value *image)
{
    bool matched = job->verb == PG_MATCH_UPDATE || job->verb == PG_MATCH_DELETE;

    return job->t->in_key[column] || !image || matched ? key[column] : image[column];
}

/* --- one row -----------------------------------------------------------------------------------
 */

typedef struct Params {
    const char *values[2 * COLUMNS_MOST];
    int lengths[2 * COLUMNS_MOST];
    int formats[2 * COLUMNS_MOST];
    int count;
    size_t bytes;
} Params;

/* libpq wants text parameters NUL-terminated, which values aren't: the length of text is only used
 * when the parameter is binary. So text is copied with its NUL. */
static bool param_add(Job *job, Params *p, Value v)
{
    int n = p->count++;

    p->values[n] = NULL;
    p->lengths[n] = 0;
    p->formats[n] = v.kind == VALUE_BINARY;
    if (v.kind == VALUE_NULL)
        return true;
    p->bytes += v.len;
    p->lengths[n] = (int)v.len;
    if (v.kind == VALUE_BINARY) {
        p->values[n] = v.len ? (const char *)v.at : "";
        return true;
    }
    /* An offset for now: the buffer may move while it grows. */
    p->values[n] = (const char *)(uintptr_t)(job->a->scratch.len + 1);
    p->formats[n] = -1;
    buf_put(&job->a->scratch, v.at, v.len);
    buf_put_u8(&job->a->scratch, 0);
    return true;
}

static void params_settle(Job *job, Params *p)
{
    for (int n = 0; n < p->count; n++)
        if (p->formats[n] < 0) {
            p->values[n] = (const char *)job->a->scratch.at + ((uintptr_t)p->values[n] - 1);
            p->formats[n] = 0;
        }
}

static bool run_one(Job *job, const Value *key, const Value *image, const Txn *txn, Err *err)
{
    PgShape shape = {.table = job->t, .verb = job->verb, .uses = job->uses};
    Expect expect = {.doing = job->doing,
                     .table = &job->t->base,
                     .txn = txn,
                     .key = key ? key : image,
                     .rows = 1};
    unsigned columns = job->t->base.rel->column_count;
    Params p;
    Stmt *stmt;

    p.count = 0;
    p.bytes = 100;
    if (!link_pipeline(job->a, err))
        return false;
    stmt = link_stmt(job->a, &shape, err);
    if (!stmt)
        return false;
    buf_clear(&job->a->scratch);
    for (unsigned i = 0; i < columns; i++)
        if (job->uses[i] & USE_VALUE)
            param_add(job, &p, image[i]);
    for (unsigned i = 0; i < columns; i++)
        if (job->uses[i] & USE_KEY)
            param_add(job, &p, key_value(job, i, key, image));
    if (!buf_ok(&job->a->scratch, "a row", err))
        return false;
    params_settle(job, &p);
    if (!PQsendQueryPrepared(job->a->pg.conn, stmt->name, p.count, p.values, p.lengths, p.formats,
                             0)) {
        job->a->broken = true;
        return pg_fail(&job->a->pg, NULL, err, job->doing);
    }
    return link_expect(job->a, &expect, err) && link_push(job->a, p.bytes, err);
}

static bool one_row(Job *job, const Row *row, Err *err)
{
    bool rekey;

    if (job->verb == PG_INSERT)
        return uses_insert(job, row->image, err) && run_one(job, NULL, row->image, row->txn, err);
    if (job->verb == PG_DELETE) {
        memset(job->uses, 0, job->t->base.rel->column_count);
        return use_key(job, row->key, err) && run_one(job, row->key, NULL, row->txn, err);
    }
    return uses_update(job, row->key, row->image, &rekey, err) &&
           run_one(job, row->key, row->image, row->txn, err);
}

/* --- many rows ---------------------------------------------------------------------------------
 */

/* One array parameter: binary when its values are. Layout (array_recv): dimensions, has-null flag,
 * element type, then for each dimension length and lower bound, then for each element its length
 * (-1: NULL) and bytes. */
static void array_begin_binary(Buf *out, uint32_t element, size_t count, bool nulls)
{
    buf_put_u32be(out, 1);
    buf_put_u32be(out, nulls);
    buf_put_u32be(out, element);
    buf_put_u32be(out, (uint32_t)count);
    buf_put_u32be(out, 1);
}

static void array_add_binary(Buf *out, Value v)
{
    uint8_t *at;

    if (v.kind == VALUE_NULL) {
        buf_put_u32be(out, UINT32_MAX);
        return;
    }
    at = buf_reserve(out, v.len + 4);
    if (!at)
        return;
    at[0] = (uint8_t)(v.len >> 24);
    at[1] = (uint8_t)(v.len >> 16);
    at[2] = (uint8_t)(v.len >> 8);
    at[3] = (uint8_t)v.len;
    if (v.len)
        memcpy(at + 4, v.at, v.len);
    out->len += v.len + 4;
}

static void array_add_text(Buf *out, Value v, bool first, char delimiter)
{
    if (!first)
        buf_putc(out, delimiter);
    if (v.kind == VALUE_NULL) {
        buf_puts(out, "NULL");
        return;
    }
    buf_putc(out, '"');
    for (uint32_t i = 0; i < v.len; i++) {
        if (v.at[i] == '"' || v.at[i] == '\\')
            buf_putc(out, '\\');
        buf_put_u8(out, v.at[i]);
    }
    buf_putc(out, '"');
}

typedef struct Place { /* of a parameter */
    unsigned column;
    bool key;
} Place;

static Value value_at(const Job *job, const Row *row, Place place)
{
    return place.key ? key_value(job, place.column, row->key, row->image)
                     : row->image[place.column];
}

static void put_array(Job *job, Place place, Row *const *rows, size_t count, bool binary)
{
    Buf *out = &job->a->scratch;
    const PgColumn *c = &job->t->columns[place.column];

    if (binary) {
        array_begin_binary(out, c->type, count, true);
        for (size_t i = 0; i < count; i++)
            array_add_binary(out, value_at(job, rows[i], place));
        return;
    }
    buf_putc(out, '{');
    for (size_t i = 0; i < count; i++)
        array_add_text(out, value_at(job, rows[i], place), i == 0, c->delimiter);
    buf_puts(out, "}");
    buf_put_u8(out, 0);
}

static unsigned list_places(const Job *job, Place *places)
{
    unsigned count = 0;

    for (unsigned i = 0; i < job->t->base.rel->column_count; i++)
        if (job->uses[i] & USE_VALUE)
            places[count++] = (Place){i, false};
    for (unsigned i = 0; i < job->t->base.rel->column_count; i++)
        if (job->uses[i] & USE_KEY)
            places[count++] = (Place){i, true};
    return count;
}

/* Rows of one statement: so many that together they stay below MANY_BYTES, at least one. */
static size_t chunk_of(const Job *job, const Place *places, unsigned count, Row *const *rows,
                       size_t most)
{
    size_t bytes = 0, n = 0;

    if (most > MANY_ROWS)
        most = MANY_ROWS;
    while (n < most) {
        for (unsigned p = 0; p < count; p++)
            bytes += value_at(job, rows[n], places[p]).len + 4;
        n++;
        if (bytes > MANY_BYTES)
            break;
    }
    return n;
}

static bool run_many_once(Job *job, const Place *places, unsigned count, Row *const *rows, size_t n,
                          Err *err)
{
    PgShape shape = {.table = job->t, .verb = job->verb, .many = true, .uses = job->uses};
    Expect expect = {.doing = job->doing, .table = &job->t->base, .rows = (int64_t)n};
    Stmt *stmt = link_stmt(job->a, &shape, err);
    size_t starts[2 * COLUMNS_MOST + 1];
    Params p = {.count = (int)count};

    if (!stmt)
        return false;
    buf_clear(&job->a->scratch);
    for (unsigned i = 0; i < count; i++) {
        p.formats[i] = job->kinds[places[i].column] & (1 << VALUE_BINARY) ? 1 : 0;
        starts[i] = job->a->scratch.len;
        put_array(job, places[i], rows, n, p.formats[i]);
    }
    starts[count] = job->a->scratch.len;
    if (!buf_ok(&job->a->scratch, "an array of values", err))
        return false;
    for (unsigned i = 0; i < count; i++) {
        p.values[i] = (const char *)job->a->scratch.at + starts[i];
        p.lengths[i] = (int)(starts[i + 1] - starts[i]);
    }
    if (!PQsendQueryPrepared(job->a->pg.conn, stmt->name, p.count, p.values, p.lengths, p.formats,
                             0)) {
        job->a->broken = true;
        return pg_fail(&job->a->pg, NULL, err, job->doing);
    }
    return link_expect(job->a, &expect, err) && link_push(job->a, starts[count], err);
}

static bool run_many(Job *job, Row *const *rows, size_t count, Err *err)
{
    Place *places = calloc(2 * COLUMNS_MOST, sizeof(*places));
    unsigned place_count;
    bool ok;

    if (!places)
        abort();
    place_count = list_places(job, places);
    ok = link_pipeline(job->a, err);
    for (size_t done = 0; ok && done < count;) {
        size_t n = chunk_of(job, places, place_count, rows + done, count - done);

        ok = run_many_once(job, places, place_count, rows + done, n, err);
        done += n;
    }
    free(places);
    return ok;
}

/* --- copy --------------------------------------------------------------------------------------
 */

static void copy_binary_row(Job *job, const Row *row, uint16_t fields)
{
    Buf *out = &job->a->scratch;

    buf_put_u16be(out, fields);
    for (unsigned i = 0; i < job->t->base.rel->column_count; i++)
        if (job->uses[i] & USE_VALUE)
            array_add_binary(out, row->image[i]);
}

static void copy_text_value(Buf *out, Value v)
{
    static const char escapes[256] = {['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't',
                                      ['\b'] = 'b',  ['\f'] = 'f', ['\v'] = 'v'};

    if (v.kind == VALUE_NULL) {
        buf_puts(out, "\\N");
        return;
    }
    for (uint32_t i = 0; i < v.len; i++) {
        if (escapes[v.at[i]]) {
            buf_putc(out, '\\');
            buf_putc(out, escapes[v.at[i]]);
        } else {
            buf_put_u8(out, v.at[i]);
        }
    }
}

static void copy_text_row(Job *job, const Row *row)
{
    Buf *out = &job->a->scratch;
    bool first = true;

    for (unsigned i = 0; i < job->t->base.rel->column_count; i++) {
        if (!(job->uses[i] & USE_VALUE))
            continue;
        if (!first)
            buf_putc(out, '\t');
        first = false;
        copy_text_value(out, row->image[i]);
    }
    buf_putc(out, '\n');
}

static bool copy_put(Job *job, Err *err)
{
    Buf *out = &job->a->scratch;

    if (!buf_ok(out, "rows for COPY", err))
        return false;
    for (;;) {
        int sent = PQputCopyData(job->a->pg.conn, (const char *)out->at, (int)out->len);

        if (sent < 0) {
            job->a->broken = true;
            return pg_fail(&job->a->pg, NULL, err, job->doing);
        }
        if (sent > 0)
            break;
        if (!link_flush(job->a, err))
            return false;
    }
    buf_clear(out);
    return link_flush(job->a, err);
}

static bool copy_rows(Job *job, Row *const *rows, size_t count, bool binary, Err *err)
{
    static const char header[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";
    uint16_t fields = 0;

    for (unsigned i = 0; i < job->t->base.rel->column_count; i++)
        fields = (uint16_t)(fields + (job->uses[i] & USE_VALUE ? 1 : 0));
    buf_clear(&job->a->scratch);
    if (binary)
        buf_put(&job->a->scratch, header, 19);
    for (size_t i = 0; i < count; i++) {
        if (binary)
            copy_binary_row(job, rows[i], fields);
        else
            copy_text_row(job, rows[i]);
        if (job->a->scratch.len > KIB(128) && !copy_put(job, err))
            return false;
    }
    if (binary)
        buf_put_u16be(&job->a->scratch, UINT16_MAX);
    return copy_put(job, err);
}

/* The outcome of COPY, and the end of its results. */
static bool copy_end(Job *job, size_t count, Err *err)
{
    bool ok = true;

    for (;;) {
        PGresult *res ON_EXIT(pg_result_drop) = NULL;
        Expect expect = {.doing = job->doing, .table = &job->t->base, .rows = (int64_t)count};

        if (!link_result(job->a, &res, err))
            return false;
        if (!res)
            return ok;
        if (!ok)
            continue;
        ok = link_judge(job->a, res, &expect, err);
        if (PQstatus(job->a->pg.conn) == CONNECTION_BAD)
            job->a->broken = true;
        if (job->a->broken)
            return false;
    }
}

/* Something on our side: the server must hear of it before the connection can be used again. */
static bool copy_give_up(Job *job)
{
    Err ignored = ERR_INIT;
    PGresult *res = NULL;

    if (job->a->broken)
        return false;
    if (PQputCopyEnd(job->a->pg.conn, "given up") < 0 || !link_flush(job->a, &ignored)) {
        job->a->broken = true;
        return false;
    }
    while (link_result(job->a, &res, &ignored) && res)
        PQclear(res);
    return false;
}

static bool run_copy(Job *job, Row *const *rows, size_t count, bool binary, Err *err)
{
    Buf sql ON_EXIT(buf_fini);
    PGresult *res ON_EXIT(pg_result_drop) = NULL;

    buf_init(&sql, MIB(1));
    pg_copy_sql(job->t, job->uses, binary, &sql);
    if (!buf_ok(&sql, "a COPY statement", err) || !link_plain(job->a, err))
        return false;
    if (!PQsendQuery(job->a->pg.conn, buf_str(&sql)) || !link_flush(job->a, err))
        return link_lost(job->a, err, job->doing);
    if (!link_result(job->a, &res, err))
        return false;
    if (PQresultStatus(res) != PGRES_COPY_IN) {
        Expect expect = {.doing = job->doing, .table = &job->t->base, .rows = 0};

        PQclear(PQgetResult(job->a->pg.conn));
        return link_judge(job->a, res, &expect, err) &&
               err_fail(err, ERR_BUG, "COPY was answered with something else");
    }
    if (!copy_rows(job, rows, count, binary, err))
        return copy_give_up(job);
    if (PQputCopyEnd(job->a->pg.conn, NULL) < 0 || !link_flush(job->a, err))
        return link_lost(job->a, err, job->doing);
    return copy_end(job, count, err);
}

/* --- choosing ----------------------------------------------------------------------------------
 */

/* Collects the kinds of values of all rows; false when a column can't be sent in one format. */
static bool survey(Job *job, Row *const *rows, size_t count)
{
    const Table *table = &job->t->base;
    unsigned columns = table->rel->column_count;

    memset(job->kinds, 0, columns);
    for (size_t i = 0; i < count; i++)
        for (unsigned c = 0; c < columns; c++) {
            if (job->uses[c] & USE_VALUE)
                job->kinds[c] |= (uint8_t)(1u << rows[i]->image[c].kind);
            if (job->uses[c] & USE_KEY)
                job->kinds[c] |=
                    (uint8_t)(1u << key_value(job, c, rows[i]->key, rows[i]->image).kind);
        }
    for (unsigned c = 0; c < columns; c++)
        if ((job->kinds[c] & (1 << VALUE_TEXT) && job->kinds[c] & (1 << VALUE_BINARY)) ||
            job->kinds[c] & (1 << VALUE_ABSENT | 1 << VALUE_UNCHANGED))
            return false;
    return true;
}

static bool can_unnest(const Job *job)
{
    bool any = false;

    for (unsigned c = 0; c < job->t->base.rel->column_count; c++) {
        if (job->uses[c] && !job->t->columns[c].array)
            return false;
        any |= job->uses[c] != 0;
    }
    return any; /* rows without values have no number in an array */
}

static bool can_copy(const Job *job, bool *binary)
{
    bool any_text = false, any_binary = false, any = false;

    for (unsigned c = 0; c < job->t->base.rel->column_count; c++) {
        if (!(job->uses[c] & USE_VALUE))
            continue;
        any = true;
        any_text |= (job->kinds[c] & (1 << VALUE_TEXT)) != 0;
        any_binary |= (job->kinds[c] & (1 << VALUE_BINARY)) != 0;
    }
    *binary = any_binary;
    return any && !(any_text && any_binary);
}

static bool one_by_one(Job *job, PgVerb verb, Row *const *rows, size_t count, Err *err)
{
    for (size_t i = 0; i < count; i++) {
        job->verb = verb;
        if (!one_row(job, rows[i], err))
            return false;
    }
    return true;
}

static bool run_inserts(Job *job, Row *const *rows, size_t count, Err *err)
{
    bool binary;

    job->verb = PG_INSERT;
    job->doing = "inserting into";
    if (count < MANY_LEAST)
        return one_by_one(job, PG_INSERT, rows, count, err);
    if (!uses_insert(job, rows[0]->image, err))
        return false;
    if (!survey(job, rows, count))
        return one_by_one(job, PG_INSERT, rows, count, err);
    if (count >= COPY_LEAST && can_copy(job, &binary))
        return run_copy(job, rows, count, binary, err);
    if (can_unnest(job))
        return run_many(job, rows, count, err);
    return one_by_one(job, PG_INSERT, rows, count, err);
}

static bool run_deletes(Job *job, Row *const *rows, size_t count, Err *err)
{
    job->verb = PG_DELETE;
    job->doing = "deleting from";
    memset(job->uses, 0, job->t->base.rel->column_count);
    if (count == 0)
        return true;
    if (count < MANY_LEAST || !use_key(job, rows[0]->key, err) || !survey(job, rows, count) ||
        !can_unnest(job))
        return !err_is_set(err) && one_by_one(job, PG_DELETE, rows, count, err);
    return run_many(job, rows, count, err);
}

static bool run_updates(Job *job, Row *const *rows, size_t count, Err *err)
{
    bool rekey;

    job->doing = "updating";
    if (count < MANY_LEAST)
        return one_by_one(job, PG_UPDATE, rows, count, err);
    if (!uses_update(job, rows[0]->key, rows[0]->image, &rekey, err))
        return false;
    if (rekey || !survey(job, rows, count) || !can_unnest(job))
        return one_by_one(job, PG_UPDATE, rows, count, err);
    return run_many(job, rows, count, err);
}

static Job *job_new(PgApplier *a, Table *table, Err *err)
{
    Job *job;

    if (table->rel->column_count > COLUMNS_MOST) {
        err_fail(err, ERR_PROTOCOL, "table %s has %u columns", table->place,
                 table->rel->column_count);
        return NULL;
    }
    job = malloc(sizeof(*job));
    if (!job)
        abort();
    job->a = a;
    job->t = (PgTable *)table;
    job->exact = false;
    return job;
}

static void job_drop(Job **job)
{
    free(*job);
}

/* Updates come sorted by which columns they don't know: each run of equal ones is one statement. */
static bool write_updates(Job *job, const TableRows *rows, Err *err)
{
    for (size_t from = 0; from < rows->update_count;) {
        size_t to = from + 1;

        while (to < rows->update_count &&
               rows->updates[to]->unknown == rows->updates[from]->unknown)
            to++;
        if (!run_updates(job, rows->updates + from, to - from, err))
            return false;
        from = to;
    }
    return true;
}

/* --- steps -------------------------------------------------------------------------------------
 */

/* Any known column of the whole old row; NULLs count. */
static bool uses_match(Job *job, const Value *old, Err *err)
{
    const Relation *rel = job->t->base.rel;

    memset(job->uses, 0, rel->column_count);
    for (unsigned i = 0; i < rel->column_count; i++) {
        if (job->t->columns[i].generated && !value_is_known(old[i]))
            continue;
        if (!value_is_known(old[i]))
            return err_fail(err, ERR_FAITHFUL,
                            "%s %s: the old row's column %s isn't in the source's message",
                            job->doing, job->t->base.place, rel->columns[i].name);
        job->uses[i] |= USE_KEY;
    }
    return true;
}

static bool identity_is_moved(const Job *job, const Change *change)
{
    for (unsigned i = 0; i < job->t->base.rel->column_count; i++)
        if (job->t->columns[i].always && value_is_known(change->new[i]) &&
            !value_equal(change->new[i], change->old[i]))
            return true;
    return false;
}

/* No UPDATE can set a GENERATED ALWAYS identity column: the row goes and comes again. All of it is
 * known, so nothing out of line is lost. */
static bool match_and_replace(Job *job, const Change *change, const Txn *txn, Err *err)
{
    unsigned columns = job->t->base.rel->column_count;
    Value *image;
    bool ok;

    job->verb = PG_MATCH_DELETE;
    if (!run_one(job, change->old, NULL, txn, err))
        return false;
    image = calloc(columns, sizeof(*image));
    if (!image)
        abort();
    for (unsigned i = 0; i < columns; i++)
        image[i] = value_is_known(change->new[i]) ? change->new[i] : change->old[i];
    job->verb = PG_INSERT;
    ok = uses_insert(job, image, err) && run_one(job, NULL, image, txn, err);
    free(image);
    return ok;
}

/* A table without a key: one of the rows that are like the old one. */
static bool change_matched(Job *job, const Change *change, const Txn *txn, Err *err)
{
    const Relation *rel = job->t->base.rel;
    bool any = false;

    if (!change->old || change->old_is_key) {
        err_fail(err, ERR_FAITHFUL,
                 "%s %s: the table has no key and the source didn't send the old row", job->doing,
                 job->t->base.place);
        return err_hint(err, "set REPLICA IDENTITY FULL, or a key, for this table on the source");
    }
    job->verb = change->kind == CHANGE_DELETE ? PG_MATCH_DELETE : PG_MATCH_UPDATE;
    if (!uses_match(job, change->old, err))
        return false;
    if (change->kind == CHANGE_UPDATE && identity_is_moved(job, change))
        return match_and_replace(job, change, txn, err);
    for (unsigned i = 0; change->kind == CHANGE_UPDATE && i < rel->column_count; i++) {
        const PgColumn *c = &job->t->columns[i];

        if (!value_is_known(change->new[i]) || c->generated ||
            (c->always && value_equal(change->new[i], change->old[i])))
            continue;
        job->uses[i] |= USE_VALUE;
        any = true;
    }
    if (change->kind == CHANGE_UPDATE && !any)
        return true;
    return run_one(job, change->old, change->new, txn, err);
}

bool write_change(Applier *self, Table *table, const Change *change, const Txn *txn, Err *err)
{
    Job *job ON_EXIT(job_drop) = job_new(pg_applier_of(self), table, err);
    Row row = {.key = change_key(change), .image = change->new, .txn = txn};

    if (!job)
        return false;
    job->exact = true;
    job->doing = change->kind == CHANGE_INSERT   ? "inserting into"
                 : change->kind == CHANGE_UPDATE ? "updating"
                                                 : "deleting from";
    if ((change->kind != CHANGE_DELETE && !change->new) ||
        (change->kind == CHANGE_DELETE && !change->old))
        return err_fail(err, ERR_PROTOCOL, "%s %s: the source sent no row", job->doing,
                        table->place);
    job->verb = change->kind == CHANGE_INSERT   ? PG_INSERT
                : change->kind == CHANGE_UPDATE ? PG_UPDATE
                                                : PG_DELETE;
    if (change->kind == CHANGE_INSERT)
        return one_row(job, &row, err);
    if (table->inserts_only) {
        err_fail(err, ERR_FAITHFUL,
                 "%s %s: the table has no replica identity, so its rows can't be found", job->doing,
                 table->place);
        return err_hint(err, "give it a primary key, or set REPLICA IDENTITY FULL on the source");
    }
    if (table->key_count == 0)
        return change_matched(job, change, txn, err);
    return one_row(job, &row, err);
}

/* Runs of inserts between other steps still go set-wise: an append-only table without a key is
 * common. */
static bool write_insert_run(Applier *self, const TableRows *rows, size_t from, size_t to, Err *err)
{
    Job *job ON_EXIT(job_drop) = job_new(pg_applier_of(self), rows->table, err);
    size_t count = to - from;
    Row *all;
    Row **list;
    bool ok;

    if (!job)
        return false;
    all = calloc(count, sizeof(*all));
    list = calloc(count, sizeof(Row *));
    if (!all || !list)
        abort();
    for (size_t i = 0; i < count; i++) {
        all[i].image = rows->steps[from + i].change->new;
        all[i].txn = rows->steps[from + i].txn;
        list[i] = &all[i];
    }
    ok = run_inserts(job, list, count, err);
    /* What was sent is only judged later, and may name these rows' keys: those live in the batch.
     */
    free(list);
    free(all);
    return ok;
}

static bool write_steps(Applier *self, const TableRows *rows, Err *err)
{
    for (size_t from = 0; from < rows->step_count;) {
        size_t to = from;

        while (!rows->table->triggers && to < rows->step_count &&
               rows->steps[to].change->kind == CHANGE_INSERT)
            to++;
        if (to - from >= MANY_LEAST) {
            if (!write_insert_run(self, rows, from, to, err))
                return false;
            from = to;
            continue;
        }
        if (!write_change(self, rows->table, rows->steps[from].change, rows->steps[from].txn, err))
            return false;
        from++;
    }
    return true;
}

/* Equal rows among many, in one reading of the table. The plan is made once, and only right with
 * hash joins, which these sessions otherwise avoid. */
static bool run_bag(Job *job, Row *const *rows, size_t count, Err *err)
{
    static const Expect expect = {.doing = "choosing a plan", .rows = -1};

    return link_send(job->a, "set local enable_hashjoin = on", &expect, err) &&
           run_many(job, rows, count, err) &&
           link_send(job->a, "set local enable_hashjoin = off", &expect, err);
}

static bool bag_one_by_one(Job *job, Row *const *rows, size_t count, Err *err)
{
    for (size_t i = 0; i < count; i++) {
        Change change = {.kind = rows[i]->image ? CHANGE_UPDATE : CHANGE_DELETE,
                         .rel = job->t->base.rel,
                         .old = rows[i]->key,
                         .new = rows[i]->image};

        if (!change_matched(job, &change, rows[i]->txn, err))
            return false;
    }
    return true;
}

static bool write_bag_rows(Job *job, PgVerb verb, Row *const *rows, size_t count, Err *err)
{
    bool any = verb == PG_MATCH_DELETE;

    job->verb = verb;
    job->doing = verb == PG_MATCH_DELETE ? "deleting from" : "updating";
    if (count < MANY_LEAST)
        return bag_one_by_one(job, rows, count, err);
    if (!uses_match(job, rows[0]->key, err))
        return false;
    for (unsigned i = 0; verb == PG_MATCH_UPDATE && i < job->t->base.rel->column_count; i++)
        if (!job->t->columns[i].generated) {
            job->uses[i] |= USE_VALUE;
            any = true;
        }
    if (!any || !survey(job, rows, count) || !can_unnest(job))
        return bag_one_by_one(job, rows, count, err);
    return run_bag(job, rows, count, err);
}

static bool write_bag(Job *job, const TableRows *rows, Err *err)
{
    return write_bag_rows(job, PG_MATCH_DELETE, rows->deletes, rows->delete_count, err) &&
           write_bag_rows(job, PG_MATCH_UPDATE, rows->updates, rows->update_count, err) &&
           run_inserts(job, rows->inserts, rows->insert_count, err);
}

bool write_rows(Applier *self, const TableRows *rows, Err *err)
{
    Job *job ON_EXIT(job_drop) = NULL;

    job = job_new(pg_applier_of(self), rows->table, err);
    if (job && rows->table->bag && rows->step_count == 0)
        return write_bag(job, rows, err);
    return job && run_deletes(job, rows->deletes, rows->delete_count, err) &&
           write_updates(job, rows, err) &&
           run_inserts(job, rows->inserts, rows->insert_count, err) && write_steps(self, rows, err);
}

bool write_truncate(Applier *self, Table *const *tables, size_t count, const Change *change,
                    const Txn *txn, Err *err)
{
    PgApplier *a = pg_applier_of(self);
    Expect expect = {.doing = "truncating", .table = tables[0], .txn = txn, .rows = -1};
    Buf sql ON_EXIT(buf_fini);

    buf_init(&sql, MIB(4));
    for (size_t i = 0; i < count; i++) {
        buf_puts(&sql, i ? ", " : "truncate table ");
        pg_put_target(&sql, (const PgTable *)tables[i]);
    }
    buf_puts(&sql, change->restart_identity ? " restart identity" : "");
    buf_puts(&sql, change->cascade ? " cascade" : "");
    return buf_ok(&sql, "a TRUNCATE statement", err) && link_send(a, buf_str(&sql), &expect, err);
}
