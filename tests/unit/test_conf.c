#include "tests/unit/kit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "engine/conf/conf.h"

#define VAR(text) ((char[]){text}) /* environ's words are writable */

static const ConfOrigin by_flag = {.from = CONF_FROM_FLAG};

/* A file with these words and rights, removed by the caller. */
static void write_file(char path[32], const char *text, mode_t mode)
{
    int fd;

    snprintf(path, 32, "/tmp/test_conf.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void test_defaults(void **state)
{
    Conf conf;

    (void)state;
    conf_init(&conf);
    assert_null(conf.source);
    assert_string_equal(conf.slot, "keybridge");
    assert_int_equal(conf.lanes, 2);
    assert_int_equal(conf.batch_bytes, 16 << 20);
    assert_int_equal(conf.cutover_lock_timeout, 300);
    assert_false(conf.tls_insecure);
    assert_string_equal(conf.log_level, "info");
    assert_null(conf_warning(&conf, 0));
    conf_fini(&conf);
    conf_fini(&conf);
}

static void test_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < conf_count(); i++) {
        const ConfOption *option = conf_option(i);

        assert_ptr_equal(conf_by_flag(option->flag), option);
        assert_ptr_equal(conf_by_key(option->section, option->key), option);
        assert_true(strlen(option->env) < 64 && strncmp(option->env, "KEYBRIDGE_", 10) == 0);
        assert_true(option->help[strlen(option->help) - 1] == '.');
        if (option->kind == CONF_BOOL)
            assert_true(strncmp(option->flag, "no-", 3) != 0);
    }
    assert_string_equal(conf_by_flag("apply-batch-bytes")->env, "KEYBRIDGE_APPLY_BATCH_BYTES");
    assert_null(conf_by_flag("nothing"));
    assert_null(conf_by_key("apply", "nothing"));
    assert_true(conf_section_exists("apply"));
    assert_false(conf_section_exists("nothing"));
}

static const struct {
    const char *flag;
    const char *value;
    const char *expect; /* as conf_put_value prints it, or the error's text */
    bool fails;
} values[] = {
    {"slot", "a b", "a b", false},
    {"slot", "", "", false},
    {"source", "postgres://u:p@h/d", "(secret)", false},
    {"lanes", "64", "64", false},
    {"lanes", "0", "--lanes: 0 is less than 1", true},
    {"lanes", "65", "--lanes: 65 is more than 64", true},
    {"lanes", "-1", "--lanes: \"-1\" isn't a whole number", true},
    {"lanes", "+1", "--lanes: \"+1\" isn't a whole number", true},
    {"lanes", " 1", "--lanes: \" 1\" isn't a whole number", true},
    {"lanes", "1x", "--lanes: \"1x\" isn't a whole number", true},
    {"lanes", "0x10", "--lanes: \"0x10\" isn't a whole number", true},
    {"lanes", "", "--lanes: \"\" isn't a whole number", true},
    {"lanes", "18446744073709551616", "--lanes: \"18446744073709551616\" isn't a whole number",
     true},
    {"lanes", "18446744073709551617", "--lanes: \"18446744073709551617\" isn't a whole number",
     true},
    {"lanes", "99999999999999999999999",
     "--lanes: \"99999999999999999999999\" isn't a whole number", true},
    {"apply-batch-bytes", "65536", "64KiB", false},
    {"apply-batch-bytes", "65537", "65537B", false},
    {"apply-batch-bytes", "65537B", "65537B", false},
    {"apply-batch-bytes", "1536KiB", "1536KiB", false},
    {"apply-batch-bytes", "2048 KiB", "2MiB", false},
    {"apply-batch-bytes", "1TiB", "1TiB", false},
    {"apply-batch-bytes", "2TiB", "--apply-batch-bytes: 2TiB is more than 1TiB", true},
    {"apply-batch-bytes", "1KiB", "--apply-batch-bytes: 1KiB is less than 64KiB", true},
    {"apply-batch-bytes", "1MB",
     "--apply-batch-bytes: \"1MB\" isn't a size such as 512KiB, 16MiB or 1GiB", true},
    {"apply-batch-bytes", "18000000000000MiB",
     "--apply-batch-bytes: \"18000000000000MiB\" isn't a size such as 512KiB, 16MiB or 1GiB", true},
    {"apply-retry", "0", "0ms", false},
    {"apply-retry", "90s", "90s", false},
    {"apply-retry", "120s", "2min", false},
    {"apply-retry", "1500ms", "1500ms", false},
    {"apply-retry", "24h", "1d", false},
    {"apply-retry", "10", "--apply-retry: \"10\" isn't a time such as 300ms, 10s, 5min or 1h",
     true},
    {"apply-retry", "10m", "--apply-retry: \"10m\" isn't a time such as 300ms, 10s, 5min or 1h",
     true},
    {"timeout", "99ms", "--timeout: 99ms is less than 100ms", true},
    {"timeout", "2h", "--timeout: 2h is more than 1h", true},
    {"json", "YES", "yes", false},
    {"json", "off", "no", false},
    {"json", "2", "--json: \"2\" isn't yes or no", true},
    {"log-level", "debug", "debug", false},
    {"log-level", "deb", "--log-level: \"deb\" isn't one of error|warn|info|debug", true},
    {"log-level", "debug.", "--log-level: \"debug.\" isn't one of error|warn|info|debug", true},
    {"log-level", "", "--log-level: \"\" isn't one of error|warn|info|debug", true},
    {"road", "bridge", "bridge", false},
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        const ConfOption *option = conf_by_flag(values[i].flag);
        Conf conf;
        Err err = ERR_INIT;
        Buf out;

        conf_init(&conf);
        buf_init(&out, 1024);
        assert_non_null(option);
        assert_int_equal(conf_set(&conf, option, values[i].value, by_flag, &err), !values[i].fails);
        if (!values[i].fails)
            conf_put_value(&out, &conf, option);
        assert_string_equal(values[i].fails ? err.text : buf_str(&out), values[i].expect);
        assert_int_equal(err.kind, values[i].fails ? ERR_USAGE : ERR_NONE);
        assert_int_equal(conf_origin(&conf, option).from,
                         values[i].fails ? CONF_FROM_DEFAULT : CONF_FROM_FLAG);
        buf_fini(&out);
        conf_fini(&conf);
    }
}

