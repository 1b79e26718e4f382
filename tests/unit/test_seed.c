#include "engine/move/seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define TIME "2026-11-24 12:00:01.123 UTC:@:[77]:"

static const struct {
    const char *name;
    const char *text;
    SeedRule rule;
    uint64_t start;
} logs[] = {
    {"PostgreSQL 15, torn page",
     TIME
     "LOG:  database system was interrupted; last known up at 2026-11-24 12:00:00 UTC\n" TIME
     "LOG:  database system was not properly shut down; automatic recovery in progress\n" TIME
     "LOG:  redo starts at 0/27A4F3E8\n" TIME
     "LOG:  unexpected pageaddr 0/2488A000 in log segment 00000001000000000000002A, offset 8953856\n" TIME
     "LOG:  redo done at 0/2A889F08 system usage: CPU: user: 0.11 s, system: 0.02 s, elapsed: 0.13 s\n" TIME
     "LOG:  checkpoint starting: end-of-recovery immediate wait\n",
     SEED_REDO_DONE, 0x2A889F09},
    {"13 has no system usage", TIME "LOG:  redo done at 16/B374D848\n", SEED_REDO_DONE,
     0x16B374D849ull},
    {"the development branch pads", TIME "LOG:  redo done at 16/00000028 system usage: x\n",
     SEED_REDO_DONE, 0x1600000029ull},
    {"nothing to replay, 15",
     TIME "LOG:  invalid record length at 0/1949CA8: wanted 24, got 0\n" TIME
          "LOG:  redo is not required\n",
     SEED_REDO_NOT_REQUIRED, 0x1949CA8},
    {"nothing to replay, 16",
     TIME "LOG:  invalid record length at 0/1949CA8: expected at least 24, got 0\n" TIME
          "LOG:  redo is not required\n",
     SEED_REDO_NOT_REQUIRED, 0x1949CA8},
    {"not required, but no end is told", TIME "LOG:  redo is not required\n", SEED_NONE, 0},
    {"the oldest recovery counts",
     TIME "LOG:  redo done at 0/100\n" TIME "LOG:  redo done at 0/200\n", SEED_REDO_DONE, 0x101},
    {"still recovering", TIME "LOG:  redo starts at 0/27A4F3E8\n", SEED_NONE, 0},
    {"line still being written", TIME "LOG:  redo done at 0/27A4", SEED_NONE, 0},
    {"a statement that looks like it",
     TIME "LOG:  statement: select 'redo done at 0/666'\n" TIME "ERROR:  redo done at 0/777\n" TIME
          "LOG:  redo done at 0/100 system usage\n",
     SEED_REDO_DONE, 0x101},
    {"invalid length then records",
     TIME "LOG:  invalid record length at 0/1949CA8: wanted 24, got 0\n" TIME
          "LOG:  redo done at 0/1949C70 system usage\n",
     SEED_REDO_DONE, 0x1949C71},
    {"empty", "", SEED_NONE, 0},
};

static void logs_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        Err err = ERR_INIT;
        Seed seed;

        if (!seed_of_log(span_str(logs[i].text), &seed, &err) || seed.rule != logs[i].rule ||
            seed.start != logs[i].start)
            fail_msg("%s: rule %s start %" PRIx64 " %s", logs[i].name, seed_rule_name(seed.rule),
                     seed.start, err.text);
    }
}

static void every_cut_is_safe(void **state)
{
    const char *text = logs[0].text;
    size_t len = strlen(text);
    const char *line_end = strstr(text, "elapsed: 0.13 s\n") + strlen("elapsed: 0.13 s\n");

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        char *copy = malloc(cut + 1); /* exactly sized, so that overreading is seen */
        Err err = ERR_INIT;
        Seed seed;

        memcpy(copy, text, cut);
        assert_true(seed_of_log(span_of(copy, cut), &seed, &err));
        assert_int_equal(seed.rule, text + cut >= line_end ? SEED_REDO_DONE : SEED_NONE);
        free(copy);
    }
}

static void nonsense_is_an_error(void **state)
{
    Err err = ERR_INIT;
    Seed seed;

    (void)state;
    assert_false(seed_of_log(span_str("x LOG:  redo done at nowhere\n"), &seed, &err));
    assert_int_equal(err.kind, ERR_TARGET);
}

static const struct {
    const char *name;
    uint64_t start;
    SeedBounds bounds;
    const char *part; /* of the error; NULL: fine */
} checks[] = {
    {"inside", 0x200, {0x100, 0x100, 0x300, "reserved"}, NULL},
    {"at both ends", 0x100, {0x100, 0x100, 0x100, "reserved"}, NULL},
    {"snapshot older than the slot",
     0xFF,
     {0x100, 0x100, 0x300, "reserved"},
     "before the slot's consistent point 0/100"},
    {"another server's copy",
     0x301,
     {0x100, 0x100, 0x300, "extended"},
     "beyond the source's flush position 0/300"},
    {"used slot", 0x200, {0x100, 0x201, 0x300, "reserved"}, "the slot was used"},
    {"lost slot", 0x200, {0x100, 0x100, 0x300, "lost"}, "lost the WAL"},
};

static void bounds_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        Seed seed = {SEED_REDO_DONE, checks[i].start, checks[i].start - 1};
        Err err = ERR_INIT;
        bool ok = seed_check(&seed, &checks[i].bounds, &err);

        if (ok != (checks[i].part == NULL) || (checks[i].part && !strstr(err.text, checks[i].part)))
            fail_msg("%s: %s", checks[i].name, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logs_are_read),
        cmocka_unit_test(every_cut_is_safe),
        cmocka_unit_test(nonsense_is_an_error),
        cmocka_unit_test(bounds_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
