#include "engine/move/journal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct Place {
    char dir[64];
    Arena arena;
    Err err;
} Place;

static int make_place(void **state)
{
    Place *place = calloc(1, sizeof(*place));
    char *base = strdup("/tmp/kb-journal.XXXXXX");

    assert_non_null(mkdtemp(base));
    snprintf(place->dir, sizeof(place->dir), "%s/state", base);
    free(base);
    arena_init(&place->arena, 4096);
    place->err = ERR_INIT;
    *state = place;
    return 0;
}

static int drop_place(void **state)
{
    Place *place = *state;
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", place->dir);
    assert_int_equal(system(command), 0);
    *strrchr(place->dir, '/') = '\0';
    rmdir(place->dir);
    arena_fini(&place->arena);
    free(place);
    return 0;
}

static void facts_survive(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    const char *value;

    assert_non_null(journal);
    assert_true(journal_put(journal, "", "id", "one", &p->err));
    assert_true(journal_put(journal, "", "id", "two", &p->err));
    assert_true(journal_put(journal, "shop", "slot", "kb_shop", &p->err));
    journal_close(journal);
    journal = journal_open(p->dir, &p->err);
    assert_true(journal_get(journal, "", "id", &p->arena, &value, &p->err));
    assert_string_equal(value, "two");
    assert_true(journal_get(journal, "shop", "slot", &p->arena, &value, &p->err));
    assert_string_equal(value, "kb_shop");
    assert_true(journal_get(journal, "other", "slot", &p->arena, &value, &p->err));
    assert_null(value);
    assert_true(journal_forget(journal, "shop", "slot", &p->err));
    assert_true(journal_get(journal, "shop", "slot", &p->arena, &value, &p->err));
    assert_null(value);
    journal_close(journal);
}

static void many_facts_come_in_order(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    JournalFact *facts;
    size_t count;

    for (int i = 40; i-- > 0;) {
        char key[16];

        snprintf(key, sizeof(key), "k%02d", i);
        assert_true(journal_put(journal, "", key, key, &p->err));
    }
    assert_true(journal_facts(journal, &p->arena, &facts, &count, &p->err));
    assert_int_equal(count, 40);
    assert_string_equal(facts[0].key, "k00");
    assert_string_equal(facts[39].value, "k39");
    assert_true(journal_reset(journal, &p->err));
    assert_true(journal_facts(journal, &p->arena, &facts, &count, &p->err));
    assert_int_equal(count, 0);
    journal_close(journal);
}

static void phases_count_attempts(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    JournalPhase *phases;
    size_t count;
    bool done;

    assert_true(journal_phase_begin(journal, "slot", &p->err));
    assert_true(journal_phase_is_done(journal, "slot", &done, &p->err));
    assert_false(done);
    assert_true(journal_phase_end(journal, "slot", "failed", "no such thing", &p->err));
    assert_true(journal_phase_begin(journal, "slot", &p->err));
    assert_true(journal_phase_end(journal, "slot", "done", "", &p->err));
    assert_true(journal_phase_begin(journal, "copy", &p->err));
    assert_true(journal_phase_is_done(journal, "slot", &done, &p->err));
    assert_true(done);
    assert_true(journal_phases(journal, &p->arena, &phases, &count, &p->err));
    assert_int_equal(count, 2);
    assert_string_equal(phases[0].name, "slot");
    assert_int_equal(phases[0].attempts, 2);
    assert_string_equal(phases[0].error, "");
    assert_true(phases[0].ended_us >= phases[0].started_us);
    assert_string_equal(phases[1].state, "running");
    journal_close(journal);
}

static void calls_without_outcome_are_known(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    const char **what;
    size_t count;
    int64_t first;
    int64_t second;

    assert_true(journal_intend(journal, "snapshot", "create snapshot", &first, &p->err));
    assert_true(journal_intend(journal, "copy", "copy snapshot", &second, &p->err));
    assert_true(journal_outcome(journal, first, "done", &p->err));
    assert_true(journal_open_calls(journal, &p->arena, &what, &count, &p->err));
    assert_int_equal(count, 1);
    assert_string_equal(what[0], "copy: copy snapshot");
    journal_close(journal);
}

