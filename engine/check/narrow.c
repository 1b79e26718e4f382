/* From "this table differs" to the rows, in three more reads of it on both sides, in the same
 * snapshots.
 *
 * 1. Sums per bucket: rows are dealt into buckets by the hash of their key (or, without a key, of
 * themselves).
 * 2. From buckets that differ: address, row hash and key hash of every row. What is on both sides
 * cancels here.
 * 3. Only the rows that are left and will be listed are fetched, by address: keys, columns that
 * differ, values.
 *
 * Hashes do the matching, on each side by itself, so no order or collation has to agree. Memory is
 * bounded: when more rows than LISTED_MOST stand in differing buckets, the first buckets are looked
 * at and the counts become lower bounds. */
#include "engine/check/verify_impl.h"

#define BUCKET_ROWS  25
#define BUCKETS_MOST 131072
#define LISTED_MOST  400000
#define VALUES_MOST  30  /* columns whose values are shown for one row */
#define VALUE_CHARS  200 /* of one value */

typedef struct RowAt {
    uint64_t hash; /* of the row */
    uint64_t key;  /* of its key; keyless: the row's again */
    uint32_t block;
    uint16_t offset;
} RowAt;

typedef struct Rows {
    RowAt *items;
    size_t count;
} Rows;

typedef struct Narrow {
    Pg **pgs;
    TableCheck *check;
    const NarrowConf *conf;
    Arena *arena;
    Arena scratch;
    uint64_t mask; /* buckets - 1 */
    Rows rows[SIDES];
    VerifyRow *list;
    size_t listed;
} Narrow;

static bool ask_both(Narrow *n, Buf sql[SIDES], PGresult *out[SIDES], Err *err)
{
    const char *texts[SIDES];

    for (int side = 0; side < SIDES; side++) {
        buf_puts(&sql[side], "; " SNAPSHOT_GIVE_BACK);
        if (!buf_ok(&sql[side], "a statement that looks for rows", err))
            return false;
        texts[side] = buf_str(&sql[side]);
    }
    return snapshot_ask_both(n->pgs, texts, out, n->conf->stop, err);
}

static void put_key(Buf *sql, const Narrow *n)
{
    if (n->check->shape->key_count)
        hash_put_key(sql, n->check->shape, n->check->portable);
    else {
        buf_puts(sql, "hash_array_extended(");
        hash_put_row_array(sql, n->check->shape, n->check->portable);
        buf_puts(sql, ",0)");
    }
}

/* --- 1: buckets
 * ----------------------------------------------------------------------------------------------------
 */

static uint64_t bucket_count(const TableCheck *check)
{
    uint64_t rows =
        check->sum[0].rows > check->sum[1].rows ? check->sum[0].rows : check->sum[1].rows;
    uint64_t count = 1;

    while (count < BUCKETS_MOST && count * BUCKET_ROWS < rows)
        count *= 2;
    return count;
}

static bool read_buckets(Narrow *n, RowSum *sums[SIDES], Err *err)
{
    Buf sql[SIDES];
    PGresult *res[SIDES] = {NULL, NULL};
    bool ok;

    for (int side = 0; side < SIDES; side++) {
        buf_init(&sql[side], VERIFY_SQL_MOST);
        buf_puts(
            &sql[side],
            "select b, count(*), sum(hash_array_extended(x,0)), sum(hash_array_extended(x,1)) from (select ");
        hash_put_row_array(&sql[side], n->check->shape, n->check->portable);
        buf_puts(&sql[side], " as x, ");
        put_key(&sql[side], n);
        buf_printf(&sql[side], " & %" PRIu64 " as b", n->mask);
        hash_put_from(&sql[side], n->check->shape);
        buf_puts(&sql[side], " offset 0) v group by b");
        sums[side] = arena_array(&n->scratch, RowSum, n->mask + 1);
    }
    ok = ask_both(n, sql, res, err);
    for (int side = 0; side < SIDES; side++) {
        for (int i = 0; ok && i < PQntuples(res[side]); i++)
            row_sum_add(&sums[side][strtoull(PQgetvalue(res[side], i, 0), NULL, 10) & n->mask],
                        res[side], i, 1);
        PQclear(res[side]);
        buf_fini(&sql[side]);
    }
    return ok;
}

/* The differing buckets as the text of an array, within the limit on rows. */
static void choose_buckets(Narrow *n, RowSum *const sums[SIDES], Buf *out)
{
    uint64_t rows = 0;

    buf_putc(out, '{');
    for (uint64_t b = 0; b <= n->mask; b++) {
        if (row_sum_equal(sums[0][b], sums[1][b]))
            continue;
        if (rows && rows + sums[0][b].rows + sums[1][b].rows > LISTED_MOST) {
            n->check->out->at_least = true;
            break;
        }
        rows += sums[0][b].rows + sums[1][b].rows;
        buf_printf(out, "%s%" PRIu64, out->len > 1 ? "," : "", b);
    }
    buf_putc(out, '}');
}

