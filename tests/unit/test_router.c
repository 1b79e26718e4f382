/* Routing and compaction against a model: whatever random transactions did to tables in memory,
 * writing the plan's parts to the tables as they were before must give the same rows, whichever
 * lane comes first. */
#include "engine/base/base.h"

#include <setjmp.h>

#include <cmocka.h> /* needs setjmp.h, so not sorted among the others */

#include "engine/stream/router.h"
#include "tests/unit/rows.h"

#define TABLES    5
#define COLUMNS   4
#define ROWS_MOST 4000

/* --- the model: rows are small arrays of texts --- */

typedef struct ModelRow {
    bool there;
    char v[COLUMNS][12]; /* "" is NULL */
} ModelRow;

typedef struct ModelTable {
    ModelRow rows[ROWS_MOST];
    size_t count;
} ModelTable;

typedef struct Model {
    ModelTable tables[TABLES];
} Model;

static Made relations[TABLES];
static Table descriptions[TABLES];
static const uint16_t first_column[1] = {0};
static const uint16_t two_columns[2] = {0, 1};
static const uint16_t second_column[1] = {1};
static const Unique second_is_unique = {second_column, 1, false};
static uint64_t seed;

static uint32_t rnd(uint32_t most)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % most;
}

static bool describe(void *self, const Relation *rel, Table **table, Err *err)
{
    (void)self;
    for (unsigned i = 0; i < TABLES; i++)
        if (rel == &relations[i].rel) {
            *table = &descriptions[i];
            return true;
        }
    return err_fail(err, ERR_FAITHFUL, "table %s isn't on the target", rel->name);
}

static const TableSource source = {NULL, describe};

/* 0 keyed, spread; 1 keyed by two columns, spread; 2 keyed, with a further unique column; 3
 * without a key, FULL; 4 keyed under FULL, with a further unique column. */
static void set_up(void)
{
    static const char *const names[TABLES] = {"plain", "pair", "unique", "keyless", "full"};
    static const char *const columns[TABLES] = {"a*:23 b:25 c:25 d:25", "a*:23 b*:23 c:25 d:25",
                                                "a*:23 b:23 c:25 d:25", "a*:23 b*:23 c*:25 d*:25",
                                                "a*:23 b*:23 c*:25 d*:25"};
    static const char identity[TABLES] = {'d', 'i', 'd', 'f', 'f'};

    for (unsigned i = 0; i < TABLES; i++) {
        Table *t = &descriptions[i];

        made_init(&relations[i], i + 1, names[i], identity[i], columns[i]);
        *t = (Table){
            .rel = &relations[i].rel, .place = names[i], .key = first_column, .key_count = 1};
        t->spread = i != 3;
        if (i == 2 || i == 4) {
            t->uniques = &second_is_unique;
            t->unique_count = 1;
        }
        t->fingerprint = i;
    }
    descriptions[1].key = two_columns;
    descriptions[1].key_count = 2;
    descriptions[3].key_count = 0;
    descriptions[3].bag = true;
}

static int key_columns(unsigned t)
{
    return t == 1 ? 2 : t == 3 ? COLUMNS : 1;
}

static const char *text_of(Value v, char out[12])
{
    snprintf(out, 12, "%.*s", v.kind == VALUE_NULL ? 0 : (int)v.len,
             v.at ? (const char *)v.at : "");
    return out;
}

static size_t find(const ModelTable *m, unsigned t, const Value *key)
{
    char text[12];

    for (size_t i = 0; i < m->count; i++) {
        bool same = m->rows[i].there;

        for (int c = 0; same && c < key_columns(t); c++)
            same = strcmp(m->rows[i].v[c], text_of(key[c], text)) == 0;
        if (same)
            return i;
    }
    return SIZE_MAX;
}

static void model_insert(ModelTable *m, unsigned t, const Value *row)
{
    size_t at = 0;

    if (t != 3)
        assert_int_equal(find(m, t, row), SIZE_MAX);
    while (at < m->count && m->rows[at].there)
        at++;
    if (at == m->count)
        m->count++;
    assert_true(m->count < ROWS_MOST);
    m->rows[at].there = true;
    for (int c = 0; c < COLUMNS; c++) {
        assert_true(value_is_known(row[c]));
        text_of(row[c], m->rows[at].v[c]);
    }
}

