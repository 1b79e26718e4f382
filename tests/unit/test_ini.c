#include "tests/unit/kit.h"

#include "engine/conf/ini.h"

typedef struct Seen {
    Buf out;
} Seen;

static bool on_entry(void *self, const IniEntry *entry, Err *err)
{
    Seen *seen = self;

    if (strcmp(entry->key, "refused") == 0)
        return err_fail(err, ERR_CONFIG, "refused in line %u", entry->line);
    buf_printf(&seen->out, "%u[%s]%s=<%s>", entry->line, entry->section, entry->key, entry->value);
    return true;
}

static bool read_text(const char *text, size_t len, Seen *seen, Err *err)
{
    char *copy = malloc(len + 1);
    FILE *in;
    bool done;

    memcpy(copy, text, len);
    copy[len] = '\0';
    in = len ? fmemopen(copy, len, "r") : fopen("/dev/null", "r");
    done = ini_read(in, "f.ini", on_entry, seen, err);
    fclose(in);
    free(copy);
    return done;
}

static const struct {
    const char *text;
    const char *expect; /* entries, or the error's text */
    bool fails;
} cases[] = {
    {"", "", false},
    {"\n\n  \t\n# c\n; d\n", "", false},
    {"[a]\nk=v\n", "2[a]k=<v>", false},
    {"[a]\nk=v", "2[a]k=<v>", false},
    {"\xEF\xBB\xBF[a]\r\n  k \t=  v w \t\r\n", "2[a]k=<v w>", false},
    {"[a]\nk=\n", "2[a]k=<>", false},
    {"[a]\nk=\"\"\n", "2[a]k=<>", false},
    {"[ a ]\nk = \" v \" # why\n", "2[a]k=< v >", false},
    {"[a]\nk = \"q\\\"b\\\\n\\nt\\t#;\"\n", "2[a]k=<q\"b\\n\nt\t#;>", false},
    {"[a]\nk = a=b#c;d\n", "2[a]k=<a=b#c;d>", false},
    {"[a]\nk=1\n[b]\nk=2\n[a]\nl=3\n", "2[a]k=<1>4[b]k=<2>6[a]l=<3>", false},
    {"k=v\n", "f.ini:1: k stands before the first [section]", true},
    {"[a]\nk\n", "f.ini:2: neither [section] nor key = value", true},
    {"[a\n", "f.ini:1: a section is written [name]", true},
    {"[a] b\n", "f.ini:1: a section is written [name]", true},
    {"[]\n", "f.ini:1: a section's name has only letters, digits, - and _", true},
    {"[a b]\n", "f.ini:1: a section's name has only letters, digits, - and _", true},
    {"[a]\n= v\n", "f.ini:2: a key has only letters, digits, - and _", true},
    {"[a]\nk l = v\n", "f.ini:2: a key has only letters, digits, - and _", true},
    {"[a]\nk = 4 # four\n",
     "f.ini:2: quote a value that holds \" #\", or put the comment on a line of its own", true},
    {"[a]\nk = \"open\n", "f.ini:2: a quoted value has no closing quote", true},
    {"[a]\nk = \"\n", "f.ini:2: a quoted value has no closing quote", true},
    {"[a]\nk = \"x\\", "f.ini:2: unknown escape in a quoted value (known: \\\" \\\\ \\n \\t)",
     true},
    {"[a]\nk = \"x\\e\"", "f.ini:2: unknown escape in a quoted value (known: \\\" \\\\ \\n \\t)",
     true},
    {"[a]\nk = \"x\" y\n", "f.ini:2: something follows the closing quote of a value", true},
    {"[a]\n\nrefused=1\nk=2", "refused in line 3", true},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Seen seen;
        Err err = ERR_INIT;
        bool done;

        buf_init(&seen.out, 65536);
        done = read_text(cases[i].text, strlen(cases[i].text), &seen, &err);
        assert_int_equal(done, !cases[i].fails);
        assert_string_equal(cases[i].fails ? err.text : buf_str(&seen.out), cases[i].expect);
        if (cases[i].fails)
            assert_int_equal(err.kind, ERR_CONFIG);
        buf_fini(&seen.out);
    }
}

static void test_zero_byte(void **state)
{
    Seen seen;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&seen.out, 1024);
    assert_false(read_text("[a]\nk=\0v\n", 9, &seen, &err));
    assert_string_equal(err.text, "f.ini:2: a zero byte: this isn't a configuration file");
    buf_fini(&seen.out);
}

/* Libraries for ini files have cut at 200 bytes; a certificate path or a GTID set may be longer. */
static void test_long_lines(void **state)
{
    size_t len = 1024 * 1024;
    char *text = malloc(len + 16);
    Seen seen;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&seen.out, 4 * len);
    memcpy(text, "[a]\nk=", 6);
    memset(text + 6, 'x', len);
    assert_true(read_text(text, 100 * 1000, &seen, &err));
    assert_int_equal(seen.out.len, 8 + 100 * 1000 - 6);
    assert_false(read_text(text, len + 6, &seen, &err));
    assert_string_equal(err.text,
                        "f.ini:2: a line of 1048578 bytes: this isn't a configuration file");
    buf_fini(&seen.out);
    free(text);
}

static void test_unreadable(void **state)
{
    FILE *in = fopen("/", "r"); /* opens, and fails to read */
    Seen seen;
    Err err = ERR_INIT;

    (void)state;
    buf_init(&seen.out, 1024);
    assert_non_null(in);
    assert_false(ini_read(in, "/", on_entry, &seen, &err));
    assert_string_equal(err.text, "reading /: Is a directory");
    assert_string_equal(err.code, "EISDIR");
    fclose(in);
    buf_fini(&seen.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_zero_byte),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