static void test_layers(void **state)
{
    char path[32];
    char *env[] = {VAR("HOME=/x"), VAR("KEYBRIDGE_LANES=5"), VAR("KEYBRIDGE_SLOT=env"),
                   VAR("KEYBRIDGE_OLD_HOST=h"), NULL};
    Conf conf;
    Err err = ERR_INIT;

    (void)state;
    write_file(path, "[apply]\nlanes = 3\n[stream]\nslot = file\npublication = file\n", 0644);
    conf_init(&conf);
    assert_true(conf_read_file(&conf, path, &err));
    assert_int_equal(conf.lanes, 3);
    assert_true(conf_read_env(&conf, env, &err));
    assert_int_equal(conf.lanes, 5);
    assert_true(conf_set(&conf, conf_by_flag("slot"), "flag", by_flag, &err));
    assert_string_equal(conf.slot, "flag");
    assert_string_equal(conf.publication, "file");
    assert_int_equal(conf_origin(&conf, conf_by_flag("slot")).from, CONF_FROM_FLAG);
    assert_int_equal(conf_origin(&conf, conf_by_flag("lanes")).from, CONF_FROM_ENV);
    assert_int_equal(conf_origin(&conf, conf_by_flag("publication")).from, CONF_FROM_FILE);
    assert_int_equal(conf_origin(&conf, conf_by_flag("publication")).line, 5);
    assert_string_equal(conf_origin(&conf, conf_by_flag("publication")).file, path);
    assert_int_equal(conf_origin(&conf, conf_by_flag("apply-retry")).from, CONF_FROM_DEFAULT);
    assert_null(conf_warning(&conf, 0));
    conf_fini(&conf);
    unlink(path);
}