static void model_update(ModelTable *m, unsigned t, const Value *key, const Value *row)
{
    size_t at = find(m, t, key);

    assert_int_not_equal(at, SIZE_MAX);
    for (int c = 0; c < COLUMNS; c++)
        if (value_is_known(row[c]))
            text_of(row[c], m->rows[at].v[c]);
}

static void model_delete(ModelTable *m, unsigned t, const Value *key)
{
    size_t at = find(m, t, key);

    assert_int_not_equal(at, SIZE_MAX);
    m->rows[at].there = false;
}

static void model_change(Model *m, const Change *change)
{
    unsigned t = (unsigned)(change->rel->serial - 1);

    if (change->kind == CHANGE_INSERT)
        model_insert(&m->tables[t], t, change->new);
    else if (change->kind == CHANGE_UPDATE)
        model_update(&m->tables[t], t, change_key(change), change->new);
    else
        model_delete(&m->tables[t], t, change_key(change));
}

static int row_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(ModelRow));
}

static void assert_same(Model *a, Model *b)
{
    for (unsigned t = 0; t < TABLES; t++) {
        ModelTable *sides[2] = {&a->tables[t], &b->tables[t]};

        for (int s = 0; s < 2; s++) {
            size_t kept = 0;

            for (size_t i = 0; i < sides[s]->count; i++)
                if (sides[s]->rows[i].there) {
                    ModelRow row = {.there = true};

                    for (int c = 0; c < COLUMNS; c++)
                        memcpy(row.v[c], sides[s]->rows[i].v[c], strlen(sides[s]->rows[i].v[c]));
                    sides[s]->rows[kept++] = row;
                }
            sides[s]->count = kept;
            qsort(sides[s]->rows, kept, sizeof(ModelRow), row_compare);
        }
        assert_int_equal(sides[0]->count, sides[1]->count);
        assert_memory_equal(sides[0]->rows, sides[1]->rows, sides[0]->count * sizeof(ModelRow));
    }
}

/* --- random transactions, each change legal where the source is --- */

static Value *random_row(Batch *b, const char *const *keys, int key_count)
{
    char texts[COLUMNS][12];
    const char *list[COLUMNS];

    for (int c = 0; c < COLUMNS; c++) {
        snprintf(texts[c], sizeof(texts[c]), "%s", c < key_count && keys ? keys[c] : "");
        if (c >= key_count)
            snprintf(texts[c], sizeof(texts[c]), "v%u", rnd(1000));
        list[c] = c >= key_count && rnd(8) == 0 ? NULL : texts[c];
    }
    return rows_text(b, COLUMNS, list);
}

static void random_key(unsigned t, uint32_t range, char a[12], char b[12])
{
    snprintf(a, 12, "%u", rnd(range));
    snprintf(b, 12, "%u", t == 1 ? rnd(3) : rnd(1000));
}

static Value *stored(Batch *b, const ModelRow *row)
{
    const char *list[COLUMNS];

    for (int c = 0; c < COLUMNS; c++)
        list[c] = *row->v[c] ? row->v[c] : NULL;
    return rows_text(b, COLUMNS, list);
}

static void insert_one(Batch *b, Txn *txn, Model *m, unsigned t, uint32_t range)
{
    char a[12], second[12];
    const char *keys[2] = {a, second};
    Value *row;

    random_key(t, range, a, second);
    row = random_row(b, keys, t == 1 ? 2 : 1);
    if (t != 3 && find(&m->tables[t], t, row) != SIZE_MAX)
        return;
    model_change(m, rows_change(b, txn, CHANGE_INSERT, &relations[t], NULL, row));
}

/* Old rows hold only what the identity has. */
static Value *old_of(Batch *b, unsigned t, const ModelRow *row)
{
    Value *old = stored(b, row);

    for (int c = 0; c < COLUMNS; c++)
        if (!relations[t].columns[c].in_identity)
            old[c] = (Value){.kind = VALUE_ABSENT};
    return old;
}