/* --- 2: rows of those buckets
 * ---------------------------------------------------------------------------------------- */

static uint64_t cell_hash(const PGresult *res, int row, int column)
{
    return (uint64_t)strtoll(PQgetvalue(res, row, column), NULL, 10);
}

static void take_rows(Narrow *n, Side side, const PGresult *res)
{
    int count = PQntuples(res);
    Rows *rows = &n->rows[side];

    rows->items = arena_array(&n->scratch, RowAt, count + 1);
    for (int i = 0; i < count; i++) {
        RowAt *row = &rows->items[rows->count++];
        char *end;

        row->block = (uint32_t)strtoul(PQgetvalue(res, i, 0) + 1, &end, 10);
        row->offset = (uint16_t)strtoul(end + 1, NULL, 10);
        row->hash = cell_hash(res, i, 1);
        row->key = cell_hash(res, i, 2);
    }
}

static bool read_rows(Narrow *n, const char *buckets, Err *err)
{
    Buf sql[SIDES];
    PGresult *res[SIDES] = {NULL, NULL};
    bool ok;

    for (int side = 0; side < SIDES; side++) {
        buf_init(&sql[side], VERIFY_SQL_MOST);
        buf_puts(&sql[side], "select t.ctid, hash_array_extended(");
        hash_put_row_array(&sql[side], n->check->shape, n->check->portable);
        buf_puts(&sql[side], ",0), ");
        put_key(&sql[side], n);
        hash_put_from(&sql[side], n->check->shape);
        buf_puts(&sql[side], " where (");
        put_key(&sql[side], n);
        buf_printf(&sql[side], " & %" PRIu64 ") = any ('%s'::int8[])", n->mask, buckets);
    }
    ok = ask_both(n, sql, res, err);
    for (int side = 0; side < SIDES; side++) {
        if (ok)
            take_rows(n, (Side)side, res[side]);
        PQclear(res[side]);
        buf_fini(&sql[side]);
    }
    return ok;
}

static int by_row(const void *a, const void *b)
{
    const RowAt *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

/* Takes out what both sides have, one for one: duplicates count. */
static void cancel_equal(Narrow *n)
{
    Rows *s = &n->rows[SIDE_SOURCE], *t = &n->rows[SIDE_TARGET];
    size_t i = 0, k = 0, s_left = 0, t_left = 0;

    qsort(s->items, s->count, sizeof(RowAt), by_row);
    qsort(t->items, t->count, sizeof(RowAt), by_row);
    while (i < s->count || k < t->count) {
        int order = i == s->count ? 1 : k == t->count ? -1 : by_row(&s->items[i], &t->items[k]);

        if (order < 0)
            s->items[s_left++] = s->items[i++];
        else if (order > 0)
            t->items[t_left++] = t->items[k++];
        else
            i++, k++;
    }
    s->count = s_left;
    t->count = t_left;
}

/* --- 3: the rows to list
 * --------------------------------------------------------------------------------------------- */

static void put_address(Buf *sql, const RowAt *row)
{
    buf_printf(sql, " where t.ctid = '(%" PRIu32 ",%u)'", row->block, row->offset);
}

static bool is_number(Span text)
{
    if (text.len == 0 || text.len > 40)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if (!strchr("0123456789.-", text.at[i]) || text.at[i] == '\0')
            return false;
    return true;
}

/* A value as in SQL: 7, 'x', NULL. */
static void put_value(Buf *out, const PGresult *res, int column)
{
    Span text = pg_cell(res, 0, column);

    if (!text.at)
        buf_puts(out, "NULL");
    else if (is_number(text))
        buf_put_span(out, text);
    else {
        buf_putc(out, '\'');
        for (size_t i = 0; i < text.len; i++) {
            if (text.at[i] == '\'')
                buf_putc(out, '\'');
            buf_put_u8(out, text.at[i]);
        }
        buf_putc(out, '\'');
    }
}

/* Text output without a cast (see tables.c), cut where it is long. NULL stays NULL: format would
 * make '' of it. A composite of NULLs isn't NULL itself, so IS NULL can't be asked. */
static void put_text_of(Buf *sql, const TableColumn *column)
{
    buf_puts(sql, "case when t.");
    pg_put_name(sql, column->name);
    buf_puts(sql, " is not distinct from null then null else left(format('%s', t.");
    pg_put_name(sql, column->name);
    buf_printf(sql, "), %d) end", VALUE_CHARS);
}

/* name=value of some columns of one row, " " between. `also_bytes`: hex behind each, for values
 * that look the same. */
static char *fetch_values(Narrow *n, Side side, const RowAt *row, const uint32_t *columns,
                          size_t count, bool also_bytes, Err *err)
{
    const Table *table = n->check->shape;
    PGresult *res ON_EXIT(pg_result_drop) = NULL;
    AUTO_BUF sql, out;

    buf_init(&sql, VERIFY_SQL_MOST);
    buf_init(&out, MIB(1));
    buf_puts(&sql, "select ");
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(&sql, ',');
        put_text_of(&sql, &table->columns[columns[i]]);
        buf_puts(&sql, ", left(encode(");
        if (also_bytes)
            column_put_bytes(&sql, &table->columns[columns[i]], n->check->portable);
        else
            buf_puts(&sql, "null");
        buf_puts(&sql, ", 'hex'), 64)");
    }
    hash_put_from(&sql, table);
    put_address(&sql, row);
    buf_puts(&sql, "; " SNAPSHOT_GIVE_BACK);
    if (!buf_ok(&sql, "a statement that fetches a row", err))
        return NULL;
    res = snapshot_ask(n->pgs[side], buf_str(&sql), n->conf->stop, err);
    if (!res)
        return NULL;
    if (PQntuples(res) != 1) {
        err_fail(err, n->pgs[side]->side, "a row that was there a moment ago isn't any more");
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        buf_printf(&out, "%s%s=", i ? " " : "", table->columns[columns[i]].name);
        put_value(&out, res, (int)i * 2);
        if (also_bytes && !PQgetisnull(res, 0, (int)i * 2 + 1))
            buf_printf(&out, " (bytes %s)", PQgetvalue(res, 0, (int)i * 2 + 1));
    }
    return arena_strdup(n->arena, buf_str(&out));
}

