/* What of engine/check needs no server: lists compared, results as JSON, databases chosen. */
#include "engine/base/base.h"

#include <jansson.h>
#include <setjmp.h>

#include <cmocka.h> /* needs setjmp.h, so not sorted among the others */

#include "engine/check/databases.h"
#include "engine/check/sequences.h"
#include "engine/check/verify.h"
#include "engine/check/verify_impl.h"

#define COLUMN(n, t)                                         \
    {                                                        \
        .name = (n), .type = (t), .open = "f(", .close = ")" \
    }
#define TABLE(s, n, c)                                                           \
    {                                                                            \
        .schema = (s), .name = (n), .columns = (c), .column_count = ARRAY_LEN(c) \
    }

static const TableColumn plain[] = {COLUMN("id", "integer"), COLUMN("v", "text")};
static const TableColumn other_type[] = {COLUMN("id", "bigint"), COLUMN("v", "text")};
static const TableColumn turned[] = {COLUMN("v", "text"), COLUMN("id", "integer")};
static const TableColumn more[] = {COLUMN("id", "integer"), COLUMN("v", "text"),
                                   COLUMN("x", "text")};

static TableList list_of(const Table *tables, size_t count)
{
    return (TableList){.tables = tables, .count = count, .encoding = "UTF8", .type_oids = "none"};
}

static TableDriftList drift_of(TableList source, TableList target, Arena *arena)
{
    TableDriftList out;

    tables_compare(&source, &target, arena, &out);
    return out;
}

static void equal_lists_have_no_drift(void **state)
{
    const Table a[] = {TABLE("public", "a", plain), TABLE("s", "a", plain)};
    const Table b[] = {TABLE("public", "a", turned), TABLE("s", "a", plain)};
    Arena arena ON_EXIT(arena_fini);

    (void)state;
    arena_init(&arena, 1024);
    assert_int_equal(drift_of(list_of(a, 2), list_of(a, 2), &arena).count, 0);
    assert_int_equal(drift_of(list_of(a, 2), list_of(b, 2), &arena).count,
                     0); /* order isn't drift */
    assert_int_equal(drift_of(list_of(NULL, 0), list_of(NULL, 0), &arena).count, 0);
}

static void drift_is_named(void **state)
{
    const Table a[] = {TABLE("a", "only_source", plain), TABLE("p", "cols", plain),
                       TABLE("p", "type", plain)};
    const Table b[] = {TABLE("p", "cols", more), TABLE("p", "type", other_type),
                       TABLE("z", "only_target", plain)};
    static const TableDriftKind kinds[] = {DRIFT_TABLE_MISSING, DRIFT_COLUMN_EXTRA,
                                           DRIFT_COLUMN_TYPE, DRIFT_TABLE_EXTRA};
    Arena arena ON_EXIT(arena_fini);
    TableDriftList drift;

    (void)state;
    arena_init(&arena, 1024);
    drift = drift_of(list_of(a, 3), list_of(b, 3), &arena);
    assert_int_equal(drift.count, ARRAY_LEN(kinds));
    for (size_t i = 0; i < drift.count; i++)
        assert_int_equal(drift.items[i].kind, kinds[i]);
    assert_string_equal(drift.items[1].column, "x");
    assert_string_equal(drift.items[2].source, "integer");
    assert_string_equal(drift.items[2].target, "bigint");
    drift = drift_of(list_of(b, 3), list_of(a, 3), &arena);
    assert_int_equal(drift.items[1].kind, DRIFT_COLUMN_MISSING);
}

static void more_drift_than_one_piece_of_memory(void **state)
{
    static Table many[1000];
    static char names[1000][8];
    Arena arena ON_EXIT(arena_fini);
    TableDriftList drift;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        snprintf(names[i], sizeof(names[i]), "t%04zu", i);
        many[i] = (Table)TABLE("s", names[i], plain);
    }
    drift = drift_of(list_of(many, ARRAY_LEN(many)), list_of(NULL, 0), &arena);
    assert_int_equal(drift.count, 1000);
    assert_string_equal(drift.items[999].table, "t0999");
    assert_ptr_equal(tables_find(&(TableList){.tables = many, .count = 1000}, "s", "t0777"),
                     &many[777]);
    assert_null(tables_find(&(TableList){.tables = many, .count = 1000}, "s", "t1000"));
    assert_null(tables_find(&(TableList){.tables = many, .count = 1000}, "r", "t0000"));
}

static void other_encodings_are_drift(void **state)
{
    TableList a = list_of(NULL, 0), b = list_of(NULL, 0);
    Arena arena ON_EXIT(arena_fini);
    TableDriftList drift;

    (void)state;
    arena_init(&arena, 1024);
    b.encoding = "LATIN1";
    drift = drift_of(a, b, &arena);
    assert_int_equal(drift.count, 1);
    assert_int_equal(drift.items[0].kind, DRIFT_ENCODING);
}

