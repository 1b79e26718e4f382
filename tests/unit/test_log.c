/* The log: the exact lines in every format, on a file and on a terminal. */
#include "engine/base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/kit.h"

/* stderr goes here while lines are caught. */
static int caught_fd;
static int saved_fd;

static void catch_on(int fd)
{
    fflush(stderr);
    saved_fd = dup(STDERR_FILENO);
    caught_fd = fd;
    assert_true(saved_fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
}

static void catch_end(void)
{
    dup2(saved_fd, STDERR_FILENO);
    close(saved_fd);
}

static void catch_file(void)
{
    int fd = memfd_create("log", MFD_CLOEXEC);

    assert_true(fd >= 0);
    catch_on(fd);
}

/* What came, NUL-terminated; free it. */
static char *caught(void)
{
    off_t size = lseek(caught_fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);

    catch_end();
    assert_non_null(text);
    assert_int_equal(pread(caught_fd, text, (size_t)size, 0), size);
    close(caught_fd);
    return text;
}

/* Digits of a time become 9s, so that lines can be compared whole. */
static void mask(char *text, size_t from, size_t len)
{
    for (size_t i = from; i < from + len && text[i]; i++)
        if (text[i] >= '0' && text[i] <= '9')
            text[i] = '9';
}

static void emit_all_kinds(void)
{
    log_info("all kinds", F_STR("str", "word"), F_STR("quoted", "two words"), F_STR("none", NULL),
             F_SPAN("span", SPAN_LIT("a\"b\\c\nd=e")), F_U64("u64", UINT64_MAX),
             F_I64("i64", INT64_MIN), F_LSN("lsn", 0x16B374D848), F_MS("took_ms", 1.23456),
             F_BOOL("yes", 7), F_BOOL("no", 0));
}

static void test_logfmt(void **state)
{
    char *text;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_AUTO);
    emit_all_kinds();
    log_info("bare");
    log_debug("not enabled", F_U64("n", 1));
    text = caught();
    mask(text, 5, 24);
    mask(text, strcspn(text, "\n") + 6, 24);
    assert_string_equal(
        text,
        "time=9999-99-99T99:99:99.999Z level=info event=\"all kinds\" str=word quoted=\"two words\" none=\"\" "
        "span=\"a\\\"b\\\\c\\nd=e\" u64=18446744073709551615 i64=-9223372036854775808 lsn=16/B374D848 "
        "took_ms=1.235 yes=true no=false\n"
        "time=9999-99-99T99:99:99.999Z level=info event=bare\n");
    free(text);
}

static void test_json(void **state)
{
    char *text;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    emit_all_kinds();
    log_error("gr\xC3\xBC\xC3\x9F \xFF", F_STR("a\"b", "\x01\x7F"));
    text = caught();
    mask(text, 9, 24);
    mask(text, strcspn(text, "\n") + 10, 24);
    assert_string_equal(
        text,
        "{\"time\":\"9999-99-99T99:99:99.999Z\",\"level\":\"info\",\"event\":\"all kinds\",\"str\":\"word\","
        "\"quoted\":\"two words\",\"none\":\"\",\"span\":\"a\\\"b\\\\c\\nd=e\",\"u64\":18446744073709551615,"
        "\"i64\":-9223372036854775808,\"lsn\":\"16/B374D848\",\"took_ms\":1.235,\"yes\":true,\"no\":false}\n"
        "{\"time\":\"9999-99-99T99:99:99.999Z\",\"level\":\"error\",\"event\":\"gr\xC3\xBC\xC3\x9F \xEF\xBF\xBD\","
        "\"a\\\"b\":\"\\u0001\\u007f\"}\n");
    free(text);
}

static void test_text(void **state)
{
    char *text;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_warn("lag grows", F_U64("bytes", 12));
    log_debug("detail");
    log_progress("never on a file");
    text = caught();
    mask(text, 0, 8);
    mask(text, strcspn(text, "\n") + 1, 8);
    assert_string_equal(text, "99:99:99 warn  lag grows bytes=12\n99:99:99 debug detail\n");
    free(text);
}