static size_t all_columns(const Table *table, uint32_t *columns)
{
    size_t count = size_min(table->column_count, VALUES_MOST);

    for (size_t i = 0; i < count; i++)
        columns[i] = (uint32_t)i;
    return count;
}

static bool fetch_row(Narrow *n, Side side, const RowAt *row, const char **out, Err *err)
{
    uint32_t columns[VALUES_MOST];
    size_t count = all_columns(n->check->shape, columns);

    *out = count ? fetch_values(n, side, row, columns, count, false, err) : "";
    return *out != NULL;
}

static bool set_key_text(Narrow *n, Side side, const RowAt *row, VerifyRow *out, Err *err)
{
    const Table *table = n->check->shape;

    if (table->key_count)
        out->key = fetch_values(n, side, row, table->key, table->key_count, false, err);
    else
        out->key = arena_printf(n->arena, "row hash %016" PRIx64, row->hash);
    return out->key != NULL;
}

/* Per column a hash of its bytes, as the text of an array: {17,NULL,-4}. */
static bool ask_column_hashes(Narrow *n, const RowAt *rows[SIDES], PGresult *res[SIDES], Err *err)
{
    const Table *table = n->check->shape;
    Buf sql[SIDES];
    bool ok;

    for (int side = 0; side < SIDES; side++) {
        buf_init(&sql[side], VERIFY_SQL_MOST);
        buf_puts(&sql[side], "select array[");
        for (uint32_t i = 0; i < table->column_count; i++) {
            buf_puts(&sql[side], i ? ",hash_array_extended(array[" : "hash_array_extended(array[");
            column_put_bytes(&sql[side], &table->columns[i], n->check->portable);
            buf_puts(&sql[side], "]::bytea[],0)");
        }
        buf_puts(&sql[side], "]::int8[]");
        hash_put_from(&sql[side], table);
        put_address(&sql[side], rows[side]);
    }
    ok = ask_both(n, sql, res, err);
    for (int side = 0; side < SIDES; side++)
        buf_fini(&sql[side]);
    return ok;
}

static size_t differing(const Table *table, const char *a, const char *b, uint32_t *columns)
{
    size_t count = 0;

    a++, b++; /* the brace */
    for (uint32_t i = 0; i < table->column_count; i++) {
        size_t la = strcspn(a, ",}"), lb = strcspn(b, ",}");

        if (la != lb || memcmp(a, b, la) != 0)
            columns[count++] = i;
        a += la + 1;
        b += lb + 1;
    }
    return count;
}