static void one_process_drives(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    char text[200];

    assert_non_null(journal);
    assert_null(journal_open(p->dir, &p->err));
    snprintf(text, sizeof(text), "state directory %s: process %d drives this migration already",
             p->dir, (int)getpid());
    assert_string_equal(p->err.text, text);
    assert_int_equal(p->err.kind, ERR_STATE);
    journal_close(journal);
    err_clear(&p->err);
    journal = journal_open(p->dir, &p->err);
    assert_non_null(journal);
    journal_close(journal);
}

static void lock_and_facts_survive_a_kill(void **state)
{
    Place *p = *state;
    const char *value;
    Journal *journal;
    int status;
    pid_t child = fork();

    if (child == 0) {
        journal = journal_open(p->dir, &p->err);
        if (!journal || !journal_put(journal, "", "written", "before", &p->err))
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    journal = journal_open(p->dir, &p->err);
    assert_non_null(journal);
    assert_true(journal_get(journal, "", "written", &p->arena, &value, &p->err));
    assert_string_equal(value, "before");
    journal_close(journal);
}

static void status_reads_beside(void **state)
{
    Place *p = *state;
    Journal *reader = journal_open_readonly(p->dir, &p->err);
    Journal *journal;
    const char *value;

    assert_null(reader);
    assert_int_equal(p->err.kind, ERR_STATE);
    err_clear(&p->err);
    journal = journal_open(p->dir, &p->err);
    assert_true(journal_put(journal, "", "k", "v", &p->err));
    reader = journal_open_readonly(p->dir, &p->err);
    assert_non_null(reader);
    assert_true(journal_get(reader, "", "k", &p->arena, &value, &p->err));
    assert_string_equal(value, "v");
    assert_false(journal_put(reader, "", "k", "w", &p->err));
    journal_close(reader);
    journal_close(journal);
}

static void nobody_else_may_read(void **state)
{
    static const char *const names[] = {"", "/journal.db", "/lock"};
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    struct stat st;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];

        snprintf(path, sizeof(path), "%s%s", p->dir, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 077, 0);
    }
    journal_close(journal);
}

static void a_damaged_file_is_told(void **state)
{
    Place *p = *state;
    Journal *journal = journal_open(p->dir, &p->err);
    char path[128];
    int fd;

    journal_close(journal);
    snprintf(path, sizeof(path), "%s/journal.db", p->dir);
    fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "this is no database, and it is long enough", 42), 42);
    close(fd);
    assert_null(journal_open(p->dir, &p->err));
    assert_int_equal(p->err.kind, ERR_STATE);
    assert_non_null(strstr(p->err.text, "journal.db: file is not a database"));
}

static void a_file_in_the_way_is_told(void **state)
{
    Place *p = *state;
    int fd = open(p->dir, O_WRONLY | O_CREAT, 0600);

    close(fd);
    assert_null(journal_open(p->dir, &p->err));
    assert_non_null(strstr(p->err.text, "it is not a directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(facts_survive, make_place, drop_place),
        cmocka_unit_test_setup_teardown(many_facts_come_in_order, make_place, drop_place),
        cmocka_unit_test_setup_teardown(phases_count_attempts, make_place, drop_place),
        cmocka_unit_test_setup_teardown(calls_without_outcome_are_known, make_place, drop_place),
        cmocka_unit_test_setup_teardown(one_process_drives, make_place, drop_place),
        cmocka_unit_test_setup_teardown(lock_and_facts_survive_a_kill, make_place, drop_place),
        cmocka_unit_test_setup_teardown(status_reads_beside, make_place, drop_place),
        cmocka_unit_test_setup_teardown(nobody_else_may_read, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_told, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_file_in_the_way_is_told, make_place, drop_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