static void update_one(Batch *b, Txn *txn, Model *m, unsigned t, uint32_t range, bool keys_move)
{
    ModelTable *table = &m->tables[t];
    const ModelRow *row = &table->rows[rnd((uint32_t)table->count)];
    char a[12], second[12];
    const char *keys[2] = {row->v[0], row->v[1]};
    Value *new, *old = NULL;

    if (!row->there)
        return;
    if (keys_move && rnd(6) == 0) {
        random_key(t, range, a, second);
        keys[0] = a;
        keys[1] = second;
    }
    new = random_row(b, keys, t == 1 ? 2 : 1);
    if (t != 3 && find(table, t, new) != SIZE_MAX &&
        find(table, t, new) != (size_t)(row - table->rows))
        return;
    for (int c = t == 1 ? 2 : 1; c < COLUMNS; c++)
        if (rnd(4) == 0)
            new[c] = (Value){.kind = VALUE_UNCHANGED};
    if (relations[t].rel.identity == 'f' || keys[0] == a || rnd(10) == 0)
        old = old_of(b, t, row);
    if (old && relations[t].rel.identity != 'f' && keys[0] != a && rnd(2))
        new[0] = (Value){.kind = VALUE_UNCHANGED}; /* a TOASTed key that stayed */
    model_change(m, rows_change(b, txn, CHANGE_UPDATE, &relations[t], old, new));
}

static void delete_one(Batch *b, Txn *txn, Model *m, unsigned t)
{
    ModelTable *table = &m->tables[t];
    const ModelRow *row = &table->rows[rnd((uint32_t)table->count)];

    if (row->there)
        model_change(m, rows_change(b, txn, CHANGE_DELETE, &relations[t], old_of(b, t, row), NULL));
}

static Batch *random_batch(Model *m, bool keys_move)
{
    Batch *b = batch_new();
    unsigned txns = 1 + rnd(40);
    uint32_t range = 5 + rnd(300);

    for (unsigned n = 0; n < txns; n++) {
        Txn *txn = rows_txn(b, n + 1);

        for (unsigned i = rnd(60); i > 0; i--) {
            unsigned t = rnd(TABLES), what = rnd(10);

            if (what < 4 || m->tables[t].count == 0)
                insert_one(b, txn, m, t, range);
            else if (what < 8)
                update_one(b, txn, m, t, range, keys_move);
            else
                delete_one(b, txn, m, t);
        }
    }
    return b;
}

/* --- writing a part to the model --- */

static void write_rows(Model *m, const TableRows *rows)
{
    unsigned t = (unsigned)(rows->table->rel->serial - 1);

    for (size_t i = 0; i < rows->step_count; i++)
        model_change(m, rows->steps[i].change);
    for (size_t i = 0; i < rows->delete_count; i++)
        model_delete(&m->tables[t], t, rows->deletes[i]->key);
    for (size_t i = 0; i < rows->update_count; i++)
        model_update(&m->tables[t], t, rows->updates[i]->key, rows->updates[i]->image);
    for (size_t i = 0; i < rows->insert_count; i++)
        model_insert(&m->tables[t], t, rows->inserts[i]->image);
}

static void random_batches_come_out_equal(void **state)
{
    static Model before, after, written;

    (void)state;
    for (uint64_t s = 1; s <= 150; s++) {
        Err err = ERR_INIT;
        unsigned lanes = 1 + (unsigned)(s % 5);

        seed = s;
        memset(&after, 0, sizeof(after));
        for (int round = 0; round < 3; round++) {
            Batch *b;
            Plan *plan;
            TableRows *steps;

            before = after;
            b = random_batch(&after, s % 2);
            b->lanes_before = lanes; /* small batches too */
            plan = plan_new(b, lanes, s % 3 == 0, &source, &err);
            assert_non_null(plan);
            assert_int_equal(plan->form, PLAN_PARTS);
            assert_int_equal(plan->lanes, lanes);
            written = before;
            for (unsigned n = 0, first = rnd(lanes); n < lanes; n++)
                for (const TableRows *rows = plan->parts[(first + n) % lanes]; rows;
                     rows = rows->next)
                    write_rows(&written, rows);
            assert_same(&after, &written);
            /* The same parts, step by step: half of the lanes have it already, the rest is
             * replayed. */
            written = before;
            for (unsigned lane = 0; lane < lanes; lane++) {
                if (lane % 2 == 0)
                    for (const TableRows *rows = plan->parts[lane]; rows; rows = rows->next)
                        write_rows(&written, rows);
                else
                    assert_true(plan_steps(plan, lane, &source, &steps, &err));
                for (const TableRows *rows = lane % 2 ? steps : NULL; rows; rows = rows->next)
                    write_rows(&written, rows);
                if (lane % 2) { /* routed over again: back to parts */
                    Plan *again;

                    plan->batch->lanes_before = lanes;
                    again = plan_new(plan->batch, lanes, s % 3 == 0, &source, &err);
                    assert_int_equal(again->fingerprint, plan->fingerprint);
                    plan->batch = NULL;
                    plan_free(plan);
                    plan = again;
                }
            }
            assert_same(&after, &written);
            plan_free(plan);
        }
    }
}