static bool describe_changed(Narrow *n, const RowAt *rows[SIDES], VerifyRow *out, Err *err)
{
    const Table *table = n->check->shape;
    uint32_t *columns = arena_array(&n->scratch, uint32_t, table->column_count + 1);
    PGresult *res[SIDES] = {NULL, NULL};
    const char **values[SIDES] = {&out->source, &out->target};
    size_t count = 0;
    AUTO_BUF names;

    buf_init(&names, MIB(1));
    if (!set_key_text(n, SIDE_SOURCE, rows[SIDE_SOURCE], out, err) ||
        !ask_column_hashes(n, rows, res, err))
        return false;
    if (PQntuples(res[0]) == 1 && PQntuples(res[1]) == 1)
        count = differing(table, PQgetvalue(res[0], 0, 0), PQgetvalue(res[1], 0, 0), columns);
    PQclear(res[0]);
    PQclear(res[1]);
    for (size_t i = 0; i < count; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", table->columns[columns[i]].name);
    out->columns = arena_strdup(n->arena, buf_str(&names));
    if (!n->conf->show_values)
        return true;
    count = size_min(count, VALUES_MOST);
    for (int side = 0; count && side < SIDES; side++)
        if (!(*values[side] = fetch_values(n, (Side)side, rows[side], columns, count, false, err)))
            return false;
    if (!count || strcmp(out->source, out->target) != 0)
        return true;
    for (int side = 0; side < SIDES; side++)
        if (!(*values[side] = fetch_values(n, (Side)side, rows[side], columns, count, true, err)))
            return false;
    return true;
}

static bool add_changed(Narrow *n, const RowAt *s, const RowAt *t, Err *err)
{
    VerifyRow *row = &n->list[n->listed];

    n->check->out->changed++;
    if (n->listed == n->conf->report_rows)
        return true;
    *row = (VerifyRow){.kind = ROW_CHANGED, .copies = 1};
    n->listed++;
    return describe_changed(n, (const RowAt *[SIDES]){s, t}, row, err);
}

static bool add_lonely(Narrow *n, Side side, const RowAt *at, uint64_t copies, Err *err)
{
    VerifyRow *row = &n->list[n->listed];

    *(side == SIDE_SOURCE ? &n->check->out->missing : &n->check->out->extra) += copies;
    if (n->listed == n->conf->report_rows)
        return true;
    *row = (VerifyRow){.kind = side == SIDE_SOURCE ? ROW_MISSING : ROW_EXTRA, .copies = copies};
    n->listed++;
    return set_key_text(n, side, at, row, err) &&
           (!n->conf->show_values ||
            fetch_row(n, side, at, side == SIDE_SOURCE ? &row->source : &row->target, err));
}

/* Keyless: all copies of one row at once. */
static uint64_t copies_at(const Rows *rows, size_t at)
{
    size_t end = at;

    while (end < rows->count && by_row(&rows->items[end], &rows->items[at]) == 0)
        end++;
    return end - at;
}

static bool list_rows(Narrow *n, Err *err)
{
    const Rows *s = &n->rows[SIDE_SOURCE], *t = &n->rows[SIDE_TARGET];
    size_t i = 0, k = 0;

    while (i < s->count || k < t->count) {
        const RowAt *a = i < s->count ? &s->items[i] : NULL,
                    *b = k < t->count ? &t->items[k] : NULL;
        bool ok;

        if (a && b && a->key == b->key) {
            ok = add_changed(n, a, b, err);
            i++, k++;
        } else if (!b || (a && a->key < b->key)) {
            uint64_t copies = copies_at(s, i);

            ok = add_lonely(n, SIDE_SOURCE, a, copies, err);
            i += copies;
        } else {
            uint64_t copies = copies_at(t, k);

            ok = add_lonely(n, SIDE_TARGET, b, copies, err);
            k += copies;
        }
        if (!ok)
            return false;
    }
    return true;
}

static int by_key_text(const void *a, const void *b)
{
    const VerifyRow *x = a, *y = b;
    size_t lx = strlen(x->key), ly = strlen(y->key);

    /* Shorter first puts id=9 before id=10. */
    return lx != ly ? (lx > ly) - (lx < ly) : strcmp(x->key, y->key);
}

static bool narrow_in(Narrow *n, Err *err)
{
    RowSum *sums[SIDES];
    AUTO_BUF buckets;

    buf_init(&buckets, VERIFY_SQL_MOST);
    n->mask = bucket_count(n->check) - 1;
    if (!read_buckets(n, sums, err))
        return false;
    choose_buckets(n, sums, &buckets);
    if (!buf_ok(&buckets, "the list of buckets", err) || !read_rows(n, buf_str(&buckets), err))
        return false;
    cancel_equal(n);
    n->list = arena_array(n->arena, VerifyRow,
                          size_min(n->conf->report_rows, n->rows[0].count + n->rows[1].count) + 1);
    if (!list_rows(n, err))
        return false;
    qsort(n->list, n->listed, sizeof(VerifyRow), by_key_text);
    n->check->out->rows = n->list;
    n->check->out->row_count = n->listed;
    return true;
}

bool narrow(Pg *pgs[SIDES], TableCheck *check, const NarrowConf *conf, Arena *arena, Err *err)
{
    Narrow n = {.pgs = pgs, .check = check, .conf = conf, .arena = arena};
    bool ok;

    arena_init(&n.scratch, 64 * 1024);
    ok = narrow_in(&n, err);
    arena_fini(&n.scratch);
    return ok;
}
