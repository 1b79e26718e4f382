#include "tests/unit/kit.h"

#include <unistd.h>

#include "engine/cmd/cmd.h"

/* A command line as main gets it: writable words. */
typedef struct Words {
    char *argv[32];
    int argc;
} Words;

static Words words_of(const char *text)
{
    Words words = {.argc = 0};

    while (*text) {
        size_t len = strcspn(text, " ");

        words.argv[words.argc] = malloc(len + 1);
        memcpy(words.argv[words.argc], text, len);
        words.argv[words.argc++][len] = '\0';
        text += len;
        text += strspn(text, " ");
    }
    return words;
}

static void words_free(Words *words)
{
    for (int i = 0; i < words->argc; i++)
        free(words->argv[i]);
}

static char *no_env[] = {NULL};

static const struct {
    const char *line;
    const char *text;
    const char *hint;
} wrong[] = {
    {"keybridge", "no command given", "keybridge --help lists the commands"},
    {"keybridge confog", "unknown command confog", "did you mean keybridge config?"},
    {"keybridge hlep", "unknown command hlep", "did you mean keybridge help?"},
    {"keybridge postgres://u:geheim@h/d", "unknown command (not a name)",
     "keybridge --help lists the commands"},
    {"keybridge help nothing", "unknown command nothing", "keybridge --help lists the commands"},
    {"keybridge config --lnaes 3", "unknown option --lnaes", "did you mean --lanes?"},
    {"keybridge config --lnaes=geheim", "unknown option --lnaes", "did you mean --lanes?"},
    {"keybridge config --lane 3", "unknown option --lane",
     "did you mean --lanes?"}, /* no abbreviations */
    {"keybridge config -x", "unknown option -x", "keybridge help config lists the options"},
    {"keybridge --frobnicate", "unknown option --frobnicate",
     "keybridge --help lists the commands"},
    {"keybridge config --lanes", "--lanes needs a value", ""},
    {"keybridge config --lanes 3 --lanes 3", "--lanes is given twice", ""},
    {"keybridge config --lanes=0", "--lanes: 0 is less than 1", ""},
    {"keybridge config --json=maybe", "--json: \"maybe\" isn't yes or no", ""},
    {"keybridge config --no-json=1", "--no-json takes no value", ""},
    {"keybridge config --json --no-json", "--json is given twice", ""},
    {"keybridge --config /nowhere config",
     "reading the configuration file /nowhere: No such file or directory", ""},
};

static void test_wrong_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        Words words = words_of(wrong[i].line);
        CommandLine line;
        Conf conf;
        Err err = ERR_INIT;

        conf_init(&conf);
        assert_false(command_line_read(&line, &conf, words.argc, words.argv, no_env, &err));
        assert_string_equal(err.text, wrong[i].text);
        assert_string_equal(err.hint, wrong[i].hint);
        assert_int_equal(err_exit_code(err.kind), 2);
        free(line.argv);
        conf_fini(&conf);
        words_free(&words);
    }
}

static void test_good_line(void **state)
{
    Words words = words_of("keybridge --lanes 3 config --json ini --slot=a=b -- --odd");
    CommandLine line;
    Conf conf;
    Err err = ERR_INIT;

    (void)state;
    conf_init(&conf);
    assert_true(command_line_read(&line, &conf, words.argc, words.argv, no_env, &err));
    assert_ptr_equal(line.command, &cmd_config);
    assert_int_equal(line.argc, 3);
    assert_string_equal(line.argv[0], "config");
    assert_string_equal(line.argv[1], "ini");
    assert_string_equal(line.argv[2], "--odd");
    assert_null(line.argv[3]);
    assert_int_equal(conf.lanes, 3);
    assert_true(conf.json);
    assert_string_equal(conf.slot, "a=b");
    free(line.argv);
    conf_fini(&conf);
    words_free(&words);
}

/* Wherever the command stands, help wins over a wrong rest of the line's meaning, not over its
 * form. */
static void test_help(void **state)
{
    static const struct {
        const char *line;
        bool command;
    } cases[] = {{"keybridge --help", false},       {"keybridge -h", false},
                 {"keybridge help", false},         {"keybridge config --help", true},
                 {"keybridge --help config", true}, {"keybridge help config", true},
                 {"keybridge help help", false}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Words words = words_of(cases[i].line);
        CommandLine line;
        Conf conf;
        Err err = ERR_INIT;

        conf_init(&conf);
        assert_true(command_line_read(&line, &conf, words.argc, words.argv, no_env, &err));
        assert_true(line.help);
        assert_int_equal(line.command != NULL, cases[i].command);
        free(line.argv);
        conf_fini(&conf);
        words_free(&words);
    }
}

static void test_secrets_are_masked(void **state)
{
    static const char *const lines[] = {
        "keybridge config --source postgres://u:geheim@h/d --db-password=geheim",
        "keybridge config --source=postgres://u:geheim@h/d --db-password geheim",
        "keybridge config --source=postgres://u:geheim@h/d --nonsense", /* also when it fails */
        "keybridge config --lanes=0 --source=postgres://u:geheim@h/d",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        Words words = words_of(lines[i]);
        size_t lens[32];
        CommandLine line;
        Conf conf;
        Err err = ERR_INIT;

        for (int w = 0; w < words.argc; w++)
            lens[w] = strlen(words.argv[w]);
        conf_init(&conf);
        if (command_line_read(&line, &conf, words.argc, words.argv, no_env, &err)) {
            assert_string_equal(conf.source, "postgres://u:geheim@h/d");
            assert_string_equal(conf.db_password, "geheim");
        }
        for (int w = 0; w < words.argc; w++)
            assert_null(memmem(words.argv[w], lens[w], "geheim", 6));
        assert_null(strstr(err.text, "geheim"));
        free(line.argv);
        conf_fini(&conf);
        words_free(&words);
    }
}

static void test_takes(void **state)
{
    static const Command command = {.name = "x", .sections = "source stream cutover.timeout"};

    (void)state;
    assert_true(command_takes(&command, conf_by_flag("source")));
    assert_true(command_takes(&command, conf_by_flag("slot")));
    assert_true(command_takes(&command, conf_by_flag("timeout")));
    assert_true(command_takes(&command, conf_by_flag("json")));
    assert_true(command_takes(&command, conf_by_flag("log-level")));
    assert_false(command_takes(&command, conf_by_flag("target")));
    assert_false(command_takes(&command, conf_by_flag("max-lag")));
    assert_false(command_takes(&command, conf_by_flag("watch")));
}

/* What every command owes its users and the manual. */
static void test_commands(void **state)
{
    char *text = NULL;
    size_t len = 0;

    (void)state;
    for (size_t i = 0; i < command_count(); i++) {
        const Command *command = command_at(i);
        FILE *out = open_memstream(&text, &len);

        assert_ptr_equal(command_find(command->name), command);
        assert_non_null(command->run);
        assert_true(strlen(command->summary) > 10 && command->summary[0] >= 'a');
        assert_non_null(command->sections);
        help_print(out, command);
        fclose(out);
        assert_non_null(strstr(text, command->summary));
        assert_non_null(strstr(text, "--log-level error|warn|info|debug"));
        free(text);
    }
    assert_null(command_find("help"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_lines), cmocka_unit_test(test_good_line),
        cmocka_unit_test(test_help),        cmocka_unit_test(test_secrets_are_masked),
        cmocka_unit_test(test_takes),       cmocka_unit_test(test_commands),
    };

    unsetenv("KEYBRIDGE_CONFIG");
    setenv("HOME", "/nowhere", 1);
    setenv("XDG_CONFIG_HOME", "/nowhere", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