static void gathering_comes_out_equal(void **state)
{
    static Model before, after, written;

    (void)state;
    for (uint64_t s = 1; s <= 100; s++) {
        Gather *g = gather_new(&source);
        Err err = ERR_INIT;
        Batch *b;

        seed = s * 77;
        memset(&after, 0, sizeof(after));
        before = after;
        for (int round = 0; round < 3; round++) {
            bool confused = false;

            b = random_batch(&after, true);
            written = before;
            for (const Txn *txn = b->first; txn; txn = txn->next)
                for (const Change *change = txn->first; change; change = change->next) {
                    GatherResult got = gather_add(g, change, txn, &err);

                    if (got == GATHER_FLUSH_FIRST || rnd(50) == 0) {
                        for (const TableRows *rows = gather_rows(g, &confused); rows;
                             rows = rows->next)
                            write_rows(&written, rows);
                        gather_reset(g);
                        if (got == GATHER_FLUSH_FIRST)
                            got = gather_add(g, change, txn, &err);
                    }
                    assert_int_equal(got, GATHER_ADDED);
                }
            for (const TableRows *rows = gather_rows(g, &confused); rows; rows = rows->next)
                write_rows(&written, rows);
            gather_reset(g);
            assert_false(confused);
            assert_same(&after, &written);
            before = after;
            batch_free(b);
        }
        gather_free(g);
    }
}

/* --- single rules --- */

static Plan *planned(Batch *b, unsigned lanes)
{
    Err err = ERR_INIT;
    Plan *plan = plan_new(b, lanes, false, &source, &err);

    assert_non_null(plan);
    return plan;
}

static void net_effects(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    const Made *t = &relations[0];
    Plan *plan;
    const TableRows *rows;

    (void)state;
    INSERT(b, txn, t, "1", "x", "x", "x"); /* insert, update: one insert */
    UPDATE(b, txn, t, NULL, "1", "y", "\2", "y");
    INSERT(b, txn, t, "2", "x", "x", "x"); /* insert, delete: nothing */
    DELETE(b, txn, t, "2", "\1", "\1", "\1");
    UPDATE(b, txn, t, NULL, "3", "x", "\2", "x"); /* two updates: one */
    UPDATE(b, txn, t, NULL, "3", "\2", "\2", "z");
    DELETE(b, txn, t, "4", "\1", "\1", "\1"); /* delete, insert: both */
    INSERT(b, txn, t, "4", "n", "n", "n");
    plan = planned(b, 1);
    rows = plan->parts[0];
    assert_int_equal(rows->insert_count, 2);
    assert_int_equal(rows->update_count, 1);
    assert_int_equal(rows->delete_count, 1);
    assert_memory_equal(rows->inserts[0]->image[1].at, "y", 1);
    assert_memory_equal(rows->inserts[0]->image[2].at, "x", 1);
    assert_memory_equal(rows->updates[0]->image[1].at, "x", 1);
    assert_int_equal(rows->updates[0]->image[2].kind, VALUE_UNCHANGED);
    assert_memory_equal(rows->updates[0]->image[3].at, "z", 1);
    plan_free(plan);
}

static void inserts_alone_are_not_compared(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    const Made *t = &relations[0];
    char text[12];
    Plan *plan;

    (void)state;
    INSERT(b, txn, t, "2", "x", "x", "x");
    INSERT(b, txn, t, "1", "y", "x", "x");
    INSERT(b, txn, t, "1", "z", "x", "x"); /* no source sends it: the target's key refuses it */
    plan = planned(b, 1);
    assert_int_equal(plan->form, PLAN_PARTS);
    assert_int_equal(plan->parts[0]->insert_count, 3);
    assert_string_equal(text_of(plan->parts[0]->inserts[0]->image[1], text), "x");
    assert_string_equal(text_of(plan->parts[0]->inserts[1]->image[1], text), "y");
    assert_string_equal(text_of(plan->parts[0]->inserts[2]->image[1], text), "z");
    plan_free(plan);
}