static void columns_of_tables_types_go_as_text_between_logical_copies(void **state)
{
    const TableColumn columns[] = {
        {.name = "c\"x", .open = "record_send(", .close = ")", .carries_oids = true},
        {.name = "v", .open = "textsend(", .close = ")"}};
    const Table table = TABLE("s", "t", columns);
    AUTO_BUF sql;

    (void)state;
    buf_init(&sql, 4096);
    hash_put_columns(&sql, &table, false);
    assert_string_equal(buf_str(&sql),
                        "array[record_send(t.\"c\"\"x\"),textsend(t.\"v\")]::bytea[]");
    buf_clear(&sql);
    hash_put_columns(&sql, &table, true);
    assert_string_equal(buf_str(&sql),
                        "array[textsend(format('%L',t.\"c\"\"x\")),textsend(t.\"v\")]::bytea[]");
}

static void verdict_of_the_whole(void **state)
{
    VerifyResult r = {0};
    TableDrift drift = {.kind = DRIFT_COLUMN_TYPE};

    (void)state;
    assert_true(verify_equal(&r));
    r.errors = 1;
    assert_false(verify_equal(&r));
    r = (VerifyResult){.different = 1};
    assert_false(verify_equal(&r));
    r = (VerifyResult){.drift = {&drift, 1}};
    assert_false(verify_equal(&r));
}

static void results_are_json(void **state)
{
    VerifyRow row = {.kind = ROW_CHANGED,
                     .key = "id='\"\\\n'",
                     .columns = "a, b",
                     .source = "a=1",
                     .target = "a=2",
                     .copies = 1};
    VerifyTable tables[2] = {{.schema = "s",
                              .name = "t\"",
                              .verdict = VERIFY_DIFFERENT,
                              .rows = &row,
                              .row_count = 1,
                              .changed = 1},
                             {.schema = "s", .name = "u", .verdict = VERIFY_ERROR}};
    TableDrift drift = {.kind = DRIFT_TABLE_EXTRA, .schema = "s", .table = "x"};
    TableLeftOut out = {"s", "f", "foreign table"};
    VerifyResult r = {.database = "db",
                      .how = VERIFY_AT_POSITION,
                      .position = {0, 0x1600000000},
                      .note = "n",
                      .tables = tables,
                      .table_count = 2,
                      .drift = {&drift, 1},
                      .left_out = &out,
                      .left_out_count = 1,
                      .different = 1,
                      .errors = 1};
    json_t *json;
    AUTO_BUF text;

    (void)state;
    err_fail(&tables[1].error, ERR_TARGET, "invalid page");
    buf_init(&text, MIB(1));
    verify_json(&r, &text);
    json = json_loads(buf_str(&text), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "position")), "16/0");
    assert_int_equal(json_array_size(json_object_get(json, "tables")), 2);
    json_decref(json);
}

static void sequences_are_json(void **state)
{
    Sequence items[] = {
        {.schema = "s",
         .name = "q",
         .source = {.there = true, .last_value = INT64_MIN, .increment = -1, .type = "bigint"},
         .verdict = SEQUENCE_MISSING},
        {.schema = "s",
         .name = "r",
         .before = {.there = true, .type = "smallint"},
         .verdict = SEQUENCE_EXTRA}};
    SequencesResult r = {.database = "d", .items = items, .count = 2};
    json_t *json;
    AUTO_BUF text;

    (void)state;
    buf_init(&text, MIB(1));
    sequences_json(&r, &text);
    json = json_loads(buf_str(&text), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    json_decref(json);
}

static const char *first_of(const char *source, const char *target, const char *only, Arena *arena)
{
    DatabaseList list;
    Err err = ERR_INIT;

    assert_true(databases_of(source, target, only, NULL, arena, &list, &err));
    assert_int_equal(list.count, 1);
    return list.names[0];
}

static void databases_come_from_the_connection_strings(void **state)
{
    Arena arena ON_EXIT(arena_fini);
    DatabaseList list;
    Err err = ERR_INIT;

    (void)state;
    arena_init(&arena, 1024);
    assert_string_equal(first_of("postgres://h/app", "postgres://i/app", NULL, &arena), "app");
    assert_string_equal(first_of("postgres://h/app", "host=i", NULL, &arena), "app");
    assert_string_equal(first_of("host=h", "dbname=b host=i", NULL, &arena), "b");
    assert_string_equal(first_of("postgres://h/app", "postgres://i/app", "this", &arena), "this");
    assert_null(first_of("postgres://h/app", "postgres://i/other", NULL, &arena));
    assert_false(databases_of(NULL, "host=i", NULL, NULL, &arena, &list, &err));
    assert_int_equal(err.kind, ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_lists_have_no_drift),
        cmocka_unit_test(drift_is_named),
        cmocka_unit_test(more_drift_than_one_piece_of_memory),
        cmocka_unit_test(other_encodings_are_drift),
        cmocka_unit_test(columns_of_tables_types_go_as_text_between_logical_copies),
        cmocka_unit_test(verdict_of_the_whole),
        cmocka_unit_test(results_are_json),
        cmocka_unit_test(sequences_are_json),
        cmocka_unit_test(databases_come_from_the_connection_strings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