static void test_levels(void **state)
{
    (void)state;
    log_setup(LOG_LEVEL_WARN, LOG_FORMAT_LOGFMT);
    assert_true(log_enabled(LOG_LEVEL_ERROR));
    assert_true(log_enabled(LOG_LEVEL_WARN));
    assert_false(log_enabled(LOG_LEVEL_INFO));
    assert_false(log_enabled(LOG_LEVEL_DEBUG));
}

static void test_err_line(void **state)
{
    char *text;
    Err err = ERR_INIT;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    (void)err_fail(&err, ERR_TARGET, "duplicate key");
    (void)err_code(&err, "23505");
    (void)err_hint(&err, "look at the table");
    log_err(LOG_LEVEL_ERROR, "stream failed", &err);
    log_err(LOG_LEVEL_DEBUG, "not enabled", &err);
    text = caught();
    mask(text, 5, 24);
    assert_string_equal(
        text, "time=9999-99-99T99:99:99.999Z level=error event=\"stream failed\" kind=target "
              "code=23505 error=\"duplicate key\" hint=\"look at the table\"\n");
    free(text);
}

static void test_thread_name(void **state)
{
    char *text;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    log_thread("source app");
    log_info("here");
    log_thread(NULL);
    text = caught();
    mask(text, 5, 24);
    assert_string_equal(
        text, "time=9999-99-99T99:99:99.999Z level=info event=here thread=\"source app\"\n");
    free(text);
}

/* A value too long is cut; the line keeps its other fields and its end. */
static void test_long_value(void **state)
{
    static char value[100000];
    char *text;

    (void)state;
    memset(value, 'x', sizeof(value) - 1);
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    log_info("long", F_STR("value", value), F_U64("behind", 1));
    text = caught();
    assert_true(strlen(text) < 5000);
    assert_non_null(strstr(text, "xxx... behind=1\n"));
    free(text);
}

static void *log_many(void *name)
{
    log_thread(name);
    for (int i = 0; i < 300; i++)
        log_info("event", F_I64("i", i),
                 F_STR("filler", "................................................"));
    return NULL;
}

/* Lines of several threads stay whole. */
static void test_threads(void **state)
{
    static char names[4][2] = {"a", "b", "c", "d"};
    pthread_t threads[4];
    size_t lines = 0;
    char *text, *rest, *line;

    (void)state;
    catch_file();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    text = caught();
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), lines++) {
        assert_memory_equal(line, "time=", 5);
        assert_string_equal(line + strlen(line) - 9, ".........");
    }
    assert_int_equal(lines, 1200);
    free(text);
}

static size_t read_terminal(int fd, char *text, size_t size)
{
    size_t len = 0;
    ssize_t got;

    while (len + 1 < size && (got = read(fd, text + len, size - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = '\0';
    return len;
}

/* On a terminal: colour, and a live line that the next line replaces. */
static void test_terminal(void **state)
{
    char name[64], text[4096];
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    int slave;

    (void)state;
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
    slave = open(name, O_RDWR | O_NOCTTY);
    assert_true(slave >= 0 && tcgetattr(slave, &raw) == 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(slave, TCSANOW, &raw), 0);
    catch_on(slave);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_AUTO);
    log_progress(NULL); /* nothing to clear */
    log_progress("50 %");
    log_error("failed", F_U64("n", 1));
    log_progress("60 %");
    log_progress(NULL);
    catch_end();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    assert_true(read_terminal(master, text, sizeof(text)) > 0);
    mask(text, strlen("\r\x1b[K50 %\r\x1b[K"), 8);
    assert_string_equal(
        text, "\r\x1b[K50 %\r\x1b[K99:99:99 \x1b[31merror\x1b[0m failed n=1\n\r\x1b[K60 %\r\x1b[K");
    close(slave);
    close(master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logfmt),     cmocka_unit_test(test_json),
        cmocka_unit_test(test_text),       cmocka_unit_test(test_levels),
        cmocka_unit_test(test_err_line),   cmocka_unit_test(test_thread_name),
        cmocka_unit_test(test_long_value), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