/* The lane that has a row, and whether its changes are written in their order. */
static unsigned lane_of(const Plan *plan, const char *key, bool *in_order)
{
    unsigned found = 0, lane_found = 99;
    char text[12];

    *in_order = false;
    for (unsigned lane = 0; lane < plan->lanes; lane++)
        for (const TableRows *rows = plan->parts[lane]; rows; rows = rows->next) {
            bool here = false;

            for (size_t i = 0; i < rows->step_count; i++)
                if (strcmp(text_of(change_key(rows->steps[i].change)[0], text), key) == 0)
                    here = *in_order = true;
            for (size_t i = 0; i < rows->update_count; i++)
                here |= strcmp(text_of(rows->updates[i]->key[0], text), key) == 0;
            for (size_t i = 0; i < rows->insert_count; i++)
                here |= strcmp(text_of(rows->inserts[i]->image[0], text), key) == 0;
            for (size_t i = 0; i < rows->delete_count; i++)
                here |= strcmp(text_of(rows->deletes[i]->key[0], text), key) == 0;
            found += here;
            if (here)
                lane_found = lane;
        }
    assert_int_equal(found, 1);
    return lane_found;
}

static void fill_rows(Batch *b, Txn *txn, unsigned t, int from, int to)
{
    char id[12], u[12];

    for (int i = from; i < to; i++) {
        snprintf(id, sizeof(id), "%d", i);
        snprintf(u, sizeof(u), "u%d", i);
        INSERT(b, txn, &relations[t], id, u, "c", "d");
    }
}

/* Rows that have one unique value by turns share a lane and keep their order; the others are spread
 * and compacted. */
static void related_rows_share_a_lane(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    Err err = ERR_INIT;
    bool in_order[4];
    unsigned lane;
    Plan *plan;

    (void)state;
    fill_rows(b, txn, 4, 0, 2000);
    UPDATE(b, txn, &relations[4], ROW(b, "9001", "x", "c", "d"), "9001", NULL, "c", "d");
    UPDATE(b, txn, &relations[4], ROW(b, "9002", "y", "c", "d"), "9002", "x", "c", "d");
    UPDATE(b, txn, &relations[4], ROW(b, "9003", "z", "c", "d"), "9003", "y", "c", "d");
    UPDATE(b, txn, &relations[4], ROW(b, "9004", "7", "c", "d"), "9004", NULL, "c", "d");
    plan = plan_new(b, 4, false, &source, &err);
    assert_non_null(plan);
    assert_int_equal(plan->lanes, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_true(plan->parts[i]->insert_count > 300);
    lane = lane_of(plan, "9001", &in_order[0]);
    assert_int_equal(lane_of(plan, "9002", &in_order[1]), lane);
    assert_int_equal(lane_of(plan, "9003", &in_order[2]), lane);
    lane_of(plan, "9004", &in_order[3]);
    assert_true(in_order[0] && in_order[1] && in_order[2] && !in_order[3]);
    /* When such values moved unseen, the table isn't cut. */
    assert_true(plan->could_split);
    assert_true(plan_again(plan, 4, true, &source, &err));
    assert_true(plan->could_split);
    assert_int_equal(plan->lanes, 1);
    plan_free(plan);
}

/* Equal rows of a table without a key are interchangeable: a chain of changes is one, and what
 * comes and goes within the batch is nothing. */
static void equal_rows_are_a_multiset(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    Err err = ERR_INIT;
    const TableRows *rows;
    Plan *plan;

    (void)state;
    UPDATE(b, txn, &relations[3], ROW(b, "1", "x", NULL, "d"), "1", "y", NULL, "\2");
    INSERT(b, txn, &relations[3], "1", "y", NULL, "d");
    DELETE(b, txn, &relations[3], "1", "y", NULL, "d");
    UPDATE(b, txn, &relations[3], ROW(b, "1", "y", NULL, "d"), "1", "z", NULL, "d");
    DELETE(b, txn, &relations[3], "1", "x", NULL, "d");
    DELETE(b, txn, &relations[3], "1", "x", "", "d");
    plan = plan_new(b, 4, false, &source, &err);
    assert_non_null(plan);
    rows = plan->parts[0];
    assert_int_equal(rows->step_count, 0);
    assert_int_equal(rows->insert_count, 0);
    assert_int_equal(rows->update_count, 1); /* x, NULL became z */
    assert_int_equal(rows->delete_count, 2);
    assert_int_equal(rows->updates[0]->key[2].kind, VALUE_NULL);
    assert_int_equal(rows->updates[0]->image[3].len, 1);
    plan_free(plan);
}

/* A key that moves takes only the rows it meets out of the compaction. */
static void moved_keys_keep_their_order_alone(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    Err err = ERR_INIT;
    bool in_order[3];
    size_t inserts = 0, steps = 0;
    unsigned lane;
    Plan *plan;

    (void)state;
    fill_rows(b, txn, 0, 0, 2000);
    UPDATE(b, txn, &relations[0], ROW(b, "5", "\1", "\1", "\1"), "7001", "b", "c", "d");
    UPDATE(b, txn, &relations[0], ROW(b, "6", "\1", "\1", "\1"), "5", "b", "c", "d");
    plan = plan_new(b, 4, false, &source, &err);
    assert_non_null(plan);
    assert_int_equal(plan->lanes, 4);
    lane = lane_of(plan, "5", &in_order[0]);
    assert_int_equal(lane_of(plan, "6", &in_order[1]), lane);
    lane_of(plan, "7", &in_order[2]);
    assert_true(in_order[0] && in_order[1] && !in_order[2]);
    for (unsigned i = 0; i < 4; i++)
        for (const TableRows *rows = plan->parts[i]; rows; rows = rows->next) {
            inserts += rows->insert_count;
            steps += rows->step_count;
        }
    assert_int_equal(inserts, 1998);
    assert_int_equal(steps, 4);
    plan_free(plan);
}

static void contradictions_are_left_to_the_exact_replay(void **state)
{
    (void)state;
    for (int what = 0; what < 5; what++) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, 1);
        const Made *t = &relations[0];
        Plan *plan;

        if (what == 0) { /* there already */
            UPDATE(b, txn, t, NULL, "1", "x", "x", "x");
            INSERT(b, txn, t, "1", "x", "x", "x");
        } else if (what == 1) { /* gone already */
            DELETE(b, txn, t, "1", "\1", "\1", "\1");
            UPDATE(b, txn, t, NULL, "1", "x", "x", "x");
        } else if (what == 2) {
            DELETE(b, txn, t, "1", "\1", "\1", "\1");
            DELETE(b, txn, t, "1", "\1", "\1", "\1");
        } else if (what == 3) { /* trap 44: the key isn't in the message */
            UPDATE(b, txn, t, NULL, "\2", "x", "x", "x");
        } else { /* no old row */
            rows_change(b, txn, CHANGE_DELETE, t, NULL, NULL);
        }
        plan = planned(b, 2);
        assert_int_equal(plan->form, PLAN_EXACT);
        assert_int_equal(plan->lanes, 1);
        plan_free(plan);
    }
}

