#include "engine/move/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/move/dsn.h"
#include "engine/move/origin.h"

static RdsInstance sample(Arena *arena)
{
    RdsInstance i = {.name = "a",
                     .class_ = "db.r6g.large",
                     .engine = "postgres",
                     .port = 5432,
                     .allocated_storage = aws_num(20)};

    i.security_groups = (RdsGroups){arena_array(arena, RdsGroupStatus, 2), 2};
    i.security_groups.at[0] = (RdsGroupStatus){"sg-1", "active"};
    i.security_groups.at[1] = (RdsGroupStatus){"sg-2", "active"};
    i.tags = (AwsTags){arena_array(arena, AwsTag, 2), 2};
    i.tags.at[0] = (AwsTag){"team", "orders"};
    i.tags.at[1] = (AwsTag){"keybridge:run", "x"};
    return i;
}

static void equal_ones_have_no_difference(void **state)
{
    Arena arena;
    SettingDiff *diffs;
    size_t count;
    size_t compared;

    (void)state;
    arena_init(&arena, 4096);
    {
        RdsInstance a = sample(&arena);
        RdsInstance b = sample(&arena);
        RdsGroupStatus first = b.security_groups.at[0];

        b.name = "b";
        b.kms_key = "another";
        b.security_groups.at[0] = b.security_groups.at[1]; /* lists have no order */
        b.security_groups.at[1] = first;
        b.tags.count = 1;       /* our own tag doesn't count */
        b.multi_az = AWS_FALSE; /* unset and no are the same */
        b.monitoring_interval = aws_num(0);
        settings_compare(&a, &b, &arena, &diffs, &count, &compared);
        assert_int_equal(count, 0);
        assert_true(compared > 40);
    }
    arena_fini(&arena);
}

static void every_kind_of_difference_is_named(void **state)
{
    Arena arena;
    SettingDiff *diffs;
    size_t count;
    size_t compared;

    (void)state;
    arena_init(&arena, 4096);
    {
        RdsInstance a = sample(&arena);
        RdsInstance b = sample(&arena);

        b.class_ = "db.r6g.xlarge";
        b.allocated_storage = aws_num(40);
        b.multi_az = AWS_TRUE;
        b.security_groups.count = 1;
        b.port = 5433;
        settings_compare(&a, &b, &arena, &diffs, &count, &compared);
        assert_int_equal(count, 5);
        assert_string_equal(diffs[0].name, "DBInstanceClass");
        assert_string_equal(diffs[0].target, "db.r6g.xlarge");
        assert_string_equal(diffs[1].name, "MultiAZ");
        assert_string_equal(diffs[1].source, "-");
        assert_string_equal(diffs[2].target, "40");
        assert_string_equal(diffs[3].source, "sg-1, sg-2");
        assert_string_equal(diffs[4].name, "Port");
    }
    arena_fini(&arena);
}

static void slot_names_fit_and_differ(void **state)
{
    Arena arena;

    (void)state;
    arena_init(&arena, 4096);
    assert_string_equal(origin_slot_name(&arena, "keybridge", "shop"), "keybridge_shop");
    assert_string_not_equal(origin_slot_name(&arena, "keybridge", "Shop"),
                            origin_slot_name(&arena, "keybridge", "sHop"));
    for (int len = 0; len < 200; len++) {
        char name[256];
        const char *slot;

        memset(name, len % 2 ? 'x' : 'Y', (size_t)len);
        name[len] = '\0';
        slot = origin_slot_name(&arena, "keybridge", name);
        assert_true(strlen(slot) <= 63);
        assert_int_equal(strspn(slot, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(slot));
    }
    arena_fini(&arena);
}

static void connection_strings_are_rewritten(void **state)
{
    Arena arena;
    Err err = ERR_INIT;
    const char *dsn;

    (void)state;
    arena_init(&arena, 4096);
    dsn = dsn_with_database(&arena, "postgres://u:p%27%5C@h:1/old?sslmode=require", "new'db", &err);
    assert_non_null(dsn);
    assert_string_equal(dsn_part(&arena, dsn, "dbname"), "new'db");
    assert_string_equal(dsn_part(&arena, dsn, "password"), "p'\\");
    assert_string_equal(dsn_part(&arena, dsn, "sslmode"), "require");
    dsn = dsn_of_parts(&arena, "::1", 5433, "u", "p w", "d");
    assert_string_equal(dsn_part(&arena, dsn, "host"), "::1");
    assert_string_equal(dsn_part(&arena, dsn, "port"), "5433");
    assert_string_equal(dsn_part(&arena, dsn, "password"), "p w");
    assert_null(dsn_with_database(&arena, "postgres://u:secret@[broken", "d", &err));
    assert_null(strstr(err.text, "secret"));
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ones_have_no_difference),
        cmocka_unit_test(every_kind_of_difference_is_named),
        cmocka_unit_test(slot_names_fit_and_differ),
        cmocka_unit_test(connection_strings_are_rewritten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