static void test_odd_environment(void **state)
{
    char *typo[] = {VAR("KEYBRIDGE_LANSE=5"), VAR("KEYBRIDGE_PORT_80_TCP=x"), NULL};
    char *wrong[] = {VAR("KEYBRIDGE_LANES=many"), NULL};
    Conf conf;
    Err err = ERR_INIT;

    (void)state;
    conf_init(&conf);
    assert_true(conf_read_env(&conf, typo, &err));
    assert_string_equal(
        conf_warning(&conf, 0),
        "environment variable KEYBRIDGE_LANSE isn't an option; did you mean KEYBRIDGE_LANES?");
    assert_string_equal(conf_warning(&conf, 1),
                        "environment variable KEYBRIDGE_PORT_80_TCP isn't an option");
    assert_null(conf_warning(&conf, 2));
    assert_false(conf_read_env(&conf, wrong, &err));
    assert_string_equal(err.text, "KEYBRIDGE_LANES: \"many\" isn't a whole number");
    assert_int_equal(err.kind, ERR_CONFIG);
    conf_fini(&conf);
}

static const struct {
    const char *text;
    mode_t mode;
    const char *error; /* behind the path; NULL: fine */
    const char *hint;
} files[] = {
    {"[apply]\nlanes = 3\nlanes = 3\n", 0644, ":3: [apply] lanes was given already in line 2", ""},
    {"[apply]\nlane = 3\n", 0644, ":2: unknown key lane in [apply]", "did you mean lanes?"},
    {"[apply]\nworkers = 3\n", 0644, ":2: unknown key workers in [apply]",
     "keybridge config ini prints a file with every key"},
    {"[aply]\nlanes = 3\n", 0644, ":2: unknown section [aply]",
     "keybridge config ini prints a file with every section and key"},
    {"[apply]\nlanes = 300\n", 0644, ":2: [apply] lanes: 300 is more than 64", ""},
    {"[source]\ndsn = postgres://u@h/d\n", 0644, NULL, ""},
    {"[source]\ndsn = postgres://u:p@h/d\n", 0640, NULL, ""},
    {"[source]\ndsn = postgres://u:p@h/d\n", 0644,
     " holds a password and everybody on this machine can read it", "chmod 600 "},
    {"[source]\ndsn = host=h password=p\n", 0604,
     " holds a password and everybody on this machine can read it", "chmod 600 "},
    {"[aws]\ndb-password = p\n", 0644,
     " holds a password and everybody on this machine can read it", "chmod 600 "},
    {"[aws]\ndb-password =\n", 0644, NULL, ""},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[32];
        char expect[256];
        Conf conf;
        Err err = ERR_INIT;

        conf_init(&conf);
        write_file(path, files[i].text, files[i].mode);
        assert_int_equal(conf_read_file(&conf, path, &err), files[i].error == NULL);
        snprintf(expect, sizeof(expect), "%s%s", path, files[i].error ? files[i].error : "");
        if (files[i].error)
            assert_string_equal(err.text, expect);
        assert_memory_equal(err.hint, files[i].hint, strlen(files[i].hint));
        unlink(path);
        conf_fini(&conf);
    }
}

static void test_no_file(void **state)
{
    Conf conf;
    Err err = ERR_INIT;

    (void)state;
    conf_init(&conf);
    assert_false(conf_read_file(&conf, "/nowhere/k.ini", &err));
    assert_string_equal(err.text,
                        "reading the configuration file /nowhere/k.ini: No such file or directory");
    assert_false(conf_read_file(&conf, "/tmp", &err));
    assert_string_equal(err.text, "reading the configuration file /tmp: it is a directory");
    conf_fini(&conf);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"lanes", "slot", "publication", "until-lsn", "start-lsn"};

    (void)state;
    assert_string_equal(conf_nearest("lane", names, 5), "lanes");
    assert_string_equal(conf_nearest("lnaes", names, 5), "lanes");
    assert_string_equal(conf_nearest("pubication", names, 5), "publication");
    assert_string_equal(conf_nearest("untillsn", names, 5), "until-lsn");
    assert_string_equal(conf_nearest("lanes", names, 5), "lanes");
    assert_null(conf_nearest("x", names, 5));
    assert_null(conf_nearest("workers", names, 5));
    assert_null(conf_nearest("", names, 5));
    assert_null(conf_nearest(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        names, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_values),          cmocka_unit_test(test_layers),
        cmocka_unit_test(test_odd_environment), cmocka_unit_test(test_files),
        cmocka_unit_test(test_no_file),         cmocka_unit_test(test_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