static void small_batches_take_one_lane(void **state)
{
    (void)state;
    for (unsigned changes = ROUTER_SPREAD_LEAST - 1; changes <= ROUTER_SPREAD_LEAST + 1;
         changes++) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, 1);
        Plan *plan;

        for (unsigned i = 0; i < changes; i++) {
            char id[12];

            snprintf(id, sizeof(id), "%u", i);
            INSERT(b, txn, &relations[0], id, "x", "x", "x");
        }
        b->lanes_most = changes % 2 ? 3 : 0;
        plan = planned(b, 4);
        assert_int_equal(plan->lanes, changes < ROUTER_SPREAD_LEAST ? 1 : changes % 2 ? 3 : 4);
        plan_free(plan);
    }
}

static void barriers_and_big_transactions_are_serial(void **state)
{
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    Change *change = arena_new(&b->arena, Change);
    Plan *plan;

    (void)state;
    INSERT(b, txn, &relations[0], "1", "x", "x", "x");
    change->kind = CHANGE_TRUNCATE;
    txn_add(txn, change);
    plan = planned(b, 4);
    assert_int_equal(plan->form, PLAN_SERIAL);
    assert_int_equal(plan->lanes, 1);
    plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_batches_come_out_equal),
        cmocka_unit_test(gathering_comes_out_equal),
        cmocka_unit_test(net_effects),
        cmocka_unit_test(inserts_alone_are_not_compared),
        cmocka_unit_test(related_rows_share_a_lane),
        cmocka_unit_test(equal_rows_are_a_multiset),
        cmocka_unit_test(moved_keys_keep_their_order_alone),
        cmocka_unit_test(contradictions_are_left_to_the_exact_replay),
        cmocka_unit_test(small_batches_take_one_lane),
        cmocka_unit_test(barriers_and_big_transactions_are_serial),
    };

    set_up();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
